//! What was acknowledged becomes tiles, whatever happens to the process.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use sovereign_node::feed::{CaptureNotes, Edge};
use sovereign_proto::slam::v1::ListKeyframesRequest;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_tests::flight::pictures;
use sovereign_tests::process::Process;
use sovereign_tests::tiles::{digests, painted_frames};
use sovereign_tests::wait_for;

const FRAMES: u32 = 20;
/// Painting them all, on a slow machine included.
const PAINTED_WITHIN: Duration = Duration::from_secs(240);
/// The process is killed each time after this many acknowledgements.
const KILL_AFTER: usize = 5;

async fn start(folder: &Path) -> anyhow::Result<(Process, Edge)> {
    let args = [
        "start",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--set",
        "drone-ingest.listen=127.0.0.1:0",
        "--set",
        "mobile-ingest.listen=127.0.0.1:0",
    ];
    let node = Process::start("sovereign-node", folder, &args).await?;
    let edge = Edge::open(
        node.address("mobile-ingest.https")?,
        &node.data_dir().join("mobile-ingest"),
    )?;
    Ok((node, edge))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_the_middle_of_a_flight_paints_every_acknowledged_frame()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let pictures = pictures(FRAMES, (752, 480))?;
    let notes = CaptureNotes {
        simulated: true,
        ..CaptureNotes::default()
    };
    let killed = folder.path().join("killed");
    let mut acknowledged = Vec::new();
    for part in pictures.chunks(KILL_AFTER) {
        let (mut node, edge) = start(&killed).await?;
        for jpeg in part {
            let accepted = edge.upload_capture("survey", jpeg.clone(), &notes).await?;
            acknowledged.push(accepted.frame_id);
        }
        node.kill()?;
    }
    let (node, _) = start(&killed).await?;
    let painted = wait_for(PAINTED_WITHIN, async || {
        let painted = painted_frames(node.grpc()?).await?;
        Ok(acknowledged
            .iter()
            .all(|id| painted.contains(id))
            .then_some(painted))
    })
    .await?;
    ensure!(
        painted.len() == acknowledged.len(),
        "a frame was painted twice: {painted:?}"
    );
    let after_kills = digests(node.grpc()?).await?;
    let keyframes = SlamClient::new(node.grpc()?)
        .list_keyframes(ListKeyframesRequest::default())
        .await?
        .into_inner()
        .keyframes;
    ensure!(
        keyframes.len() == acknowledged.len(),
        "{} keyframes",
        keyframes.len()
    );
    node.stop(&[]).await?;

    let (calm, edge) = start(&folder.path().join("calm")).await?;
    for jpeg in &pictures {
        edge.upload_capture("survey", jpeg.clone(), &notes).await?;
    }
    wait_for(PAINTED_WITHIN, async || {
        let painted = painted_frames(calm.grpc()?).await?;
        Ok((painted.len() == pictures.len()).then_some(()))
    })
    .await?;
    ensure!(
        digests(calm.grpc()?).await? == after_kills,
        "the maps differ"
    );
    calm.stop(&[]).await
}
