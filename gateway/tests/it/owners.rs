//! The owners of what is exported: services that keep what they are told.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use sovereign_model::Digest;
use sovereign_proto::checkpoint::v1::checkpoints_server::{Checkpoints, CheckpointsServer};
use sovereign_proto::checkpoint::v1::{
    self as checkpoint, CheckpointChange, CheckpointMeta, GetRequest, GetResponse, ListRequest,
    ListResponse, PutRequest, PutResponse,
};
use sovereign_proto::geo::v1::TileCoord;
use sovereign_proto::round::v1::rounds_server::{Rounds, RoundsServer};
use sovereign_proto::round::v1::{
    ListRecordsRequest, ListRecordsResponse, ListRoundsRequest, ListRoundsResponse,
    OpenRoundRequest, OpenRoundResponse, RecordEntry, RoundRecord,
};
use sovereign_proto::tile::v1::tiles_server::{Tiles, TilesServer};
use sovereign_proto::tile::v1::{
    self as tile, ChangedTile, GetPaintStatsRequest, GetPaintStatsResponse, GetTileRequest,
    GetTileResponse, ListLayersRequest, ListLayersResponse, ListTilesRequest, ListTilesResponse,
    TileChange,
};
use sovereign_service::Channel;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Logs of the map, of checkpoints and of rounds, and the calls that list them.
#[derive(Clone, Default)]
pub(crate) struct Owners {
    tiles: Arc<Mutex<Vec<TileChange>>>,
    checkpoints: Arc<Mutex<Vec<CheckpointChange>>>,
    rounds: Arc<Mutex<Vec<RecordEntry>>>,
    /// How often the map was removed.
    removed: Arc<Mutex<u64>>,
}

impl Owners {
    pub(crate) fn calls(&self) -> mesh_gateway::Calls {
        mesh_gateway::Calls {
            checkpoints: Channel::local(Routes::new(CheckpointsServer::new(self.clone()))),
            tiles: Channel::local(Routes::new(TilesServer::new(self.clone()))),
            rounds: Channel::local(Routes::new(RoundsServer::new(self.clone()))),
        }
    }

    /// Forgets the map, which begins at sequence 1 again.
    pub(crate) fn begin_map_anew(&self) {
        self.tiles.lock().unwrap().clear();
        *self.removed.lock().unwrap() += 1;
    }

    pub(crate) fn commit(&self, tiles: u32) -> TileChange {
        let mut changes = self.tiles.lock().unwrap();
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
            tiles: (0..tiles).map(tile).collect(),
            committed_unix_nanos: 1_000,
            simulated: true,
            ..TileChange::default()
        };
        changes.push(change.clone());
        change
    }

    pub(crate) fn store(&self, meta: &CheckpointMeta) {
        let mut changes = self.checkpoints.lock().unwrap();
        let sequence = changes.len() as u64 + 1;
        changes.push(CheckpointChange {
            sequence,
            meta: Some(meta.clone()),
        });
    }

    pub(crate) fn record(&self, record: &RoundRecord) {
        let mut entries = self.rounds.lock().unwrap();
        let sequence = entries.len() as u64 + 1;
        entries.push(RecordEntry {
            sequence,
            record: Some(record.clone()),
        });
    }
}

/// Entries behind `after`; the sequence of an entry is its place, from 1.
fn page<E: Clone>(log: &Mutex<Vec<E>>, after: u64, limit: u32) -> Vec<E> {
    let log = log.lock().unwrap();
    let newer = log.iter().skip(after as usize).take(limit as usize);
    newer.cloned().collect()
}

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only logs are asked for"))
}

#[tonic::async_trait]
impl Tiles for Owners {
    async fn list_changes(
        &self,
        request: Request<tile::ListChangesRequest>,
    ) -> Result<Response<tile::ListChangesResponse>, Status> {
        let tile::ListChangesRequest { after, limit } = request.into_inner();
        Ok(Response::new(tile::ListChangesResponse {
            changes: page(&self.tiles, after, limit),
            oldest_kept: 1,
        }))
    }

    async fn list_layers(
        &self,
        _: Request<ListLayersRequest>,
    ) -> Result<Response<ListLayersResponse>, Status> {
        not_asked()
    }

    async fn list_tiles(
        &self,
        _: Request<ListTilesRequest>,
    ) -> Result<Response<ListTilesResponse>, Status> {
        not_asked()
    }

    async fn get_tile(
        &self,
        _: Request<GetTileRequest>,
    ) -> Result<Response<GetTileResponse>, Status> {
        not_asked()
    }

    async fn get_paint_stats(
        &self,
        _: Request<GetPaintStatsRequest>,
    ) -> Result<Response<GetPaintStatsResponse>, Status> {
        not_asked()
    }
}

#[tonic::async_trait]
impl Checkpoints for Owners {
    type GetStream = Pin<Box<dyn Stream<Item = Result<GetResponse, Status>> + Send>>;

    async fn list_changes(
        &self,
        request: Request<checkpoint::ListChangesRequest>,
    ) -> Result<Response<checkpoint::ListChangesResponse>, Status> {
        let checkpoint::ListChangesRequest { after, limit } = request.into_inner();
        let changes = page(&self.checkpoints, after, limit);
        let oldest_kept = u64::from(!self.checkpoints.lock().unwrap().is_empty());
        Ok(Response::new(checkpoint::ListChangesResponse {
            changes,
            oldest_kept,
        }))
    }

    async fn put(
        &self,
        _: Request<Streaming<PutRequest>>,
    ) -> Result<Response<PutResponse>, Status> {
        not_asked()
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        not_asked()
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        not_asked()
    }
}

#[tonic::async_trait]
impl Rounds for Owners {
    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let ListRecordsRequest { after, limit } = request.into_inner();
        let entries = page(&self.rounds, after, limit);
        let oldest_kept = u64::from(!self.rounds.lock().unwrap().is_empty());
        Ok(Response::new(ListRecordsResponse {
            entries,
            oldest_kept,
        }))
    }

    async fn open_round(
        &self,
        _: Request<OpenRoundRequest>,
    ) -> Result<Response<OpenRoundResponse>, Status> {
        not_asked()
    }

    async fn list_rounds(
        &self,
        _: Request<ListRoundsRequest>,
    ) -> Result<Response<ListRoundsResponse>, Status> {
        not_asked()
    }
}
