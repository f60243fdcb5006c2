//! The documentation does what it says: every command in README.md and docs/ is executed.
//!
//! A fenced block is known by the words after its fence:
//!
//! * `sh`: bash executes it (`-euo pipefail`) and it has to end with 0; `sh exit=78`: with that code.
//! * `sh wait`: executed again until it prints what is expected, because what it shows takes a moment.
//! * `sh runs`: one command of a node that stays up: it has to become ready, log what is expected, and
//!   end with 0 when it is asked to stop.
//! * `text` right after one of these: each line has to be part of what the block printed.
//! * `toml`: a settings file that `sovereign-node start` takes; the key that it names is made here.
//!
//! Blocks talk to a node that this test starts on free ports, so addresses and folders of the text are
//! replaced by those of the node ([`Stage::staged`]). What cannot run here is in [`ELSEWHERE`], with the
//! make target that runs it. Blocks that need grpcurl are skipped, visibly, when it is not installed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use sovereign_proto::mesh::v1::GetNodeRequest;
use sovereign_proto::mesh::v1::mesh_client::MeshClient;
use sovereign_tests::data::skipped;
use sovereign_tests::process::{LIMIT, Process, binary};
use sovereign_tests::{flight, wait_for};
use tokio::process::Command;

/// Commands that are not executed here, and the make target that executes them: `make run` is the demo
/// that the test `demo` runs, built for release.
const ELSEWHERE: [(&str, &str); 5] = [
    ("make run", "run"),
    ("make test", "test"),
    ("make bench", "bench"),
    ("docker compose up --build", "compose-test"),
    (
        "docker compose cp mobile-ingest:/data/mobile-ingest ./mobile-ingest",
        "compose-test",
    ),
];

/// The process and its services: sections of the settings.
const SECTIONS: [&str; 9] = [
    "host",
    "camera-svc",
    "slam-svc",
    "tile-svc",
    "checkpoint-svc",
    "drone-ingest",
    "mobile-ingest",
    "round-svc",
    "mesh-gateway",
];

/// Doors of a second node, which would have the ports of the first by default.
const FREE_PORTS: [(&str, &str); 4] = [
    ("SOVEREIGN__HOST__GRPC_LISTEN", "127.0.0.1:0"),
    ("SOVEREIGN__HOST__ADMIN_LISTEN", "127.0.0.1:0"),
    ("SOVEREIGN__DRONE_INGEST__LISTEN", "127.0.0.1:0"),
    ("SOVEREIGN__MOBILE_INGEST__LISTEN", "127.0.0.1:0"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and every page of docs/.
fn pages() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut paths = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            Ok((path, text))
        })
        .collect()
}

/// A fenced block.
#[derive(Debug)]
struct Block {
    /// Page and line, for messages.
    place: String,
    /// Words after the fence.
    info: String,
    text: String,
    /// Lines of the `text` block that follows.
    expected: Vec<String>,
}

/// A page in its two kinds of text: fenced blocks, and the rest.
fn blocks_and_prose(path: &Path, page: &str) -> anyhow::Result<(Vec<Block>, String)> {
    let (mut blocks, mut prose) = (Vec::<Block>::new(), String::new());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut lines = page.lines().enumerate();
    // Whether only empty lines came since the last block.
    let mut adjacent = false;
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            adjacent &= line.is_empty();
            prose.push_str(line);
            prose.push('\n');
            continue;
        };
        let place = format!("{name}:{}", number + 1);
        let inside: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        let follows = blocks
            .last_mut()
            .filter(|block| adjacent && info == "text" && block.info.starts_with("sh"));
        if let Some(block) = follows {
            block.expected = inside.iter().map(ToString::to_string).collect();
        } else {
            blocks.push(Block {
                place,
                info: info.to_owned(),
                text: inside.join("\n"),
                expected: Vec::new(),
            });
        }
        adjacent = true;
    }
    Ok((blocks, prose))
}

/// Every block of every page whose information begins with `word`.
fn blocks(word: &str) -> anyhow::Result<Vec<Block>> {
    let mut found = Vec::new();
    for (path, page) in pages()? {
        let (blocks, _) = blocks_and_prose(&path, &page)?;
        found.extend(
            blocks
                .into_iter()
                .filter(|block| block.info.split(' ').next() == Some(word)),
        );
    }
    ensure!(!found.is_empty(), "the documentation has no {word} block");
    Ok(found)
}

