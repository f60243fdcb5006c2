//! The door as others see it: datagrams in, a memory bus and gRPC out.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod captures;
mod rig;
mod samples;
mod telemetry;

use drone_ingest::{Config, DroneService};
use sovereign_bus::Bus;
use sovereign_service::{BuildError, Context, Service as _};

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::memory(&dir.path().join("journal"), "test").unwrap();
    let short = dir.path().join("short");
    std::fs::write(&short, "abc").unwrap();
    for (config, key) in [
        (
            Config {
                listen: "0.0.0.0:0".parse().unwrap(),
                ..Config::default()
            },
            "listen",
        ),
        (
            Config {
                signing_key_file: Some(dir.path().join("absent")),
                ..Config::default()
            },
            "signing_key_file",
        ),
        (
            Config {
                signing_key_file: Some(short),
                ..Config::default()
            },
            "signing_key_file",
        ),
        (
            Config {
                publish_hz: 0.0,
                ..Config::default()
            },
            "publish_hz",
        ),
    ] {
        let context = Context::for_tests(DroneService::NAME, bus.clone(), dir.path());
        match DroneService::build(config, (), context).await {
            Err(BuildError::Config { field, .. }) => assert_eq!(field, key),
            Err(BuildError::Operation { operation, .. }) => panic!("{operation}"),
            Ok(_) => panic!("{key} was accepted"),
        }
    }
}
