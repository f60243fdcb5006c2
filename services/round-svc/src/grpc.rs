//! The gRPC service `sovereign.round.v1.Rounds`.

use std::time::Duration;

use sovereign_bus::{Bus, Key};
use sovereign_model::{Digest, Timestamp};
use sovereign_proto::checkpoint::v1::checkpoints_client::CheckpointsClient;
use sovereign_proto::checkpoint::v1::{GetRequest, get_request};
use sovereign_proto::round::v1::rounds_server::{Rounds, RoundsServer};
use sovereign_proto::round::v1::{
    ListRoundsRequest, ListRoundsResponse, OpenRoundRequest, OpenRoundResponse, Round as WireRound,
    RoundPhase, RoundRecord,
};
use sovereign_proto::topics::ROUND_RECORD;
use sovereign_service::{Channel, MAX_MESSAGE_BYTES, status_of};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::domain::{Round, Wanted};
use crate::error::{RoundError, StoreError};
use crate::metrics::Metrics;
use crate::service::now;
use crate::store::Store;

/// The checkpoint store answers within this time, or the round is not opened.
const CHECKPOINTS_TIMEOUT: Duration = Duration::from_secs(10);

/// The calls, over the store and the bus.
#[derive(Debug)]
pub(crate) struct RoundCalls {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) checkpoints: CheckpointsClient<Channel>,
    pub(crate) default_timeout: Duration,
    pub(crate) node_id: String,
    pub(crate) metrics: Metrics,
}

impl RoundCalls {
    pub(crate) fn routes(self) -> Routes {
        Routes::new(
            RoundsServer::new(self)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    async fn open(&self, request: OpenRoundRequest) -> Result<Round, RoundError> {
        let wanted = Wanted::new(
            &request.model_digest,
            request.min_participants,
            request.timeout_secs,
            self.default_timeout,
        )
        .map_err(RoundError::Impossible)?;
        self.check_model(wanted.model).await?;
        let round_id = Uuid::new_v4().to_string();
        let round = wanted
            .open(round_id, self.node_id.clone(), now())
            .map_err(RoundError::Impossible)?;
        let key = Key::parse(&round.round_id).ok();
        let record = record_from_round(&round);
        self.bus
            .append(&ROUND_RECORD, key.as_ref(), &round.round_id, &record)
            .await
            .map_err(RoundError::Append)?;
        // The record also comes back over the topic; here, so that the next list shows it.
        let (store, kept) = (self.store.clone(), round.clone());
        blocking(move || store.insert(&kept, kept.opened)).await?;
        Ok(round)
    }

    /// Metadata is enough: it is sent only for a checkpoint whose bytes are there.
    async fn check_model(&self, model: Digest) -> Result<(), RoundError> {
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
        let response = self.checkpoints.clone().get(request).await;
        let mut parts = response.map_err(failed)?.into_inner();
        match parts.message().await.map_err(failed)? {
            Some(_meta) => Ok(()),
            None => Err(RoundError::NoModel(model)),
        }
    }
}

#[tonic::async_trait]
impl Rounds for RoundCalls {
    async fn list_records(
        &self,
        _: tonic::Request<sovereign_proto::round::v1::ListRecordsRequest>,
    ) -> Result<tonic::Response<sovereign_proto::round::v1::ListRecordsResponse>, tonic::Status>
    {
        Err(tonic::Status::unimplemented("not yet"))
    }

    async fn open_round(
        &self,
        request: Request<OpenRoundRequest>,
    ) -> Result<Response<OpenRoundResponse>, Status> {
        match self.open(request.into_inner()).await {
            Ok(round) => {
                self.metrics.opened.inc();
                tracing::info!(round = round.round_id, model = %round.model, "round open");
                Ok(Response::new(OpenRoundResponse {
                    record: Some(record_from_round(&round)),
                }))
            }
            Err(error) => {
                self.metrics.refused.inc();
                Err(status_of(&error))
            }
        }
    }

    async fn list_rounds(
        &self,
        _request: Request<ListRoundsRequest>,
    ) -> Result<Response<ListRoundsResponse>, Status> {
        let store = self.store.clone();
        match blocking(move || store.list()).await {
            Ok(rounds) => Ok(Response::new(ListRoundsResponse {
                rounds: rounds.into_iter().map(wire_from_round).collect(),
            })),
            Err(error) => Err(status_of(&error)),
        }
    }
}

/// The store is read and written on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RoundError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(RoundError::Blocking(error)),
    }
}

fn record_from_round(round: &Round) -> RoundRecord {
    RoundRecord {
        round_id: round.round_id.clone(),
        phase: RoundPhase::Open.into(),
        model_digest: round.model.to_hex(),
        min_participants: round.min_participants,
        opened_unix_nanos: round.opened.as_unix_nanos(),
        closes_unix_nanos: round.closes.as_unix_nanos(),
        node_id: round.node_id.clone(),
    }
}

/// The round of a record; absent when its phase or digest is none.
pub(crate) fn round_from_record(origin: String, record: RoundRecord) -> Option<Round> {
    if record.phase() != RoundPhase::Open {
        return None;
    }
    Some(Round {
        origin,
        model: Digest::from_hex(&record.model_digest).ok()?,
        min_participants: record.min_participants,
        opened: Timestamp::from_unix_nanos(record.opened_unix_nanos),
        closes: Timestamp::from_unix_nanos(record.closes_unix_nanos),
        round_id: record.round_id,
        node_id: record.node_id,
    })
}

fn wire_from_round(round: Round) -> WireRound {
    WireRound {
        record: Some(record_from_round(&round)),
        origin_peer_id: round.origin,
    }
}
