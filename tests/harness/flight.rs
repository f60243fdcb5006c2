//! A small recorded flight of the simulator: pictures with their poses inside, on disk.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sovereign_model::Timestamp;
use sovereign_node::feed::{Counts, Edge, Recording, Speed};
use sovereign_node::visit::wait_until_painted;
use sovereign_service::StopSource;
use sovereign_sim::{Camera, Survey, SurveyArea, World, WorldConfig, geotagged, survey_camera};

/// Noon on the first of June 2026.
const TAKE_OFF_UNIX_NANOS: i64 = 1_780_315_200_000_000_000;

/// Writes `frames` pictures of 752 x 480, one for each second of a survey at 50 m, into `folder`.
pub fn write_flight(folder: &Path, frames: u32) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (number, jpeg) in pictures(frames)?.into_iter().enumerate() {
        let path = folder.join(format!("{number:04}.jpg"));
        std::fs::write(&path, jpeg).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Sends a recording through the front doors as fast as they take it and waits until it is painted.
pub async fn replay(recording: &Recording, edge: &Edge, udp: SocketAddr) -> anyhow::Result<Counts> {
    let stop = StopSource::new().stop();
    let counts = recording.send(edge, udp, Speed::Max, &stop, |_| {}).await?;
    wait_until_painted(edge, counts.frames, &stop).await?;
    Ok(counts)
}

/// The pictures of [`write_flight`], in order.
pub fn pictures(frames: u32) -> anyhow::Result<Vec<Vec<u8>>> {
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
    let camera = Camera::new(survey_camera(752, 480));
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
