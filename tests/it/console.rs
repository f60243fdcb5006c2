//! The console and maps of other sites, in a real browser, on a node that nothing else is sent to.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use sovereign_node::feed::{CaptureNotes, Edge};
use sovereign_tests::browser;
use sovereign_tests::process::Process;
use sovereign_tests::tiles::painted_frames;
use sovereign_tests::wait_for;

const SITE: &str = "https://maps.example";
const PAINTED_WITHIN: Duration = Duration::from_secs(60);

async fn start(folder: &Path) -> anyhow::Result<Process> {
    let cors = format!("mobile-ingest.cors_origins=[\"{SITE}\"]");
    let args = [
        "start",
        "--set",
        "drone-ingest.listen=127.0.0.1:0",
        "--set",
        "mobile-ingest.listen=127.0.0.1:0",
        "--set",
        &cors,
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    ];
    Process::start("sovereign-node", folder, &args).await
}

fn url(node: &Process) -> anyhow::Result<String> {
    let port = node.address("mobile-ingest.https")?.port();
    Ok(format!("https://localhost:{port}/"))
}

/// A picture of `field-reports`.
fn report(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("field-reports");
    folder.join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_are_dropped_onto_the_page_get_their_verdicts_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = start(folder.path()).await?;
    let notes = folder.path().join("notes.txt");
    std::fs::write(&notes, "strip 2, windy")?;
    let pictures = [
        report("c14d_xmp_nul.jpg"),
        report("c09_offset_z.jpg"),
        report("c03_no_eoi.jpg"),
        notes,
    ];
    let token = node.data_dir().join("mobile-ingest/token");
    let mut args = vec![
        url(&node)?,
        token.display().to_string(),
        browser::artifacts()?,
    ];
    args.extend(pictures.iter().map(|path| path.display().to_string()));
    let seen = browser::look("upload.mjs", &args).await?;
    let outcome = |name: &str| (seen[name]["outcome"].clone(), seen[name]["note"].clone());
    ensure!(
        outcome("c14d_xmp_nul.jpg") == (json!("placed"), json!("on the map")),
        "{seen}"
    );
    let (waits, why) = outcome("c09_offset_z.jpg");
    ensure!(
        waits == "waiting" && why.to_string().contains("attitude"),
        "{seen}"
    );
    let (refused, why) = outcome("c03_no_eoi.jpg");
    ensure!(
        refused == "refused" && why.to_string().contains("cut off"),
        "{seen}"
    );
    ensure!(outcome("notes.txt").0 == "refused", "{seen}");
    node.stop(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_of_another_site_show_ours_when_its_origin_may_read() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = start(folder.path()).await?;
    let address = node.address("mobile-ingest.https")?;
    let edge = Edge::open(address, &node.data_dir().join("mobile-ingest"))?;
    let jpeg = std::fs::read(report("c14d_xmp_nul.jpg"))?;
    edge.upload_capture("card", jpeg, &CaptureNotes::default())
        .await?;
    wait_for(PAINTED_WITHIN, async || {
        let painted = painted_frames(node.grpc()?).await?;
        Ok((!painted.is_empty()).then_some(()))
    })
    .await?;
    let layer = format!("{}tiles/imagery", url(&node)?);
    let sites = [layer, SITE.to_owned(), "https://other.example".to_owned()];
    browser::look("maps.mjs", &sites).await?;
    node.stop(&[]).await
}
