//! What the door touches: the socket, the clock, the bus, the key file.
//!
//! *receive* drains the socket, as many datagrams as there are for each wake, and merges MAVLink at once;
//! JSON goes through a bounded queue to *samples*, which reads it and never waits: it puts each sample in
//! the lane of its drone. A *lane* takes its samples one after the other and may have to wait for the disk.
//! *publish* gives states to the bus when they are due, so that a slow bus never delays the socket.

mod queue;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, Socket, Type};
use sovereign_bus::{Bus, Key};
use sovereign_model::{Digest, Timestamp};
use sovereign_proto::drone::v1::drones_server::SERVICE_NAME;
use sovereign_proto::topics::DRONE_STATE;
use sovereign_service::{
    BuildError, Context, ReadyLatch, RunError, Service, Stop, StopSource, Tasks, chain,
};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::domain::door::{Door, Heard, Publication};
use crate::domain::reject::Reject;
use crate::domain::sample::{self, Sample};
use crate::domain::signing::{SignaturePolicy, SigningKey};
use crate::grpc;
use crate::metrics::DroneMetrics;

pub(crate) use queue::Picture;
use queue::lane_of;

/// Kernel buffer asked for. At 200,000 datagrams of 60 bytes a second it bridges some 50 ms without a
/// reader; the kernel may grant less (`net.core.rmem_max`), which is logged.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The largest datagram there is.
const MAX_DATAGRAM_BYTES: usize = 65_536;
/// Datagrams taken for one wake before others on the runtime get their turn.
const DATAGRAMS_A_WAKE: usize = 512;
/// JSON datagrams that wait to be read; a further one is refused as `BUFFER_FULL`.
const SAMPLE_QUEUE: usize = 256;
/// How often silent vehicles are looked for, and the longest sleep of the publisher.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Samples and captures of one vehicle are queued one after the other; vehicles share this many lanes, so
/// that one which waits for the disk delays only those of its lane.
const LANES: usize = 64;
/// Samples that wait in one lane; a further one is refused as `BUFFER_FULL`.
const LANE_DEPTH: usize = 16;

/// The service.
#[derive(Debug)]
pub struct DroneService {
    shared: Arc<Shared>,
    socket: UdpSocket,
    address: SocketAddr,
    ready: ReadyLatch,
}

impl Service for DroneService {
    const NAME: &'static str = "drone-ingest";
    const GRPC_SERVICE: &'static str = SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = sovereign_proto::DESCRIPTOR_SET;
    type Config = Config;
    type Settings = Settings;
    type Calls = ();

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.check_exposure()?;
        Ok(Settings {
            listen: config.listen,
            rules: config.rules(signature_policy(&config)?)?,
        })
    }

    async fn build(settings: Settings, (): (), context: Context) -> Result<Self, BuildError> {
        let door = Arc::new(Mutex::new(Door::new(settings.rules)));
        let metrics = context
            .metrics
            .register(|registry| DroneMetrics::register(registry, &door));
        let (socket, granted) = bind(settings.listen)
            .map_err(|e| BuildError::new(format!("bind UDP {}", settings.listen), e))?;
        let address = socket
            .local_addr()
            .map_err(|e| BuildError::new("read the address of the UDP socket", e))?;
        metrics.receive_buffer(granted);
        tracing::info!(
            asked = RECEIVE_BUFFER_BYTES,
            granted,
            "receive buffer of the UDP socket"
        );
        let shared = Arc::new(Shared {
            bus: context.bus,
            door,
            metrics,
            due: Notify::new(),
            heard: Notify::new(),
            last_received: Mutex::new(Timestamp::UNIX_EPOCH),
            samples_fail: AtomicBool::new(false),
            lanes: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        });
        Ok(DroneService {
            shared,
            socket,
            address,
            ready: context.ready.latch("udp"),
        })
    }

    fn routes(&self) -> Routes {
        grpc::routes(Arc::clone(&self.shared))
    }

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("udp", self.address)]
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let shared = self.shared;
        let own = StopSource::under(&stop).stop();
        let (queue, datagrams) = mpsc::channel(SAMPLE_QUEUE);
        let mut tasks = Tasks::new(own.clone());
        tasks.spawn(
            "receive",
            receive(Arc::clone(&shared), self.socket, queue, own.clone()),
        );
        let lanes = std::array::from_fn(|number| {
            let (lane, samples) = mpsc::channel(LANE_DEPTH);
            // Ends when the lane is empty and *samples* is gone.
            let task = take_samples(Arc::clone(&shared), samples);
            tasks.spawn(format!("lane {number}"), task);
            lane
        });
        // Ends when the queue is empty and *receive* is gone.
        tasks.spawn(
            "samples",
            read_samples(Arc::clone(&shared), datagrams, lanes),
        );
        tasks.spawn("publish", publish(Arc::clone(&shared), own));
        self.ready.set();
        let ended = tasks.wait().await;
        let last = shared.door().take_all(now());
        shared.publish_states(last).await;
        ended
    }
}

