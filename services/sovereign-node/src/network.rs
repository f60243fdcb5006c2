//! The JSON files that describe a network: `network_config.json`, `bootstrap_nodes.json` and
//! `seed_peers.json`, as deployments of the earlier implementation have them.
//!
//! A file at its default path may be missing; one that was named may not. Everything in them works or
//! is refused by file and key.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sovereign_host::ConfigError;
use toml::{Table, Value};

/// Default path of the network description, relative to the working directory.
pub(crate) const NETWORK_CONFIG: &str = "network/bootstrap/network_config.json";
pub(crate) const BOOTSTRAP_NODES: &str = "network/bootstrap/bootstrap_nodes.json";
pub(crate) const SEED_PEERS: &str = "network/bootstrap/seed_peers.json";

/// Where nodes listen for peers unless told otherwise, QUIC and TCP. Peers are authenticated and the
/// connection is encrypted, so every interface is a sound default.
const LISTEN_QUIC: &str = "/ip4/0.0.0.0/udp/0/quic-v1";
const LISTEN_TCP: &str = "/ip4/0.0.0.0/tcp/0";

/// Longest round, seconds: a week, as for a round that is opened by a call.
const MAX_ROUND_TIMEOUT_SECS: u32 = 7 * 24 * 3600;

/// Which files to read; `None` is the default path.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkFiles {
    pub(crate) network: Option<PathBuf>,
    pub(crate) bootstrap: Option<PathBuf>,
    pub(crate) seeds: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Network {
    transport: Transport,
    /// Settings that the network description makes, with the file that makes them.
    described: Option<(String, Described)>,
    /// Each address with the file that it is from.
    peers: Vec<(String, String)>,
}

/// What a network description sets; `None` is the default of whoever uses it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Described {
    network: Option<String>,
    topic: Option<String>,
    round_timeout_secs: Option<u32>,
    min_peers: Option<u32>,
    max_peers: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Transport {
    /// QUIC, and TCP for networks that block UDP.
    #[default]
    Quic,
    Tcp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenNetwork {
    network: String,
    transport: String,
    pubsub: String,
    default_topic: String,
    round_timeout_seconds: u32,
    min_peers: Option<u32>,
    max_peers: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    #[serde(default)]
    id: String,
    multiaddr: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    role: String,
}

impl Network {
    /// Reads the files.
    pub(crate) fn read(files: &NetworkFiles) -> Result<Self, ConfigError> {
        let written = read(files.network.as_deref(), NETWORK_CONFIG)?;
        let (transport, described) = match written {
            Some((file, written)) => {
                let (transport, described) = understood(written).map_err(|e| e.at(Some(&file)))?;
                (transport, Some((file, described)))
            }
            None => (Transport::default(), None),
        };
        let mut peers = Vec::new();
        let nodes = read::<Vec<WrittenNode>>(files.bootstrap.as_deref(), BOOTSTRAP_NODES)?;
        if let Some((file, nodes)) = nodes {
            for (index, node) in nodes.into_iter().enumerate() {
                let WrittenNode {
                    id,
                    multiaddr,
                    region,
                    role,
                } = node;
                if !multiaddr.contains("/p2p/") {
                    return Err(ConfigError::key(
                        format!("[{index}].multiaddr"),
                        format!("`{multiaddr}` does not end in /p2p/<peer id>"),
                    )
                    .at(Some(&file)));
                }
                // Beside the address the entry is a label for people.
                tracing::debug!(id, region, role, multiaddr, "bootstrap node");
                peers.push((file.clone(), multiaddr));
            }
        }
        if let Some((file, seeds)) = read::<Vec<String>>(files.seeds.as_deref(), SEED_PEERS)? {
            peers.extend(seeds.into_iter().map(|seed| (file.clone(), seed)));
        }
        Ok(Self {
            transport,
            described,
            peers,
        })
    }

    /// What the files mean for the services: tables of settings with their origins, the last one winning.
    pub(crate) fn settings(&self) -> Vec<(String, Table)> {
        let mut tables = Vec::new();
        if let Some((file, described)) = &self.described {
            tables.push((file.clone(), described.settings()));
        }
        let listen = match self.transport {
            Transport::Quic => vec![LISTEN_QUIC.to_owned(), LISTEN_TCP.to_owned()],
            Transport::Tcp => vec![LISTEN_TCP.to_owned()],
        };
        tables.push(("default".to_owned(), gateway("listen", strings(listen))));
        let mut peers: Vec<String> = Vec::new();
        let mut origins: Vec<&str> = Vec::new();
        for (file, peer) in &self.peers {
            if !peers.contains(peer) {
                peers.push(peer.clone());
            }
            if !origins.contains(&file.as_str()) {
                origins.push(file);
            }
        }
        if !peers.is_empty() {
            tables.push((origins.join(", "), gateway("bootstrap", strings(peers))));
        }
        tables
    }

    /// Checks addresses that were given by `--listen`.
    pub(crate) fn check_listen(&self, addresses: &[String]) -> Result<(), ConfigError> {
        match addresses.iter().find(|address| address.contains("/quic")) {
            Some(address) if self.transport == Transport::Tcp => Err(ConfigError::key(
                "mesh-gateway.listen",
                format!("{address} is QUIC, but the network's `transport` is `tcp`"),
            )),
            _ => Ok(()),
        }
    }
}

impl Described {
    fn settings(&self) -> Table {
        let mut gateway = Table::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                gateway.insert(key.to_owned(), value);
            }
        };
        let number = |value: Option<u32>| value.map(|value| Value::Integer(value.into()));
        put("network", self.network.clone().map(Value::String));
        put("topic", self.topic.clone().map(Value::String));
        put("min_peers", number(self.min_peers));
        put("max_peers", number(self.max_peers));
        let mut table = Table::from_iter([(mesh_section(), Value::Table(gateway))]);
        if let Some(timeout) = number(self.round_timeout_secs) {
            let round = Table::from_iter([("default_timeout_secs".to_owned(), timeout)]);
            table.insert("round-svc".to_owned(), Value::Table(round));
        }
        table
    }
}

