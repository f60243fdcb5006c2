//! What a running node says about itself: asked over gRPC, shown to people or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sovereign_host::{EXIT_FAILURE, Environment};
use sovereign_proto::drone::v1::drones_client::DronesClient;
use sovereign_proto::drone::v1::{ListVehiclesRequest, VehicleState};
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_proto::mesh::v1::{GetNodeRequest, GetNodeResponse, ListPeersRequest};
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{GetPaintStatsRequest, ListLayersRequest};
use sovereign_service::{Channel, chain};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A node that does not answer within this time is reported as such.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// gRPC address of the node, as http://host:port [default: from the data folder].
    #[arg(long, value_name = "URL")]
    grpc: Option<String>,
    /// Data folder of the node [default: $XDG_DATA_HOME/sovereign-map or ./sovereign-data].
    #[arg(long, value_name = "DIR", conflicts_with = "grpc")]
    data_dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A running node. A part whose service does not run there is absent.
#[derive(Debug, Serialize)]
pub struct NodeStatus {
    /// Where it was asked.
    pub grpc: String,
    /// Whether everything that it runs is ready.
    pub ready: bool,
    /// Who it is in the mesh.
    pub node: Option<Node>,
    /// Peers connected now.
    pub peers: Option<Vec<Peer>>,
    /// Layers of the map.
    pub layers: Option<Vec<Layer>>,
    /// What was painted, as measured.
    pub paint: Option<Paint>,
    /// Vehicles heard.
    pub vehicles: Option<Vec<Vehicle>>,
}

/// A node in the mesh.
#[derive(Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub node_id: String,
    /// libp2p peer id.
    pub peer_id: String,
    /// Its network.
    pub network: String,
    /// Multiaddrs that others can dial.
    pub listen_addrs: Vec<String>,
    /// Topics joined.
    pub topics: Vec<String>,
}

/// A connected peer.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// libp2p peer id.
    pub peer_id: String,
    /// Remote address.
    pub address: String,
    /// `quic` or `tcp`.
    pub transport: String,
}

/// A layer of the map.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Tiles with content.
    pub tiles: u64,
    /// Smallest zoom with content.
    pub min_zoom: u32,
    /// Largest zoom with content.
    pub max_zoom: u32,
    /// West, south, east, north in degrees; absent while empty.
    pub bounds: Option<[f64; 4]>,
    /// Whether any of it was painted from simulated frames.
    pub simulated: bool,
}

