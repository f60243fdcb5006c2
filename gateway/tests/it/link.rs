//! A link between two nodes that can be cut: it takes everything then and passes nothing on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use sovereign_proto::mesh::v1::GetNodeResponse;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

pub(crate) struct Link {
    open: watch::Sender<bool>,
    at: String,
    _forwarding: JoinSet<()>,
}

impl Link {
    /// A link to the first address of a node, which is over QUIC or TCP.
    pub(crate) async fn to(node: &GetNodeResponse) -> Link {
        let (addr, peer) = node.listen_addrs[0].split_once("/p2p/").unwrap();
        let port: u16 = addr.split('/').nth(4).unwrap().parse().unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (open, is_open) = watch::channel(true);
        let mut forwarding = JoinSet::new();
        let at = if addr.ends_with("/quic-v1") {
            let socket = UdpSocket::bind(LOCAL).await.unwrap();
            let port = socket.local_addr().unwrap().port();
            forwarding.spawn(forward_datagrams(socket, to, is_open));
            format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{peer}")
        } else {
            let listener = TcpListener::bind(LOCAL).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            forwarding.spawn(forward_streams(listener, to, is_open));
            format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")
        };
        Link {
            open,
            at,
            _forwarding: forwarding,
        }
    }

    /// The node as it is seen over the link.
    pub(crate) fn seen(&self, node: &GetNodeResponse) -> GetNodeResponse {
        GetNodeResponse {
            listen_addrs: vec![self.at.clone()],
            ..node.clone()
        }
    }

    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn forward_streams(listener: TcpListener, to: SocketAddr, is_open: watch::Receiver<bool>) {
    let mut streams = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(to).await else {
            continue;
        };
        let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
        streams.spawn(pass(from_near, to_far, is_open.clone()));
        streams.spawn(pass(from_far, to_near, is_open.clone()));
    }
}

/// Passes bytes on, and their end.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_open: watch::Receiver<bool>) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if is_open.wait_for(|open| *open).await.is_err() || read == 0 {
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

async fn forward_datagrams(near: UdpSocket, to: SocketAddr, is_open: watch::Receiver<bool>) {
    let near = Arc::new(near);
    let mut backwards = JoinSet::new();
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut bytes = vec![0; 1 << 16];
    loop {
        // An error is one of a datagram before: its receiver is gone.
        let Ok((read, client)) = near.recv_from(&mut bytes).await else {
            continue;
        };
        if let Entry::Vacant(unknown) = clients.entry(client) {
            let far = Arc::new(UdpSocket::bind(LOCAL).await.unwrap());
            far.connect(to).await.unwrap();
            unknown.insert(far.clone());
            let (near, is_open) = (near.clone(), is_open.clone());
            backwards.spawn(async move {
                let mut bytes = vec![0; 1 << 16];
                loop {
                    let read = far.recv(&mut bytes).await.unwrap_or(0);
                    if *is_open.borrow() {
                        let _ = near.send_to(&bytes[..read], client).await;
                    }
                }
            });
        }
        if *is_open.borrow() {
            let _ = clients[&client].send(&bytes[..read]).await;
        }
    }
}
