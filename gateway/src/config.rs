//! What may be configured, and what is made of it.

use libp2p::Multiaddr;
use serde::Deserialize;
use sovereign_service::BuildError;

use crate::address::{is_dial_addr, is_listen_addr};
use crate::topics::MAP_TOPIC;

/// Longest name of a network or topic, bytes: both travel in every handshake.
const MAX_NAME_BYTES: usize = 64;

/// Section `[mesh-gateway]`. Every value has a default; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Network name, default `sovereign-testnet`: 1 to 64 of letters, digits, `.`, `-`, `_`. It is
    /// part of the protocol ids, so nodes of different networks do not understand each other.
    pub network: String,
    /// Topic for rounds, checkpoints and published bytes, default `fl.rounds`; same alphabet.
    pub topic: String,
    /// Multiaddrs to listen on: `/ip4|ip6/<address>/udp/<port>/quic-v1` or `/ip4|ip6/<address>/tcp/<port>`,
    /// port 0 for any. Default: QUIC and TCP on loopback, any port. At least one.
    pub listen: Vec<String>,
    /// Multiaddrs of nodes to join through, with or without `/p2p/<peer id>`; default none. They are
    /// redialled for as long as the node runs.
    pub bootstrap: Vec<String>,
    /// Below this many peers the node counts as an island, says so, and redials within 2 seconds
    /// instead of up to a minute. Default 1; 0 for a node that is content alone.
    pub min_peers: u32,
    /// Connections at most, default 128, at least 1 and not below `min_peers`; more are refused. Some
    /// of them, ten or `min_peers` but not over half, are kept for connections that the node opens.
    pub max_peers: u32,
    /// Whether to find peers of the same network on the local link by multicast DNS, default false.
    pub mdns: bool,
    /// What the node says in its hello, `start` (default) or `join`.
    pub mode: Mode,
}

/// How a node came to its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It started one.
    Start,
    /// It joined one.
    Join,
}

impl Mode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Mode::Start => "start",
            Mode::Join => "join",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: "sovereign-testnet".to_owned(),
            topic: "fl.rounds".to_owned(),
            listen: vec![
                "/ip4/127.0.0.1/udp/0/quic-v1".to_owned(),
                "/ip4/127.0.0.1/tcp/0".to_owned(),
            ],
            bootstrap: Vec::new(),
            min_peers: 1,
            max_peers: 128,
            mdns: false,
            mode: Mode::Start,
        }
    }
}

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) network: String,
    pub(crate) topic: String,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) bootstrap: Vec<Multiaddr>,
    pub(crate) min_peers: u32,
    pub(crate) max_peers: u32,
    pub(crate) mdns: bool,
    pub(crate) mode: Mode,
}

impl Config {
    /// Checks every value; the error names the first key that cannot be used.
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        for (field, name) in [("network", &self.network), ("topic", &self.topic)] {
            if !is_name(name) {
                let why = format!(
                    "is `{name}`, must be 1 to {MAX_NAME_BYTES} of letters, digits, `.`, `-`, `_`"
                );
                return Err(BuildError::config(field, why));
            }
        }
        if self.topic == MAP_TOPIC {
            let why = format!("is `{MAP_TOPIC}`, which carries tile changes");
            return Err(BuildError::config("topic", why));
        }
        if self.listen.is_empty() {
            return Err(BuildError::config(
                "listen",
                "must name at least one multiaddr",
            ));
        }
        if self.max_peers == 0 || self.max_peers < self.min_peers {
            let why = format!(
                "is {}, must be at least 1 and not below min_peers, {}",
                self.max_peers, self.min_peers
            );
            return Err(BuildError::config("max_peers", why));
        }
        Ok(Settings {
            listen: addrs("listen", &self.listen, is_listen_addr)?,
            bootstrap: addrs("bootstrap", &self.bootstrap, is_dial_addr)?,
            network: self.network,
            topic: self.topic,
            min_peers: self.min_peers,
            max_peers: self.max_peers,
            mdns: self.mdns,
            mode: self.mode,
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn addrs(
    field: &str,
    texts: &[String],
    usable: fn(&Multiaddr) -> bool,
) -> Result<Vec<Multiaddr>, BuildError> {
    let parse = |text: &String| {
        let addr: Multiaddr = text.parse().map_err(|error| {
            BuildError::config(
                field,
                format!("holds `{text}`, which is no multiaddr ({error})"),
            )
        })?;
        if usable(&addr) {
            Ok(addr)
        } else {
            let why = format!(
                "holds `{text}`; use /ip4|ip6/<address>/udp/<port>/quic-v1 or /ip4|ip6/<address>/tcp/<port>{}",
                if field == "bootstrap" {
                    ", also with /dns, and /p2p/<peer id> at the end"
                } else {
                    ""
                }
            );
            Err(BuildError::config(field, why))
        }
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.settings().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let settings = Config::default().settings().unwrap();
        assert_eq!(settings.network, "sovereign-testnet");
        assert_eq!(settings.topic, "fl.rounds");
        assert_eq!(settings.listen.len(), 2);
        assert_eq!((settings.min_peers, settings.max_peers), (1, 128));
        assert!(!settings.mdns);
    }

    #[test]
    fn each_impossible_value_is_refused_under_its_key() {
        let texts = |t: &[&str]| t.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(refused(|c| c.network = "a/b".into()).starts_with("`network`"));
        assert!(refused(|c| c.network = String::new()).starts_with("`network`"));
        assert!(refused(|c| c.topic = "x".repeat(65)).starts_with("`topic`"));
        assert!(refused(|c| c.topic = "map.tiles".into()).contains("tile changes"));
        assert!(refused(|c| c.listen.clear()).starts_with("`listen`"));
        for bad in [
            "nonsense",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/1.2.3.4/tcp/1/ws",
            "/dns4/h/tcp/1",
        ] {
            assert!(
                refused(|c| c.listen = texts(&[bad])).starts_with("`listen`"),
                "{bad}"
            );
        }
        for bad in ["host:4001", "/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/1/quic"] {
            assert!(
                refused(|c| c.bootstrap = texts(&[bad])).starts_with("`bootstrap`"),
                "{bad}"
            );
        }
        assert!(refused(|c| c.max_peers = 0).starts_with("`max_peers`"));
        assert!(refused(|c| c.min_peers = 129).starts_with("`max_peers`"));
    }

    #[test]
    fn seeds_may_carry_names_and_identities() {
        let seed = "/dns4/seed.example.org/udp/4001/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let config = Config {
            bootstrap: vec![seed.to_owned(), "/ip6/::1/tcp/4001".to_owned()],
            ..Config::default()
        };
        assert_eq!(config.settings().unwrap().bootstrap.len(), 2);
    }
}
