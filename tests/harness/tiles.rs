//! The map as a node serves it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{ListChangesRequest, TileChange};
use sovereign_service::Channel;

/// Digest of every tile by zoom, column, row, from the changes of a tile service.
pub async fn digests(channel: Channel) -> anyhow::Result<BTreeMap<(u32, u32, u32), Vec<u8>>> {
    let mut digests = BTreeMap::new();
    for tile in changes(channel)
        .await?
        .into_iter()
        .flat_map(|change| change.tiles)
    {
        let coord = tile.coord.context("a changed tile has a coordinate")?;
        let place = (coord.z, coord.x, coord.y);
        if tile.digest.is_empty() {
            digests.remove(&place);
        } else {
            digests.insert(place, tile.digest.to_vec());
        }
    }
    Ok(digests)
}

/// Ids of the frames painted, in the order of their commits; a frame painted twice is there twice.
pub async fn painted_frames(channel: Channel) -> anyhow::Result<Vec<String>> {
    Ok(changes(channel)
        .await?
        .into_iter()
        .flat_map(|change| change.frames)
        .map(|frame| frame.frame_id)
        .collect())
}

async fn changes(channel: Channel) -> anyhow::Result<Vec<TileChange>> {
    let mut client = TilesClient::new(channel);
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |change: &TileChange| change.sequence);
        let request = ListChangesRequest { after, limit: 1000 };
        let more = client.list_changes(request).await?.into_inner().changes;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}
