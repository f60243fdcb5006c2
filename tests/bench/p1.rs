//! P1: a picture enters the HTTPS edge; how long until its tiles are committed? As the node itself measures
//! it, from arrival at the door to the commit, in one process and with every service on its own over NATS.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sovereign_model::Timestamp;
use sovereign_node::feed::{CaptureNotes, Latency};
use sovereign_node::visit::wait_until_painted;
use sovereign_service::StopSource;
use sovereign_sim::{Camera, Survey, SurveyArea, World, WorldConfig, geotagged, survey_camera};
use sovereign_tests::system::System;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::report::{Table, Target};

/// A load and what is asked of it.
struct Load {
    name: &'static str,
    size_px: (u32, u32),
    per_second: f64,
    frames: u32,
    p50_ms: Option<f64>,
    p99_ms: f64,
}

const LOADS: [Load; 2] = [
    Load {
        name: "752x480 at 20 fps",
        size_px: (752, 480),
        per_second: 20.0,
        frames: 240,
        p50_ms: Some(15.0),
        p99_ms: 30.0,
    },
    Load {
        name: "12 MP at 1 fps",
        size_px: (4000, 3000),
        per_second: 1.0,
        frames: 12,
        p50_ms: None,
        p99_ms: 250.0,
    },
];
/// The split system may take this many times as long.
const SPLIT_LIMIT: f64 = 1.1;
/// Unified and split take turns this often.
const PAIRS: usize = 5;
/// Loads of one pair are this much shorter than the single run.
const PAIR_FRAMES: u32 = 60;

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    table.note(
        "P1   frame in -> tile committed: JPEG with its pose over HTTPS, fsync on every hop"
            .to_owned(),
    )?;
    let folder = tempfile::tempdir()?;
    for load in &LOADS {
        let pictures = pictures(load)?;
        let outcome = run(&folder.path().join(load.name), false, load, &pictures).await?;
        // Frames that were sent more slowly than asked say nothing of the load: they count for no target.
        let measured = |milliseconds| {
            if outcome.held(load) {
                milliseconds
            } else {
                f64::INFINITY
            }
        };
        if !outcome.held(load) {
            table.note(format!(
                "P1   {}: not held, {:.1} frames per second were taken",
                load.name, outcome.per_second
            ))?;
        }
        if let Some(bound) = load.p50_ms {
            let what = format!("{}, one process, p50", load.name);
            let p50 = measured(outcome.latency.p50_ms);
            table.row("P1", &what, "ms", &[p50], Target::AtMost(bound))?;
        }
        let what = format!("{}, one process, p99", load.name);
        let p99 = measured(outcome.latency.p99_ms);
        table.row("P1", &what, "ms", &[p99], Target::AtMost(load.p99_ms))?;
    }
    let load = &LOADS[0];
    let pictures = &pictures(load)?[..PAIR_FRAMES as usize];
    let mut ratios = Vec::new();
    for pair in 0..=PAIRS {
        let home = folder.path().join(format!("pair-{pair}"));
        let unified = run(&home.join("unified"), false, load, pictures).await?;
        let split = run(&home.join("split"), true, load, pictures).await?;
        // The first pair warms up.
        if pair > 0 {
            ratios.push(split.latency.p50_ms / unified.latency.p50_ms);
        }
    }
    let what = format!("{}, split over NATS / one process, p50", load.name);
    table.row("P1", &what, "ratio", &ratios, Target::AtMost(SPLIT_LIMIT))
}

/// What a run came to.
struct Outcome {
    latency: Latency,
    /// Frames per second that were sent.
    per_second: f64,
}

impl Outcome {
    /// Whether the frames were sent as fast as the load asks, within a tenth.
    fn held(&self, load: &Load) -> bool {
        self.per_second > load.per_second * 0.9
    }
}

/// Sends the pictures at the load's rate through a fresh system and asks it what it measured.
async fn run(
    folder: &Path,
    split: bool,
    load: &Load,
    pictures: &[Vec<u8>],
) -> anyhow::Result<Outcome> {
    let system = if split {
        System::split(folder).await?
    } else {
        System::unified(folder).await?
    };
    let notes = CaptureNotes {
        simulated: true,
        ..CaptureNotes::default()
    };
    let mut ticks = interval(Duration::from_secs_f64(1.0 / load.per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    for jpeg in pictures {
        ticks.tick().await;
        system
            .edge
            .upload_capture("survey", jpeg.clone(), &notes)
            .await?;
    }
    let elapsed = start.elapsed();
    let stop = StopSource::new().stop();
    wait_until_painted(&system.edge, pictures.len() as u64, &stop).await?;
    let stats = system.edge.stats().await?;
    system.stop(&[]).await?;
    let latency = stats.paint.and_then(|paint| paint.latency);
    Ok(Outcome {
        latency: latency.context("nothing was painted")?,
        per_second: pictures.len() as f64 / elapsed.as_secs_f64(),
    })
}

fn pictures(load: &Load) -> anyhow::Result<Vec<Vec<u8>>> {
    const TAKE_OFF_UNIX_NANOS: i64 = 1_780_315_200_000_000_000;
    let world = World::generate(WorldConfig::default());
    let area = SurveyArea {
        west: -120.0,
        east: 120.0,
        south: -90.0,
        north: 90.0,
    };
    let survey = Survey::lawnmower(area, 25.0, 60.0, 10.0);
    let camera = Camera::new(survey_camera(load.size_px.0, load.size_px.1));
    (0..load.frames)
        .map(|number| {
            let elapsed = Duration::from_secs_f64(f64::from(number) / load.per_second);
            let truth = survey.truth(&world, elapsed);
            let taken = Timestamp::from_unix_nanos(TAKE_OFF_UNIX_NANOS)
                .checked_add(elapsed)
                .context("the flight is within the calendar")?;
            Ok(geotagged(
                &camera.render_jpeg(&world, &truth, 88)?,
                &truth,
                taken,
            )?)
        })
        .collect()
}