/// What was painted since the process started.
#[derive(Debug, Serialize)]
pub struct Paint {
    /// Frames painted.
    pub frames_painted: u64,
    /// Frames refused, by reason.
    pub frames_refused: BTreeMap<String, u64>,
    /// Tiles written, parents included.
    pub tiles_written: u64,
    /// Frame in to tile committed, milliseconds; absent before the first frame.
    pub latency_ms: Option<LatencyMs>,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub struct LatencyMs {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// A vehicle heard.
#[derive(Debug, Serialize)]
pub struct Vehicle {
    /// Its id.
    pub vehicle_id: String,
    /// Latitude and longitude in degrees, when known.
    pub position_deg: Option<[f64; 2]>,
    /// Flight mode, empty when unknown.
    pub flight_mode: String,
    /// 0 to 100, when known.
    pub battery_percent: Option<f64>,
    /// Whether it is a simulation.
    pub simulated: bool,
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No node runs on the data folder.
    #[error(
        "no node runs on the data folder {}; start one with `sovereign-node start`, or pass --data-dir or --grpc",
        path.display()
    )]
    NotRunning {
        /// The folder.
        path: PathBuf,
    },
    /// The addresses of the node do not parse.
    #[error("read the addresses of the node from {}", path.display())]
    Addresses {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address given cannot be called.
    #[error(transparent)]
    InvalidAddress(#[from] sovereign_service::InvalidAddress),
    /// The node did not answer.
    #[error("ask the node at {grpc} for its {what}; check that it runs there")]
    Ask {
        /// Its address.
        grpc: String,
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: Status,
    },
}

/// Runs `status`.
pub(crate) fn run(args: &StatusArgs) -> ExitCode {
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(ask(args)));
    let (text, failed) = match asked {
        Ok(Ok(status)) if args.json => (serde_json::json!(status).to_string(), false),
        Ok(Ok(status)) => (text_from_status(&status), false),
        Ok(Err(error)) => (chain(&error), true),
        Err(error) => (format!("start the runtime: {error}"), true),
    };
    // When nobody reads what is printed, the exit code still tells.
    let _ = match (failed, args.json) {
        (false, _) => writeln!(std::io::stdout(), "{}", text.trim_end()),
        (true, true) => writeln!(
            std::io::stdout(),
            "{}",
            serde_json::json!({ "error": text })
        ),
        (true, false) => writeln!(std::io::stderr(), "{}: {text}", crate::cli::PROGRAM),
    };
    if failed {
        ExitCode::from(EXIT_FAILURE)
    } else {
        ExitCode::SUCCESS
    }
}

async fn ask(args: &StatusArgs) -> Result<NodeStatus, StatusError> {
    let grpc = match &args.grpc {
        Some(grpc) => grpc.clone(),
        None => {
            let dir = args.data_dir.clone();
            address_from_data_dir(&dir.unwrap_or_else(|| Environment::of_process().data_dir()))?
        }
    };
    NodeStatus::ask(&grpc).await
}

/// The gRPC address of the node that runs on a data folder, as `http://host:port`.
///
/// # Errors
///
/// No node runs there.
pub fn address_from_data_dir(dir: &Path) -> Result<String, StatusError> {
    let path = dir.join("addresses.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let path = dir.to_path_buf();
            return Err(StatusError::NotRunning { path });
        }
        Err(error) => {
            let source = error.into();
            return Err(StatusError::Addresses { path, source });
        }
    };
    let addresses: BTreeMap<String, SocketAddr> = match serde_json::from_str(&text) {
        Ok(addresses) => addresses,
        Err(error) => {
            let source = error.into();
            return Err(StatusError::Addresses { path, source });
        }
    };
    match addresses.get("grpc") {
        Some(address) => Ok(format!("http://{}", reachable(*address))),
        None => Err(StatusError::Addresses {
            path,
            source: "it names no `grpc` address".into(),
        }),
    }
}

/// A listener on every interface is called on this machine.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            SocketAddr::from(([127, 0, 0, 1], v4.port()))
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), v6.port())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => address,
    }
}

impl NodeStatus {
    /// Asks the node at `grpc`, `http://host:port`.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn ask(grpc: &str) -> Result<Self, StatusError> {
        let channel = Channel::connect(grpc)?;
        let fail = |what: &'static str| {
            move |source: Status| StatusError::Ask {
                grpc: grpc.to_owned(),
                what,
                source,
            }
        };
        let health = HealthClient::new(channel.clone())
            .check(within(HealthCheckRequest::default()))
            .await
            .map_err(fail("health"))?;
        let mut mesh = MeshClient::new(channel.clone());
        let mut tiles = TilesClient::new(channel.clone());
        let mut drones = DronesClient::new(channel);
        let node = if_served(mesh.get_node(within(GetNodeRequest {})).await);
        let peers = if_served(mesh.list_peers(within(ListPeersRequest {})).await);
        let layers = if_served(tiles.list_layers(within(ListLayersRequest {})).await);
        let paint = if_served(tiles.get_paint_stats(within(GetPaintStatsRequest {})).await);
        let vehicles = if_served(drones.list_vehicles(within(ListVehiclesRequest {})).await);
        Ok(Self {
            grpc: grpc.to_owned(),
            ready: health.into_inner().status() == ServingStatus::Serving,
            node: node.map_err(fail("node"))?.map(Node::from),
            peers: peers.map_err(fail("peers"))?.map(|answer| {
                let peer = |peer: sovereign_proto::mesh::v1::Peer| Peer {
                    peer_id: peer.peer_id,
                    address: peer.address,
                    transport: peer.transport,
                };
                answer.peers.into_iter().map(peer).collect()
            }),
            layers: layers
                .map_err(fail("layers"))?
                .map(|answer| answer.layers.into_iter().map(Layer::from).collect()),
            paint: paint.map_err(fail("paint statistics"))?.map(Paint::from),
            vehicles: vehicles
                .map_err(fail("vehicles"))?
                .map(|answer| answer.vehicles.into_iter().map(Vehicle::from).collect()),
        })
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// `None` when the service does not run there.
fn if_served<T>(result: Result<Response<T>, Status>) -> Result<Option<T>, Status> {
    match result {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status),
    }
}

