//! The gateway over real loopback QUIC and TCP.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, gossipsub, identify, noise, tcp, yamux};
use mesh_gateway::{Calls, Config, GatewayService, MAP_TOPIC, Mode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sovereign_bus::{Bus, Key, Mailbox, Select};
use sovereign_model::Digest;
use sovereign_proto::checkpoint::v1::CheckpointMeta;
use sovereign_proto::geo::v1::TileCoord;
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_proto::mesh::v1::{
    GetNodeRequest, GetNodeResponse, ListPeersRequest, MeshMessage, Peer, PeerTileChange,
    PublishRequest, SubscribeRequest,
};
use sovereign_proto::round::v1::{RoundPhase, RoundRecord};
use sovereign_proto::tile::v1::tiles_server::{Tiles, TilesServer};
use sovereign_proto::tile::v1::{
    ChangedTile, GetPaintStatsRequest, GetPaintStatsResponse, GetTileRequest, GetTileResponse,
    Layer, ListChangesRequest, ListChangesResponse, ListLayersRequest, ListLayersResponse,
    TileChange,
};
use sovereign_proto::topics::{
    CHECKPOINT_STORED, MESH_CHECKPOINT, MESH_MESSAGE, MESH_ROUND, MESH_TILE, ROUND_RECORD,
    TILE_CHANGED,
};
use sovereign_service::{Channel, Context, Metrics, RunError, Service, StopSource};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

const ROUNDS: &str = "fl.rounds";
/// Longest wait for anything; ten nodes share few cores with other tests.
const LIMIT: Duration = Duration::from_secs(90);
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// A tile store that keeps what it is told.
#[derive(Clone, Default)]
struct TileStore {
    changes: Arc<Mutex<Vec<TileChange>>>,
}

impl TileStore {
    fn commit(&self, tiles: u32) -> TileChange {
        let mut changes = self.changes.lock().unwrap();
        let sequence = changes.len() as u64 + 1;
        let tile = |x| ChangedTile {
            coord: Some(TileCoord { z: 20, x, y: 3 }),
            digest: Digest::of(format!("{sequence} {x}").as_bytes())
                .as_bytes()
                .to_vec()
                .into(),
        };
        let change = TileChange {
            sequence,
            layer: "imagery".to_owned(),
            frame_id: Digest::of(&sequence.to_le_bytes()).to_hex(),
            sensor_id: "sys-1".to_owned(),
            tiles: (0..tiles).map(tile).collect(),
            committed_unix_nanos: 1_000,
            latency_nanos: 10,
            simulated: true,
        };
        changes.push(change.clone());
        change
    }
}

#[tonic::async_trait]
impl Tiles for TileStore {
    async fn list_layers(
        &self,
        _: Request<ListLayersRequest>,
    ) -> Result<Response<ListLayersResponse>, Status> {
        let layer = Layer {
            name: "imagery".to_owned(),
            last_change: self.changes.lock().unwrap().len() as u64,
            ..Layer::default()
        };
        Ok(Response::new(ListLayersResponse {
            layers: vec![layer],
        }))
    }

    async fn get_tile(
        &self,
        _: Request<GetTileRequest>,
    ) -> Result<Response<GetTileResponse>, Status> {
        Err(Status::not_found("no pictures here"))
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let ListChangesRequest { after, limit } = request.into_inner();
        let changes = self.changes.lock().unwrap();
        let newer = changes.iter().filter(|change| change.sequence > after);
        Ok(Response::new(ListChangesResponse {
            changes: newer.take(limit as usize).cloned().collect(),
            oldest_kept: 1,
        }))
    }

    async fn get_paint_stats(
        &self,
        _: Request<GetPaintStatsRequest>,
    ) -> Result<Response<GetPaintStatsResponse>, Status> {
        Err(Status::unimplemented("nothing is painted here"))
    }
}

struct Node {
    mesh: MeshClient<Channel>,
    bus: Bus,
    tiles: TileStore,
    registry: Arc<Mutex<Registry>>,
    stop: StopSource,
    running: JoinSet<Result<(), RunError>>,
}

fn bus(dir: &Path, name: &str) -> Bus {
    Bus::memory(&dir.join("journal.redb"), name).unwrap()
}

fn listening(on: &str) -> Config {
    Config {
        listen: vec![on.to_owned()],
        ..Config::default()
    }
}

fn joining(on: &str, seed: &GetNodeResponse) -> Config {
    Config {
        bootstrap: seed.listen_addrs.clone(),
        mode: Mode::Join,
        ..listening(on)
    }
}

impl Node {
    async fn start(dir: &Path, name: &str, config: Config) -> Node {
        Node::start_with(dir, bus(dir, name), TileStore::default(), name, config).await
    }

    async fn start_with(
        dir: &Path,
        bus: Bus,
        tiles: TileStore,
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
        let calls = Calls {
            tiles: Channel::local(Routes::new(TilesServer::new(tiles.clone()))),
        };
        let service = GatewayService::build(config, calls, context).await.unwrap();
        assert!(!service.addresses().is_empty());
        let mesh = MeshClient::new(Channel::local(service.routes()));
        let stop = StopSource::new();
        let mut running = JoinSet::new();
        running.spawn(service.run(stop.stop()));
        within(ready.wait()).await;
        Node {
            mesh,
            bus,
            tiles,
            registry,
            stop,
            running,
        }
    }

    async fn me(&self) -> GetNodeResponse {
        let response = self.mesh.clone().get_node(GetNodeRequest {}).await;
        response.unwrap().into_inner()
    }

    async fn peers(&self) -> Vec<Peer> {
        let response = self.mesh.clone().list_peers(ListPeersRequest {}).await;
        response.unwrap().into_inner().peers
    }

    /// Waits until as many peers are subscribed to both topics.
    async fn wait_for_peers(&self, count: usize) {
        wait_until(&format!("{count} peers"), async || {
            let peers = self.peers().await;
            peers.iter().filter(|peer| peer.topics.len() == 2).count() >= count
        })
        .await;
    }

    async fn publish(&self, payload: &[u8]) -> Result<String, Status> {
        let request = PublishRequest {
            topic: ROUNDS.to_owned(),
            payload: payload.to_vec().into(),
        };
        let response = self.mesh.clone().publish(request).await?;
        Ok(response.into_inner().message_id)
    }

    async fn subscribe(&self) -> Streaming<MeshMessage> {
        let topic = ROUNDS.to_owned();
        let mut mesh = self.mesh.clone();
        let response = mesh.subscribe(SubscribeRequest { topic }).await;
        response.unwrap().into_inner()
    }

    /// Value of a counter or gauge, by its full line up to the value.
    fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    async fn stop(mut self) {
        self.stop.request();
        let ended = within(self.running.join_next()).await.unwrap();
        ended.unwrap().unwrap();
        self.bus.close().await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("happens within the limit")
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LIMIT, waiting).await.is_err() {
        panic!("did not happen within the limit: {what}");
    }
}

async fn next(stream: &mut Streaming<MeshMessage>) -> MeshMessage {
    within(stream.message()).await.unwrap().expect("a message")
}

async fn next_change(mailbox: &mut Mailbox<PeerTileChange>) -> (String, TileChange) {
    let event = within(mailbox.recv()).await.expect("the bus is open");
    let key = event.key.map(|key| key.as_str().to_owned());
    assert_eq!(key.as_deref(), Some(event.message.peer_id.as_str()));
    (event.message.peer_id, event.message.change.unwrap())
}

fn dirs(count: usize) -> Vec<TempDir> {
    let dir = |_| tempfile::tempdir().unwrap();
    (0..count).map(dir).collect()
}

async fn a_message_crosses(on: &str, transport: &str) {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "north", listening(on)).await;
    let me = a.me().await;
    assert!(me.listen_addrs[0].ends_with(&format!("/p2p/{}", me.peer_id)));
    assert_eq!(me.network, "sovereign-testnet");
    assert_eq!(me.topics, [ROUNDS, MAP_TOPIC]);
    let b = Node::start(dirs[1].path(), "south", joining(on, &me)).await;
    a.wait_for_peers(1).await;
    b.wait_for_peers(1).await;
    wait_until("the name of the seed", async || {
        b.peers().await[0].agent == "north"
    })
    .await;
    let peer = b.peers().await.remove(0);
    assert_eq!(peer.peer_id, me.peer_id);
    assert_eq!(peer.transport, transport);
    assert_eq!(peer.topics, [ROUNDS, MAP_TOPIC]);

    let mut on_bus = b.bus.subscribe(&MESH_MESSAGE, Select::All).await.unwrap();
    let (mut at_a, mut at_b) = (a.subscribe().await, b.subscribe().await);
    let first = a.publish(b"one").await.unwrap();
    let second = a.publish(b"two").await.unwrap();
    for (id, payload) in [(first, b"one"), (second, b"two")] {
        let message = next(&mut at_b).await;
        assert_eq!(message.message_id, id);
        assert_eq!(message.origin_peer_id, me.peer_id);
        assert_eq!(message.topic, ROUNDS);
        assert_eq!(message.payload, payload.as_slice());
        assert!(message.published_unix_nanos > 0);
        let event = within(on_bus.recv()).await.unwrap();
        assert_eq!(event.key.unwrap().as_str(), me.peer_id);
        assert_eq!(event.message, message);
    }
    b.publish(b"back").await.unwrap();
    assert_eq!(next(&mut at_a).await.payload, b"back".as_slice());

    b.stop().await;
    assert!(within(at_b.message()).await.unwrap().is_none());
    a.stop().await;
}

