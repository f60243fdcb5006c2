//! Real recordings through the released binary and its real front doors.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sovereign_model::geo::{Enu, Geodetic, LocalFrame, horizontal_distance_m};
use sovereign_proto::drone::v1::drones_client::DronesClient;
use sovereign_proto::drone::v1::{
    GetIngestStatsRequest, GetIngestStatsResponse, ListVehiclesRequest,
};
use sovereign_proto::slam::v1::ListKeyframesRequest;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_tests::data::shared;
use sovereign_tests::process::Process;
use sovereign_tests::tiles::painted_frames;
use sovereign_tests::wait_for;

/// Recordings are replayed as fast as the node takes them; this is for a slow machine.
const LIMIT: Duration = Duration::from_secs(240);

async fn replay(
    folder: &Path,
    path: &Path,
    speed: &str,
    flags: &[&str],
) -> anyhow::Result<Process> {
    let path = path.to_str().context("the path is text")?;
    let mut args = vec!["replay", path, "--json", "--speed", speed];
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

/// Waits for the summary, which is the last line.
async fn summary(node: &Process) -> anyhow::Result<Value> {
    wait_for(LIMIT, async || {
        let text = node.stdout();
        let line = text.lines().last().filter(|_| text.ends_with('\n'));
        Ok(line.map(serde_json::from_str::<Value>).transpose()?)
    })
    .await
    .with_context(|| format!("no summary: {}", node.log()))
}

async fn stats(node: &Process) -> anyhow::Result<GetIngestStatsResponse> {
    let mut client = DronesClient::new(node.grpc()?);
    Ok(client
        .get_ingest_stats(GetIngestStatsRequest {})
        .await?
        .into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brighton_pictures_become_a_map_where_they_were_taken() -> anyhow::Result<()> {
    let Some(recording) = shared("aerial-brighton-beach") else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let node = replay(folder.path(), &recording, "max", &[]).await?;
    let summary = summary(&node).await?;
    ensure!(summary["frames_in"] == 10, "{summary}");
    ensure!(summary["frames_placed"] == 10, "{summary}");
    ensure!(summary["tiles_written"].as_u64() > Some(100), "{summary}");
    ensure!(
        summary["latency_ms"]["p99"].as_f64() > Some(0.0),
        "{summary}"
    );
    let [west, south, east, north] = [0, 1, 2, 3].map(|i| summary["bounds"][i].as_f64());
    ensure!(west < Some(-91.994) && east > Some(-91.994), "{summary}");
    ensure!(south < Some(46.8426) && north > Some(46.8426), "{summary}");

    let mut slam = SlamClient::new(node.grpc()?);
    let keyframes = slam
        .list_keyframes(ListKeyframesRequest::default())
        .await?
        .into_inner()
        .keyframes;
    let reference = std::fs::read_to_string(recording.join("reference_poses_colmap.csv"))?;
    let frame = LocalFrame::at(Geodetic::new(46.842_656_667, -91.994_008_025, 0.0)?);
    let mut compared = 0;
    for line in reference.lines().skip(2) {
        let fields: Vec<&str> = line.split(',').collect();
        let enu = Enu {
            east: fields[1].parse()?,
            north: fields[2].parse()?,
            up: 0.0,
        };
        let truth = frame.geodetic_from_enu(&enu);
        let nearest = keyframes
            .iter()
            .filter_map(|keyframe| keyframe.pose.as_ref()?.position)
            .filter_map(|at| Geodetic::new(at.latitude_deg, at.longitude_deg, 0.0).ok())
            .map(|at| horizontal_distance_m(&truth, &at))
            .fold(f64::INFINITY, f64::min);
        ensure!(nearest <= 2.0, "{} is {nearest:.2} m off", fields[0]);
        compared += 1;
    }
    ensure!(compared == 10, "compared {compared}");
    node.stop(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_ends_by_itself_when_asked_to() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flight = folder.path().join("flight");
    sovereign_tests::flight::write_flight(&flight, 4)?;
    let mut node = replay(folder.path(), &flight, "max", &["--exit-when-done"]).await?;
    let status = node.ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", node.log());
    let first = summary(&node).await?;
    ensure!(first["frames_placed"] == 4, "{first}");
    ensure!(first["frames_known"] == 0, "{first}");
    ensure!(first["simulated"] == true, "{first}");

    // The same again into the same map paints nothing, and says why.
    let mut node = replay(folder.path(), &flight, "max", &["--exit-when-done"]).await?;
    let status = node.ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", node.log());
    let second = summary(&node).await?;
    ensure!(second["frames_in"] == 4, "{second}");
    ensure!(second["frames_known"] == 4, "{second}");
    ensure!(second["frames_placed"] == 0, "{second}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_stopped_tells_how_far_it_came() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flight = folder.path().join("flight");
    sovereign_tests::flight::write_flight(&flight, 3)?;
    // A second between two pictures lasts a minute.
    let mut node = replay(folder.path(), &flight, "0.016", &[]).await?;
    wait_for(LIMIT, async || {
        let painted = painted_frames(node.grpc()?).await?;
        Ok((!painted.is_empty()).then_some(()))
    })
    .await?;
    node.terminate()?;
    let status = node.ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", node.log());
    let summary = summary(&node).await?;
    ensure!(summary["frames_in"] == 1, "{summary}");
    ensure!(summary["frames_placed"] == 1, "{summary}");
    Ok(())
}

async fn a_log_agrees_with_the_reference_decoder(name: &str) -> anyhow::Result<()> {
    let Some(recordings) = shared("mavlink-tlog") else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let node = replay(
        folder.path(),
        &recordings.join(format!("{name}.tlog")),
        "max",
        &[],
    )
    .await?;
    let summary = summary(&node).await?;
    ensure!(
        summary["datagrams"]["sent"] == summary["datagrams"]["received"],
        "datagrams were lost: {summary}"
    );
    let expected = std::fs::read_to_string(recordings.join(format!("{name}.expected.json")))?;
    let expected: Value = serde_json::from_str(&expected)?;
    let stats = stats(&node).await?;
    let by_version: u64 = stats.messages_by_version.values().sum();
    ensure!(
        Some(by_version) == expected["messages"].as_u64(),
        "{stats:#?}"
    );
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    for (kind, wanted) in expected["by_type"].as_object().context("by_type")? {
        let found = stats.accepted_by_type.get(kind).copied().unwrap_or(0);
        ensure!(found == count(wanted), "{kind}: {found}, expected {wanted}");
    }
    for (source, wanted) in expected["by_source"].as_object().context("by_source")? {
        let found = stats.messages_by_source.get(source).copied().unwrap_or(0);
        ensure!(
            found == count(wanted),
            "{source}: {found}, expected {wanted}"
        );
    }
    agrees_with_the_last_of(&node, &expected).await?;
    node.stop(&[]).await
}

/// The vehicle is where its last GLOBAL_POSITION_INT says, or nowhere without a fix, and has the charge of its
/// last SYS_STATUS, where it knows one.
async fn agrees_with_the_last_of(node: &Process, expected: &Value) -> anyhow::Result<()> {
    let answer = DronesClient::new(node.grpc()?)
        .list_vehicles(ListVehiclesRequest {})
        .await?;
    let vehicles = answer.into_inner().vehicles;
    let vehicle = vehicles
        .iter()
        .find(|vehicle| vehicle.vehicle_id == "sys-1");
    let vehicle = vehicle.with_context(|| format!("no sys-1: {vehicles:?}"))?;
    let last = |message: &str, column: usize| {
        let value = expected[message]["last"][column].as_i64();
        value.with_context(|| format!("column {column} of {message}"))
    };
    let place = [
        last("global_position_int", 1)?,
        last("global_position_int", 2)?,
    ];
    let found = vehicle.position.map(|at| {
        [at.latitude_deg, at.longitude_deg].map(|degrees| (degrees * 1e7).round() as i64)
    });
    ensure!(found == Some(place).filter(|at| *at != [0, 0]), "{found:?}");
    let charge = last("sys_status", 2)?;
    let found = vehicle.battery_percent.map(|percent| percent as i64);
    ensure!(found == Some(charge).filter(|at| *at >= 0), "{found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copter_log_with_damaged_bytes_agrees_with_the_reference_decoder() -> anyhow::Result<()> {
    a_log_agrees_with_the_reference_decoder("copter_flight_mavlink1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submarine_log_agrees_with_the_reference_decoder() -> anyhow::Result<()> {
    a_log_agrees_with_the_reference_decoder("sub_mavlink2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_log_agrees_with_the_reference_decoder() -> anyhow::Result<()> {
    a_log_agrees_with_the_reference_decoder("short_mavlink2").await
}