/// `code` spans of the prose of every page, with the page.
fn spans() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for (path, page) in pages()? {
        let (_, prose) = blocks_and_prose(&path, &page)?;
        for line in prose.lines() {
            let code = line.split('`').skip(1).step_by(2);
            found.extend(code.map(|span| (path.clone(), span.to_owned())));
        }
    }
    Ok(found)
}

/// The node that the examples talk to, and the folder that they are pasted in.
struct Stage {
    folder: PathBuf,
    node: Process,
    node_binary: PathBuf,
    /// Where the node can be dialled by peers.
    peer_address: String,
    path: OsString,
}

impl Stage {
    async fn set(folder: &Path) -> anyhow::Result<Self> {
        let mut args = vec!["start", "--node-id", "documented"];
        for address in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
            args.extend(["--listen", address]);
        }
        for setting in [
            "drone-ingest.listen=127.0.0.1:0",
            "mobile-ingest.listen=127.0.0.1:0",
        ] {
            args.extend(["--set", setting]);
        }
        let node = Process::start("sovereign-node", &folder.join("node"), &args).await?;
        let mesh = MeshClient::new(node.grpc()?)
            .get_node(GetNodeRequest {})
            .await?
            .into_inner();
        let peer_address = mesh.listen_addrs.into_iter().find(|a| a.contains("/quic"));
        let photo = flight::pictures(1, (752, 480))?
            .pop()
            .context("a picture")?;
        fs::write(folder.join("photo.jpg"), photo)?;
        let tools = root().join("target/tools/bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(tools).chain(std::env::split_paths(&path));
        Ok(Self {
            folder: folder.to_owned(),
            node,
            node_binary: binary("sovereign-node")?,
            peer_address: peer_address.context("the node listens on QUIC")?,
            path: std::env::join_paths(path)?,
        })
    }

    /// The text with this node's addresses and folders for those of the documentation.
    fn staged(&self, text: &str, data_dir: &Path) -> anyhow::Result<String> {
        let address = |name| self.node.address(name).map(|address| address.to_string());
        let port = |name| self.node.address(name).map(|address| address.port());
        let data_dir = data_dir.display().to_string();
        let udp = format!("/dev/udp/127.0.0.1/{}", port("drone-ingest.udp")?);
        let https = format!("https://localhost:{}", port("mobile-ingest.https")?);
        let node = self.node_binary.display().to_string();
        let replaced = [
            ("127.0.0.1:50051", address("grpc")?),
            ("127.0.0.1:9464", address("admin")?),
            ("https://localhost:8443", https),
            ("/dev/udp/127.0.0.1/14550", udp),
            ("sovereign-data/demo", data_dir.clone()),
            ("/var/lib/sovereign-map", data_dir),
            ("target/release/sovereign-node", node),
            (
                "/ip4/192.0.2.10/udp/4001/quic-v1",
                self.peer_address.clone(),
            ),
            (
                "/ip4/0.0.0.0/udp/4001/quic-v1",
                "/ip4/127.0.0.1/udp/0/quic-v1".to_owned(),
            ),
            ("/ip4/0.0.0.0/tcp/4001", "/ip4/127.0.0.1/tcp/0".to_owned()),
        ]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        Ok(replaced)
    }

    fn bash(&self, script: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", script])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        bash
    }

    /// Executes a block once; what it printed, on either output.
    async fn execute(&self, block: &Block, code: i32) -> anyhow::Result<String> {
        let script = self.staged(&block.text, self.node.data_dir())?;
        let output = tokio::time::timeout(LIMIT, self.bash(&script).output())
            .await
            .context("it does not end")??;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        ensure!(
            output.status.code() == Some(code),
            "it ended with {}:\n{script}\n{printed}",
            output.status
        );
        Ok(printed)
    }

