//! Why a process could not start, or ended.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use sovereign_bus::{OpenError, OwnError};
use sovereign_bus_nats::ConnectError;
use sovereign_service::{BuildError, RunError};

/// Exit code: something failed.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: the command line cannot be used.
pub const EXIT_USAGE: u8 = 2;
/// Exit code: the configuration cannot be used (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

/// A configuration that cannot be used. Its text is a whole sentence: it names the key or file, where
/// it was set, what is wrong and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    key: Option<String>,
    origin: Option<String>,
    what: String,
}

impl ConfigError {
    /// `key`, by its full path, cannot be used; `what` says why.
    pub fn key(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            origin: None,
            what: what.into(),
        }
    }

    /// A file cannot be used; `what` says why.
    pub fn file(path: impl fmt::Display, what: impl Into<String>) -> Self {
        Self {
            key: None,
            origin: Some(path.to_string()),
            what: what.into(),
        }
    }

    /// The same, set at `origin` (a file, a variable or a flag).
    #[must_use]
    pub fn at(mut self, origin: Option<&str>) -> Self {
        self.origin = origin.map(ToOwned::to_owned).or(self.origin);
        self
    }

    /// Full path of the key, when one key is to blame.
    #[must_use]
    pub fn key_path(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.origin) {
            (Some(key), Some(origin)) => write!(f, "`{key}` ({origin}): {}", self.what),
            (Some(key), None) => write!(f, "`{key}`: {}", self.what),
            (None, Some(origin)) => write!(f, "{origin}: {}", self.what),
            (None, None) => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Why a host could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration cannot be used.
    #[error("configuration")]
    Config(#[from] ConfigError),
    /// The data folder cannot be made or locked.
    #[error("prepare the data folder {}; pass another with --data-dir", path.display())]
    DataDir {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has the data folder.
    #[error(
        "the data folder {} is in use by {holder}; stop that process or pass another folder with --data-dir",
        path.display()
    )]
    DataDirInUse {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as far as the lock file says.
        holder: String,
    },
    /// A listening socket could not be had.
    #[error("listen on {address} for {name}; set `host.{name}_listen` to a free address")]
    Listen {
        /// `grpc` or `admin`.
        name: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The journal of the in-memory bus could not be opened.
    #[error("open the bus journal {}", path.display())]
    OpenBus {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The bus server could not be reached.
    #[error("connect the bus to {url}; check `host.bus` and that the server runs with JetStream")]
    ConnectBus {
        /// Address without credentials.
        url: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// Another process runs a service of which one at a time may work on this bus, or nobody could tell.
    #[error(
        "own the state of {service}, of which one works on a bus; stop the other, or set `host.bus` to \
         another server"
    )]
    Own {
        /// Name of the service.
        service: &'static str,
        /// Who has it, or why it is not known.
        #[source]
        source: OwnError,
    },
    /// The descriptors for gRPC reflection do not decode.
    #[error("describe the gRPC services")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// A service could not be built.
    #[error("build {service}")]
    Build {
        /// Name of the service.
        service: &'static str,
        /// Why.
        #[source]
        source: BuildError,
    },
    /// A service or companion task failed.
    #[error("{name}")]
    Run {
        /// Name of the service or task.
        name: String,
        /// Why.
        #[source]
        source: RunError,
    },
    /// A service ended although nobody asked it to.
    #[error("{name} ended although nobody asked it to stop")]
    EndedUnasked {
        /// Name of the service.
        name: String,
    },
    /// Not everything came to its end in time.
    #[error(
        "still busy {} after the grace period of {grace_secs} s (`host.grace_secs`), cut off",
        names.join(", ")
    )]
    Drain {
        /// Services and tasks that had not ended.
        names: Vec<String>,
        /// The period.
        grace_secs: u64,
    },
    /// The addresses file could not be written.
    #[error("write the addresses file {}", path.display())]
    AddressesFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A second signal arrived while draining.
    #[error("stopped at once, without draining, because a second signal arrived")]
    Impatient,
    /// The runtime, the signal listeners or the trace exporter could not be set up.
    #[error("{operation}")]
    Setup {
        /// What was attempted.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HostError {
    /// The code the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Config(_)) {
            EXIT_CONFIG
        } else {
            EXIT_FAILURE
        }
    }

    pub(crate) fn from_build(service: &'static str, source: BuildError) -> Self {
        match source {
            BuildError::Config { field, why } => {
                Self::Config(ConfigError::key(format!("{service}.{field}"), why))
            }
            source @ BuildError::Operation { .. } => Self::Build { service, source },
        }
    }
}
