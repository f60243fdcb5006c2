//! What multiaddrs say.

use std::net::{IpAddr, SocketAddr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use sovereign_service::Listen;

pub(crate) fn is_listen_addr(addr: &Multiaddr) -> bool {
    let mut parts = addr.iter();
    matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_))) && is_transport(parts)
}

pub(crate) fn is_dial_addr(addr: &Multiaddr) -> bool {
    let (addr, _) = split_peer(addr.clone());
    let mut parts = addr.iter();
    let host = matches!(
        parts.next(),
        Some(
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
        )
    );
    host && is_transport(parts)
}

fn is_transport<'a>(mut parts: impl Iterator<Item = Protocol<'a>>) -> bool {
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Tcp(_)), None, None) => true,
        (Some(Protocol::Udp(_)), Some(Protocol::QuicV1), None) => true,
        (_, _, _) => false,
    }
}

pub(crate) fn split_peer(mut addr: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match addr.pop() {
        Some(Protocol::P2p(peer)) => (addr, Some(peer)),
        Some(other) => (addr.with(other), None),
        None => (addr, None),
    }
}

pub(crate) fn transport_of(address: &Multiaddr) -> &'static str {
    if address.iter().any(|part| matches!(part, Protocol::QuicV1)) {
        "quic"
    } else {
        "tcp"
    }
}

pub(crate) fn listen_of(key: &'static str, addr: &Multiaddr) -> Option<Listen> {
    let socket = socket_addr(addr)?;
    Some(match transport_of(addr) {
        "quic" => Listen::udp(key, socket),
        _ => Listen::tcp(key, socket),
    })
}

pub(crate) fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let (host, port) = (parts.next()?, parts.next()?);
    let ip = if let Protocol::Ip4(ip) = host {
        IpAddr::from(ip)
    } else if let Protocol::Ip6(ip) = host {
        IpAddr::from(ip)
    } else {
        return None;
    };
    if let Protocol::Tcp(port) | Protocol::Udp(port) = port {
        Some(SocketAddr::new(ip, port))
    } else {
        None
    }
}
