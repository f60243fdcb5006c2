//! Where a service is going to listen.

use std::net::{IpAddr, SocketAddr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

/// A socket that will be bound, by the key that says where.
#[derive(Debug, Clone, Copy)]
pub struct Listen {
    /// Key within the section of the service.
    pub key: &'static str,
    /// Port 0 means any.
    pub address: SocketAddr,
    protocol: Protocol,
}

impl Listen {
    /// A TCP socket.
    #[must_use]
    pub fn tcp(key: &'static str, address: SocketAddr) -> Self {
        let protocol = Protocol::Tcp;
        Self {
            key,
            address,
            protocol,
        }
    }

    /// A UDP socket.
    #[must_use]
    pub fn udp(key: &'static str, address: SocketAddr) -> Self {
        let protocol = Protocol::Udp;
        Self {
            key,
            address,
            protocol,
        }
    }

    /// Whether only one of the two can be bound.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        let (a, b) = (self.address, other.address);
        // On Linux `[::]` takes the port of IPv4 too.
        let covers =
            |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
        self.protocol == other.protocol
            && a.port() == b.port()
            && a.port() != 0
            && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_per_protocol_and_address() {
        let tcp = |address: &str| Listen::tcp("listen", address.parse().unwrap());
        let udp = |address: &str| Listen::udp("listen", address.parse().unwrap());
        for (a, b, excludes) in [
            (tcp("127.0.0.1:80"), tcp("127.0.0.1:80"), true),
            (tcp("127.0.0.1:80"), tcp("127.0.0.1:81"), false),
            (tcp("127.0.0.1:80"), udp("127.0.0.1:80"), false),
            (tcp("127.0.0.1:80"), tcp("127.0.0.2:80"), false),
            (tcp("127.0.0.1:80"), tcp("0.0.0.0:80"), true),
            (tcp("127.0.0.1:80"), tcp("[::]:80"), true),
            (tcp("[::1]:80"), tcp("0.0.0.0:80"), false),
            (udp("[::1]:80"), udp("[::]:80"), true),
            (tcp("127.0.0.1:0"), tcp("127.0.0.1:0"), false),
        ] {
            assert_eq!(a.excludes(&b), excludes, "{a:?} {b:?}");
            assert_eq!(b.excludes(&a), excludes, "{b:?} {a:?}");
        }
    }
}
