//! What a run came to, as one JSON object for machines or a few lines for people.

use std::time::Duration;

use serde::Serialize;

use super::{Counts, Edge, EdgeError, Latency, LeftOuts};

/// The outcome of a demo or a replay, all of it measured.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Pictures that the front door accepted, those included that it had from an earlier run.
    pub frames_in: u64,
    /// Of these, pictures that it had from an earlier run.
    pub frames_known: u64,
    /// Pictures placed and painted.
    pub frames_placed: u64,
    /// Pictures refused by the map, of any reason.
    pub frames_refused: u64,
    /// Tiles written, parents included.
    pub tiles_written: u64,
    /// West, south, east, north in degrees; absent while the map is empty.
    pub bounds: Option<[f64; 4]>,
    /// Frame in to tile committed; absent when no frame was painted.
    pub latency_ms: Option<LatencyMs>,
    /// From the first byte sent to this summary.
    pub elapsed_s: f64,
    /// Datagrams sent and, of those, received by the node.
    pub datagrams: Datagrams,
    /// True when the data came from the simulator.
    pub simulated: bool,
    /// What was not sent, and why.
    pub left_out: LeftOuts,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub struct LatencyMs {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// UDP, counted at both ends.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Datagrams {
    /// Sent by this command.
    pub sent: u64,
    /// Received by the node, from anyone.
    pub received: u64,
}

impl From<Latency> for LatencyMs {
    fn from(latency: Latency) -> Self {
        Self {
            p50: latency.p50_ms,
            p99: latency.p99_ms,
        }
    }
}

impl Summary {
    /// Asks the node what became of what was sent to it.
    pub async fn measured(
        edge: &Edge,
        sent: &Counts,
        elapsed: Duration,
        simulated: bool,
    ) -> Result<Self, EdgeError> {
        let stats = edge.stats().await?;
        let paint = stats.paint.ok_or(EdgeError::Silent("tile-svc"))?;
        let drones = stats.drones.ok_or(EdgeError::Silent("drone-ingest"))?;
        Ok(Self {
            frames_in: sent.frames + sent.duplicates,
            frames_known: sent.duplicates,
            frames_placed: paint.frames_painted,
            frames_refused: paint.frames_refused.values().sum(),
            tiles_written: paint.tiles_written,
            bounds: edge.imagery_bounds().await?,
            latency_ms: paint.latency.map(LatencyMs::from),
            elapsed_s: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
            datagrams: Datagrams {
                sent: sent.datagrams,
                received: drones.datagrams,
            },
            simulated,
            left_out: sent.left_out.clone(),
        })
    }

    /// A few lines for people.
    pub fn for_people(&self) -> String {
        let latency = self.latency_ms.as_ref().map_or_else(
            || "no frame was painted".to_owned(),
            |latency| format!("p50 {:.1} ms, p99 {:.1} ms", latency.p50, latency.p99),
        );
        let bounds = self.bounds.map_or_else(
            || "the map is empty".to_owned(),
            |[west, south, east, north]| format!("{west:.6}, {south:.6} to {east:.6}, {north:.6}"),
        );
        let known = match self.frames_known {
            0 => String::new(),
            known => format!(" ({known} of an earlier run, painted then)"),
        };
        let left_out = self.left_out.for_people();
        format!(
            "{left_out}frames in         {}{known}\nframes placed     {}\nframes refused    {}\ntiles written     {}\n\
             datagrams         {} sent, {} received\nframe to tile     {latency}\nbounds            {bounds}\n\
             elapsed           {:.1} s",
            self.frames_in,
            self.frames_placed,
            self.frames_refused,
            self.tiles_written,
            self.datagrams.sent,
            self.datagrams.received,
            self.elapsed_s,
        )
    }
}
