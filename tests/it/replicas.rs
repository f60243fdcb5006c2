//! Services of which one works on a bus: a second is refused by name, and follows when the first is gone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use sovereign_proto::slam::v1::ListKeyframesRequest;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_tests::nats::NatsServer;
use sovereign_tests::process::{LIMIT, Process};
use sovereign_tests::wait_for;

/// A holder that was silent for so long is gone for others.
const LEASE: Duration = Duration::from_secs(8);

/// What a second one says before it ends: its log goes on with the next start.
const REFUSED: &str = "own the state of";

fn spawn(nats: &NatsServer, service: &str, folder: &Path, node: &str) -> anyhow::Result<Process> {
    let (bus, node_id) = (
        format!("host.bus={}", nats.url()),
        format!("host.node_id={node}"),
    );
    let args = [
        "--set",
        &bus,
        "--set",
        &node_id,
        // Nobody calls it here.
        "--set",
        "host.calls.checkpoint-svc=http://127.0.0.1:1",
    ];
    Process::spawn(service, &folder.join(node), &args)
}

async fn start(
    nats: &NatsServer,
    service: &str,
    folder: &Path,
    node: &str,
) -> anyhow::Result<Process> {
    let mut process = spawn(nats, service, folder, node)?;
    process.wait_until_ready().await?;
    Ok(process)
}

async fn refused(
    nats: &NatsServer,
    service: &str,
    folder: &Path,
    owner: &Process,
) -> anyhow::Result<()> {
    let mut second = spawn(nats, service, folder, "second")?;
    let status = second.ended(LIMIT).await?;
    ensure!(status.code() == Some(1), "{status}");
    let log = second.log();
    let why = format!(
        "own the state of {service}, of which one works on a bus; stop the other, or set `host.bus` \
         to another server: {service} is run by node first (process {} on ",
        owner.id()
    );
    ensure!(log.contains(&why), "{why} in {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_is_refused_by_name_and_the_first_goes_on() -> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    for service in ["slam-svc", "tile-svc", "round-svc"] {
        let folder = tempfile::tempdir()?;
        let mut first = start(&nats, service, folder.path(), "first").await?;
        refused(&nats, service, folder.path(), &first).await?;
        first.wait_until_ready().await?;
        if service == "slam-svc" {
            let mut slam = SlamClient::new(first.grpc()?);
            slam.list_keyframes(ListKeyframesRequest::default()).await?;
        }
        // What ends in order gives back at once what it had.
        first.stop(&[]).await?;
        let started = Instant::now();
        let second = start(&nats, service, folder.path(), "second").await?;
        ensure!(started.elapsed() < LEASE, "{:?}", started.elapsed());
        second.stop(&[REFUSED]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_same_starts_at_once_and_another_when_the_lease_is_over()
-> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    let folder = tempfile::tempdir()?;
    let mut first = start(&nats, "slam-svc", folder.path(), "first").await?;
    first.kill()?;
    let started = Instant::now();
    let mut first = start(&nats, "slam-svc", folder.path(), "first").await?;
    ensure!(started.elapsed() < LEASE, "{:?}", started.elapsed());
    refused(&nats, "slam-svc", folder.path(), &first).await?;

    first.kill()?;
    let started = Instant::now();
    let second = start(&nats, "slam-svc", folder.path(), "second").await?;
    let took = started.elapsed();
    ensure!((LEASE..2 * LEASE).contains(&took), "{took:?}");
    second.stop(&[REFUSED]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_slept_too_long_ends_and_names_who_runs_it_now() -> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    let folder = tempfile::tempdir()?;
    let mut first = start(&nats, "tile-svc", folder.path(), "first").await?;
    first.signal("STOP")?;
    let second = start(&nats, "tile-svc", folder.path(), "second").await?;
    first.signal("CONT")?;
    let status = first.ended(LIMIT).await?;
    ensure!(status.code() == Some(1), "{status}");
    let why = format!(
        "tile-svc is run by node second (process {} on ",
        second.id()
    );
    let log = first.log();
    ensure!(log.contains(&why), "{why} in {log}");
    second.stop(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_outlives_a_server_that_starts_again_without_its_store() -> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    let folder = tempfile::tempdir()?;
    let first = start(&nats, "tile-svc", folder.path(), "first").await?;
    nats.restart()?;
    refused(&nats, "tile-svc", folder.path(), &first).await?;
    nats.restart_empty()?;
    let operator = async_nats::jetstream::new(async_nats::connect(nats.url()).await?);
    wait_for(LIMIT, async || {
        let Ok(owners) = operator.get_key_value("sovereign-owners").await else {
            return Ok(None);
        };
        Ok(owners.get("tile-svc").await?)
    })
    .await?;
    refused(&nats, "tile-svc", folder.path(), &first).await?;
    drop(first);
    Ok(())
}
