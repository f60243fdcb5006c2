//! The services this edge shows, as calls that return what readers see.
//!
//! Every call has a deadline. What a layer is called is remembered once tile-svc has confirmed it. A call
//! that fails is logged here, sparsely, and nowhere else: there may be one with every request.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use sovereign_proto::drone::v1::drones_client::DronesClient;
use sovereign_proto::drone::v1::{GetIngestStatsRequest, ListVehiclesRequest};
use sovereign_proto::geo::v1 as geo;
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_proto::mesh::v1::{GetNodeRequest, ListPeersRequest};
use sovereign_proto::slam::v1::ListKeyframesRequest;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{
    GetPaintStatsRequest, GetTileRequest, ListLayersRequest, TileFormat as WireFormat,
};
use sovereign_service::{Channel, Code, limited};
use tokio::sync::oneshot;
use tonic::{Request, Status};

use crate::calls::Calls;
use crate::domain::capture::DroneCapture;
use crate::error::{BodyFault, CallError};
use crate::metrics::Metrics;
use crate::sparse::Sparse;
use crate::views::{DroneStats, Keyframes, Layer, Mesh, PaintStats, Receipt, Vehicle};
use crate::wire;

const READ_DEADLINE: Duration = Duration::from_secs(5);
const WRITE_DEADLINE: Duration = Duration::from_secs(330);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileFormat {
    Png,
    Jpeg,
    Webp,
    WebpLossy,
}

#[derive(Debug, Clone)]
pub(crate) struct Tile {
    pub(crate) data: Bytes,
    pub(crate) media_type: String,
    pub(crate) digest: String,
}

#[derive(Debug, Clone)]
pub(crate) enum TileAnswer {
    Tile(Tile),
    Empty,
    UnknownLayer,
}

#[derive(Debug)]
pub(crate) enum SubmitError {
    /// It did not reach this edge either.
    Body(BodyFault),
    Call(CallError),
}

pub(crate) struct Upstream {
    drones: DronesClient<Channel>,
    tiles: TilesClient<Channel>,
    slam: SlamClient<Channel>,
    mesh: Option<MeshClient<Channel>>,
    layers: RwLock<BTreeSet<String>>,
    failures: Failures,
}

struct Failures {
    metrics: Arc<Metrics>,
    drones: Sparse,
    tiles: Sparse,
    slam: Sparse,
    mesh: Sparse,
}

#[derive(Debug, Clone, Copy)]
enum Callee {
    Drones,
    Tiles,
    Slam,
    Mesh,
}

impl Callee {
    fn name(self) -> &'static str {
        match self {
            Self::Drones => "drone-ingest",
            Self::Tiles => "tile-svc",
            Self::Slam => "slam-svc",
            Self::Mesh => "mesh-gateway",
        }
    }
}

impl Failures {
    fn of(&self, callee: Callee) -> impl Fn(Status) -> CallError {
        move |status| {
            let error = CallError::new(callee.name(), &status);
            match error.code {
                // The answer to a request that is wrong, not a failure.
                Code::InvalidArgument | Code::NotFound | Code::ResourceExhausted => {}
                Code::AlreadyExists
                | Code::Unauthenticated
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::Unavailable
                | Code::DeadlineExceeded
                | Code::DataLoss
                | Code::Internal => self.tell(callee, &error),
            }
            error
        }
    }

    fn tell(&self, callee: Callee, error: &CallError) {
        self.metrics.call_failed(callee.name());
        let warnings = match callee {
            Callee::Drones => &self.drones,
            Callee::Tiles => &self.tiles,
            Callee::Slam => &self.slam,
            Callee::Mesh => &self.mesh,
        };
        match warnings.due(Instant::now()) {
            Some(calls) => tracing::warn!(error = %error, calls, "calls of a service fail"),
            None => tracing::debug!(error = %error, "a call of a service failed"),
        }
    }
}

fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

impl Upstream {
    pub(crate) fn new(calls: Calls, metrics: Arc<Metrics>) -> Self {
        Self {
            drones: limited!(DronesClient::new(calls.drones)),
            tiles: limited!(TilesClient::new(calls.tiles)),
            slam: limited!(SlamClient::new(calls.slam)),
            mesh: calls.mesh.map(|channel| limited!(MeshClient::new(channel))),
            layers: RwLock::default(),
            failures: Failures {
                metrics,
                drones: Sparse::default(),
                tiles: Sparse::default(),
                slam: Sparse::default(),
                mesh: Sparse::default(),
            },
        }
    }

    pub(crate) async fn vehicles(&self) -> Result<Vec<Vehicle>, CallError> {
        let mut client = self.drones.clone();
        let answer = client
            .list_vehicles(within(READ_DEADLINE, ListVehiclesRequest {}))
            .await
            .map_err(self.failures.of(Callee::Drones))?;
        let vehicles = answer.into_inner().vehicles;
        Ok(vehicles.into_iter().map(wire::vehicle).collect())
    }

    pub(crate) async fn drone_stats(&self) -> Result<DroneStats, CallError> {
        let mut client = self.drones.clone();
        let answer = client
            .get_ingest_stats(within(READ_DEADLINE, GetIngestStatsRequest {}))
            .await
            .map_err(self.failures.of(Callee::Drones))?;
        Ok(wire::drone_stats(answer.into_inner()))
    }

