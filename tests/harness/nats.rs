//! A real NATS server per test.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use sovereign_bus::contract::Probe;
use sovereign_bus::{Class, DurableTopic};
use tempfile::TempDir;

/// What tests of the bus send and must not lose.
pub const DURABLE: DurableTopic<Probe> = DurableTopic::new("it.*.durable", Class::Records);

const PROGRAM: &str = "nats-server";

/// Older servers lack what the bus uses, or have known holes.
const OLDEST_VERSION: [u32; 3] = [2, 12, 7];

/// The bus's payload limit and room for headers.
const MAX_PAYLOAD: usize = (8 << 20) + (64 << 10);

/// Longest time that a server may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A server with `JetStream` on a free port of the loopback address. Dropping it kills it and removes its
/// store.
#[derive(Debug)]
pub struct NatsServer {
    folder: TempDir,
    address: SocketAddr,
    max_payload: usize,
    process: Mutex<Option<Child>>,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    pub fn start() -> Result<Self> {
        Self::start_with_max_payload(MAX_PAYLOAD)
    }

    /// Starts a server that takes messages of at most `max_payload` bytes.
    pub fn start_with_max_payload(max_payload: usize) -> Result<Self> {
        check_version()?;
        let folder = tempfile::tempdir().context("make the server's folder")?;
        let mut child = spawn(folder.path(), "127.0.0.1:-1", max_payload)?;
        let address = match wait_for_port(folder.path(), &mut child) {
            Ok(address) => address,
            Err(error) => {
                end(child);
                return Err(error);
            }
        };
        let server = Self {
            folder,
            address,
            max_payload,
            process: Mutex::new(Some(child)),
        };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// What the server says of its version, `nats-server: v2.15.2`.
    pub fn version() -> Result<String> {
        let said = Command::new(PROGRAM).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// Where it listens, as clients take it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Kills the server without a word; its store stays.
    pub fn kill(&self) {
        if let Some(child) = self.process().take() {
            end(child);
        }
    }

    /// Kills the server if it runs, and starts it on the same port with the same store.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        let address = self.address.to_string();
        let child = spawn(self.folder.path(), &address, self.max_payload)?;
        *self.process() = Some(child);
        self.wait_until_it_answers()
    }

    /// As [`NatsServer::restart`], without what it had stored.
    pub fn restart_empty(&self) -> Result<()> {
        self.kill();
        fs::remove_dir_all(self.folder.path().join("store"))
            .context("remove the server's store")?;
        self.restart()
    }

    /// Makes the server read and answer nothing, with its connections open, until
    /// [`NatsServer::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets a paused server go on.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let process = self.process();
        let child = process.as_ref().context("the server does not run")?;
        let status = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .context("run kill")?;
        ensure!(status.success(), "kill -s {signal} failed");
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            match greeting(self.address) {
                Ok(line) if line.starts_with("INFO ") => return Ok(()),
                Ok(_) | Err(_) if started.elapsed() < START_LIMIT => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(line) => bail!("{PROGRAM} greets with {line:?}"),
                Err(error) => return Err(error).context("connect to the server"),
            }
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end(mut child: Child) {
    // It may have ended by itself; either way it is waited for.
    drop(child.kill());
    drop(child.wait());
}

fn check_version() -> Result<()> {
    let output = Command::new(PROGRAM)
        .arg("--version")
        .output()
        .with_context(|| format!("run {PROGRAM}: is it installed and on PATH?"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = version_of(&text).with_context(|| format!("{PROGRAM} says {text:?}"))?;
    ensure!(
        version >= OLDEST_VERSION,
        "{PROGRAM} {version:?} is too old: {OLDEST_VERSION:?} or later is needed"
    );
    Ok(())
}

/// `nats-server: v2.15.2` is `[2, 15, 2]`.
fn version_of(text: &str) -> Option<[u32; 3]> {
    let numbers = text.trim().rsplit_once('v')?.1;
    let mut numbers = numbers.split(['.', '-']).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?])
}

fn spawn(folder: &Path, listen: &str, max_payload: usize) -> Result<Child> {
    let config = folder.join("nats.conf");
    let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
    fs::write(
        &config,
        format!(
            "listen: \"{listen}\"\n\
             max_payload: {max_payload}\n\
             ports_file_dir: {ports}\n\
             jetstream {{ store_dir: {store}, max_memory_store: 256MB, max_file_store: 64GB, sync_interval: always }}\n",
            ports = quoted(folder.to_owned()),
            store = quoted(folder.join("store")),
        ),
    )
    .context("write the server's configuration")?;
    let log = fs::File::create(folder.join("nats.log")).context("make the server's log")?;
    Command::new(PROGRAM)
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {PROGRAM}"))
}

/// The server writes the ports that it got to a file named after its process.
fn wait_for_port(folder: &Path, child: &mut Child) -> Result<SocketAddr> {
    let file = folder.join(format!("{PROGRAM}_{}.ports", child.id()));
    let started = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(&file)
            && let Some((_, rest)) = text.split_once("nats://")
            && let Some((address, _)) = rest.split_once('"')
        {
            return address.parse().context("read the server's port");
        }
        if let Some(status) = child.try_wait().context("look at the server")? {
            let log = fs::read_to_string(folder.join("nats.log")).unwrap_or_default();
            bail!("{PROGRAM} ended with {status}: {log}");
        }
        ensure!(
            started.elapsed() < START_LIMIT,
            "{PROGRAM} did not say its port in {START_LIMIT:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn greeting(address: SocketAddr) -> Result<String> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_three_numbers() {
        assert_eq!(version_of("nats-server: v2.15.2\n"), Some([2, 15, 2]));
        assert_eq!(version_of("nats-server: v2.12.7-RC.1"), Some([2, 12, 7]));
        assert_eq!(version_of("something"), None);
    }
}
