//! What a running node says about itself: asked over gRPC, shown to people or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use sovereign_proto::drone::v1::drones_client::DronesClient;
use sovereign_proto::drone::v1::{ListVehiclesRequest, VehicleState};
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_proto::mesh::v1::{GetNodeRequest, GetNodeResponse, ListPeersRequest};
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{GetPaintStatsRequest, ListLayersRequest};
use sovereign_service::Channel;
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::running::{AskError, within};

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

impl NodeStatus {
    /// Asks the node at `grpc`, `http://host:port`.
    pub async fn ask(grpc: &str) -> Result<Self, AskError> {
        let channel = Channel::connect(grpc)?;
        let fail = |what: &'static str| {
            move |source: Status| AskError::Silent {
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

pub(crate) fn text_from_status(status: &NodeStatus) -> String {
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
