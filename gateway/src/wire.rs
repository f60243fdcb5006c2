//! Generated types and ours: envelopes of the mesh, and the logs that are exported to it.

use std::future::Future;
use std::time::Duration;

use prost::Message;
use sovereign_model::{Digest, Timestamp};
use sovereign_proto::checkpoint::v1::CheckpointChange;
use sovereign_proto::checkpoint::v1::checkpoints_client::CheckpointsClient;
pub(crate) use sovereign_proto::mesh::v1::envelope::Body;
pub(crate) use sovereign_proto::mesh::v1::{
    Envelope, Hello, MeshMessage, PeerCheckpoint, PeerRound, PeerTileChange,
};
pub(crate) use sovereign_proto::round::v1::RoundRecord;
use sovereign_proto::round::v1::rounds_client::RoundsClient;
use sovereign_proto::round::v1::{RecordEntry, RoundPhase};
use sovereign_proto::tile::v1::TileChange;
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::{checkpoint, round, tile};
use sovereign_service::{Channel, limited};
use tonic::{Request, Status};

use crate::domain::cursor::{Entry, Page, Position};
use crate::domain::envelope::{
    BodyClaim, Claim, Kind, MAX_ENVELOPE_BYTES, PhaseClaim, Refusal, TileClaim, Topic, admit,
};
use crate::domain::split::ranges_within;

const LOG_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for everything of an envelope with a tile change but tiles and frames: message id, node name,
/// layer, numbers, and the framing.
const CHANGE_OVERHEAD_BYTES: usize = 1024;

pub(crate) trait Log: Send + 'static {
    /// Name in the export store and in metrics.
    const NAME: &'static str;
    const KIND: Kind;

    fn page(
        &mut self,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Page<Vec<Body>>, Status>> + Send;
}

#[derive(Debug)]
pub(crate) struct Tiles(TilesClient<Channel>);

impl Tiles {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(limited!(TilesClient::new(channel)))
    }
}

impl Log for Tiles {
    const NAME: &'static str = "tiles";
    const KIND: Kind = Kind::TileChange;

