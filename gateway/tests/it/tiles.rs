//! A tile store that keeps what it is told.

use std::sync::{Arc, Mutex};

use sovereign_model::Digest;
use sovereign_proto::geo::v1::TileCoord;
use sovereign_proto::tile::v1::tiles_server::Tiles;
use sovereign_proto::tile::v1::{
    ChangedTile, GetPaintStatsRequest, GetPaintStatsResponse, GetTileRequest, GetTileResponse,
    Layer, ListChangesRequest, ListChangesResponse, ListLayersRequest, ListLayersResponse,
    TileChange,
};
use tonic::{Request, Response, Status};

/// A tile store that keeps what it is told.
#[derive(Clone, Default)]
pub(crate) struct TileStore {
    changes: Arc<Mutex<Vec<TileChange>>>,
    /// How often the map was removed.
    removed: Arc<Mutex<u64>>,
}

impl TileStore {
    /// Forgets everything and begins at sequence 1 again.
    pub(crate) fn begin_anew(&self) {
        self.changes.lock().unwrap().clear();
        *self.removed.lock().unwrap() += 1;
    }

    pub(crate) fn commit(&self, tiles: u32) -> TileChange {
        let mut changes = self.changes.lock().unwrap();
        let sequence = changes.len() as u64 + 1;
        let removed = *self.removed.lock().unwrap();
        let tile = |x| ChangedTile {
            coord: Some(TileCoord { z: 20, x, y: 3 }),
            digest: Digest::of(format!("{removed} {sequence} {x}").as_bytes())
                .as_bytes()
                .to_vec()
                .into(),
        };
        let change = TileChange {
            sequence,
            layer: "imagery".to_owned(),
            frame_id: Digest::of(format!("{removed} {sequence}").as_bytes()).to_hex(),
            sensor_id: "sys-1".to_owned(),
            tiles: (0..tiles).map(tile).collect(),
            committed_unix_nanos: 1_000,
            latency_nanos: 10,
            simulated: true,
        };
        changes.push(change.clone());
        change
    }
}

#[tonic::async_trait]
impl Tiles for TileStore {
    async fn list_tiles(
        &self,
        _: tonic::Request<sovereign_proto::tile::v1::ListTilesRequest>,
    ) -> Result<tonic::Response<sovereign_proto::tile::v1::ListTilesResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not yet"))
    }

    async fn list_layers(
        &self,
        _: Request<ListLayersRequest>,
    ) -> Result<Response<ListLayersResponse>, Status> {
        let layer = Layer {
            name: "imagery".to_owned(),
            last_change: self.changes.lock().unwrap().len() as u64,
            ..Layer::default()
        };
        Ok(Response::new(ListLayersResponse {
            layers: vec![layer],
        }))
    }

    async fn get_tile(
        &self,
        _: Request<GetTileRequest>,
    ) -> Result<Response<GetTileResponse>, Status> {
        Err(Status::not_found("no pictures here"))
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let ListChangesRequest { after, limit } = request.into_inner();
        let changes = self.changes.lock().unwrap();
        let newer = changes.iter().filter(|change| change.sequence > after);
        Ok(Response::new(ListChangesResponse {
            changes: newer.take(limit as usize).cloned().collect(),
            oldest_kept: 1,
        }))
    }

    async fn get_paint_stats(
        &self,
        _: Request<GetPaintStatsRequest>,
    ) -> Result<Response<GetPaintStatsResponse>, Status> {
        Err(Status::unimplemented("nothing is painted here"))
    }
}
