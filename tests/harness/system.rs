//! The whole system, in one process or split over NATS, behind the same three addresses.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use sovereign_node::feed::Edge;
use sovereign_service::Channel;

use crate::nats::NatsServer;
use crate::process::Process;

/// Settings that put every front door on a free port of the loopback.
const DOORS: [&str; 3] = [
    "drone-ingest.listen=127.0.0.1:0",
    "mobile-ingest.listen=127.0.0.1:0",
    "mesh-gateway.listen=[\"/ip4/127.0.0.1/tcp/0\"]",
];

/// Each service with those it calls, in the order of starting.
const SERVICES: [(&str, &[&str]); 8] = [
    ("camera-svc", &[]),
    ("checkpoint-svc", &[]),
    ("slam-svc", &["checkpoint-svc"]),
    ("drone-ingest", &["checkpoint-svc"]),
    ("tile-svc", &["checkpoint-svc"]),
    ("round-svc", &["checkpoint-svc"]),
    ("mesh-gateway", &["checkpoint-svc", "tile-svc", "round-svc"]),
    (
        "mobile-ingest",
        &[
            "checkpoint-svc",
            "drone-ingest",
            "slam-svc",
            "tile-svc",
            "mesh-gateway",
        ],
    ),
];

/// A running system.
#[derive(Debug)]
pub struct System {
    processes: Vec<Process>,
    /// Where drones send.
    pub udp: SocketAddr,
    /// The HTTPS edge.
    pub edge: Edge,
    tiles: usize,
    _nats: Option<NatsServer>,
}

impl System {
    /// `sovereign-node start` with everything in one process.
    pub async fn unified(folder: &Path) -> anyhow::Result<Self> {
        let mut args = vec!["start", "--listen", "/ip4/127.0.0.1/tcp/0"];
        for setting in &DOORS[..2] {
            args.extend(["--set", setting]);
        }
        let node = Process::start("sovereign-node", &folder.join("node"), &args).await?;
        let (udp, edge) = (node.address("drone-ingest.udp")?, edge_of(&node)?);
        Ok(Self {
            processes: vec![node],
            udp,
            edge,
            tiles: 0,
            _nats: None,
        })
    }

    /// Every service as a process of its own, over a real NATS server.
    pub async fn split(folder: &Path) -> anyhow::Result<Self> {
        let nats = NatsServer::start()?;
        let bus = format!("host.bus={}", nats.url());
        let mut processes: Vec<Process> = Vec::new();
        let started = |processes: &[Process], name: &str| {
            let at = SERVICES[..processes.len()]
                .iter()
                .position(|(n, _)| *n == name);
            at.with_context(|| format!("{name} is started before those that call it"))
        };
        for (name, calls) in SERVICES {
            let mut settings = vec![bus.clone()];
            for called in calls {
                let url = processes[started(&processes, called)?].grpc_url()?;
                settings.push(format!("host.calls.{called}={url}"));
            }
            settings.extend(
                DOORS
                    .iter()
                    .filter(|setting| setting.starts_with(&format!("{name}.")))
                    .map(ToString::to_string),
            );
            let args: Vec<&str> = settings
                .iter()
                .flat_map(|s| ["--set", s.as_str()])
                .collect();
            processes.push(Process::start(name, &folder.join(name), &args).await?);
        }
        let edge = edge_of(&processes[started(&processes, "mobile-ingest")?])?;
        let udp = processes[started(&processes, "drone-ingest")?].address("drone-ingest.udp")?;
        let tiles = started(&processes, "tile-svc")?;
        Ok(Self {
            processes,
            udp,
            edge,
            tiles,
            _nats: Some(nats),
        })
    }

    /// A channel to the tile service.
    pub fn tiles(&self) -> anyhow::Result<Channel> {
        self.processes[self.tiles].grpc()
    }

    /// The most memory that its processes held so far, together, bytes.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        self.processes.iter().map(Process::peak_memory).sum()
    }

    /// Stops every process in order, callers first.
    pub async fn stop(self, announced: &[&str]) -> anyhow::Result<()> {
        for process in self.processes.into_iter().rev() {
            process.stop(announced).await?;
        }
        Ok(())
    }
}

fn edge_of(process: &Process) -> anyhow::Result<Edge> {
    let credentials = process.data_dir().join("mobile-ingest");
    Ok(Edge::open(
        process.address("mobile-ingest.https")?,
        &credentials,
    )?)
}
