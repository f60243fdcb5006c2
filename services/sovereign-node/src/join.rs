//! Joining: a node that was told to join fails when it reaches nobody.

use std::time::Duration;

use sovereign_proto::mesh::v1::ListPeersRequest;
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_service::{Channel, RunError, Stop};
use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(200);

pub(crate) async fn wait_for_a_peer(
    mesh: Channel,
    limit: Duration,
    stop: Stop,
) -> Result<(), RunError> {
    let mut mesh = MeshClient::new(mesh);
    let deadline = Instant::now() + limit;
    loop {
        let peers = mesh
            .list_peers(ListPeersRequest {})
            .await
            .map_err(|status| RunError::new("ask the gateway for its peers", status))?
            .into_inner()
            .peers;
        // A node of another network is connected too, until it has said that it knows none of our topics.
        if let Some(peer) = peers.iter().find(|peer| !peer.topics.is_empty()) {
            tracing::info!(
                peer_id = peer.peer_id,
                address = peer.address,
                peers = peers.len(),
                "joined"
            );
            return Ok(());
        }
        if Instant::now() >= deadline {
            let cause = format!(
                "no peer was reached within {} s; check that a bootstrap node runs, that its address \
                 and peer id are current (`sovereign-node status` on it prints them) and that it is of \
                 the same network",
                limit.as_secs()
            );
            return Err(RunError::new("join the network", cause));
        }
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}
