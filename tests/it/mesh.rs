//! Nodes of their own find each other, and share messages and map changes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sovereign_node::feed::{CaptureNotes, Edge};
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_proto::mesh::v1::{
    GetNodeRequest, ListPeersRequest, MeshMessage, PublishRequest, SubscribeRequest,
};
use sovereign_tests::process::{LIMIT, Process};
use sovereign_tests::wait_for;
use tonic::Streaming;

const TOPIC: &str = "fl.rounds";

/// Loopback listeners for both transports.
const LISTEN: [&str; 2] = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];

async fn node(folder: &Path, number: usize, seeds: &[String]) -> anyhow::Result<Process> {
    let home = folder.join(format!("node-{number}"));
    std::fs::create_dir_all(&home)?;
    let (seeds_file, name) = (home.join("seed_peers.json"), format!("node-{number}"));
    std::fs::write(&seeds_file, serde_json::to_string(seeds)?)?;
    let seeds_file = seeds_file.to_str().context("the path is text")?;
    let mut args = vec![if seeds.is_empty() { "start" } else { "join" }];
    args.extend(["--node-id", &name, "--seeds", seeds_file]);
    for address in LISTEN {
        args.extend(["--listen", address]);
    }
    for setting in [
        "drone-ingest.listen=127.0.0.1:0",
        "mobile-ingest.listen=127.0.0.1:0",
    ] {
        args.extend(["--set", setting]);
    }
    Process::start("sovereign-node", &home.join("data"), &args).await
}

async fn addresses(node: &Process) -> anyhow::Result<Vec<String>> {
    let mut mesh = MeshClient::new(node.grpc()?);
    let answer = mesh.get_node(GetNodeRequest {}).await?.into_inner();
    Ok(answer.listen_addrs)
}

async fn subscribe(node: &Process) -> anyhow::Result<Streaming<MeshMessage>> {
    let request = SubscribeRequest {
        topic: TOPIC.to_owned(),
    };
    Ok(MeshClient::new(node.grpc()?)
        .subscribe(request)
        .await?
        .into_inner())
}

async fn publish(node: &Process, payload: &'static [u8]) -> anyhow::Result<()> {
    let request = PublishRequest {
        topic: TOPIC.to_owned(),
        payload: payload.into(),
    };
    MeshClient::new(node.grpc()?).publish(request).await?;
    Ok(())
}

/// Reads until all of `wanted` were heard, in any order, and none of them or anything else twice. GossipSub
/// also tells a node that just joined of what was published some seconds before.
async fn hear(stream: &mut Streaming<MeshMessage>, wanted: [&[u8]; 3]) -> anyhow::Result<()> {
    let mut heard = BTreeSet::new();
    while !wanted.iter().all(|payload| heard.contains(*payload)) {
        let message = tokio::time::timeout(LIMIT, stream.message())
            .await
            .with_context(|| format!("only {heard:?} was heard"))??;
        let payload = message.context("the stream ended")?.payload.to_vec();
        ensure!(heard.insert(payload.clone()), "{payload:?} was heard twice");
    }
    Ok(())
}

async fn peers(node: &Process) -> anyhow::Result<Vec<sovereign_proto::mesh::v1::Peer>> {
    let answer = MeshClient::new(node.grpc()?)
        .list_peers(ListPeersRequest {})
        .await?;
    Ok(answer.into_inner().peers)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_then_ten_hear_a_published_message_exactly_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let first = node(folder.path(), 0, &[]).await?;
    let addresses = addresses(&first).await?;
    let by = |part: &str| addresses.iter().find(|a| a.contains(part)).cloned();
    let (quic, tcp) = (by("/quic-v1").context("quic")?, by("/tcp/").context("tcp")?);
    let mut nodes = vec![first];
    for (size, payloads) in [
        (2, [b"1 of two", b"2 of two", b"3 of two"]),
        (10, [b"1 of ten", b"2 of ten", b"3 of ten"]),
    ] {
        while nodes.len() < size {
            let seed = if nodes.len() % 2 == 0 { &tcp } else { &quic };
            nodes.push(node(folder.path(), nodes.len(), std::slice::from_ref(seed)).await?);
        }
        wait_for(LIMIT, async || {
            let peers = peers(&nodes[0]).await?;
            let ready = peers.iter().filter(|p| p.topics.iter().any(|t| t == TOPIC));
            Ok((ready.count() == size - 1).then_some(()))
        })
        .await
        .with_context(|| format!("{size} nodes did not mesh: {}", nodes[0].log()))?;
        let mut streams = Vec::new();
        for other in &nodes[1..] {
            streams.push(subscribe(other).await?);
        }
        // The last ones are behind the first in every stream: a first that comes twice is seen.
        for payload in payloads {
            publish(&nodes[0], payload).await?;
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            hear(stream, payloads.map(|payload| payload.as_slice()))
                .await
                .with_context(|| format!("at node {}", number + 1))?;
        }
    }
    let transports: Vec<String> = peers(&nodes[0])
        .await?
        .into_iter()
        .map(|p| p.transport)
        .collect();
    ensure!(transports.iter().any(|t| t == "quic"), "{transports:?}");
    ensure!(transports.iter().any(|t| t == "tcp"), "{transports:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tile_that_changes_on_one_node_is_on_the_bus_of_the_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let first = node(folder.path(), 0, &[]).await?;
    let seeds = addresses(&first).await?;
    let second = node(folder.path(), 1, &seeds).await?;
    let edge = |node: &Process| -> anyhow::Result<Edge> {
        let credentials = node.data_dir().join("mobile-ingest");
        Ok(Edge::open(
            node.address("mobile-ingest.https")?,
            &credentials,
        )?)
    };
    // The edge of the second node reads its bus: `mesh.<peer>.tile` becomes an event `mesh`.
    let mut events = edge(&second)?.events().await?;
    let notes = CaptureNotes {
        simulated: true,
        ..CaptureNotes::default()
    };
    let jpeg = sovereign_tests::flight::pictures(1, (752, 480))?.remove(0);
    edge(&first)?.upload_capture("survey", jpeg, &notes).await?;
    let heard = async {
        loop {
            let event = events.next().await?.context("the events ended")?;
            if event.name == "mesh" && event.data["kind"] == "tile" {
                return anyhow::Ok(event.data);
            }
        }
    };
    let event = tokio::time::timeout(Duration::from_secs(60), heard).await??;
    ensure!(event["layer"] == "imagery", "{event}");
    ensure!(event["tiles"].as_u64() > Some(0), "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_identity_and_its_key_is_for_its_owner_only() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let node = node(folder.path(), 0, &[]).await?;
        let answer = MeshClient::new(node.grpc()?)
            .get_node(GetNodeRequest {})
            .await?;
        ids.push(answer.into_inner().peer_id);
        let keys: Vec<_> = std::fs::read_dir(node.data_dir().join("mesh-gateway"))?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains("key"))
            .collect();
        ensure!(keys.len() == 1, "{keys:?}");
        ensure!(keys[0].metadata()?.permissions().mode() & 0o777 == 0o600);
        node.stop(&[]).await?;
    }
    ensure!(ids[0] == ids[1], "{ids:?}");
    Ok(())
}