impl From<GetNodeResponse> for Node {
    fn from(node: GetNodeResponse) -> Self {
        Self {
            node_id: node.node_id,
            peer_id: node.peer_id,
            network: node.network,
            listen_addrs: node.listen_addrs,
            topics: node.topics,
        }
    }
}

impl From<sovereign_proto::tile::v1::Layer> for Layer {
    fn from(layer: sovereign_proto::tile::v1::Layer) -> Self {
        Self {
            name: layer.name,
            tiles: layer.tiles,
            min_zoom: layer.min_zoom,
            max_zoom: layer.max_zoom,
            bounds: layer
                .bounds
                .map(|b| [b.west_deg, b.south_deg, b.east_deg, b.north_deg]),
            simulated: layer.simulated,
        }
    }
}

impl From<sovereign_proto::tile::v1::GetPaintStatsResponse> for Paint {
    fn from(stats: sovereign_proto::tile::v1::GetPaintStatsResponse) -> Self {
        Self {
            frames_painted: stats.frames_painted,
            frames_refused: stats.frames_refused.into_iter().collect(),
            tiles_written: stats.tiles_written,
            latency_ms: stats.latency.map(|latency| LatencyMs {
                p50: millis_from_nanos(latency.p50_nanos),
                p99: millis_from_nanos(latency.p99_nanos),
            }),
        }
    }
}

impl From<VehicleState> for Vehicle {
    fn from(state: VehicleState) -> Self {
        Self {
            vehicle_id: state.vehicle_id,
            position_deg: state
                .position
                .map(|position| [position.latitude_deg, position.longitude_deg]),
            flight_mode: state.flight_mode,
            battery_percent: state.battery_percent,
            simulated: state.simulated,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a latency that needs more than 52 bits of nanoseconds is 52 days"
)]
fn millis_from_nanos(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}

/// For people.
fn text_from_status(status: &NodeStatus) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<10} {value}");
    };
    let ready = if status.ready { "ready" } else { "not ready" };
    line("node", format!("{} at {}", ready, status.grpc));
    if let Some(node) = &status.node {
        line("name", node.node_id.clone());
        line("network", node.network.clone());
        line("peer id", node.peer_id.clone());
        for address in &node.listen_addrs {
            line("address", address.clone());
        }
    }
    if let Some(peers) = &status.peers {
        line("peers", peers.len().to_string());
        for peer in peers {
            line("", format!("{} {}", peer.peer_id, peer.address));
        }
    }
    for layer in status.layers.iter().flatten() {
        let simulated = if layer.simulated { ", simulated" } else { "" };
        line(
            "layer",
            format!(
                "{}: {} tiles, zoom {} to {}{simulated}",
                layer.name, layer.tiles, layer.min_zoom, layer.max_zoom
            ),
        );
    }
    if let Some(paint) = &status.paint {
        let refused: u64 = paint.frames_refused.values().sum();
        line(
            "frames",
            format!("{} painted, {refused} refused", paint.frames_painted),
        );
        if let Some(latency) = &paint.latency_ms {
            line(
                "latency",
                format!("p50 {:.0} ms, p99 {:.0} ms", latency.p50, latency.p99),
            );
        }
    }
    if let Some(vehicles) = &status.vehicles {
        line("vehicles", vehicles.len().to_string());
        for vehicle in vehicles {
            let simulated = if vehicle.simulated {
                " (simulated)"
            } else {
                ""
            };
            line(
                "",
                format!("{} {}{simulated}", vehicle.vehicle_id, vehicle.flight_mode),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_node_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = address_from_data_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("sovereign-node start"), "{error}");
    }

    #[test]
    fn a_listener_on_every_interface_is_asked_on_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"grpc": "0.0.0.0:5", "admin": "127.0.0.1:6"}"#;
        std::fs::write(dir.path().join("addresses.json"), text).unwrap();
        assert_eq!(
            address_from_data_dir(dir.path()).unwrap(),
            "http://127.0.0.1:5"
        );
    }
}
