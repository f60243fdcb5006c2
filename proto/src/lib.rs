//! The contract: everything that crosses a process boundary, and nothing else.
//!
//! * Messages and gRPC services, one module per protobuf package (`proto/sovereign/<service>/v1`).
//! * [`topics`]: every subject of the bus with its message, owner and class.
//! * [`convert`]: the one place where wire types and [`sovereign_model`] types meet.
//!
//! Absent on purpose: any behaviour, any service, any transport.

pub mod convert;
pub mod topics;

macro_rules! package {
    ($name:ident, $package:literal) => {
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            reason = "generated from proto/, where every item is documented"
        )]
        pub mod $name {
            /// Version 1.
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    };
}

package!(geo, "sovereign.geo.v1");
package!(camera, "sovereign.camera.v1");
package!(slam, "sovereign.slam.v1");
package!(tile, "sovereign.tile.v1");
package!(checkpoint, "sovereign.checkpoint.v1");
package!(drone, "sovereign.drone.v1");
package!(mobile, "sovereign.mobile.v1");
package!(mesh, "sovereign.mesh.v1");
package!(round, "sovereign.round.v1");

/// Encoded `FileDescriptorSet` of the whole contract, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sovereign.bin"));