    /// Hands a picture to the drone door as it arrives; returns once it is on disk there.
    pub(crate) async fn submit_capture(
        &self,
        capture: DroneCapture,
        pieces: impl Stream<Item = Result<Bytes, BodyFault>> + Send + 'static,
    ) -> Result<Receipt, SubmitError> {
        let mut client = self.drones.clone();
        let (tell, mut fault) = oneshot::channel();
        let header = stream::iter([wire::header_from_capture(capture)]);
        let parts = header.chain(whole_or_never(pieces, tell).flat_map(wire::chunks));
        let submission = client.submit_capture(within(WRITE_DEADLINE, parts));
        let answer = tokio::select! {
            // Dropped, the call leaves nothing behind.
            Ok(fault) = &mut fault => return Err(SubmitError::Body(fault)),
            answer = submission => answer,
        };
        let answer = answer
            .map_err(self.failures.of(Callee::Drones))
            .map_err(SubmitError::Call)?
            .into_inner();
        Ok(Receipt {
            frame_id: answer.frame_id,
            duplicate: answer.duplicate,
        })
    }

    pub(crate) async fn keyframes(
        &self,
        sensor_id: String,
        limit: u32,
        after: Option<u64>,
    ) -> Result<Keyframes, CallError> {
        let mut client = self.slam.clone();
        let request = ListKeyframesRequest {
            sensor_id,
            limit,
            after,
        };
        let answer = client
            .list_keyframes(within(READ_DEADLINE, request))
            .await
            .map_err(self.failures.of(Callee::Slam))?;
        let answer = answer.into_inner();
        Ok(Keyframes {
            after,
            position: answer.position,
            keyframes: answer.keyframes.into_iter().map(wire::keyframe).collect(),
        })
    }

    pub(crate) async fn layers(&self) -> Result<Vec<Layer>, CallError> {
        let mut client = self.tiles.clone();
        let answer = client
            .list_layers(within(READ_DEADLINE, ListLayersRequest {}))
            .await
            .map_err(self.failures.of(Callee::Tiles))?;
        let layers: Vec<Layer> = answer
            .into_inner()
            .layers
            .into_iter()
            .map(wire::layer)
            .collect();
        let mut known = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        if layers.iter().any(|layer| !known.contains(&layer.name)) {
            known.extend(layers.iter().map(|layer| layer.name.clone()));
        }
        Ok(layers)
    }

    pub(crate) async fn tile(
        &self,
        layer: &str,
        [z, x, y]: [u32; 3],
        format: TileFormat,
        double: bool,
    ) -> Result<TileAnswer, CallError> {
        let mut client = self.tiles.clone();
        let format = match format {
            TileFormat::Png => WireFormat::Png,
            TileFormat::Jpeg => WireFormat::Jpeg,
            TileFormat::Webp => WireFormat::Webp,
            TileFormat::WebpLossy => WireFormat::WebpLossy,
        };
        let request = GetTileRequest {
            layer: layer.to_owned(),
            coord: Some(geo::TileCoord { z, x, y }),
            format: format.into(),
            double,
            ..GetTileRequest::default()
        };
        match client.get_tile(within(READ_DEADLINE, request)).await {
            Ok(answer) => {
                let tile = answer.into_inner();
                Ok(TileAnswer::Tile(Tile {
                    data: tile.data,
                    media_type: tile.media_type,
                    digest: tile.digest,
                }))
            }
            // One code for two cases: the layer or the tile is not there.
            Err(status) if Code::from_grpc(status.code()) == Code::NotFound => {
                if self.has_layer(layer).await? {
                    Ok(TileAnswer::Empty)
                } else {
                    Ok(TileAnswer::UnknownLayer)
                }
            }
            Err(status) => Err(self.failures.of(Callee::Tiles)(status)),
        }
    }

    async fn has_layer(&self, name: &str) -> Result<bool, CallError> {
        let known = || {
            let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
            layers.contains(name)
        };
        if known() {
            return Ok(true);
        }
        self.layers().await?;
        Ok(known())
    }

    pub(crate) async fn paint_stats(&self) -> Result<PaintStats, CallError> {
        let mut client = self.tiles.clone();
        let answer = client
            .get_paint_stats(within(READ_DEADLINE, GetPaintStatsRequest {}))
            .await
            .map_err(self.failures.of(Callee::Tiles))?;
        Ok(wire::paint_stats(answer.into_inner()))
    }

    pub(crate) async fn mesh(&self) -> Result<Mesh, CallError> {
        let Some(client) = &self.mesh else {
            return Err(CallError {
                service: Callee::Mesh.name(),
                code: Code::Unavailable,
                message: "this node runs without a mesh gateway".to_owned(),
            });
        };
        let (mut node, mut peers) = (client.clone(), client.clone());
        let (node, peers) = tokio::try_join!(
            node.get_node(within(READ_DEADLINE, GetNodeRequest {})),
            peers.list_peers(within(READ_DEADLINE, ListPeersRequest {})),
        )
        .map_err(self.failures.of(Callee::Mesh))?;
        let peers = peers.into_inner().peers;
        Ok(Mesh {
            node: wire::mesh_node(node.into_inner()),
            peers: peers.into_iter().map(wire::mesh_peer).collect(),
        })
    }
}

/// The pieces. A fault is told and the stream stands still: its end would make half a picture look whole.
fn whole_or_never(
    pieces: impl Stream<Item = Result<Bytes, BodyFault>> + Send + 'static,
    tell: oneshot::Sender<BodyFault>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let state = (Box::pin(pieces), Some(tell));
    stream::unfold(state, |(mut pieces, mut tell)| async move {
        match pieces.next().await? {
            Ok(piece) => Some((piece, (pieces, tell))),
            Err(fault) => {
                // Nobody to be told means that the call is over.
                if let Some(tell) = tell.take() {
                    let _ = tell.send(fault);
                }
                std::future::pending().await
            }
        }
    })
}