#[tokio::test]
async fn a_message_reaches_the_other_node_once_over_quic() {
    a_message_crosses(QUIC, "quic").await;
}

#[tokio::test]
async fn a_message_reaches_the_other_node_once_over_tcp() {
    a_message_crosses(TCP, "tcp").await;
}

#[tokio::test]
async fn ten_nodes_that_know_one_seed_become_a_mesh_that_outlives_it() {
    let dirs = dirs(10);
    let seed = Config {
        listen: vec![QUIC.to_owned(), TCP.to_owned()],
        ..Config::default()
    };
    let seed = Node::start(dirs[0].path(), "seed", seed).await;
    let at = seed.me().await;
    let mut nodes = Vec::new();
    for (number, dir) in dirs.iter().enumerate().skip(1) {
        let on = if number % 2 == 0 { QUIC } else { TCP };
        let both = Config {
            listen: vec![QUIC.to_owned(), TCP.to_owned()],
            bootstrap: at
                .listen_addrs
                .iter()
                .filter(|addr| addr.contains("quic") == (on == QUIC))
                .cloned()
                .collect(),
            mode: Mode::Join,
            ..Config::default()
        };
        nodes.push(Node::start(dir.path(), &format!("node-{number}"), both).await);
    }
    seed.wait_for_peers(9).await;
    for node in &nodes {
        node.wait_for_peers(5).await;
    }
    let transports: BTreeSet<String> = seed
        .peers()
        .await
        .into_iter()
        .map(|p| p.transport)
        .collect();
    assert_eq!(transports.len(), 2, "both transports are in use");

    let mut streams = Vec::new();
    for node in &nodes {
        streams.push(node.subscribe().await);
    }
    let mut at_seed = seed.subscribe().await;
    let ids = [
        nodes[4].publish(b"from a leaf").await.unwrap(),
        nodes[4].publish(b"and again").await.unwrap(),
    ];
    for (number, stream) in streams.iter_mut().enumerate() {
        if number != 4 {
            for id in &ids {
                assert_eq!(next(stream).await.message_id, *id, "node {number}");
            }
        }
    }
    for id in &ids {
        assert_eq!(next(&mut at_seed).await.message_id, *id);
    }

    seed.stop().await;
    let last = nodes[0].publish(b"without the seed").await.unwrap();
    for stream in &mut streams[1..] {
        // The next message, so none of the earlier ones came twice.
        assert_eq!(next(stream).await.message_id, last);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_tile_change_appears_on_the_bus_of_the_others_under_the_peer() {
    let dirs = dirs(3);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let at = a.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &at)).await;
    let c = Node::start(dirs[2].path(), "c", joining(QUIC, &at)).await;
    a.wait_for_peers(2).await;
    let mut at_b = b.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    let key = Key::parse(&at.peer_id).unwrap();
    let mut at_c = c.bus.subscribe(&MESH_TILE, Select::Key(key)).await.unwrap();
    let mut back = a.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();

    let change = a.tiles.commit(3);
    a.bus.publish(&TILE_CHANGED, None, &change).await.unwrap();
    for mailbox in [&mut at_b, &mut at_c] {
        let (peer, received) = next_change(mailbox).await;
        assert_eq!((peer, received), (at.peer_id.clone(), change.clone()));
    }
    // What came from the mesh does not go back: the next thing that a hears is of c itself.
    c.wait_for_peers(1).await;
    let own = c.tiles.commit(1);
    c.bus.publish(&TILE_CHANGED, None, &own).await.unwrap();
    let (peer, received) = next_change(&mut back).await;
    assert_eq!((peer, received), (c.me().await.peer_id, own));
    for node in [a, b, c] {
        node.stop().await;
    }
}