fn mesh_section() -> String {
    "mesh-gateway".to_owned()
}

fn gateway(key: &str, value: Value) -> Table {
    let section = Table::from_iter([(key.to_owned(), value)]);
    Table::from_iter([(mesh_section(), Value::Table(section))])
}

fn strings(texts: Vec<String>) -> Value {
    Value::Array(texts.into_iter().map(Value::String).collect())
}

/// Checks what only this file knows; names and counts are checked by who uses them.
fn understood(written: WrittenNetwork) -> Result<(Transport, Described), ConfigError> {
    let transport = match written.transport.as_str() {
        "" | "quic" => Transport::Quic,
        "tcp" => Transport::Tcp,
        other => {
            return Err(ConfigError::key(
                "transport",
                format!("`{other}` is no transport here, expected `quic` or `tcp`"),
            ));
        }
    };
    if !["", "gossip"].contains(&written.pubsub.as_str()) {
        return Err(ConfigError::key(
            "pubsub",
            format!("`{}` is not spoken here, expected `gossip`", written.pubsub),
        ));
    }
    if written.round_timeout_seconds > MAX_ROUND_TIMEOUT_SECS {
        return Err(ConfigError::key(
            "round_timeout_seconds",
            format!("must be at most {MAX_ROUND_TIMEOUT_SECS}"),
        ));
    }
    if let (Some(min), Some(max)) = (written.min_peers, written.max_peers)
        && max < min.max(1)
    {
        return Err(ConfigError::key(
            "max_peers",
            format!("is {max}, must be at least 1 and not below `min_peers`"),
        ));
    }
    let named = |text: String| (!text.is_empty()).then_some(text);
    let described = Described {
        network: named(written.network),
        topic: named(written.default_topic),
        round_timeout_secs: (written.round_timeout_seconds > 0)
            .then_some(written.round_timeout_seconds),
        min_peers: written.min_peers,
        max_peers: written.max_peers,
    };
    Ok((transport, described))
}

