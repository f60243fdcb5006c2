//! `sovereign.tile.v1.Tiles`.

use std::sync::Arc;

use bytes::Bytes;
use sovereign_proto::tile::v1::tiles_server::Tiles;
use sovereign_proto::tile::v1::{
    GetPaintStatsRequest, GetPaintStatsResponse, GetTileRequest, GetTileResponse,
    ListChangesRequest, ListChangesResponse, ListLayersRequest, ListLayersResponse,
    ListTilesRequest, ListTilesResponse,
};
use sovereign_service::status_of;
use tonic::{Request, Response, Status};

use crate::domain::layer::{Layer, Place};
use crate::domain::raster::doubled;
use crate::error::Error;
use crate::metrics::Meter;
use crate::picture::encode;
use crate::served::{Look, Served, ServedTile};
use crate::store::{Map, StoreError, Stored};
use crate::wire::{self, Wanted};
use sovereign_model::Digest;

const DEFAULT_ENTRIES: usize = 100;
const MAX_ENTRIES: usize = 1_000;
/// A page of changes ends when it has this many bytes: half of what a gRPC message may have.
const MAX_CHANGES_BYTES: usize = 8 << 20;

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) map: Map,
    pub(crate) served: Arc<Served>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) lossy_quality: u8,
}

impl Api {
    async fn tile(&self, request: &GetTileRequest) -> Result<GetTileResponse, Error> {
        let look = Look {
            format: wire::format_from_number(request.format)?,
            double: request.double,
        };
        let place = match wire::wanted_from_request(request)? {
            Wanted::At(layer, coord) => Place { layer, coord },
            Wanted::Showing(digest) => {
                let place = self.ask(move |map| Ok(map.place_of(digest)?)).await?;
                place.ok_or(Error::UnknownDigest(digest))?
            }
        };
        let (tile, source) = match self.served.find(place, look) {
            Some(tile) => (tile, "memory"),
            None => (self.encoded(place, look).await?, "encoded"),
        };
        let served = &self.meter.metrics.tiles_served;
        served.get_or_create(&[("source", source)]).inc();
        Ok(GetTileResponse {
            data: tile.data,
            media_type: look.format.media_type().to_owned(),
            digest: tile.digest.to_hex(),
        })
    }

    async fn encoded(&self, place: Place, look: Look) -> Result<ServedTile, Error> {
        let (served, quality) = (Arc::clone(&self.served), self.lossy_quality);
        self.ask(move |map| {
            let epoch = served.epoch();
            let stored = map.read(place)?.ok_or(Error::Empty(place.coord))?;
            let shown = stored.planes.shown();
            let (data, digest) = if look.double {
                let (pixels, digest) = doubled_tile(map, place, &stored)?;
                (encode(&pixels, look.format, quality)?, digest)
            } else {
                (encode(shown.pixels(), look.format, quality)?, stored.digest)
            };
            let tile = ServedTile {
                data: Bytes::from(data),
                digest,
            };
            served.keep(epoch, place, look, &tile);
            Ok(tile)
        })
        .await
    }

    async fn list(&self, request: ListTilesRequest) -> Result<ListTilesResponse, Error> {
        let layer = wire::layer_from_name(&request.layer)?;
        let after = wire::coord_after(request.after.as_ref())?;
        let limit = entries(request.limit);
        let tiles = self.ask(move |map| Ok(map.list(layer, after, limit)?));
        Ok(wire::tiles_from_list(tiles.await?))
    }

    async fn changes(&self, request: ListChangesRequest) -> Result<ListChangesResponse, Error> {
        let ListChangesRequest { after, limit } = request;
        let limit = entries(limit);
        let page = self.ask(move |map| Ok(map.changes(after, limit, MAX_CHANGES_BYTES)?));
        let page = page.await?;
        if page.damaged > 0 {
            self.meter.metrics.tiles_damaged.inc_by(page.damaged);
            let damaged = page.damaged;
            tracing::error!(after, damaged, "damaged changes are not served");
        }
        Ok(wire::changes_from_messages(
            &page.messages,
            page.oldest_kept,
        )?)
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Map) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let map = self.map.clone();
        tokio::task::spawn_blocking(move || question(&map)).await?
    }

    fn answer<T>(&self, answer: Result<T, Error>) -> Result<Response<T>, Status> {
        answer.map(Response::new).map_err(|error| {
            if matches!(error, Error::Store(StoreError::Damaged { .. })) {
                self.meter.metrics.tiles_damaged.inc();
                tracing::error!(error = %sovereign_service::chain(&error), "what is damaged is not served");
            }
            status_of(&error)
        })
    }
}

/// A tile of twice the side, and a digest of all that it shows.
fn doubled_tile(map: &Map, place: Place, stored: &Stored) -> Result<(Vec<u32>, Digest), Error> {
    let layer = place.layer;
    let mut children = Vec::with_capacity(4);
    // Beyond the last zoom there is nothing finer.
    for coord in place.coord.children().into_iter().flatten() {
        children.push(map.read(Place { layer, coord })?);
    }
    let digests = children.iter().flatten().map(|child| child.digest);
    let digests: Vec<Digest> = std::iter::once(stored.digest).chain(digests).collect();
    let parts: Vec<&[u8]> = digests
        .iter()
        .map(|digest| &digest.as_bytes()[..])
        .collect();
    let rasters = [0, 1, 2, 3].map(|i: usize| children.get(i)?.as_ref().map(|c| c.planes.shown()));
    let pixels = doubled(stored.planes.shown(), rasters);
    Ok((pixels, Digest::of_parts(&parts)))
}

fn entries(limit: u32) -> usize {
    match limit {
        0 => DEFAULT_ENTRIES,
        limit => (limit as usize).min(MAX_ENTRIES),
    }
}

#[tonic::async_trait]
impl Tiles for Api {
    async fn list_layers(
        &self,
        _: Request<ListLayersRequest>,
    ) -> Result<Response<ListLayersResponse>, Status> {
        let layers = self.ask(|map| {
            let layers = Layer::ALL.into_iter().map(|layer| {
                let centre = map.centre(layer)?;
                Ok(wire::layer_from_summary(layer, map.summary(layer), centre))
            });
            layers.collect::<Result<Vec<_>, Error>>()
        });
        let layers = layers.await;
        self.answer(layers.map(|layers| ListLayersResponse { layers }))
    }

    async fn get_tile(
        &self,
        request: Request<GetTileRequest>,
    ) -> Result<Response<GetTileResponse>, Status> {
        self.answer(self.tile(request.get_ref()).await)
    }

    async fn list_tiles(
        &self,
        request: Request<ListTilesRequest>,
    ) -> Result<Response<ListTilesResponse>, Status> {
        self.answer(self.list(request.into_inner()).await)
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        self.answer(self.changes(request.into_inner()).await)
    }

    async fn get_paint_stats(
        &self,
        _: Request<GetPaintStatsRequest>,
    ) -> Result<Response<GetPaintStatsResponse>, Status> {
        Ok(Response::new(wire::stats_from_figures(self.meter.stats())))
    }
}