fn round(id: &str) -> RoundRecord {
    RoundRecord {
        round_id: id.to_owned(),
        phase: RoundPhase::Open.into(),
        model_digest: Digest::of(b"model").to_hex(),
        min_participants: 2,
        opened_unix_nanos: 1_000,
        closes_unix_nanos: 2_000,
        node_id: "island".to_owned(),
    }
}

fn checkpoint(version: &str) -> CheckpointMeta {
    let digest = Digest::of(version.as_bytes());
    CheckpointMeta {
        version: version.to_owned(),
        digest: digest.to_hex(),
        cid: digest.cid(),
        size_bytes: 5,
        created_unix_nanos: 1_000,
        backend: "filesystem".to_owned(),
    }
}

#[tokio::test]
async fn what_an_island_does_arrives_after_a_peer_connects_and_only_once() {
    let dirs = dirs(2);
    let island = Node::start(dirs[0].path(), "island", listening(TCP)).await;
    // More than a page of changes, and no hint: the cursor alone finds them.
    let changes: Vec<TileChange> = (0..130).map(|_| island.tiles.commit(2)).collect();
    for id in ["r-1", "r-2"] {
        let key = Key::parse(id).unwrap();
        let record = round(id);
        let appended = island.bus.append(&ROUND_RECORD, Some(&key), id, &record);
        appended.await.unwrap();
    }
    let meta = checkpoint("v1");
    let appended = island.bus.append(&CHECKPOINT_STORED, None, "v1", &meta);
    appended.await.unwrap();

    let peer_bus = bus(dirs[1].path(), "peer");
    let mut tiles = peer_bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    let mut checkpoints = peer_bus
        .subscribe(&MESH_CHECKPOINT, Select::All)
        .await
        .unwrap();
    let mut rounds = peer_bus.consume(&MESH_ROUND, "test").await.unwrap();
    let config = joining(TCP, &island.me().await);
    let peer = Node::start_with(
        dirs[1].path(),
        peer_bus,
        TileStore::default(),
        "peer",
        config,
    )
    .await;
    for change in &changes {
        assert_eq!(next_change(&mut tiles).await.1, *change);
    }
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let delivery = within(rounds.next()).await.unwrap();
        assert_eq!(delivery.message.peer_id, island.me().await.peer_id);
        ids.insert(delivery.message.record.clone().unwrap().round_id);
        delivery.ack().await.unwrap();
    }
    assert_eq!(ids, ["r-1".to_owned(), "r-2".to_owned()].into());
    let event = within(checkpoints.recv()).await.unwrap();
    assert_eq!(event.message.checkpoint, Some(meta));

    // After a restart of the island only what is new is exported.
    let store = island.tiles.clone();
    wait_until("the cursor on disk", async || {
        island.metric("sovereign_mesh_gateway_exported_sequence") >= 130.0
    })
    .await;
    island.stop().await;
    let config = joining(TCP, &peer.me().await);
    let island_bus = bus(dirs[0].path(), "island");
    let island = Node::start_with(dirs[0].path(), island_bus, store, "island", config).await;
    let (key, record) = (Key::parse("r-3").unwrap(), round("r-3"));
    let appended = island.bus.append(&ROUND_RECORD, Some(&key), "r-3", &record);
    appended.await.unwrap();
    let newest = island.tiles.commit(1);
    island
        .bus
        .publish(&TILE_CHANGED, None, &newest)
        .await
        .unwrap();
    assert_eq!(next_change(&mut tiles).await.1, newest);
    let delivery = within(rounds.next()).await.unwrap();
    assert_eq!(delivery.message.record.clone().unwrap().round_id, "r-3");
    delivery.ack().await.unwrap();
    island.stop().await;
    peer.stop().await;
}

