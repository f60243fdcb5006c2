//! `sovereign.tile.v1.Tiles`.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sovereign_model::geo::TileCoord;
use sovereign_proto::convert::converted;
use sovereign_proto::tile::v1::tiles_server::Tiles;
use sovereign_proto::tile::v1::{
    GetPaintStatsRequest, GetPaintStatsResponse, GetTileRequest, GetTileResponse, LatencySummary,
    Layer, ListChangesRequest, ListChangesResponse, ListLayersRequest, ListLayersResponse,
    TileChange, TileFormat,
};
use sovereign_service::status_of;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::metrics::{TileMetrics, percentile};
use crate::picture::{Format, encode};
use crate::served::{Served, ServedTile};
use crate::store::{LAYER, Store, StoreError};

/// Changes given when the caller does not say how many.
const DEFAULT_CHANGES: usize = 100;
/// Most changes given at once.
const MAX_CHANGES: usize = 1_000;
/// A page of changes ends when it has this many bytes: half of what a gRPC message may have.
const MAX_CHANGES_BYTES: usize = 8 << 20;

/// The gRPC service.
#[derive(Clone)]
pub(crate) struct TilesGrpc {
    pub(crate) store: Arc<Store>,
    pub(crate) served: Arc<Served>,
    pub(crate) metrics: Arc<TileMetrics>,
    pub(crate) jpeg_quality: u8,
}

impl TilesGrpc {
    async fn tile(&self, request: &GetTileRequest) -> Result<GetTileResponse, Error> {
        if request.layer != LAYER {
            return Err(Error::UnknownLayer(request.layer.clone()));
        }
        let coord: TileCoord =
            converted("coord", request.coord.as_ref()).map_err(Error::Request)?;
        let format = match TileFormat::try_from(request.format) {
            Ok(TileFormat::Unspecified | TileFormat::Png) => Format::Png,
            Ok(TileFormat::Jpeg) => Format::Jpeg,
            Ok(TileFormat::Webp) => Format::Webp,
            Err(_) => return Err(Error::UnknownFormat(request.format)),
        };
        let (tile, source) = match self.served.find(coord, format) {
            Some(tile) => (tile, "memory"),
            None => (self.encoded(coord, format).await?, "encoded"),
        };
        self.metrics
            .served
            .get_or_create(&[("source", source)])
            .inc();
        Ok(GetTileResponse {
            data: tile.data,
            media_type: format.media_type().to_owned(),
            digest: tile.digest.to_hex(),
        })
    }

    async fn encoded(&self, coord: TileCoord, format: Format) -> Result<ServedTile, Error> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let epoch = this.served.epoch();
            let stored = this.store.read(coord)?.ok_or(Error::Empty(coord))?;
            let data = encode(stored.planes.shown(), format, this.jpeg_quality)?;
            let tile = ServedTile {
                data: Bytes::from(data),
                digest: stored.digest,
            };
            this.served.keep(epoch, coord, format, &tile);
            Ok(tile)
        })
        .await?
    }

    async fn changes(&self, request: ListChangesRequest) -> Result<ListChangesResponse, Error> {
        let limit = match request.limit {
            0 => DEFAULT_CHANGES,
            limit => (limit as usize).min(MAX_CHANGES),
        };
        let store = Arc::clone(&self.store);
        let page = tokio::task::spawn_blocking(move || {
            store.changes(request.after, limit, MAX_CHANGES_BYTES)
        })
        .await??;
        if page.damaged > 0 {
            self.metrics.damaged.inc_by(page.damaged);
            tracing::error!(
                after = request.after,
                damaged = page.damaged,
                "damaged changes are not served"
            );
        }
        let changes = page
            .messages
            .iter()
            .map(|message| TileChange::decode(message.as_slice()))
            .collect::<Result<_, _>>()?;
        Ok(ListChangesResponse {
            changes,
            oldest_kept: page.oldest_kept,
        })
    }

    fn status(&self, error: &Error) -> Status {
        if matches!(error, Error::Store(StoreError::Damaged { .. })) {
            self.metrics.damaged.inc();
            tracing::error!(error = %sovereign_service::chain(error), "what is damaged is not served");
        }
        status_of(error)
    }
}

#[tonic::async_trait]
impl Tiles for TilesGrpc {
    async fn list_layers(
        &self,
        _: Request<ListLayersRequest>,
    ) -> Result<Response<ListLayersResponse>, Status> {
        let summary = self.store.summary();
        let empty = summary.tiles == 0;
        Ok(Response::new(ListLayersResponse {
            layers: vec![Layer {
                name: LAYER.to_owned(),
                min_zoom: if empty { 0 } else { summary.min_zoom.into() },
                max_zoom: summary.max_zoom.into(),
                bounds: summary.bounds.map(Into::into),
                tiles: summary.tiles,
                last_change: summary.last_change,
                simulated: summary.simulated,
            }],
        }))
    }

    async fn get_tile(
        &self,
        request: Request<GetTileRequest>,
    ) -> Result<Response<GetTileResponse>, Status> {
        self.tile(request.get_ref())
            .await
            .map(Response::new)
            .map_err(|error| self.status(&error))
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        self.changes(request.into_inner())
            .await
            .map(Response::new)
            .map_err(|error| self.status(&error))
    }

    async fn get_paint_stats(
        &self,
        _: Request<GetPaintStatsRequest>,
    ) -> Result<Response<GetPaintStatsResponse>, Status> {
        let stats = self.metrics.stats();
        let of = |percent| percentile(&stats.latencies_nanos, percent);
        let latency = of(50)
            .zip(of(99))
            .map(|(p50_nanos, p99_nanos)| LatencySummary {
                count: stats.latencies_nanos.len() as u64,
                p50_nanos,
                p99_nanos,
            });
        Ok(Response::new(GetPaintStatsResponse {
            frames_painted: stats.frames_painted,
            frames_refused: stats
                .frames_refused
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            tiles_written: stats.tiles_written,
            latency,
        }))
    }
}