/// What the tasks and the calls share.
#[derive(Debug)]
pub(crate) struct Shared {
    bus: Bus,
    door: Arc<Mutex<Door>>,
    metrics: DroneMetrics,
    /// A vehicle became due for publishing.
    due: Notify,
    /// Telemetry was merged.
    heard: Notify,
    /// Arrival given to the last capture; it grows over all vehicles, so for each of them as well.
    last_received: Mutex<Timestamp>,
    /// What the last sample with a payload carried was not queued.
    samples_fail: AtomicBool,
    lanes: [tokio::sync::Mutex<()>; LANES],
}

impl Shared {
    /// The door, locked; never held over an await.
    pub(crate) fn door(&self) -> MutexGuard<'_, Door> {
        // Counters and states stay usable after a panic elsewhere.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a datagram and merges it, or puts it in the queue of samples.
    fn take_datagram(
        &self,
        datagram: &[u8],
        from: SocketAddr,
        queue: &mpsc::Sender<Json>,
    ) -> Heard {
        let arrived = now();
        let mut door = self.door();
        let stats = door.stats_mut();
        stats.datagrams += 1;
        stats.bytes += datagram.len() as u64;
        if !sample::looks_like_json(datagram) {
            return door.hear_mavlink(arrived, from, datagram);
        }
        let refusal = if !door.admits_unsigned() {
            Some(Reject::Unsigned)
        } else {
            let json = Json {
                bytes: Box::from(datagram),
                arrived,
            };
            // Closed only while stopping: then nobody is left to take it either.
            queue.try_send(json).err().map(|_| Reject::BufferFull)
        };
        if let Some(reason) = refusal {
            door.stats_mut().reject(reason);
        }
        Heard::default()
    }

    /// Checks, queues and only then merges a sample.
    async fn take_sample(&self, sample: &Sample, arrived: Timestamp) -> Result<(), Reject> {
        self.door().check_sample(sample, arrived)?;
        self.queue_payload(sample, arrived).await?;
        let heard = self.door().accept_sample(sample, arrived)?;
        self.wake(heard);
        Ok(())
    }

    fn refuse_sample(&self, reason: Reject) {
        self.door().stats_mut().reject(reason);
        tracing::debug!(reason = reason.code(), "sample refused");
    }

    /// Wakes whoever waits for what was heard.
    fn wake(&self, heard: Heard) {
        if heard.telemetry {
            self.heard.notify_waiters();
        }
        if heard.newly_due {
            self.due.notify_one();
        }
    }

    async fn publish_states(&self, publications: Vec<Publication>) {
        for Publication { state, first } in publications {
            if first {
                tracing::info!(vehicle = %state.vehicle_id, source = state.source.as_str(), "vehicle heard");
            }
            // A sensor id is a key: both have the same alphabet and length.
            let key = Key::parse(state.vehicle_id.as_str()).ok();
            let message = grpc::state_from_snapshot(&state);
            match self.bus.publish(&DRONE_STATE, key.as_ref(), &message).await {
                Ok(()) => self.metrics.state_published(),
                Err(error) => {
                    self.metrics.state_publish_failed();
                    tracing::debug!(vehicle = %state.vehicle_id, error = %chain(&error), "state not published");
                }
            }
        }
    }
}

/// A JSON datagram on its way to be read.
#[derive(Debug)]
struct Json {
    bytes: Box<[u8]>,
    arrived: Timestamp,
}

/// A sample on its way to the disk.
#[derive(Debug)]
struct Arrived {
    sample: Sample,
    at: Timestamp,
}

async fn receive(
    shared: Arc<Shared>,
    socket: UdpSocket,
    queue: mpsc::Sender<Json>,
    stop: Stop,
) -> Result<(), RunError> {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES].into_boxed_slice();
    let stopping = stop.requested();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => return Ok(()),
            ready = socket.readable() => {
                ready.map_err(|e| RunError::new("wait for the UDP socket", e))?;
            }
        }
        let mut heard = Heard::default();
        let mut drained = false;
        for _ in 0..DATAGRAMS_A_WAKE {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let one = shared.take_datagram(&buffer[..length], from, &queue);
                    heard.telemetry |= one.telemetry;
                    heard.newly_due |= one.newly_due;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    drained = true;
                    break;
                }
                Err(error) if passes(error.kind()) => shared.metrics.receive_failed(),
                Err(error) => return Err(RunError::new("receive from the UDP socket", error)),
            }
        }
        shared.wake(heard);
        if !drained {
            tokio::task::yield_now().await;
        }
    }
}