#[tokio::test]
async fn a_change_too_large_for_one_message_arrives_in_several() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &a.me().await)).await;
    let mut tiles = b.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    a.wait_for_peers(1).await;
    let change = a.tiles.commit(4_000);
    a.bus.publish(&TILE_CHANGED, None, &change).await.unwrap();
    let (mut parts, mut received) = (0, Vec::new());
    while received.len() < change.tiles.len() {
        let (_, part) = next_change(&mut tiles).await;
        assert_eq!(part.sequence, change.sequence);
        parts += 1;
        received.extend(part.tiles);
    }
    assert!(parts > 1);
    assert_eq!(received, change.tiles);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn messages_of_the_largest_size_pass_back_to_back() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &a.me().await)).await;
    a.wait_for_peers(1).await;
    let mut at_b = b.subscribe().await;
    // 64 KiB less message id, time, the node's name and their framing.
    let payload = vec![7_u8; (64 << 10) - 60];
    for _ in 0..40 {
        a.publish(&payload).await.unwrap();
    }
    for _ in 0..40 {
        assert_eq!(next(&mut at_b).await.payload.len(), payload.len());
    }
    let status = a.publish(&vec![7_u8; 64 << 10]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("65536"), "{}", status.message());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn impossible_calls_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "alone", listening(QUIC)).await;
    let status = node.publish(b"anyone?").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let cases = [
        ("other", &b"x"[..], ROUNDS),
        (MAP_TOPIC, b"x", "tile changes"),
        (ROUNDS, b"", "empty"),
    ];
    for (topic, payload, reason) in cases {
        let request = PublishRequest {
            topic: topic.to_owned(),
            payload: payload.to_vec().into(),
        };
        let status = node.mesh.clone().publish(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(reason), "{}", status.message());
    }
    let topic = "other".to_owned();
    let status = node
        .mesh
        .clone()
        .subscribe(SubscribeRequest { topic })
        .await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn the_identity_outlives_the_process_and_belongs_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "same", listening(QUIC)).await;
    let first = node.me().await.peer_id;
    node.stop().await;
    let mode = std::fs::metadata(dir.path().join("peer.key")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let node = Node::start(dir.path(), "same", listening(QUIC)).await;
    assert_eq!(node.me().await.peer_id, first);
    node.stop().await;
}

