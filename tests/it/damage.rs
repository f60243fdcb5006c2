//! Files that are damaged while a node is down: it starts, says so, and makes again what can be made.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sovereign_node::feed::{CaptureNotes, Edge};
use sovereign_proto::slam::v1::ListKeyframesRequest;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_tests::process::Process;
use sovereign_tests::tiles::painted_frames;
use sovereign_tests::wait_for;

const MADE_WITHIN: Duration = Duration::from_secs(60);

/// What a node says of damaged files; its log goes on where the one before ended.
const TOLD: [&str; 3] = [
    "a file is damaged",
    "verdicts are missing",
    "tiles are missing",
];

async fn start(folder: &Path) -> anyhow::Result<Process> {
    let args = [
        "start",
        "--set",
        "drone-ingest.listen=127.0.0.1:0",
        "--set",
        "mobile-ingest.listen=127.0.0.1:0",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    ];
    Process::start("sovereign-node", folder, &args).await
}

/// Waits until the one picture has its verdict and is on the map.
async fn is_on_the_map(process: &Process) -> anyhow::Result<()> {
    wait_for(MADE_WITHIN, async || {
        let mut slam = SlamClient::new(process.grpc()?);
        let asked = slam.list_keyframes(ListKeyframesRequest {
            limit: 10,
            ..ListKeyframesRequest::default()
        });
        let keyframes = asked.await?.into_inner().keyframes;
        let painted = painted_frames(process.grpc()?).await?;
        Ok((keyframes.len() == 1 && painted.len() == 1).then_some(()))
    })
    .await
    .context("the picture is not on the map")
}

fn aside(file: &Path) -> PathBuf {
    file.with_extension("redb.damaged-1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_damaged_files_starts_and_makes_its_map_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let process = start(&data).await?;
    let edge = Edge::open(
        process.address("mobile-ingest.https")?,
        &data.join("mobile-ingest"),
    )?;
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("field-reports/c14d_xmp_nul.jpg");
    edge.upload_capture("drone", fs::read(picture)?, &CaptureNotes::default())
        .await?;
    is_on_the_map(&process).await?;
    process.stop(&[]).await?;

    let derived = [
        "slam-svc/keyframes.redb",
        "tile-svc/tiles.redb",
        "round-svc/rounds.redb",
        "mesh-gateway/export.redb",
    ];
    for file in derived {
        let mut bytes = fs::read(data.join(file))?;
        let (middle, length) = (bytes.len() / 2, bytes.len());
        bytes[..64].fill(0xA5);
        bytes[middle..(middle + 64).min(length)].fill(0xA5);
        fs::write(data.join(file), bytes)?;
    }
    let process = start(&data).await?;
    is_on_the_map(&process).await?;
    process.stop(&TOLD).await?;
    for file in derived {
        ensure!(aside(&data.join(file)).exists(), "{file} is not kept");
    }

    // The journal cannot be made again; the map is there without it.
    fs::write(data.join("bus.redb"), "")?;
    let process = start(&data).await?;
    is_on_the_map(&process).await?;
    process.stop(&TOLD).await?;

    let process = start(&data).await?;
    is_on_the_map(&process).await?;
    process.stop(&TOLD).await
}
