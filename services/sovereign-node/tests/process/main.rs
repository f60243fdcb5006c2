//! The binary as an operator meets it: exit codes, signals, the addresses file, `status`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use sovereign_model::Timestamp;
use sovereign_node::feed::{Edge, Fix};
use sovereign_node::running::address_from_data_dir;
use sovereign_node::status::NodeStatus;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// No condition takes longer, on a slow machine included.
const LIMIT: Duration = Duration::from_secs(60);

/// The binary with its data and working directory in `dir`, every door on a free loopback port.
fn node(dir: &Path, command: &str, args: &[&str]) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_sovereign-node"));
    process
        .current_dir(dir)
        .env_remove("SOVEREIGN_CONFIG")
        .arg(command)
        .args(args)
        .args(["--data-dir", "data"])
        .args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"])
        .args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    for door in [
        "host.grpc_listen",
        "host.admin_listen",
        "drone-ingest.listen",
        "mobile-ingest.listen",
    ] {
        process.args(["--set", &format!("{door}=127.0.0.1:0")]);
    }
    process
}

/// A node in the background; killed when dropped.
struct Running {
    process: Child,
    dir: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    fn spawn(command: &str, args: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let process = node(dir.path(), command, args);
        Self::of(process, dir)
    }

    /// A node none of whose files may become larger than 4 MiB: to it the disk is full.
    fn spawn_without_room(command: &str, args: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let node = node(dir.path(), command, args);
        let mut process = Command::new("sh");
        process
            .current_dir(dir.path())
            // Without the signal a write beyond the limit is an error.
            .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$@\"", "sh"])
            .arg(node.get_program())
            .args(node.get_args());
        Self::of(process, dir)
    }

    fn of(mut process: Command, dir: TempDir) -> Self {
        // A file takes whatever is logged; a pipe that nobody reads would stop the node.
        let process = process
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { process, dir }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Waits until the node says that it is ready, and returns what it says.
    async fn ready(&mut self) -> NodeStatus {
        self.until(|status| status.ready).await
    }

    async fn until(&mut self, condition: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the node ended with {status}: {}", self.log());
            }
            if let Ok(grpc) = address_from_data_dir(&self.data())
                && let Ok(status) = NodeStatus::ask(&grpc).await
                && condition(&status)
            {
                return status;
            }
            if Instant::now() > deadline {
                let _ = self.process.kill();
                panic!("not in time: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.unwrap().success());
    }

    fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it logged so far.
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_node_starts_says_where_it_listens_and_stops_on_sigterm() {
    let mut running = Running::spawn("start", &["--node-id", "alpha"]);
    let status = running.ready().await;
    assert_eq!(status.node.as_ref().unwrap().node_id, "alpha");
    assert_eq!(status.peers.as_ref().unwrap().len(), 0);
    assert!(status.vehicles.is_some() && status.layers.is_some());

    let file = running.data().join("addresses.json");
    let addresses: BTreeMap<String, SocketAddr> =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for name in ["grpc", "admin", "drone-ingest.udp", "mobile-ingest.https"] {
        assert!(addresses.contains_key(name), "{name} in {addresses:?}");
    }

    let printed = Command::new(env!("CARGO_BIN_EXE_sovereign-node"))
        .args(["status", "--json", "--data-dir"])
        .arg(running.data())
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed["node"]["node_id"], "alpha");
    assert_eq!(printed["ready"], true);

    // Nobody else may have the folder meanwhile.
    let second = node(running.dir.path(), "start", &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("in use by process"),
        "{second:?}"
    );

    // A terminal that closes does not end the node.
    running.signal("HUP");
    let deadline = Instant::now() + LIMIT;
    while !running.log().contains("SIGHUP: certificates") {
        assert!(Instant::now() < deadline, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.ready().await;
    assert_eq!(running.terminate().code(), Some(0));
    let log = running.log();
    assert!(log.contains("listening"), "{log}");
    for level in ["ERROR", "WARN"] {
        assert!(!log.contains(level), "{log}");
    }
    assert!(!file.exists());
}

/// Sends fixes for as long as the node takes them.
async fn walk(edge: Edge, phone: String) {
    edge.register(&phone, "test").await.unwrap();
    let fix = Fix {
        latitude_deg: 47.5,
        longitude_deg: 8.5,
        altitude_m: 400.0,
        heading_deg: 90.0,
    };
    let now = || Timestamp::from_system_time(SystemTime::now());
    while edge.upload_fix(&phone, now(), fix).await.is_ok() {}
}

#[tokio::test]
async fn a_node_whose_bus_cannot_be_written_says_so_and_goes_on() {
    let mut running = Running::spawn_without_room("start", &[]);
    running.ready().await;
    let addresses = std::fs::read_to_string(running.data().join("addresses.json")).unwrap();
    let addresses: BTreeMap<String, SocketAddr> = serde_json::from_str(&addresses).unwrap();
    let address = addresses["mobile-ingest.https"];
    let edge = Edge::open(address, &running.data().join("mobile-ingest")).unwrap();
    let mut phones = JoinSet::new();
    for number in 0..8 {
        phones.spawn(walk(edge.clone(), format!("phone-{number}")));
    }
    let deadline = Instant::now() + LIMIT;
    while !running.log().contains("the journal cannot be written") {
        assert!(Instant::now() < deadline, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    phones.shutdown().await;
    running.ready().await;
    assert_eq!(running.terminate().code(), Some(0));
    let log = running.log();
    assert!(log.contains("File too large"), "{log}");
}

#[tokio::test]
async fn a_joining_node_finds_the_one_that_was_started() {
    let mut first = Running::spawn("start", &["--node-id", "first"]);
    let addresses = first.ready().await.node.unwrap().listen_addrs;
    for transport in ["/quic-v1/", "/tcp/"] {
        let address = addresses.iter().find(|a| a.contains(transport)).unwrap();
        let mut second = Running::spawn("join", &["--node-id", "second", "--peer", address]);
        let status = second
            .until(|status| status.peers.as_ref().is_some_and(|peers| !peers.is_empty()))
            .await;
        assert_eq!(status.node.unwrap().network, "sovereign-testnet");
        assert_eq!(second.terminate().code(), Some(0));
    }
    assert_eq!(first.terminate().code(), Some(0));
}

#[test]
fn joining_nobody_fails_and_says_what_to_do() {
    // Port 1 (tcpmux): nobody listens there, and no test is given it.
    let peer = "/ip4/127.0.0.1/tcp/1";
    let mut running = Running::spawn("join", &["--peer", peer, "--join-timeout", "1"]);
    assert_eq!(running.wait().code(), Some(1));
    let log = running.log();
    assert!(log.contains("no peer was reached within 1 s"), "{log}");
}

#[tokio::test]
async fn joining_a_node_of_another_network_fails() {
    let mut first = Running::spawn("start", &[]);
    let addresses = first.ready().await.node.unwrap().listen_addrs;
    let address = addresses.iter().find(|a| a.contains("/tcp/")).unwrap();
    let elsewhere = "mesh-gateway.network=elsewhere";
    let args = ["--peer", address, "--join-timeout", "2", "--set", elsewhere];
    let mut running = Running::spawn("join", &args);
    assert_eq!(running.wait().code(), Some(1));
    let log = running.log();
    assert!(log.contains("no peer was reached within 2 s"), "{log}");
    assert_eq!(first.terminate().code(), Some(0));
}

/// What `demo --check-config` says in `dir` to `lines` of a settings file.
fn check_demo(dir: &Path, lines: &str) -> Output {
    std::fs::write(dir.join("settings.toml"), lines).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sovereign-node"))
        .current_dir(dir)
        .args(["demo", "--settings", "settings.toml", "--check-config"])
        .output()
        .unwrap()
}

#[test]
fn a_demo_tells_no_other_node_of_its_map() {
    let dir = TempDir::new().unwrap();
    for (lines, key) in [
        (
            "[mesh-gateway]\nbootstrap = ['/ip4/192.0.2.1/tcp/1']",
            "`mesh-gateway.bootstrap`: does not apply to demo",
        ),
        (
            "[mesh-gateway]\nmdns = true",
            "`mesh-gateway.mdns`: does not apply to demo",
        ),
    ] {
        let output = check_demo(dir.path(), lines);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(text(&output.stderr).contains(key), "{output:?}");
    }
}

fn refused(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let dir = TempDir::new().unwrap();
    let output = node(dir.path(), "start", args)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(
        !dir.path().join("data").exists(),
        "nothing is touched before"
    );
    output
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_name_before_anything_is_bound() {
    for (args, variables, named) in [
        (
            vec!["--set", "tile-svc.no_such_key=1"],
            vec![],
            "tile-svc.no_such_key",
        ),
        (
            vec!["--set", "tile-svc.no_such_table={}"],
            vec![],
            "tile-svc.no_such_table",
        ),
        (
            vec!["--set", "tile-svc.max_zoom=25"],
            vec![],
            "`tile-svc.max_zoom` (--set): must be at most 24",
        ),
        (
            vec!["--listen", "/ip4/1.2.3.4"],
            vec![],
            "`mesh-gateway.listen` (--listen)",
        ),
        (vec!["--set", "tiles.key=1"], vec![], "`tiles`"),
        (
            vec![],
            vec![("SOVEREIGN__HOST__COLOUR", "red")],
            "host.colour",
        ),
        (
            vec!["--enable-chain-runtime"],
            vec![],
            "--enable-chain-runtime",
        ),
        (
            vec![],
            vec![("SOVEREIGN_TILE_SVC_MAX_ZOOM", "20")],
            "`SOVEREIGN_TILE_SVC_MAX_ZOOM`: is no setting and would have no effect, write \
             SOVEREIGN__TILE_SVC__MAX_ZOOM",
        ),
        (
            vec![
                "--listen",
                "/ip4/127.0.0.1/tcp/7443",
                "--listen",
                "/ip4/0.0.0.0/tcp/7443",
            ],
            vec![],
            "`mesh-gateway.listen`: 0.0.0.0:7443 is where mesh-gateway.listen listens",
        ),
        (
            vec!["--set", "host.bus=http://me:hunter2@nats:4222"],
            vec![],
            "`http://nats:4222` is no bus",
        ),
        (vec!["--config", "missing.json"], vec![], "missing.json"),
        (vec!["--settings", "missing.toml"], vec![], "missing.toml"),
    ] {
        let output = refused(&args, &variables);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(text(&output.stderr).contains(named), "{output:?}");
        assert!(!text(&output.stderr).contains("hunter2"), "{output:?}");
    }
    // What Kubernetes sets for a service of that name is not meant for us.
    let foreign = [
        ("SOVEREIGN_TILE_SVC_SERVICE_HOST", "10.0.0.1"),
        ("SOVEREIGN_TILE_SVC_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
    ];
    let checked = refused(&["--check-config"], &foreign);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[test]
fn errors_are_json_on_request_and_usage_is_its_own_code() {
    let output = refused(&["--json", "--set", "host.grace_secs=0"], &[]);
    assert_eq!(output.status.code(), Some(78));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["key"], "host.grace_secs");
    assert_eq!(report["exit_code"], 78);

    assert_eq!(refused(&["--no-such-flag"], &[]).status.code(), Some(2));
    let checked = refused(&["--check-config", "--json"], &[]);
    assert_eq!(text(&checked.stdout).trim(), r#"{"ok":true}"#);
    assert_eq!(checked.status.code(), Some(0));
}

#[test]
fn asking_where_no_node_runs_says_so() {
    let dir = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sovereign-node"))
        .args(["status", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no node runs on"),
        "{output:?}"
    );
}
