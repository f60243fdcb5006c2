use super::*;
use crate::config::SourceKind;
use crate::reader::tests::{config, open_fake};
use sovereign_service::{StopSource, chain};
use std::time::Duration;

#[tokio::test]
async fn a_reader_that_panics_ends_the_service_with_the_name_of_the_camera() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::memory(&folder.path().join("bus.redb"), "test-node").unwrap();
    let context = Context::for_tests(CameraService::NAME, bus.clone(), folder.path());
    let config = config(SourceKind::Webcam, "");
    let mut service = CameraService::build(CameraService::settings(config).unwrap(), (), context)
        .await
        .unwrap();
    service.open = open_fake;
    let source = StopSource::new();
    // The limit only guards against waiting for ever.
    let ended = tokio::time::timeout(Duration::from_secs(60), service.run(source.stop())).await;
    let error = chain(&ended.expect("the panic is noticed").unwrap_err());
    assert!(error.starts_with("task read gate: "), "{error}");
    assert!(error.contains("no lens"), "{error}");
    bus.close().await;
}
