//! `demo`: a node and a simulated flight over it, through the real front doors.

use std::time::Duration;

use clap::Args;
use sovereign_host::{Host, OnEnd};
use sovereign_service::{RunError, Stop, StopSource, chain};
use tokio::time::Instant;

use crate::feed::{Flight, Summary};
use crate::visit::{Doors, Report, wait_until_painted};

/// What `demo` takes beside the flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DemoOptions {
    /// Fly for this many seconds, then stop; without it the demo runs until it is stopped.
    #[arg(long, value_name = "SECS")]
    pub(crate) duration: Option<u64>,
}

/// Adds the flight to a host that has all services mounted.
pub(crate) fn attach(host: &mut Host, options: DemoOptions, report: Report) {
    let doors = Doors::of(host);
    host.attach("demo", OnEnd::Stop, move |stop| {
        fly(doors, options, report, stop)
    });
}

async fn fly(
    doors: Doors,
    options: DemoOptions,
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
    report.line(&format!(
        "The map is live at {} (simulated flight; the certificate is the node's own)",
        edge.console_url()
    ));
    let start = Instant::now();
    let flight = {
        let (edge, udp) = (edge.clone(), doors.udp);
        tokio::task::spawn_blocking(move || Flight::prepare(edge, udp))
            .await
            .map_err(|error| RunError::new("paint the simulated world", error))?
    };
    let sent = flight.sent();
    let landing = StopSource::under(&stop);
    let flying = flight.run(landing.stop());
    tokio::pin!(flying);
    let progress = report.progress(&edge, &sent, options.duration, start);
    let time_is_up = async {
        match options.duration {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    // A stop of the node lands the flight too: it always ends through `flying`, and is always summed up.
    let ended = tokio::select! {
        ended = &mut flying => ended,
        never = progress => match never {},
        () = time_is_up => {
            landing.request();
            flying.await
        }
    };
    ended?;
    let counts = sent.counts();
    if let Err(error) = wait_until_painted(&edge, counts.frames, &stop).await {
        tracing::warn!(error = %chain(&error), "some frames were not painted before the end");
    }
    let summary = Summary::measured(&edge, &counts, start.elapsed(), true)
        .await
        .map_err(|error| RunError::new("ask the node what it measured", error))?;
    report.summary(&summary);
    Ok(())
}
