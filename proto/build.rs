//! Compiles the contract with a pure-Rust protoc, and keeps the descriptor set for gRPC reflection.
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 10] = [
    "sovereign/geo/v1/geo.proto",
    "sovereign/camera/v1/camera.proto",
    "sovereign/slam/v1/slam.proto",
    "sovereign/tile/v1/tile.proto",
    "sovereign/checkpoint/v1/checkpoint.proto",
    "sovereign/checkpoint/v1/objects.proto",
    "sovereign/drone/v1/drone.proto",
    "sovereign/mobile/v1/mobile.proto",
    "sovereign/mesh/v1/mesh.proto",
    "sovereign/round/v1/round.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("sovereign.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
