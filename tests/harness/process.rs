//! Our own binaries as child processes: started on free ports, watched through their addresses file,
//! stopped by signal, killed on drop.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use sovereign_service::Channel;

use crate::wait_for;

/// A process gets this long to become ready, and to end.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A binary that was built beside this test.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("find the test binary")?;
    let folder = test
        .ancestors()
        .find(|folder| folder.join(name).is_file())
        .with_context(|| {
            format!("{name} is not built: run `cargo build --workspace` before this test alone")
        })?;
    Ok(folder.join(name))
}

/// A running process of ours.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    data_dir: PathBuf,
    /// Bound addresses by name: `grpc`, `admin`, `<service>.<name>`.
    pub addresses: BTreeMap<String, SocketAddr>,
}

impl Process {
    /// [`Process::spawn`], then [`Process::wait_until_ready`].
    pub async fn start(name: &str, data_dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let mut process = Self::spawn(name, data_dir, args)?;
        process.wait_until_ready().await?;
        Ok(process)
    }

    /// Starts `name` with its data in `data_dir`; gRPC and admin are on free ports. Log and standard output
    /// go to `<data_dir>.log` and `<data_dir>.out`.
    pub fn spawn(name: &str, data_dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data_dir)?;
        // The addresses of a process that was killed here would be taken for this one's.
        match std::fs::remove_file(data_dir.join("addresses.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(data_dir.with_extension("log"))?;
        let child = Command::new(binary(name)?)
            .args(args)
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--set", "host.grpc_listen=127.0.0.1:0"])
            .args(["--set", "host.admin_listen=127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(File::create(data_dir.with_extension("out"))?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            data_dir: data_dir.to_owned(),
            addresses: BTreeMap::new(),
        })
    }

    /// Waits until its `/readyz` says so, and learns its addresses.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let file = self.data_dir.join("addresses.json");
        let http = reqwest::Client::new();
        let child = &mut self.child;
        let found = wait_for(LIMIT, async || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            // Absent, or half written at this moment.
            let Some(addresses) = std::fs::read_to_string(&file)
                .ok()
                .and_then(|text| serde_json::from_str::<BTreeMap<String, SocketAddr>>(&text).ok())
            else {
                return Ok(None);
            };
            let url = format!("http://{}/readyz", addresses["admin"]);
            match http.get(url).send().await {
                Ok(reply) if reply.status().is_success() => Ok(Some(addresses)),
                _ => Ok(None),
            }
        })
        .await;
        self.addresses =
            found.with_context(|| format!("{} is not ready: {}", self.name, self.log()))?;
        Ok(())
    }

    /// A channel to its gRPC door.
    pub fn grpc(&self) -> anyhow::Result<Channel> {
        Ok(Channel::connect(&self.grpc_url()?)?)
    }

    /// URL of its gRPC door.
    pub fn grpc_url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.address("grpc")?))
    }

    /// One of its addresses.
    pub fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.addresses
            .get(name)
            .copied()
            .with_context(|| format!("{} has no address {name}: {:?}", self.name, self.addresses))
    }

    /// The memory that it holds, bytes (Linux: `VmRSS`).
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.bytes_of("VmRSS")
    }

    /// The most memory that it held so far, bytes (Linux: `VmHWM`).
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        self.bytes_of("VmHWM")
    }

    fn bytes_of(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        let kib: u64 = kib
            .with_context(|| format!("no {name} in the status of a process"))?
            .parse()?;
        Ok(kib * 1024)
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it wrote to the standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.data_dir.with_extension("out")).unwrap_or_default()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap_or_default()
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Sends it a signal, by its name without `SIG`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status()?;
        ensure!(status.success(), "send SIG{signal} to {}", self.name);
        Ok(())
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it where it stands (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        let ended = wait_for(limit, async || Ok(child.try_wait()?)).await;
        ended.with_context(|| format!("{} goes on: {}", self.name, self.log()))
    }

    /// Stops it in order; asks for exit code 0 and a log without warnings but those `announced`.
    pub async fn stop(mut self, announced: &[&str]) -> anyhow::Result<()> {
        self.terminate()?;
        let status = self.ended(LIMIT).await?;
        ensure!(
            status.success(),
            "{} ended with {status}: {}",
            self.name,
            self.log()
        );
        let log = self.log();
        let loud: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .filter(|line| !announced.iter().any(|text| line.contains(text)))
            .collect();
        ensure!(loud.is_empty(), "{} warned: {loud:#?}", self.name);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
