//! Generated types and ours: records, and the question for a model.

use std::time::Duration;

use sovereign_model::{Digest, Timestamp};
use sovereign_proto::checkpoint::v1::checkpoints_client::CheckpointsClient;
use sovereign_proto::checkpoint::v1::{GetRequest, get_request};
pub(crate) use sovereign_proto::mesh::v1::PeerRound;
use sovereign_proto::round::v1::{RecordEntry, Round as WireRound, RoundPhase, RoundRecord};
use sovereign_service::{Channel, limited};
use tonic::{Code, Request, Status};

use crate::domain::{Phase, Round, Terms};
use crate::error::RoundError;

/// The checkpoint store answers within this time, or the round is not opened.
const CHECKPOINTS_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Models(CheckpointsClient<Channel>);

impl Models {
    pub(crate) fn new(checkpoints: Channel) -> Self {
        Self(limited!(CheckpointsClient::new(checkpoints)))
    }

    /// Metadata is enough: it is sent only for a checkpoint whose bytes are there.
    pub(crate) async fn check(&self, model: Digest) -> Result<(), RoundError> {
        let mut request = Request::new(GetRequest {
            key: Some(get_request::Key::Digest(model.to_hex())),
        });
        request.set_timeout(CHECKPOINTS_TIMEOUT);
        let failed = |status: Status| {
            if status.code() == Code::NotFound {
                RoundError::NoModel(model)
            } else {
                RoundError::Checkpoints(Box::new(status))
            }
        };
        let response = self.0.clone().get(request).await;
        let mut parts = response.map_err(failed)?.into_inner();
        match parts.message().await.map_err(failed)? {
            Some(_meta) => Ok(()),
            None => Err(RoundError::NoModel(model)),
        }
    }
}

pub(crate) fn record_from_round(round: &Round) -> RoundRecord {
    let phase = match round.phase {
        Phase::Open => RoundPhase::Open,
        Phase::Closed => RoundPhase::Closed,
    };
    let terms = &round.terms;
    RoundRecord {
        round_id: terms.round_id.clone(),
        phase: phase.into(),
        model_digest: terms.model.to_hex(),
        min_participants: terms.min_participants,
        opened_unix_nanos: terms.opened.as_unix_nanos(),
        closes_unix_nanos: terms.closes.as_unix_nanos(),
        node_id: terms.node_id.clone(),
    }
}

/// The round of a record; absent when its phase or digest is none.
pub(crate) fn round_from_record(origin: String, record: RoundRecord) -> Option<Round> {
    let phase = match record.phase() {
        RoundPhase::Open => Phase::Open,
        RoundPhase::Closed => Phase::Closed,
        RoundPhase::Unspecified => return None,
    };
    let terms = Terms {
        origin,
        model: Digest::from_hex(&record.model_digest).ok()?,
        min_participants: record.min_participants,
        opened: Timestamp::from_unix_nanos(record.opened_unix_nanos),
        closes: Timestamp::from_unix_nanos(record.closes_unix_nanos),
        round_id: record.round_id,
        node_id: record.node_id,
    };
    Some(Round { terms, phase })
}

pub(crate) fn wire_from_round(round: Round) -> WireRound {
    WireRound {
        record: Some(record_from_round(&round)),
        origin_peer_id: round.terms.origin,
    }
}

pub(crate) fn entry_from_record((sequence, round): (u64, Round)) -> RecordEntry {
    RecordEntry {
        sequence,
        record: Some(record_from_round(&round)),
    }
}