#[tokio::test]
async fn a_seed_that_is_down_is_found_when_it_comes_back() {
    let dirs = dirs(2);
    let seed = Node::start(dirs[0].path(), "seed", listening(TCP)).await;
    let at = seed.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &at)).await;
    b.wait_for_peers(1).await;
    seed.stop().await;
    wait_until("nobody left", async || b.peers().await.is_empty()).await;
    let (same, _) = at.listen_addrs[0].split_once("/p2p/").unwrap();
    let seed = Node::start(dirs[0].path(), "seed", listening(same)).await;
    b.wait_for_peers(1).await;
    seed.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn nodes_of_different_networks_do_not_mix() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let foreign = Config {
        network: "elsewhere".to_owned(),
        ..joining(QUIC, &a.me().await)
    };
    let b = Node::start(dirs[1].path(), "b", foreign).await;
    wait_until("somebody is sent away", async || {
        let name = "sovereign_mesh_gateway_foreign_peers_total";
        a.metric(name) + b.metric(name) > 0.0
    })
    .await;
    wait_until("they part", async || {
        a.peers().await.is_empty() && b.peers().await.is_empty()
    })
    .await;
    assert_eq!(a.publish(b"x").await.unwrap_err().code(), Code::Unavailable);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_refused() {
    let dirs = dirs(3);
    let seed = Config {
        max_peers: 1,
        ..listening(TCP)
    };
    let seed = Node::start(dirs[0].path(), "seed", seed).await;
    let at = seed.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(TCP, &at)).await;
    b.wait_for_peers(1).await;
    let c = Node::start(dirs[2].path(), "c", joining(TCP, &at)).await;
    wait_until("c is refused", async || {
        seed.metric("sovereign_mesh_gateway_incoming_failures_total") > 0.0
    })
    .await;
    let peers = seed.peers().await;
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].peer_id, b.me().await.peer_id);
    for node in [seed, b, c] {
        node.stop().await;
    }
}

