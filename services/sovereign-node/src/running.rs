//! A running node: how the commands that ask one find it, and how they say what it answered.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sovereign_host::{EXIT_FAILURE, Environment};
use sovereign_service::chain;
use tonic::{Request, Status};

/// Name of the program in messages and traces.
pub(crate) const PROGRAM: &str = "sovereign-node";

/// A node that does not answer within this time is reported as such.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which node is asked, and how its answer is shown.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// gRPC address of the node, as http://host:port [default: from the data folder].
    #[arg(long, value_name = "URL")]
    grpc: Option<String>,
    /// Data folder of the node [default: $XDG_DATA_HOME/sovereign-map or ./sovereign-data].
    #[arg(long, value_name = "DIR", conflicts_with = "grpc")]
    data_dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No node runs on the data folder.
    #[error(
        "no node runs on the data folder {}; start one with `sovereign-node start`, or pass --data-dir or --grpc",
        path.display()
    )]
    NotRunning {
        /// The folder.
        path: PathBuf,
    },
    /// The addresses of the node do not parse.
    #[error("read the addresses of the node from {}", path.display())]
    Addresses {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address given cannot be called.
    #[error(transparent)]
    InvalidAddress(#[from] sovereign_service::InvalidAddress),
    /// The node did not answer.
    #[error("ask the node at {grpc} for its {what}; check that it runs there")]
    Silent {
        /// Its address.
        grpc: String,
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: Status,
    },
    /// The node will not do that.
    #[error("the node at {grpc} refused: {reason}")]
    Refused {
        /// Its address.
        grpc: String,
        /// Its words.
        reason: String,
    },
}

/// Finds the node, asks it, and prints what it answered.
pub(crate) fn run<T: Serialize>(
    args: &AskArgs,
    ask: impl AsyncFnOnce(&str) -> Result<T, AskError>,
    for_people: impl FnOnce(&T) -> String,
) -> ExitCode {
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(async { ask(&address(args)?).await }));
    let (text, failed) = match asked {
        Ok(Ok(answer)) if args.json => (serde_json::json!(answer).to_string(), false),
        Ok(Ok(answer)) => (for_people(&answer), false),
        Ok(Err(error)) => (chain(&error), true),
        Err(error) => (format!("start the runtime: {error}"), true),
    };
    // When nobody reads what is printed, the exit code still tells.
    let _ = match (failed, args.json) {
        (false, _) => writeln!(std::io::stdout(), "{}", text.trim_end()),
        (true, true) => writeln!(
            std::io::stdout(),
            "{}",
            serde_json::json!({ "error": text })
        ),
        (true, false) => writeln!(std::io::stderr(), "{PROGRAM}: {text}"),
    };
    if failed {
        ExitCode::from(EXIT_FAILURE)
    } else {
        ExitCode::SUCCESS
    }
}

/// A request that gives up when the node does not answer.
pub(crate) fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

fn address(args: &AskArgs) -> Result<String, AskError> {
    if let Some(grpc) = &args.grpc {
        return Ok(grpc.clone());
    }
    let dir = args.data_dir.clone();
    address_from_data_dir(&dir.unwrap_or_else(|| Environment::of_process().data_dir()))
}

/// The gRPC address of the node that runs on a data folder, as `http://host:port`.
pub fn address_from_data_dir(dir: &Path) -> Result<String, AskError> {
    listener_from_data_dir(dir, "grpc").map(|address| format!("http://{address}"))
}

/// Where the node that runs on a data folder listens, by the name of the listener.
pub(crate) fn listener_from_data_dir(dir: &Path, name: &str) -> Result<SocketAddr, AskError> {
    let path = dir.join("addresses.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let path = dir.to_path_buf();
            return Err(AskError::NotRunning { path });
        }
        Err(error) => {
            let source = error.into();
            return Err(AskError::Addresses { path, source });
        }
    };
    let addresses: BTreeMap<String, SocketAddr> = match serde_json::from_str(&text) {
        Ok(addresses) => addresses,
        Err(error) => {
            let source = error.into();
            return Err(AskError::Addresses { path, source });
        }
    };
    match addresses.get(name) {
        Some(address) => Ok(reachable(*address)),
        None => Err(AskError::Addresses {
            path,
            source: format!("it names no `{name}` address").into(),
        }),
    }
}

/// A listener on every interface is called on this machine.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            SocketAddr::from(([127, 0, 0, 1], v4.port()))
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), v6.port())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_node_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = address_from_data_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("sovereign-node start"), "{error}");
    }

    #[test]
    fn a_listener_on_every_interface_is_asked_on_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"grpc": "0.0.0.0:5", "admin": "127.0.0.1:6"}"#;
        std::fs::write(dir.path().join("addresses.json"), text).unwrap();
        assert_eq!(
            address_from_data_dir(dir.path()).unwrap(),
            "http://127.0.0.1:5"
        );
    }
}
