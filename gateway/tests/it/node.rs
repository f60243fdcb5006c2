//! A gateway on a bus of its own, and waiting for what it does.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_gateway::{Config, GatewayService, Mode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sovereign_bus::{Bus, Key, Mailbox};
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_proto::mesh::v1::{
    GetNodeRequest, GetNodeResponse, ListPeersRequest, MeshMessage, Peer, PeerTileChange,
    PublishRequest, SubscribeRequest,
};
use sovereign_proto::tile::v1::TileChange;
use sovereign_proto::topics::{CHECKPOINT_STORED, ROUND_RECORD, TILE_CHANGED};
use sovereign_service::{Channel, Context, Metrics, RunError, Service, StopSource};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use crate::owners::Owners;

pub(crate) const ROUNDS: &str = "fl.rounds";
/// Longest wait for anything; ten nodes share few cores with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";

pub(crate) struct Node {
    pub(crate) mesh: MeshClient<Channel>,
    pub(crate) bus: Bus,
    pub(crate) owners: Owners,
    registry: Arc<Mutex<Registry>>,
    stop: StopSource,
    running: JoinSet<Result<(), RunError>>,
}

pub(crate) fn bus(dir: &Path, name: &str) -> Bus {
    Bus::memory(&dir.join("journal.redb"), name).unwrap()
}

pub(crate) fn listening(on: &str) -> Config {
    Config {
        listen: vec![on.to_owned()],
        ..Config::default()
    }
}

pub(crate) fn joining(on: &str, seed: &GetNodeResponse) -> Config {
    Config {
        bootstrap: seed.listen_addrs.clone(),
        mode: Mode::Join,
        ..listening(on)
    }
}

impl Node {
    pub(crate) async fn start(dir: &Path, name: &str, config: Config) -> Node {
        Node::start_with(dir, bus(dir, name), Owners::default(), name, config).await
    }

    pub(crate) async fn start_with(
        dir: &Path,
        bus: Bus,
        owners: Owners,
        name: &str,
        config: Config,
    ) -> Node {
        let registry = Arc::new(Mutex::new(Registry::default()));
        let context = Context {
            node: name.to_owned(),
            metrics: Metrics::new(registry.clone(), GatewayService::NAME),
            ..Context::for_tests(GatewayService::NAME, bus.clone(), dir)
        };
        let ready = context.ready.clone();
        let settings = GatewayService::settings(config).unwrap();
        let service = GatewayService::build(settings, owners.calls(), context)
            .await
            .unwrap();
        assert!(!service.addresses().is_empty());
        let mesh = MeshClient::new(Channel::local(service.routes()));
        let stop = StopSource::new();
        let mut running = JoinSet::new();
        running.spawn(service.run(stop.stop()));
        within(ready.wait()).await;
        Node {
            mesh,
            bus,
            owners,
            registry,
            stop,
            running,
        }
    }

    pub(crate) async fn me(&self) -> GetNodeResponse {
        let response = self.mesh.clone().get_node(GetNodeRequest {}).await;
        response.unwrap().into_inner()
    }

    pub(crate) async fn peers(&self) -> Vec<Peer> {
        let response = self.mesh.clone().list_peers(ListPeersRequest {}).await;
        response.unwrap().into_inner().peers
    }

    /// Waits until as many peers are subscribed to both topics.
    pub(crate) async fn wait_for_peers(&self, count: usize) {
        wait_until(&format!("{count} peers"), async || {
            let peers = self.peers().await;
            peers.iter().filter(|peer| peer.topics.len() == 2).count() >= count
        })
        .await;
    }

    pub(crate) async fn publish(&self, payload: &[u8]) -> Result<String, Status> {
        let request = PublishRequest {
            topic: ROUNDS.to_owned(),
            payload: payload.to_vec().into(),
        };
        let response = self.mesh.clone().publish(request).await?;
        Ok(response.into_inner().message_id)
    }

    pub(crate) async fn subscribe(&self) -> Streaming<MeshMessage> {
        let topic = ROUNDS.to_owned();
        let mut mesh = self.mesh.clone();
        let response = mesh.subscribe(SubscribeRequest { topic }).await;
        response.unwrap().into_inner()
    }

    /// Value of a counter or gauge, by its full line up to the value.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Says that each log has more; what it is the gateway asks for.
    pub(crate) async fn hint(&self) {
        let round = Key::parse("round").unwrap();
        let said = [
            self.bus
                .publish(&TILE_CHANGED, None, &Default::default())
                .await,
            self.bus
                .publish(&CHECKPOINT_STORED, None, &Default::default())
                .await,
            self.bus
                .publish(&ROUND_RECORD, Some(&round), &Default::default())
                .await,
        ];
        for published in said {
            published.unwrap();
        }
    }

    /// Stops, and leaves in `dir` of the gateway's files what was on disk before.
    pub(crate) async fn crash(self, dir: &Path, left: &Path) {
        for file in ["peer.key", "export.redb"] {
            std::fs::copy(dir.join(file), left.join(file)).unwrap();
        }
        self.stop().await;
    }

    pub(crate) async fn stop(mut self) {
        self.stop.request();
        let ended = within(self.running.join_next()).await.unwrap();
        ended.unwrap().unwrap();
        self.bus.close().await;
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("happens within the limit")
}

pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LIMIT, waiting).await.is_err() {
        panic!("did not happen within the limit: {what}");
    }
}

pub(crate) async fn next(stream: &mut Streaming<MeshMessage>) -> MeshMessage {
    within(stream.message()).await.unwrap().expect("a message")
}

pub(crate) async fn next_change(mailbox: &mut Mailbox<PeerTileChange>) -> (String, TileChange) {
    let event = within(mailbox.recv()).await.expect("the bus is open");
    let key = event.key.map(|key| key.as_str().to_owned());
    assert_eq!(key.as_deref(), Some(event.message.peer_id.as_str()));
    (event.message.peer_id, event.message.change.unwrap())
}

pub(crate) fn dirs(count: usize) -> Vec<TempDir> {
    let dir = |_| tempfile::tempdir().unwrap();
    (0..count).map(dir).collect()
}
