//! The gRPC service `sovereign.round.v1.Rounds`.

use std::time::Duration;

use sovereign_proto::round::v1::rounds_server::{Rounds, RoundsServer};
use sovereign_proto::round::v1::{
    ListRecordsRequest, ListRecordsResponse, ListRoundsRequest, ListRoundsResponse,
    OpenRoundRequest, OpenRoundResponse,
};
use sovereign_service::{limited, status_of};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::domain::{Round, Wanted};
use crate::error::RoundError;
use crate::ledger::Ledger;
use crate::wire::{entry_from_record, record_from_round, wire_from_round};

const DEFAULT_RECORDS: usize = 100;
const MAX_RECORDS: usize = 1000;

#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) ledger: Ledger,
    pub(crate) default_timeout: Duration,
}

impl Api {
    pub(crate) fn routes(self) -> Routes {
        Routes::new(limited!(RoundsServer::new(self)))
    }

    async fn open(&self, request: OpenRoundRequest) -> Result<Round, RoundError> {
        let wanted = Wanted::new(
            &request.model_digest,
            request.min_participants,
            request.timeout_secs,
            self.default_timeout,
        )
        .map_err(RoundError::Impossible)?;
        self.ledger.open(wanted).await
    }
}

#[tonic::async_trait]
impl Rounds for Api {
    async fn open_round(
        &self,
        request: Request<OpenRoundRequest>,
    ) -> Result<Response<OpenRoundResponse>, Status> {
        match self.open(request.into_inner()).await {
            Ok(round) => {
                tracing::info!(round = round.terms.round_id, model = %round.terms.model, "round open");
                let record = Some(record_from_round(&round));
                Ok(Response::new(OpenRoundResponse { record }))
            }
            Err(error) => {
                self.ledger.metrics.refused.inc();
                Err(status_of(&error))
            }
        }
    }

    async fn list_rounds(
        &self,
        _request: Request<ListRoundsRequest>,
    ) -> Result<Response<ListRoundsResponse>, Status> {
        let rounds = self.ledger.list().await.map_err(|e| status_of(&e))?;
        let rounds = rounds.into_iter().map(wire_from_round).collect();
        Ok(Response::new(ListRoundsResponse { rounds }))
    }

    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let ListRecordsRequest { after, limit } = request.into_inner();
        let limit = match limit {
            0 => DEFAULT_RECORDS,
            limit => (limit as usize).min(MAX_RECORDS),
        };
        let records = self.ledger.records(after, limit).await;
        let records = records.map_err(|error| status_of(&error))?;
        Ok(Response::new(ListRecordsResponse {
            entries: records.entries.into_iter().map(entry_from_record).collect(),
            oldest_kept: records.oldest_kept,
        }))
    }
}
