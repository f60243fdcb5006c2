//! The `[host]` section: what was written, and what is used.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sovereign_bus_nats::{MAX_PARTITIONS, NatsConfig};
use sovereign_service::Listen;
use tracing_subscriber::EnvFilter;

use super::{Environment, HOST, Settings};
use crate::{ConfigError, data_dir};

/// Longest node name, in bytes; it is part of every event's headers.
const MAX_NODE_ID_BYTES: usize = 64;

/// Most copies of a stream that `JetStream` keeps.
const MAX_NATS_REPLICAS: usize = 5;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which bus the process uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BusConfig {
    /// Within the process, with a journal in the data folder.
    Memory,
    /// A NATS server.
    Nats {
        url: String,
        credentials_file: Option<PathBuf>,
        replicas: usize,
        partitions: u16,
    },
}

/// The `[host]` section, understood.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Name of this node: 1 to 64 of letters, digits, `-`, `_`, `.`. Default: the name of the machine.
    pub node_id: String,
    /// Data folder. Default: `$XDG_DATA_HOME/sovereign-map`, else `sovereign-data`.
    pub data_dir: PathBuf,
    /// Where gRPC listens. Default: `127.0.0.1:50051`.
    pub grpc_listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` listen. Default: `127.0.0.1:9464`.
    pub admin_listen: SocketAddr,
    pub(crate) bus: BusConfig,
    /// How long services may drain after a signal. Default: 20 s.
    pub grace: Duration,
    /// Filter of log lines, as in `info,tile_svc=debug`. Default: `info`.
    pub log: String,
    /// How log lines look. Default: text.
    pub log_format: LogFormat,
    /// Where traces go, `http://host:port` of an OTLP gRPC receiver. Default: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Where the bound addresses are written as one JSON object. Default: `addresses.json` in the data
    /// folder.
    pub addresses_file: PathBuf,
    /// Services that run in this process. Default: all that it has.
    pub services: Option<Vec<String>>,
    /// Addresses of the services that run elsewhere, by name.
    pub calls: BTreeMap<String, String>,
}

/// The `[host]` section as written.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    node_id: Option<String>,
    data_dir: Option<PathBuf>,
    grpc_listen: SocketAddr,
    admin_listen: SocketAddr,
    bus: String,
    nats_credentials_file: Option<PathBuf>,
    nats_replicas: Option<usize>,
    nats_partitions: Option<u16>,
    grace_secs: u64,
    log: String,
    log_format: LogFormat,
    otlp_endpoint: Option<String>,
    addresses_file: Option<PathBuf>,
    services: Option<Vec<String>>,
    calls: BTreeMap<String, String>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            node_id: None,
            data_dir: None,
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            bus: "memory".to_owned(),
            nats_credentials_file: None,
            nats_replicas: None,
            nats_partitions: None,
            grace_secs: 20,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            addresses_file: None,
            services: None,
            calls: BTreeMap::new(),
        }
    }
}

