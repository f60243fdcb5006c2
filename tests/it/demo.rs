//! The demo as a newcomer starts it, and the browser that looks at it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sovereign_tests::browser;
use sovereign_tests::process::Process;
use tokio::sync::Mutex;

/// One flight at a time: what the machine has is for the flight and the browser that looks at it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A flight of this length, its start and its end.
const LIMIT: Duration = Duration::from_secs(120);

async fn demo(folder: &Path, flags: &[&str]) -> anyhow::Result<Process> {
    let mut args = vec!["demo", "--json"];
    args.extend(flags);
    for setting in [
        "drone-ingest.listen=127.0.0.1:0",
        "mobile-ingest.listen=127.0.0.1:0",
        "mesh-gateway.listen=[\"/ip4/127.0.0.1/tcp/0\"]",
    ] {
        args.extend(["--set", setting]);
    }
    Process::start("sovereign-node", &folder.join("node"), &args).await
}

fn summary(node: &Process) -> anyhow::Result<Value> {
    let text = node.stdout();
    let line = text
        .lines()
        .last()
        .with_context(|| format!("no summary: {}", node.log()))?;
    Ok(serde_json::from_str(line)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_of_some_seconds_paints_what_it_flew_over_and_ends_by_itself() -> anyhow::Result<()>
{
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir()?;
    let mut node = demo(folder.path(), &["--duration", "12"]).await?;
    let status = node.ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", node.log());
    let summary = summary(&node)?;
    let frames = summary["frames_in"].as_u64().context("frames_in")?;
    ensure!(frames >= 10, "{summary}");
    // The first pictures may be older than the first telemetry.
    ensure!(
        summary["frames_placed"].as_u64() >= Some(frames - 4),
        "{summary}"
    );
    ensure!(summary["simulated"] == true, "{summary}");
    ensure!(
        summary["datagrams"]["received"].as_u64() > Some(100),
        "{summary}"
    );
    ensure!(
        summary["latency_ms"]["p50"].as_f64() > Some(0.0),
        "{summary}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_draws_tiles_and_moving_markers_until_the_demo_is_stopped() -> anyhow::Result<()>
{
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir()?;
    let mut node = demo(folder.path(), &[]).await?;
    let port = node.address("mobile-ingest.https")?.port();
    let url = format!("https://localhost:{port}/");
    let args = [url, browser::artifacts()?, "--simulated".to_owned()];
    browser::look("console.mjs", &args).await?;
    node.terminate()?;
    let status = node.ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", node.log());
    let summary = summary(&node)?;
    ensure!(summary["frames_placed"].as_u64() > Some(0), "{summary}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_a_flight_costs_little_of_a_link() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir()?;
    let node = demo(folder.path(), &[]).await?;
    let port = node.address("mobile-ingest.https")?.port();
    let figures = browser::look("traffic.mjs", &[format!("https://localhost:{port}/")]).await?;
    println!("{figures}");
    Ok(())
}
