//! The door as others see it: datagrams in, a memory bus and gRPC out.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod captures;
mod rig;
mod samples;
mod telemetry;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use drone_ingest::{Config, DroneService};
use sovereign_service::{BuildError, Service as _};

use crate::rig::secret;

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let short = secret(dir.path(), "short", "abc");
    // It holds a key that would do.
    let open = secret(dir.path(), "open", &"0a".repeat(32));
    std::fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    for (config, key, says) in [
        (
            Config {
                listen: "0.0.0.0:0".parse().unwrap(),
                ..Config::default()
            },
            "listen",
            "others can reach",
        ),
        (
            Config {
                signing_key_file: Some(dir.path().join("absent")),
                ..Config::default()
            },
            "signing_key_file",
            "absent",
        ),
        (
            Config {
                signing_key_file: Some(short),
                ..Config::default()
            },
            "signing_key_file",
            "neither 32 bytes nor 64 hex digits",
        ),
        (
            Config {
                signing_key_file: Some(open),
                ..Config::default()
            },
            "signing_key_file",
            "chmod 600",
        ),
        (
            Config {
                publish_hz: 0.0,
                ..Config::default()
            },
            "publish_hz",
            "0.1 to 100",
        ),
    ] {
        match DroneService::settings(config) {
            Err(BuildError::Config { field, why }) => {
                assert_eq!(field, key);
                assert!(why.contains(says), "{why}");
            }
            Err(BuildError::Operation { operation, .. }) => panic!("{operation}"),
            Ok(_) => panic!("{key} was accepted"),
        }
    }
}