    /// Starts the node of a block, waits until it is ready and has logged what is expected, and stops it.
    async fn keep_up(&self, block: &Block, number: usize) -> anyhow::Result<()> {
        let home = self.folder.join(format!("runs-{number}"));
        fs::create_dir_all(&home)?;
        let (addresses, log) = (home.join("addresses.json"), home.join("log"));
        // The node itself is to be asked to stop, not a shell around it.
        let script = format!("exec {}", self.staged(&block.text, &home.join("data"))?);
        let mut child = self
            .bash(&script)
            .envs(FREE_PORTS)
            .env("SOVEREIGN__HOST__ADDRESSES_FILE", &addresses)
            .env("XDG_DATA_HOME", &home)
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let logged = || fs::read_to_string(&log).unwrap_or_default();
        let ready = wait_for(LIMIT, async || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            let log = logged();
            let ready = is_ready(&addresses).await;
            Ok((ready && missing(block, &log).is_none()).then_some(()))
        });
        ready
            .await
            .with_context(|| format!("{script}\n{}", logged()))?;
        let id = child.id().context("it runs")?.to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status().await?;
        ensure!(asked.success(), "send SIGTERM");
        let status = tokio::time::timeout(LIMIT, child.wait())
            .await
            .context("it does not stop")??;
        ensure!(status.success(), "it ended with {status}: {}", logged());
        Ok(())
    }

    async fn check(&self, block: &Block, number: usize) -> anyhow::Result<()> {
        let code = match block.info.as_str() {
            "sh" => 0,
            "sh wait" => {
                let shown = wait_for(Duration::from_secs(30), async || {
                    let printed = self.execute(block, 0).await?;
                    Ok(missing(block, &printed).is_none().then_some(()))
                });
                return match shown.await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        let printed = self.execute(block, 0).await?;
                        Err(error.context(format!("it printed {printed}")))
                    }
                };
            }
            "sh runs" => return self.keep_up(block, number).await,
            other => other
                .strip_prefix("sh exit=")
                .and_then(|code| code.parse().ok())
                .with_context(|| format!("`{other}` is no kind of block"))?,
        };
        let printed = self.execute(block, code).await?;
        if let Some(line) = missing(block, &printed) {
            bail!("`{line}` is not in what it printed:\n{printed}");
        }
        Ok(())
    }
}

/// The first expected line that is not in `printed`.
fn missing<'a>(block: &'a Block, printed: &str) -> Option<&'a str> {
    block
        .expected
        .iter()
        .map(String::as_str)
        .find(|line| !printed.contains(line))
}

/// Whether the node whose addresses are in a file says that it is ready.
async fn is_ready(addresses: &Path) -> bool {
    let admin = fs::read_to_string(addresses).ok().and_then(|text| {
        let addresses: serde_json::Value = serde_json::from_str(&text).ok()?;
        addresses["admin"].as_str()?.parse::<SocketAddr>().ok()
    });
    let Some(admin) = admin else { return false };
    let reply = reqwest::get(format!("http://{admin}/readyz")).await;
    reply.is_ok_and(|reply| reply.status().is_success())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_what_the_documentation_says() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let stage = Stage::set(folder.path()).await?;
    let found = stage.bash("command -v grpcurl").output().await?;
    let has_grpcurl = found.status.success();
    for (number, block) in blocks("sh")?.iter().enumerate() {
        if ELSEWHERE.iter().any(|(command, _)| *command == block.text) {
            continue;
        }
        if block.text.contains("grpcurl") && !has_grpcurl {
            skipped(&format!(
                "{}: grpcurl is not installed (.ci/setup.sh test builds it with go)",
                block.place
            ));
            continue;
        }
        stage
            .check(block, number)
            .await
            .with_context(|| format!("the block at {}", block.place))?;
    }
    stage.node.stop(&[]).await
}