/// Reads a JSON file; `None` when it is not there and nobody named it.
fn read<T: DeserializeOwned>(
    named: Option<&Path>,
    default: &str,
) -> Result<Option<(String, T)>, ConfigError> {
    let path = named.unwrap_or(Path::new(default));
    let file = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(ConfigError::file(file, format!("cannot be read: {error}"))),
    };
    let mut json = serde_json::Deserializer::from_str(&text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let what = error.inner().to_string();
        if path == "." {
            ConfigError::file(&file, format!("cannot be used: {what}"))
        } else {
            ConfigError::key(path, what).at(Some(&file))
        }
    })?;
    json.end()
        .map_err(|error| ConfigError::file(&file, format!("cannot be used: {error}")))?;
    Ok(Some((file, parsed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const NODE: &str =
        "/ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn files(dir: &TempDir, network: &str, bootstrap: &str, seeds: &str) -> NetworkFiles {
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        NetworkFiles {
            network: write("network_config.json", network),
            bootstrap: write("bootstrap_nodes.json", bootstrap),
            seeds: write("seed_peers.json", seeds),
        }
    }

    /// All settings as `section.key = value` lines, later tables winning.
    fn lines(network: &Network) -> Vec<String> {
        let mut merged = std::collections::BTreeMap::new();
        for (_, table) in network.settings() {
            for (section, keys) in table {
                for (key, value) in keys.as_table().unwrap() {
                    merged.insert(format!("{section}.{key}"), value.to_string());
                }
            }
        }
        merged
            .into_iter()
            .map(|(k, v)| format!("{k} = {v}"))
            .collect()
    }

    #[test]
    fn the_shipped_files_mean_what_they_say() {
        let dir = TempDir::new().unwrap();
        let shipped = r#"{
            "network": "sovereign-testnet", "transport": "quic", "pubsub": "gossip",
            "default_topic": "fl.rounds", "round_timeout_seconds": 120,
            "min_peers": 1, "max_peers": 128
        }"#;
        let network = Network::read(&files(&dir, shipped, "[]", "[]")).unwrap();
        assert_eq!(
            lines(&network),
            [
                r#"mesh-gateway.listen = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"]"#,
                "mesh-gateway.max_peers = 128",
                "mesh-gateway.min_peers = 1",
                r#"mesh-gateway.network = "sovereign-testnet""#,
                r#"mesh-gateway.topic = "fl.rounds""#,
                "round-svc.default_timeout_secs = 120",
            ]
        );
    }

    #[test]
    fn empty_values_are_defaults_and_tcp_means_only_tcp() {
        let dir = TempDir::new().unwrap();
        let text = r#"{"network": "", "transport": "tcp", "round_timeout_seconds": 0}"#;
        let network = Network::read(&files(&dir, text, "[]", "[]")).unwrap();
        assert_eq!(
            lines(&network),
            [r#"mesh-gateway.listen = ["/ip4/0.0.0.0/tcp/0"]"#]
        );
        let quic = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()];
        let error = network.check_listen(&quic).unwrap_err().to_string();
        assert!(error.contains("`transport` is `tcp`"), "{error}");
    }

    #[test]
    fn every_address_is_dialled_once() {
        let dir = TempDir::new().unwrap();
        let nodes =
            format!(r#"[{{"id": "a", "multiaddr": "{NODE}", "region": "eu", "role": "seed"}}]"#);
        let seeds = format!(r#"["{NODE}", "/ip4/192.0.2.2/tcp/4001"]"#);
        let network = Network::read(&files(&dir, "{}", &nodes, &seeds)).unwrap();
        let bootstrap = &lines(&network)[0];
        assert_eq!(
            *bootstrap,
            format!(r#"mesh-gateway.bootstrap = ["{NODE}", "/ip4/192.0.2.2/tcp/4001"]"#)
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_file_and_key() {
        let dir = TempDir::new().unwrap();
        for (network, bootstrap, seeds, file, what) in [
            (
                r#"{"transport": "utp"}"#,
                "[]",
                "[]",
                "network_config",
                "`transport`",
            ),
            (
                r#"{"pubsub": "flood"}"#,
                "[]",
                "[]",
                "network_config",
                "`pubsub`",
            ),
            (r#"{"colour": 1}"#, "[]", "[]", "network_config", "`colour`"),
            (
                r#"{"min_peers": "3"}"#,
                "[]",
                "[]",
                "network_config",
                "`min_peers`",
            ),
            (
                r#"{"min_peers": 3, "max_peers": 2}"#,
                "[]",
                "[]",
                "network_config",
                "`max_peers`",
            ),
            (
                r#"{"round_timeout_seconds": 1000000}"#,
                "[]",
                "[]",
                "network_config",
                "`round_timeout_seconds`",
            ),
            ("{} {}", "[]", "[]", "network_config", "trailing"),
            ("{}", "{}", "[]", "bootstrap_nodes", "invalid type"),
            (
                "{}",
                r#"[{"id": "a"}]"#,
                "[]",
                "bootstrap_nodes",
                "multiaddr",
            ),
            (
                "{}",
                r#"[{"multiaddr": "/ip4/192.0.2.1/tcp/1"}]"#,
                "[]",
                "bootstrap_nodes",
                "`[0].multiaddr`",
            ),
            (
                "{}",
                r#"[{"multiaddr": "/p2p/x", "zone": "eu"}]"#,
                "[]",
                "bootstrap_nodes",
                "`[0].zone`",
            ),
            ("{}", "[]", "[1]", "seed_peers", "`[0]`"),
        ] {
            let files = files(&dir, network, bootstrap, seeds);
            let error = Network::read(&files).unwrap_err().to_string();
            assert!(error.contains(&format!("{file}.json")), "{error}");
            assert!(error.contains(what), "{what} in {error}");
        }
    }

    #[test]
    fn a_named_file_has_to_be_there() {
        let named = NetworkFiles {
            seeds: Some("/nowhere/seeds.json".into()),
            ..NetworkFiles::default()
        };
        let error = Network::read(&named).unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/seeds.json: cannot be read"),
            "{error}"
        );
        assert!(Network::read(&NetworkFiles::default()).is_ok());
    }
}