/// Errors that belong to one datagram, or to a peer that went away, and not to the socket.
fn passes(kind: ErrorKind) -> bool {
    [
        ErrorKind::Interrupted,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::HostUnreachable,
        ErrorKind::NetworkUnreachable,
        ErrorKind::OutOfMemory,
    ]
    .contains(&kind)
}

async fn read_samples(
    shared: Arc<Shared>,
    mut datagrams: mpsc::Receiver<Json>,
    lanes: [mpsc::Sender<Arrived>; LANES],
) -> Result<(), RunError> {
    while let Some(json) = datagrams.recv().await {
        let put = sample::parse(&json.bytes).and_then(|sample| {
            let lane = &lanes[lane_of(&sample.drone_id)];
            let at = json.arrived;
            // Closed only after a panic, which ends the service.
            lane.try_send(Arrived { sample, at })
                .map_err(|_| Reject::BufferFull)
        });
        if let Err(reason) = put {
            shared.refuse_sample(reason);
        }
    }
    Ok(())
}

async fn take_samples(
    shared: Arc<Shared>,
    mut lane: mpsc::Receiver<Arrived>,
) -> Result<(), RunError> {
    while let Some(Arrived { sample, at }) = lane.recv().await {
        if let Err(reason) = shared.take_sample(&sample, at).await {
            shared.refuse_sample(reason);
        }
    }
    Ok(())
}

async fn publish(shared: Arc<Shared>, stop: Stop) -> Result<(), RunError> {
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stopping = stop.requested();
    tokio::pin!(stopping);
    loop {
        let (publications, sleep) = {
            let mut door = shared.door();
            let publications = door.take_due(now());
            let next = door.next_due().map(|at| at.since(now()));
            (publications, next.unwrap_or(HOUSEKEEPING).min(HOUSEKEEPING))
        };
        shared.publish_states(publications).await;
        tokio::select! {
            () = &mut stopping => return Ok(()),
            () = shared.due.notified() => {}
            () = tokio::time::sleep(sleep) => {}
            _ = housekeeping.tick() => {
                // Bound first, or the door stays locked while the lines are written.
                let forgotten = shared.door().expire(now());
                for vehicle in forgotten {
                    tracing::info!(%vehicle, "vehicle silent, forgotten");
                }
            }
        }
    }
}

/// The clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

/// A socket that does not block, and the kernel buffer it was granted.
fn bind(listen: SocketAddr) -> std::io::Result<(UdpSocket, usize)> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(&listen.into())?;
    let granted = socket.recv_buffer_size()?;
    Ok((UdpSocket::from_std(socket.into())?, granted))
}

fn signature_policy(config: &Config) -> Result<SignaturePolicy, BuildError> {
    let Some(file) = &config.signing_key_file else {
        return Ok(SignaturePolicy::Unchecked);
    };
    let key = read_key(file)?;
    Ok(if config.allow_unsigned {
        SignaturePolicy::Verified(key)
    } else {
        SignaturePolicy::Required(key)
    })
}

/// 32 bytes, raw or as 64 hex digits with space around them, in a file that is closed to others.
fn read_key(file: &Path) -> Result<SigningKey, BuildError> {
    let refused = |why: String| BuildError::config("signing_key_file", why);
    let unreadable = |error: std::io::Error| {
        refused(format!(
            "is {}, which cannot be read: {error}",
            file.display()
        ))
    };
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    // A group may be meant to read it, as when an orchestrator mounts it; everybody never is.
    if mode & 0o007 != 0 {
        return Err(refused(format!(
            "is {}, which is open to everybody (mode {mode:03o}); run chmod 600 on it",
            file.display()
        )));
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    if let Ok(key) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(SigningKey(key));
    }
    let hex = std::str::from_utf8(&bytes).ok().map(str::trim);
    // A digest and a key are the same 64 hex digits to read.
    match hex.and_then(|hex| Digest::from_hex(hex).ok()) {
        Some(bytes) => Ok(SigningKey(*bytes.as_bytes())),
        None => Err(refused(format!(
            "is {}, which holds neither 32 bytes nor 64 hex digits",
            file.display()
        ))),
    }
}

#[cfg(test)]
mod tests;