/// Whether multicast datagrams of this machine come back to it.
fn has_multicast() -> bool {
    let group = std::net::Ipv4Addr::new(224, 0, 0, 251);
    let probe = || -> std::io::Result<()> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.join_multicast_v4(&group, &std::net::Ipv4Addr::UNSPECIFIED)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(b"probe", (group, socket.local_addr()?.port()))?;
        socket.recv(&mut [0; 8]).map(|_| ())
    };
    probe().is_ok()
}

#[tokio::test]
async fn nodes_on_one_link_find_each_other_without_a_seed() {
    if !has_multicast() {
        println!("skipped: this machine does not pass multicast");
        return;
    }
    let dirs = dirs(2);
    let on_the_link = || Config {
        // Of its own, so that nodes of other tests are not met.
        network: format!("mdns-{}", std::process::id()),
        mdns: true,
        ..listening("/ip4/0.0.0.0/tcp/0")
    };
    let a = Node::start(dirs[0].path(), "a", on_the_link()).await;
    let b = Node::start(dirs[1].path(), "b", on_the_link()).await;
    a.wait_for_peers(1).await;
    b.wait_for_peers(1).await;
    a.stop().await;
    b.stop().await;
}

#[derive(NetworkBehaviour)]
struct Stranger {
    gossipsub: gossipsub::Behaviour,
    identify: identify::Behaviour,
}

/// A peer that speaks the protocols of the network and says what it likes.
async fn say_garbage(to: &GetNodeResponse, sayings: &[(&str, Vec<u8>)]) {
    let behaviour = |key: &libp2p::identity::Keypair| {
        let config = gossipsub::ConfigBuilder::default()
            .protocol_id_prefix("/sovereign/sovereign-testnet/meshsub")
            .build()
            .unwrap();
        let author = gossipsub::MessageAuthenticity::Signed(key.clone());
        let identify = identify::Config::new("/sovereign/sovereign-testnet/1".into(), key.public());
        Stranger {
            gossipsub: gossipsub::Behaviour::new(author, config).unwrap(),
            identify: identify::Behaviour::new(identify),
        }
    };
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT))
        .build();
    let addr: Multiaddr = to.listen_addrs[0].parse().unwrap();
    swarm.dial(addr).unwrap();
    let mut topics = BTreeSet::new();
    while topics.len() < 2 {
        let event = within(swarm.select_next_some()).await;
        if let SwarmEvent::Behaviour(StrangerEvent::Gossipsub(gossipsub::Event::Subscribed {
            topic,
            ..
        })) = event
        {
            topics.insert(topic.into_string());
        }
    }
    for (topic, bytes) in sayings {
        let gossipsub = &mut swarm.behaviour_mut().gossipsub;
        gossipsub
            .publish(gossipsub::IdentTopic::new(*topic), bytes.clone())
            .unwrap();
    }
    loop {
        swarm.select_next_some().await;
    }
}

#[tokio::test]
async fn garbage_is_refused_counted_and_not_passed_on() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(TCP)).await;
    let at = a.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(TCP, &at)).await;
    a.wait_for_peers(1).await;
    let mut stranger = JoinSet::new();
    stranger.spawn({
        let at = at.clone();
        let sayings = vec![
            (
                ROUNDS,
                b"node=x mode=start ts=2026-01-01T00:00:00Z".to_vec(),
            ),
            (ROUNDS, vec![0xff; 1000]),
            (MAP_TOPIC, vec![0x0a, 0x01, b'x']),
        ];
        async move { say_garbage(&at, &sayings).await }
    });
    let refused = |node: &Node| {
        let name = |r| format!("sovereign_mesh_gateway_refused_total{{reason=\"{r}\"}}");
        node.metric(&name("undecodable")) + node.metric(&name("published_time"))
    };
    wait_until("three refusals", async || refused(&a) >= 3.0).await;
    // It keeps working, and b never saw the garbage.
    let mut at_b = b.subscribe().await;
    a.publish(b"still here").await.unwrap();
    assert_eq!(next(&mut at_b).await.payload, b"still here".as_slice());
    assert_eq!(refused(&b), 0.0);
    stranger.abort_all();
    a.stop().await;
    b.stop().await;
}
