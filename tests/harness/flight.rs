//! Flights of the simulator: a small recorded one, pictures with their poses inside, and the live one of
//! the demo.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sovereign_model::Timestamp;
use sovereign_node::feed::{Counts, Edge, Flight, Recording, Speed};
use sovereign_node::visit::wait_until_painted;
use sovereign_service::StopSource;
use sovereign_sim::{Camera, Survey, SurveyArea, World, WorldConfig, geotagged, survey_camera};

/// Everybody in the live flight has been seen on the map after this long, on a slow machine included.
const SEEN_WITHIN: Duration = Duration::from_secs(120);

/// What the live flight shows: each drone moves and is painted, each phone walks.
const LIVE: [(&str, &str); 6] = [
    ("phone", "sim-phone-1"),
    ("phone", "sim-phone-2"),
    ("tile", "sys-1"),
    ("tile", "sys-2"),
    ("vehicle", "sys-1"),
    ("vehicle", "sys-2"),
];

/// Noon on the first of June 2026.
const TAKE_OFF_UNIX_NANOS: i64 = 1_780_315_200_000_000_000;

/// Writes `frames` pictures of 752 x 480, one for each second of a survey at 50 m, into `folder`.
pub fn write_flight(folder: &Path, frames: u32) -> anyhow::Result<()> {
    write_pictures(folder, frames, (752, 480))
}

/// As [`write_flight`], pictures of another size.
pub fn write_pictures(folder: &Path, frames: u32, size_px: (u32, u32)) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (number, jpeg) in pictures(frames, size_px)?.into_iter().enumerate() {
        let path = folder.join(format!("{number:04}.jpg"));
        std::fs::write(&path, jpeg).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Sends a recording through the front doors as fast as they take it and waits until it is painted.
pub async fn replay(recording: &Recording, edge: &Edge, udp: SocketAddr) -> anyhow::Result<Counts> {
    let stop = StopSource::new().stop();
    let counts = recording
        .send(edge, udp, Speed::Max, false, &stop, |_| {})
        .await?;
    wait_until_painted(edge, counts.frames, &stop).await?;
    Ok(counts)
}

/// Flies the demo through the front doors, MAVLink and pictures that are placed by it, until each of
/// [`LIVE`] has come out of the edge as an event, labelled as simulated.
pub async fn fly(edge: &Edge, udp: SocketAddr) -> anyhow::Result<()> {
    let mut events = edge.events().await?;
    let flight = {
        let edge = edge.clone();
        tokio::task::spawn_blocking(move || Flight::prepare(edge, udp)).await?
    };
    let landing = StopSource::new();
    let flying = flight.run(landing.stop());
    let mut missing = BTreeSet::from(LIVE);
    let watching = async {
        while !missing.is_empty() {
            let event = events.next().await?.context("the events ended")?;
            // A commit is of as many sensors as it has frames.
            let frames = event.data["frames"].as_array().into_iter().flatten();
            let painted = frames.map(|frame| &frame["sensor_id"]);
            let itself = ["vehicle_id", "client_id"].map(|key| &event.data[key]);
            let ids = itself.into_iter().chain(painted).filter_map(Value::as_str);
            // A phone that registered has said nothing of itself yet.
            let is_somewhere = event.name == "tile" || event.data["latitude"].is_number();
            for id in ids.filter(|_| is_somewhere) {
                let seen = (event.name.as_str(), id);
                if LIVE.contains(&seen) {
                    ensure!(event.data["simulated"] == true, "{event:?}");
                    missing.retain(|wanted| *wanted != seen);
                }
            }
        }
        anyhow::Ok(())
    };
    let (flown, seen) = tokio::join!(flying, async {
        let seen = tokio::time::timeout(SEEN_WITHIN, watching).await;
        landing.request();
        seen
    });
    flown?;
    match seen {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(elapsed).context(format!("not seen on the map: {missing:?}")),
    }
}

/// The pictures of [`write_pictures`], in order.
pub fn pictures(frames: u32, (width, height): (u32, u32)) -> anyhow::Result<Vec<Vec<u8>>> {
    let world = World::generate(WorldConfig {
        width_m: 200.0,
        height_m: 160.0,
        ..WorldConfig::default()
    });
    let area = SurveyArea {
        west: -55.0,
        east: 55.0,
        south: -40.0,
        north: 40.0,
    };
    let survey = Survey::lawnmower(area, 25.0, 50.0, 9.0);
    let camera = Camera::new(survey_camera(width, height));
    (0..frames)
        .map(|second| {
            let elapsed = Duration::from_secs(u64::from(second));
            let truth = survey.truth(&world, elapsed);
            let taken = Timestamp::from_unix_nanos(TAKE_OFF_UNIX_NANOS)
                .checked_add(elapsed)
                .context("the flight is within the calendar")?;
            let jpeg = camera.render_jpeg(&world, &truth, 90)?;
            Ok(geotagged(&jpeg, &truth, taken)?)
        })
        .collect()
}