impl HostConfig {
    /// Refuses two doors with one port, those of the host among them; `services` by name.
    ///
    /// # Errors
    /// The second of two.
    pub fn refuse_shared_ports(
        &self,
        services: impl IntoIterator<Item = (&'static str, Listen)>,
    ) -> Result<(), ConfigError> {
        let mut doors = vec![
            (HOST, Listen::tcp("grpc_listen", self.grpc_listen)),
            (HOST, Listen::tcp("admin_listen", self.admin_listen)),
        ];
        doors.extend(services);
        for (index, (section, door)) in doors.iter().enumerate() {
            let first = doors[..index]
                .iter()
                .find(|(_, first)| first.excludes(door));
            if let Some((holder, first)) = first {
                return Err(ConfigError::key(
                    format!("{section}.{}", door.key),
                    format!("{} is where {holder}.{} listens", door.address, first.key),
                ));
            }
        }
        Ok(())
    }

    /// Reads and checks the section.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn read(settings: &Settings, environment: &Environment) -> Result<Self, ConfigError> {
        let written: Written = settings.section(HOST)?;
        let refuse = |key: &str, what: String| {
            let path = format!("{HOST}.{key}");
            let origin = settings.origin(&path).map(ToOwned::to_owned);
            ConfigError::key(path, what).at(origin.as_deref())
        };
        let node_id = written.node_id.unwrap_or_else(|| environment.host_name());
        let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if node_id.is_empty() || node_id.len() > MAX_NODE_ID_BYTES || !node_id.chars().all(named) {
            return Err(refuse(
                "node_id",
                format!(
                    "`{node_id}` is no node name: 1 to {MAX_NODE_ID_BYTES} of letters, digits, `-`, `_`, `.`"
                ),
            ));
        }
        let bus = match written.bus.as_str() {
            "memory" => BusConfig::Memory,
            url if ["nats://", "tls://"]
                .iter()
                .any(|scheme| url.starts_with(scheme)) =>
            {
                BusConfig::Nats {
                    url: url.to_owned(),
                    credentials_file: written.nats_credentials_file.clone(),
                    replicas: written.nats_replicas.unwrap_or(1),
                    partitions: written
                        .nats_partitions
                        .unwrap_or(NatsConfig::default().partitions),
                }
            }
            other => {
                return Err(refuse(
                    "bus",
                    format!(
                        "`{}` is no bus, expected `memory` or `nats://host:port`",
                        without_credentials(other)
                    ),
                ));
            }
        };
        let only_nats = [
            (
                "nats_credentials_file",
                written.nats_credentials_file.is_some(),
            ),
            ("nats_replicas", written.nats_replicas.is_some()),
            ("nats_partitions", written.nats_partitions.is_some()),
        ];
        if let (BusConfig::Memory, Some((key, _))) =
            (&bus, only_nats.iter().find(|(_, written)| *written))
        {
            let why = "only applies to a bus `nats://host:port`";
            return Err(refuse(key, why.to_owned()));
        }
        if let Some(file) = &written.nats_credentials_file
            && let Err(error) = std::fs::File::open(file)
        {
            let why = format!("{} cannot be read: {error}", file.display());
            return Err(refuse("nats_credentials_file", why));
        }
        if !(1..=MAX_NATS_REPLICAS).contains(&written.nats_replicas.unwrap_or(1)) {
            let why = format!("must be 1 to {MAX_NATS_REPLICAS}");
            return Err(refuse("nats_replicas", why));
        }
        if !(1..=MAX_PARTITIONS).contains(&written.nats_partitions.unwrap_or(1)) {
            let why = format!("must be 1 to {MAX_PARTITIONS}");
            return Err(refuse("nats_partitions", why));
        }
        if written.grace_secs == 0 {
            return Err(refuse("grace_secs", "must be at least 1".to_owned()));
        }
        if let Err(error) = EnvFilter::try_new(&written.log) {
            return Err(refuse("log", format!("is no log filter: {error}")));
        }
        if let Some(endpoint) = &written.otlp_endpoint
            && !endpoint.starts_with("http://")
        {
            return Err(refuse(
                "otlp_endpoint",
                format!(
                    "`{}` is no endpoint, expected `http://host:port`",
                    without_credentials(endpoint)
                ),
            ));
        }
        let data_dir = written.data_dir.unwrap_or_else(|| environment.data_dir());
        if let Err(error) = data_dir::check(&data_dir) {
            let why = format!("{} cannot be used: {error}", data_dir.display());
            return Err(refuse("data_dir", why));
        }
        Ok(Self {
            node_id,
            addresses_file: written
                .addresses_file
                .unwrap_or_else(|| data_dir.join("addresses.json")),
            data_dir,
            grpc_listen: written.grpc_listen,
            admin_listen: written.admin_listen,
            bus,
            grace: Duration::from_secs(written.grace_secs),
            log: written.log,
            log_format: written.log_format,
            otlp_endpoint: written.otlp_endpoint,
            services: written.services,
            calls: written.calls,
        })
    }
}

/// `nats://user:secret@host` without what is secret, for messages.
pub(crate) fn without_credentials(url: &str) -> String {
    match (url.split_once(':'), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.to_owned(),
    }
}
