//! `replay`: a node and a recording that enters it through the real front doors.

use std::path::PathBuf;

use clap::Args;
use sovereign_host::{Host, OnEnd};
use sovereign_service::{RunError, Stop};
use tokio::time::Instant;

use crate::feed::{Recording, RecordingError, Speed, Summary};
use crate::visit::{Doors, Report, wait_until_painted};

/// What `replay` takes beside the flags of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplayOptions {
    /// A folder or file: .jpg pictures with GPS, .tlog telemetry, .bin bytes or .jsonl packets.
    pub(crate) path: PathBuf,
    /// How fast recorded time passes: a number, or `max`.
    #[arg(long, value_name = "N|max", default_value = "1")]
    pub(crate) speed: Speed,
    /// Stop when everything has been sent and painted; without it the node stays up.
    #[arg(long)]
    pub(crate) exit_when_done: bool,
    /// End at the first file that cannot be sent, instead of naming it and going on.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Looks for recordings before anything is started.
pub(crate) fn find(options: &ReplayOptions) -> Result<Recording, RecordingError> {
    Recording::find(&options.path)
}

/// Adds the replay to a host that has all services mounted.
pub(crate) fn attach(
    host: &mut Host,
    options: ReplayOptions,
    recording: Recording,
    report: Report,
) {
    let doors = Doors::of(host);
    let on_end = if options.exit_when_done {
        OnEnd::Stop
    } else {
        OnEnd::Continue
    };
    host.attach("replay", on_end, move |stop| {
        send(doors, options, recording, report, stop)
    });
}

async fn send(
    doors: Doors,
    options: ReplayOptions,
    recording: Recording,
    report: Report,
    stop: Stop,
) -> Result<(), RunError> {
    let edge = tokio::select! {
        edge = doors.open() => edge?,
        () = stop.requested() => {
            report.stopped_before_ready();
            return Ok(());
        }
    };
    report.line(&format!("The map is live at {}", edge.console_url()));
    let start = Instant::now();
    let bar = report.bar(recording.total() as u64);
    let counts = recording
        .send(
            &edge,
            doors.udp,
            options.speed,
            options.strict,
            &stop,
            |file| {
                bar.set_message(
                    file.file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                );
                bar.inc(1);
            },
        )
        .await
        .map_err(|error| RunError::new("replay the recording", error))?;
    bar.finish_and_clear();
    let painted = wait_until_painted(&edge, counts.frames, &stop).await;
    let summary = Summary::measured(&edge, &counts, start.elapsed(), recording.is_simulated())
        .await
        .map_err(|error| RunError::new("ask the node what it measured", error))?;
    report.summary(&summary);
    painted.map_err(|error| RunError::new("wait until every frame is painted", error))
}