    async fn page(&mut self, after: u64, limit: u32) -> Result<Page<Vec<Body>>, Status> {
        let request = tile::v1::ListChangesRequest { after, limit };
        let page = self.0.list_changes(timed(request)).await?.into_inner();
        let entry = |change: TileChange| entry(change.sequence, change, change_parts);
        Ok(Page {
            entries: page.changes.into_iter().map(entry).collect(),
            oldest_kept: page.oldest_kept,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Checkpoints(CheckpointsClient<Channel>);

impl Checkpoints {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(limited!(CheckpointsClient::new(channel)))
    }
}

impl Log for Checkpoints {
    const NAME: &'static str = "checkpoints";
    const KIND: Kind = Kind::Checkpoint;

    async fn page(&mut self, after: u64, limit: u32) -> Result<Page<Vec<Body>>, Status> {
        let request = checkpoint::v1::ListChangesRequest { after, limit };
        let page = self.0.list_changes(timed(request)).await?.into_inner();
        let bodies =
            |change: CheckpointChange| change.meta.map(Body::Checkpoint).into_iter().collect();
        let entry = |change: CheckpointChange| entry(change.sequence, change, bodies);
        Ok(Page {
            entries: page.changes.into_iter().map(entry).collect(),
            oldest_kept: page.oldest_kept,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Rounds(RoundsClient<Channel>);

impl Rounds {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(limited!(RoundsClient::new(channel)))
    }
}

impl Log for Rounds {
    const NAME: &'static str = "rounds";
    const KIND: Kind = Kind::Round;

    async fn page(&mut self, after: u64, limit: u32) -> Result<Page<Vec<Body>>, Status> {
        let request = round::v1::ListRecordsRequest { after, limit };
        let page = self.0.list_records(timed(request)).await?.into_inner();
        let bodies = |entry: RecordEntry| entry.record.map(Body::Round).into_iter().collect();
        let entry = |record: RecordEntry| entry(record.sequence, record, bodies);
        Ok(Page {
            entries: page.entries.into_iter().map(entry).collect(),
            oldest_kept: page.oldest_kept,
        })
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LOG_TIMEOUT);
    request
}

fn entry<M: Message>(
    sequence: u64,
    said: M,
    bodies: impl FnOnce(M) -> Vec<Body>,
) -> Entry<Vec<Body>> {
    let position = Position {
        sequence,
        fingerprint: *Digest::of(&said.encode_to_vec()).as_bytes(),
    };
    Entry {
        position,
        content: bodies(said),
    }
}

/// A change as messages that each fit an envelope: half of it is for tiles, half for frames.
fn change_parts(mut change: TileChange) -> Vec<Body> {
    // A list entry is itself, its tag, and its length.
    let framed = |len: usize| len + 1 + 5;
    let budget = (MAX_ENVELOPE_BYTES - CHANGE_OVERHEAD_BYTES) / 2;
    let (tiles, frames) = (
        std::mem::take(&mut change.tiles),
        std::mem::take(&mut change.frames),
    );
    let sizes: Vec<usize> = tiles
        .iter()
        .map(|tile| framed(tile.encoded_len()))
        .collect();
    let of_tiles = ranges_within(&sizes, budget);
    let sizes: Vec<usize> = frames
        .iter()
        .map(|frame| framed(frame.encoded_len()))
        .collect();
    let of_frames = ranges_within(&sizes, budget);
    let part = |number: usize| TileChange {
        tiles: of_tiles
            .get(number)
            .map_or_else(Vec::new, |range| tiles[range.clone()].to_vec()),
        frames: of_frames
            .get(number)
            .map_or_else(Vec::new, |range| frames[range.clone()].to_vec()),
        ..change.clone()
    };
    let parts = of_tiles.len().max(of_frames.len());
    (0..parts)
        .map(|number| Body::TileChange(part(number)))
        .collect()
}

pub(crate) fn seal(node_id: &str, message_id: String, body: Body, at: Timestamp) -> Vec<u8> {
    Envelope {
        message_id,
        published_unix_nanos: at.as_unix_nanos(),
        node_id: node_id.to_owned(),
        body: Some(body),
    }
    .encode_to_vec()
}

/// An encoded envelope under an id made from its content, the same when it is made again.
pub(crate) fn seal_content(node_id: &str, body: Body, at: Timestamp) -> Vec<u8> {
    let content = Envelope {
        body: Some(body.clone()),
        ..Envelope::default()
    };
    let mut id = Digest::of(&content.encode_to_vec()).to_hex();
    id.truncate(32);
    seal(node_id, id, body, at)
}

pub(crate) fn open(topic: Topic, data: &[u8]) -> Result<Envelope, Refusal> {
    let envelope = Envelope::decode(data).map_err(|_| Refusal::Undecodable)?;
    admit(topic, &claim_of(&envelope))?;
    Ok(envelope)
}

/// The id under which the record of a peer's round is stored: one for each phase. The peer is in front, so
/// that none can take the id of another's.
pub(crate) fn round_message_id(peer_id: &str, record: &RoundRecord) -> String {
    format!("{peer_id}.{}.{}", record.round_id, record.phase)
}

pub(crate) fn kind_of(body: &Body) -> Kind {
    match body {
        Body::Payload(_) => Kind::Payload,
        Body::TileChange(_) => Kind::TileChange,
        Body::Checkpoint(_) => Kind::Checkpoint,
        Body::Round(_) => Kind::Round,
        Body::Hello(_) => Kind::Hello,
    }
}

fn claim_of(envelope: &Envelope) -> Claim<'_> {
    let body = envelope.body.as_ref().map(|body| match body {
        Body::Payload(_) => BodyClaim::Payload,
        Body::TileChange(change) => BodyClaim::TileChange {
            sequence: change.sequence,
            layer: &change.layer,
            names: change
                .frames
                .iter()
                .flat_map(|frame| [frame.frame_id.as_str(), frame.sensor_id.as_str()])
                .collect(),
            tiles: change
                .tiles
                .iter()
                .map(|tile| TileClaim {
                    zxy: tile.coord.as_ref().map(|c| (c.z, c.x, c.y)),
                    digest: &tile.digest,
                })
                .collect(),
        },
        Body::Checkpoint(meta) => BodyClaim::Checkpoint {
            version: &meta.version,
            digest: &meta.digest,
            cid: &meta.cid,
        },
        Body::Round(record) => BodyClaim::Round {
            round_id: &record.round_id,
            phase: match RoundPhase::try_from(record.phase) {
                Ok(RoundPhase::Unspecified) => PhaseClaim::Absent,
                Ok(RoundPhase::Open | RoundPhase::Closed) => PhaseClaim::Known,
                Err(_) => PhaseClaim::Unknown,
            },
            model_digest: &record.model_digest,
            min_participants: record.min_participants,
            opened_unix_nanos: record.opened_unix_nanos,
            closes_unix_nanos: record.closes_unix_nanos,
            node_id: &record.node_id,
        },
        Body::Hello(hello) => BodyClaim::Hello {
            mode: &hello.mode,
            listen_addrs: &hello.listen_addrs,
        },
    });
    Claim {
        message_id: &envelope.message_id,
        published_unix_nanos: envelope.published_unix_nanos,
        node_id: &envelope.node_id,
        body,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sovereign_proto::tile::v1::{ChangedTile, PaintedFrame};

    use super::*;

    /// Bytes that hold to the contract.
    pub(crate) fn envelope(message_id: &str) -> Vec<u8> {
        let body = Body::Payload(b"x".as_slice().into());
        seal(
            "node",
            message_id.to_owned(),
            body,
            Timestamp::from_unix_nanos(1),
        )
    }

    #[test]
    fn a_large_change_is_cut_into_messages_that_fit_and_are_admitted() {
        let tile = |x| ChangedTile {
            coord: Some(sovereign_proto::geo::v1::TileCoord { z: 20, x, y: 3 }),
            digest: vec![7; 32].into(),
        };
        let frame = |number: u32| PaintedFrame {
            frame_id: format!("{number:064}"),
            sensor_id: "s".repeat(64),
            revision: number,
        };
        for (tiles, frames) in [(0, 0), (1, 1), (4_000, 3), (3, 2_000)] {
            let change = TileChange {
                sequence: 7,
                layer: "imagery".to_owned(),
                tiles: (0..tiles).map(tile).collect(),
                frames: (0..frames).map(frame).collect(),
                ..TileChange::default()
            };
            let mut whole = TileChange {
                tiles: Vec::new(),
                frames: Vec::new(),
                ..change.clone()
            };
            let parts = change_parts(change.clone());
            assert_eq!(parts.len() > 1, tiles + frames > 1_000);
            for body in parts {
                let at = Timestamp::from_unix_nanos(i64::MAX);
                let data = seal_content(&"n".repeat(128), body, at);
                assert!(data.len() <= MAX_ENVELOPE_BYTES, "{}", data.len());
                let Some(Body::TileChange(part)) = open(Topic::Map, &data).unwrap().body else {
                    panic!("another body");
                };
                whole.tiles.extend(part.tiles);
                whole.frames.extend(part.frames);
            }
            assert_eq!(whole, change);
        }
    }

    #[test]
    fn the_phases_of_a_round_have_ids_of_their_own_in_the_mesh_and_on_the_bus() {
        let open = RoundRecord {
            round_id: "r-1".to_owned(),
            phase: RoundPhase::Open.into(),
            ..RoundRecord::default()
        };
        let closed = RoundRecord {
            phase: RoundPhase::Closed.into(),
            ..open.clone()
        };
        assert_ne!(round_message_id("p", &open), round_message_id("p", &closed));
        let id = |record: &RoundRecord, at| {
            let data = seal_content(
                "n",
                Body::Round(record.clone()),
                Timestamp::from_unix_nanos(at),
            );
            Envelope::decode(data.as_slice()).unwrap().message_id
        };
        assert_ne!(id(&open, 1), id(&closed, 1));
        assert_eq!(id(&open, 1), id(&open, 2));
    }
}