#[test]
fn what_is_not_executed_here_has_a_make_target() -> anyhow::Result<()> {
    let makefile = fs::read_to_string(root().join("Makefile"))?;
    let blocks = blocks("sh")?;
    for (command, target) in ELSEWHERE {
        ensure!(
            makefile.contains(&format!("\n{target}:")),
            "the Makefile has no {target}"
        );
        ensure!(
            blocks.iter().any(|block| block.text == command),
            "nobody is told to run {command}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn every_settings_file_is_usable() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("mavlink.key");
    fs::write(&key, [7; 32])?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    for (number, block) in blocks("toml")?.iter().enumerate() {
        let file = folder.path().join(format!("{number}.toml"));
        let key = key.display().to_string();
        fs::write(
            &file,
            block.text.replace("/etc/sovereign-map/mavlink.key", &key),
        )?;
        let output = Command::new(binary("sovereign-node")?)
            .args(["start", "--check-config", "--settings"])
            .arg(&file)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "{}: {}",
            block.place,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// What the node says of a setting with a value that no key takes by mistake.
async fn said_of(setting: &str) -> anyhow::Result<String> {
    let output = Command::new(binary("sovereign-node")?)
        .args(["start", "--check-config", "--set"])
        .arg(format!("{setting}="))
        .output()
        .await?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn every_setting_that_is_named_exists() -> anyhow::Result<()> {
    let unknown = |said: &str| said.contains("unknown field");
    let control = said_of("host.no_such_key").await?;
    ensure!(unknown(&control), "an unknown key goes by: {control}");
    let mut named = 0;
    for (page, span) in spans()? {
        let Some((section, key)) = span.split_once('.') else {
            continue;
        };
        let key: String = key
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect();
        if !SECTIONS.contains(&section) || key.is_empty() {
            continue;
        }
        named += 1;
        let said = said_of(&format!("{section}.{key}")).await?;
        ensure!(!unknown(&said), "{}: `{span}`: {said}", page.display());
    }
    ensure!(named > 20, "only {named} settings were found");
    Ok(())
}

#[test]
fn every_metric_that_is_named_exists() -> anyhow::Result<()> {
    let sources = [
        ("sovereign_bus_", "services/libs/bus"),
        ("sovereign_host_", "services/libs/host"),
        ("sovereign_camera_svc_", "services/camera-svc"),
        ("sovereign_slam_svc_", "services/slam-svc"),
        ("sovereign_tile_svc_", "services/tile-svc"),
        ("sovereign_checkpoint_svc_", "services/checkpoint-svc"),
        ("sovereign_drone_ingest_", "services/drone-ingest"),
        ("sovereign_mobile_ingest_", "services/mobile-ingest"),
        ("sovereign_round_svc_", "services/round-svc"),
        ("sovereign_mesh_gateway_", "gateway"),
    ];
    for (page, span) in spans()? {
        if !span.starts_with("sovereign_") {
            continue;
        }
        let name = span.strip_suffix("_total").unwrap_or(&span);
        let source = sources
            .iter()
            .find_map(|(prefix, folder)| Some((name.strip_prefix(prefix)?, root().join(folder))));
        let (name, folder) =
            source.with_context(|| format!("{}: whose metric is `{span}`?", page.display()))?;
        let source = fs::read_to_string(folder.join("src/metrics.rs"))?;
        // A unit is declared beside the name.
        let units = ["", "_seconds", "_bytes"];
        let mut fields = units.iter().filter_map(|unit| name.strip_suffix(unit));
        ensure!(
            source.contains(&format!("\"{name}\""))
                || fields.any(|field| source.contains(&format!(" {field}: "))),
            "{}: there is no metric `{span}`",
            page.display()
        );
    }
    Ok(())
}

#[test]
fn every_call_of_the_contract_is_listed() -> anyhow::Result<()> {
    let page = fs::read_to_string(root().join("docs/api-grpc.md"))?;
    for name in [
        "camera/v1/camera",
        "checkpoint/v1/checkpoint",
        "checkpoint/v1/objects",
        "drone/v1/drone",
        "mesh/v1/mesh",
        "mobile/v1/mobile",
        "round/v1/round",
        "slam/v1/slam",
        "tile/v1/tile",
    ] {
        let file = root().join(format!("proto/sovereign/{name}.proto"));
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let words = |keyword: &'static str| {
            text.lines().filter_map(move |line| {
                let rest = line.trim_start().strip_prefix(keyword)?;
                rest.split([' ', '(', ';']).next().map(ToOwned::to_owned)
            })
        };
        let package = words("package ").next().context("a package")?;
        let service = words("service ").next().context("a service")?;
        let service = format!("| `{package}.{service}` |");
        let row = page.lines().find(|line| line.starts_with(&service));
        let row = row.with_context(|| format!("docs/api-grpc.md has no row {service}"))?;
        for call in words("rpc ") {
            ensure!(row.contains(&format!("`{call}`")), "{call} is not in {row}");
        }
    }
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> anyhow::Result<()> {
    for (path, page) in pages()? {
        let (_, prose) = blocks_and_prose(&path, &page)?;
        for link in prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.starts_with("https://") || link.starts_with('#') {
                continue;
            }
            let file = link.split('#').next().unwrap_or(link);
            let to = path.parent().context("a page is in a folder")?.join(file);
            ensure!(to.exists(), "{}: {link} is not there", path.display());
        }
    }
    Ok(())
}
