//! Which envelopes of a peer are believed.
//!
//! GossipSub has verified the signature before; here the content is held against the contract. What
//! is refused is neither delivered nor forwarded, so nothing malformed crosses an honest node.

use sovereign_model::{Digest, Version, geo::TileCoord};

/// Largest envelope that travels, the size rust-libp2p has always used for a message.
pub(crate) const MAX_ENVELOPE_BYTES: usize = 64 << 10;
const MAX_MESSAGE_ID_BYTES: usize = 64;
const MAX_NODE_ID_BYTES: usize = 128;
const MAX_NAME_BYTES: usize = 128;
pub(crate) const MAX_HELLO_ADDRS: usize = 16;
const MAX_ADDR_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// Rounds, checkpoints, hellos and published bytes; named by the configuration.
    Rounds,
    Map,
}

impl Topic {
    pub(crate) const ALL: [Topic; 2] = [Topic::Rounds, Topic::Map];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Payload,
    TileChange,
    Checkpoint,
    Round,
    Hello,
}

impl Kind {
    pub(crate) fn topic(self) -> Topic {
        match self {
            Kind::Payload | Kind::Checkpoint | Kind::Round | Kind::Hello => Topic::Rounds,
            Kind::TileChange => Topic::Map,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Kind::Payload => "payload",
            Kind::TileChange => "tile_change",
            Kind::Checkpoint => "checkpoint",
            Kind::Round => "round",
            Kind::Hello => "hello",
        }
    }
}

/// An envelope as a peer claims it, not believed yet.
#[derive(Debug, Clone)]
pub(crate) struct Claim<'a> {
    pub(crate) message_id: &'a str,
    pub(crate) published_unix_nanos: i64,
    pub(crate) node_id: &'a str,
    pub(crate) body: Option<BodyClaim<'a>>,
}

/// The body of a claim: the fields that have rules.
#[derive(Debug, Clone)]
pub(crate) enum BodyClaim<'a> {
    Payload,
    TileChange {
        sequence: u64,
        layer: &'a str,
        names: Vec<&'a str>,
        tiles: Vec<TileClaim<'a>>,
    },
    Checkpoint {
        version: &'a str,
        digest: &'a str,
        cid: &'a str,
    },
    Round {
        round_id: &'a str,
        phase: PhaseClaim,
        model_digest: &'a str,
        min_participants: u32,
        opened_unix_nanos: i64,
        closes_unix_nanos: i64,
        node_id: &'a str,
    },
    Hello {
        mode: &'a str,
        listen_addrs: &'a [String],
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PhaseClaim {
    Absent,
    Known,
    /// There is one that this version does not know.
    Unknown,
}

#[derive(Debug, Clone)]
pub(crate) struct TileClaim<'a> {
    pub(crate) zxy: Option<(u32, u32, u32)>,
    pub(crate) digest: &'a [u8],
}

impl BodyClaim<'_> {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            BodyClaim::Payload => Kind::Payload,
            BodyClaim::TileChange { .. } => Kind::TileChange,
            BodyClaim::Checkpoint { .. } => Kind::Checkpoint,
            BodyClaim::Round { .. } => Kind::Round,
            BodyClaim::Hello { .. } => Kind::Hello,
        }
    }
}

/// Why an envelope is refused; also the label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    Undecodable,
    /// The message id is empty, too long, or has other characters than `[A-Za-z0-9_-]`.
    MessageId,
    /// The time of publication is not after the epoch.
    PublishedTime,
    /// The name of the node is too long or not printable.
    NodeId,
    /// No body that this version knows; ignored, because a later one may.
    Body,
    /// A body that does not travel on this topic.
    Topic,
    /// A tile change that no store can have committed.
    TileChange,
    /// A checkpoint whose version, digest and content id cannot be.
    Checkpoint,
    Round,
    /// A round in a phase that this version does not know; ignored, because a later one may.
    Phase,
    /// A hello of an unknown mode, or with addresses over the limits.
    Hello,
    /// The author says more than [`super::rate::AUTHOR`]; ignored, and the forwarder is not to blame.
    AuthorRate,
    /// The forwarder brings more than [`super::rate::FORWARDER`]; ignored as well.
    ForwarderRate,
}

