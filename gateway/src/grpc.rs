//! The gRPC service `sovereign.mesh.v1.Mesh`.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use sovereign_proto::mesh::v1::envelope::Body;
use sovereign_proto::mesh::v1::mesh_server::{Mesh, MeshServer};
use sovereign_proto::mesh::v1::{
    GetNodeRequest, GetNodeResponse, ListPeersRequest, ListPeersResponse, MeshMessage, Peer,
    PublishRequest, PublishResponse, SubscribeRequest,
};
use sovereign_service::{Clock, limited, status_of};
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::address::transport_of;
use crate::domain::envelope::{Kind, Topic};
use crate::error::CallError;
use crate::metrics::Metrics;
use crate::swarm::{Client, PeerInfo};
use crate::topics::TopicNames;
use crate::wire::seal;

/// Subscriptions at a time; further calls fail with RESOURCE_EXHAUSTED.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 64;

type MessageStream = Pin<Box<dyn Stream<Item = Result<MeshMessage, Status>> + Send>>;

#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) names: TopicNames,
    pub(crate) node_id: String,
    pub(crate) network: String,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Weak, so that subscriptions end when the importer does.
    pub(crate) messages: broadcast::WeakSender<MeshMessage>,
    pub(crate) subscriptions: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn routes(self) -> Routes {
        Routes::new(limited!(MeshServer::new(self)))
    }

    fn joined(&self, topic: String) -> Result<Topic, CallError> {
        match self.names.named(&topic) {
            Some(Topic::Rounds) => Ok(Topic::Rounds),
            Some(Topic::Map) => Err(CallError::MapTopic { topic }),
            None => Err(CallError::UnknownTopic {
                topic,
                joined: self.names.all(),
            }),
        }
    }

    async fn publish_payload(&self, request: PublishRequest) -> Result<String, CallError> {
        let topic = self.joined(request.topic)?;
        if request.payload.is_empty() {
            return Err(CallError::EmptyPayload);
        }
        let message_id = Uuid::new_v4().to_string();
        let body = Body::Payload(request.payload);
        let data = seal(&self.node_id, message_id.clone(), body, self.clock.now());
        let published = self.client.publish(topic, data).await;
        published.map_err(|cause| CallError::Publish {
            topic: self.names.name(topic).to_owned(),
            cause,
        })?;
        self.metrics.count_published(Kind::Payload);
        Ok(message_id)
    }

    fn messages_on(&self, request: SubscribeRequest) -> Result<MessageStream, CallError> {
        let topic = self.joined(request.topic)?;
        let name = self.names.name(topic).to_owned();
        let permit = self.subscriptions.clone().try_acquire_owned();
        let permit = permit.map_err(|_| CallError::TooManySubscriptions {
            limit: MAX_SUBSCRIPTIONS,
        })?;
        let messages = self.messages.upgrade().ok_or(CallError::Restarting)?;
        let messages = BroadcastStream::new(messages.subscribe());
        let stream = messages.filter_map(move |message| {
            // The permit lives as long as the stream.
            let _permit = &permit;
            let message = match message {
                Ok(message) if message.topic == name => Some(Ok(message)),
                Ok(_of_another_topic) => None,
                Err(BroadcastStreamRecvError::Lagged(missed)) => {
                    Some(Err(status_of(&CallError::Lagged { missed })))
                }
            };
            std::future::ready(message)
        });
        Ok(Box::pin(stream))
    }
}

#[tonic::async_trait]
impl Mesh for Api {
    type SubscribeStream = MessageStream;

    async fn get_node(
        &self,
        _request: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        let listen = self.client.state().listen;
        Ok(Response::new(GetNodeResponse {
            peer_id: self.client.peer_id().to_base58(),
            listen_addrs: listen.iter().map(ToString::to_string).collect(),
            node_id: self.node_id.clone(),
            network: self.network.clone(),
            topics: self.names.all(),
        }))
    }

    async fn list_peers(
        &self,
        _request: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, Status> {
        let peers = self.client.peers().await;
        let peers = peers.ok_or_else(|| status_of(&CallError::Restarting))?;
        let peers = peers.into_iter().map(peer_from_info).collect();
        Ok(Response::new(ListPeersResponse { peers }))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        match self.publish_payload(request.into_inner()).await {
            Ok(message_id) => Ok(Response::new(PublishResponse { message_id })),
            Err(error) => Err(status_of(&error)),
        }
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<MessageStream>, Status> {
        match self.messages_on(request.into_inner()) {
            Ok(stream) => Ok(Response::new(stream)),
            Err(error) => Err(status_of(&error)),
        }
    }
}

fn peer_from_info(info: PeerInfo) -> Peer {
    Peer {
        peer_id: info.peer_id.to_base58(),
        transport: transport_of(&info.address).to_owned(),
        address: info.address.to_string(),
        topics: info.topics,
        agent: info.agent,
    }
}
