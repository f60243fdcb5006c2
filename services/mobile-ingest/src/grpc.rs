//! The gRPC service `Mobile`.

use std::sync::Arc;

use sovereign_proto::mobile::v1::mobile_server::Mobile;
use sovereign_proto::mobile::v1::{
    Client, GetIngestStatsRequest, GetIngestStatsResponse, ListClientsRequest, ListClientsResponse,
};
use tonic::{Request, Response, Status};

use crate::intake::Intake;
use crate::metrics::Metrics;

pub(crate) struct Api {
    pub(crate) intake: Arc<Intake>,
    pub(crate) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl Mobile for Api {
    async fn list_clients(
        &self,
        _: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        let clients = self
            .intake
            .clients()
            .iter()
            .map(|(id, client)| Client {
                client_id: id.to_string(),
                device_model: client.announcement.device_model.clone(),
                streams: client.announcement.streams.clone(),
                last_seen_unix_nanos: client.last_seen.map_or(0, |time| time.as_unix_nanos()),
            })
            .collect();
        Ok(Response::new(ListClientsResponse { clients }))
    }

    async fn get_ingest_stats(
        &self,
        _: Request<GetIngestStatsRequest>,
    ) -> Result<Response<GetIngestStatsResponse>, Status> {
        let accepted = self.metrics.accepted_by_stream();
        let rejected = self.metrics.rejected_by_reason();
        Ok(Response::new(GetIngestStatsResponse {
            accepted_total: accepted.values().sum(),
            rejected_total: rejected.values().sum(),
            accepted_by_type: accepted.into_iter().collect(),
            rejected_by_reason: rejected.into_iter().collect(),
        }))
    }
}