impl Refusal {
    /// Whether what is refused may be right in a later version of the protocol, so that whoever brings it
    /// is not to blame.
    pub(crate) fn is_unknown(self) -> bool {
        matches!(self, Refusal::Body | Refusal::Phase)
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Refusal::Undecodable => "undecodable",
            Refusal::MessageId => "message_id",
            Refusal::PublishedTime => "published_time",
            Refusal::NodeId => "node_id",
            Refusal::Body => "body",
            Refusal::Topic => "topic",
            Refusal::TileChange => "tile_change",
            Refusal::Checkpoint => "checkpoint",
            Refusal::Round => "round",
            Refusal::Phase => "phase",
            Refusal::Hello => "hello",
            Refusal::AuthorRate => "author_rate",
            Refusal::ForwarderRate => "forwarder_rate",
        }
    }
}

/// Holds a claim against the contract and the allow-list of its topic; the first rule that it breaks.
pub(crate) fn admit(topic: Topic, claim: &Claim<'_>) -> Result<Kind, Refusal> {
    check(
        is_token(claim.message_id, MAX_MESSAGE_ID_BYTES),
        Refusal::MessageId,
    )?;
    check(claim.published_unix_nanos > 0, Refusal::PublishedTime)?;
    check(
        is_printable(claim.node_id, MAX_NODE_ID_BYTES),
        Refusal::NodeId,
    )?;
    let body = claim.body.as_ref().ok_or(Refusal::Body)?;
    check(body.kind().topic() == topic, Refusal::Topic)?;
    match body {
        BodyClaim::Payload => {}
        BodyClaim::TileChange {
            sequence,
            layer,
            names,
            tiles,
        } => {
            let is_name = |name: &&str| is_printable(name, MAX_NAME_BYTES);
            let named = !layer.is_empty() && is_name(layer) && names.iter().all(is_name);
            check(*sequence > 0 && named, Refusal::TileChange)?;
            check(tiles.iter().all(is_tile), Refusal::TileChange)?;
        }
        BodyClaim::Checkpoint {
            version,
            digest,
            cid,
        } => {
            let digest = Digest::from_hex(digest).map_err(|_| Refusal::Checkpoint)?;
            let named = Version::parse(version).is_ok();
            check(named && digest.cid() == *cid, Refusal::Checkpoint)?;
        }
        BodyClaim::Round {
            round_id,
            phase,
            model_digest,
            min_participants,
            opened_unix_nanos,
            closes_unix_nanos,
            node_id,
        } => {
            let named = is_token(round_id, MAX_MESSAGE_ID_BYTES)
                && is_printable(node_id, MAX_NODE_ID_BYTES);
            let timed = *opened_unix_nanos > 0 && closes_unix_nanos > opened_unix_nanos;
            let possible = *phase != PhaseClaim::Absent && *min_participants >= 1;
            let modelled = Digest::from_hex(model_digest).is_ok();
            check(named && timed && possible && modelled, Refusal::Round)?;
            check(*phase == PhaseClaim::Known, Refusal::Phase)?;
        }
        BodyClaim::Hello { mode, listen_addrs } => {
            let short = listen_addrs.len() <= MAX_HELLO_ADDRS
                && listen_addrs.iter().all(|a| a.len() <= MAX_ADDR_BYTES);
            check(matches!(*mode, "start" | "join") && short, Refusal::Hello)?;
        }
    }
    Ok(body.kind())
}

fn check(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

fn is_token(text: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Names go to logs and pages of other nodes, so control characters are refused.
fn is_printable(text: &str, max_bytes: usize) -> bool {
    text.len() <= max_bytes && !text.chars().any(char::is_control)
}

fn is_tile(tile: &TileClaim<'_>) -> bool {
    let possible = tile
        .zxy
        .is_some_and(|(z, x, y)| u8::try_from(z).is_ok_and(|z| TileCoord::new(z, x, y).is_some()));
    // Without a digest the tile is gone.
    possible && matches!(tile.digest.len(), 0 | 32)
}

#[cfg(test)]
mod tests;
