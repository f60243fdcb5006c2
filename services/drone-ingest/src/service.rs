//! What the door touches: the socket, the clock, the bus, the key file.
//!
//! Three tasks. *receive* drains the socket, as many datagrams as there are for each wake, and merges
//! MAVLink at once; JSON goes through a bounded queue to *samples*, which may have to wait for the disk.
//! *publish* gives states to the bus when they are due, so that a slow bus never delays the socket.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use sovereign_bus::{Appended, Bus, Key, PublishError};
use sovereign_model::{Digest, SensorId, Timestamp, frame_id};
use sovereign_proto::drone::v1::LidarScan;
use sovereign_proto::drone::v1::drones_server::SERVICE_NAME;
use sovereign_proto::geo::v1 as wire;
use sovereign_proto::topics::{DRONE_CAPTURE, DRONE_LIDAR, DRONE_STATE};
use sovereign_service::{
    BuildError, Context, ReadyLatch, RunError, Service, Stop, StopSource, Tasks, chain,
};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tonic::service::Routes;

use crate::config::Config;
use crate::domain::door::{Door, Heard, Newest, Publication};
use crate::domain::history::{Fix, Place};
use crate::domain::reject::Reject;
use crate::domain::sample::{self, Sample};
use crate::domain::signing::{SignaturePolicy, SigningKey};
use crate::domain::stats::Accepted;
use crate::error::CaptureError;
use crate::grpc;
use crate::metrics::DroneMetrics;

/// Kernel buffer asked for. At 200,000 datagrams of 60 bytes a second it bridges some 50 ms without a
/// reader; the kernel may grant less (`net.core.rmem_max`), which is logged.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The largest datagram there is.
const MAX_DATAGRAM_BYTES: usize = 65_536;
/// Datagrams taken for one wake before others on the runtime get their turn.
const DATAGRAMS_A_WAKE: usize = 512;
/// JSON samples that wait for the disk; a further one is refused as `BUFFER_FULL`.
const SAMPLE_QUEUE: usize = 256;
/// Longest wait for telemetry from after an exposure.
const TELEMETRY_WAIT: Duration = Duration::from_millis(150);
/// Left of the bus payload for what travels beside a picture.
const CAPTURE_OVERHEAD_BYTES: usize = 64 << 10;
/// How often silent vehicles are looked for, and the longest sleep of the publisher.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Captures of one vehicle are queued one after the other; vehicles share this many lanes.
const LANES: usize = 64;

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
    type Calls = ();

    fn check(config: &Config) -> Result<(), BuildError> {
        config.check_exposure()?;
        config.rules(signature_policy(config)?).map(drop)
    }

    async fn build(config: Config, (): (), context: Context) -> Result<Self, BuildError> {
        config.check_exposure()?;
        let rules = config.rules(signature_policy(&config)?)?;
        let door = Arc::new(Mutex::new(Door::new(rules)));
        let metrics = context
            .metrics
            .register(|registry| DroneMetrics::register(registry, &door));
        let (socket, granted) = bind(config.listen)
            .map_err(|e| BuildError::new(format!("bind UDP {}", config.listen), e))?;
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
        let (queue, samples) = mpsc::channel(SAMPLE_QUEUE);
        let mut tasks = Tasks::new(own.clone());
        tasks.spawn(
            "receive",
            receive(Arc::clone(&shared), self.socket, queue, own.clone()),
        );
        // Ends when the queue is empty and *receive* is gone.
        tasks.spawn("samples", take_samples(Arc::clone(&shared), samples));
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
    lanes: [tokio::sync::Mutex<()>; LANES],
}

/// A picture whose fields are valid.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Of whom.
    pub(crate) vehicle_id: SensorId,
    /// JPEG.
    pub(crate) image: Bytes,
    /// Exposure; `None` when the sender did not say.
    pub(crate) captured: Option<Timestamp>,
    /// Calibrated camera.
    pub(crate) intrinsics: Option<wire::Intrinsics>,
    /// Camera pitch relative to the body.
    pub(crate) mount_pitch_deg: Option<f64>,
    /// Of a simulation.
    pub(crate) simulated: bool,
}

/// A picture that is durably queued.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Its frame id.
    pub(crate) frame_id: String,
    /// It had been accepted before.
    pub(crate) duplicate: bool,
}

impl Shared {
    /// The door, locked; never held over an await.
    pub(crate) fn door(&self) -> MutexGuard<'_, Door> {
        // Counters and states stay usable after a panic elsewhere.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Largest picture taken, in bytes.
    pub(crate) fn capture_limit(&self) -> usize {
        self.bus
            .payload_limit()
            .saturating_sub(CAPTURE_OVERHEAD_BYTES)
    }

    /// Queues a picture with the telemetry of its exposure.
    pub(crate) async fn capture(&self, mut picture: Picture) -> Result<Queued, CaptureError> {
        let (arrived, started) = (now(), Instant::now());
        // A vehicle that says it is simulated takes no real pictures, whatever their sender says.
        picture.simulated |= self.door().is_simulated(&picture.vehicle_id);
        let fix = match picture.captured {
            Some(exposure) => self.fix_around(&picture.vehicle_id, exposure).await,
            // The arrival is only near the exposure: waiting would not make it more exact.
            None => self.door().fix_at(&picture.vehicle_id, arrived),
        };
        let telemetry = fix.as_ref().map(grpc::telemetry_from_fix);
        self.queue(picture, telemetry, started).await
    }

    /// Where the vehicle was at the exposure, from both sides of it when that is worth a short wait.
    async fn fix_around(&self, vehicle_id: &SensorId, exposure: Timestamp) -> Option<Fix> {
        let started = Instant::now();
        let reached = async {
            loop {
                // Listening before looking: nothing heard in between is missed.
                let heard = self.heard.notified();
                tokio::pin!(heard);
                heard.as_mut().enable();
                match self.door().newest(vehicle_id, exposure, now()) {
                    Newest::Silent | Newest::Reached => break,
                    Newest::Before => {}
                }
                heard.await;
            }
        };
        // After the wait the nearest sample from before the exposure has to do.
        let _waited = tokio::time::timeout(TELEMETRY_WAIT, reached).await;
        self.metrics.waited_for_telemetry(started.elapsed());
        self.door().fix_at(vehicle_id, exposure)
    }

    async fn queue(
        &self,
        picture: Picture,
        telemetry: Option<wire::TelemetryFix>,
        started: Instant,
    ) -> Result<Queued, CaptureError> {
        let key = Key::parse(picture.vehicle_id.as_str()).map_err(CaptureError::Key)?;
        let captured_unix_nanos = picture.captured.map_or(0, Timestamp::as_unix_nanos);
        let image_digest = Digest::of(&picture.image);
        let captured = Timestamp::from_unix_nanos(captured_unix_nanos);
        let frame_id = frame_id(&picture.vehicle_id, captured, &image_digest).to_hex();
        let matched = telemetry.is_some();
        // Arrivals grow in the order of the queue, so both are decided in one turn of the vehicle.
        let _turn = self.lane(&picture.vehicle_id).lock().await;
        let capture = wire::Capture {
            frame_id: frame_id.clone(),
            sensor_id: picture.vehicle_id.to_string(),
            captured_unix_nanos,
            received_unix_nanos: self.next_received().as_unix_nanos(),
            image_digest: Bytes::copy_from_slice(image_digest.as_bytes()),
            media_type: "image/jpeg".to_owned(),
            image: picture.image,
            telemetry,
            intrinsics: picture.intrinsics,
            mount_pitch_deg: picture.mount_pitch_deg,
            simulated: picture.simulated,
        };
        let appended = self
            .bus
            .append(&DRONE_CAPTURE, Some(&key), &frame_id, &capture)
            .await
            .map_err(CaptureError::Queue)?;
        let duplicate = match appended {
            Appended::Stored => false,
            Appended::Duplicate => true,
        };
        let mut door = self.door();
        if duplicate {
            door.stats_mut().duplicate_capture();
        } else {
            door.stats_mut().accept(Accepted::Capture);
            door.carry_payload(&picture.vehicle_id);
            self.metrics.captured(matched, started.elapsed());
        }
        drop(door);
        tracing::debug!(vehicle = %picture.vehicle_id, %frame_id, duplicate, matched, "capture queued");
        Ok(Queued {
            frame_id,
            duplicate,
        })
    }

    fn lane(&self, vehicle_id: &SensorId) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        vehicle_id.hash(&mut hasher);
        &self.lanes[hasher.finish() as usize % LANES]
    }

    fn next_received(&self) -> Timestamp {
        let mut last = self
            .last_received
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let after = last.as_unix_nanos().saturating_add(1);
        *last = now().max(Timestamp::from_unix_nanos(after));
        *last
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

    /// Reads, checks, queues and only then merges a sample.
    async fn take_sample(&self, json: Json) -> Result<(), Reject> {
        let sample = sample::parse(&json.bytes)?;
        self.door().check_sample(&sample, json.arrived)?;
        self.queue_payload(&sample, json.arrived).await?;
        let heard = self.door().accept_sample(&sample, json.arrived)?;
        self.wake(heard);
        Ok(())
    }

    async fn queue_payload(&self, sample: &Sample, arrived: Timestamp) -> Result<(), Reject> {
        let failed = |error: &dyn std::error::Error| {
            tracing::warn!(vehicle = %sample.drone_id, error = %chain(error), "a sample was not queued");
            Reject::QueueFailed
        };
        if let Some(image) = &sample.image {
            let exposure = sample.timestamp.unwrap_or(arrived);
            let fix = match sample.position {
                // The sample says where it was taken.
                Some(position) => Some(Fix {
                    place: Place {
                        position,
                        relative_altitude_m: None,
                    },
                    looking: None,
                    offset: Duration::ZERO,
                }),
                None => self.door().fix_at(&sample.drone_id, exposure),
            };
            let picture = Picture {
                vehicle_id: sample.drone_id.clone(),
                image: Bytes::copy_from_slice(image),
                captured: sample.timestamp,
                intrinsics: None,
                mount_pitch_deg: None,
                simulated: sample.simulated,
            };
            let telemetry = fix.as_ref().map(grpc::telemetry_from_fix);
            self.queue(picture, telemetry, Instant::now())
                .await
                .map_err(|error| failed(&error))?;
        }
        if let Some(points) = &sample.lidar_points {
            let observed = sample.timestamp.unwrap_or(arrived);
            self.queue_lidar(sample, points, observed)
                .await
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    async fn queue_lidar(
        &self,
        sample: &Sample,
        points: &[f32],
        observed: Timestamp,
    ) -> Result<(), PublishError> {
        let vehicle_id = sample.drone_id.as_str();
        // A sensor id is a key: both have the same alphabet and length.
        let key = Key::parse(vehicle_id).ok();
        let scan = LidarScan {
            vehicle_id: vehicle_id.to_owned(),
            observed_unix_nanos: observed.as_unix_nanos(),
            points_xyz_m: points.to_vec(),
            position: sample.position.map(grpc::point_from_position),
            simulated: sample.simulated,
        };
        let points: Vec<u8> = points.iter().flat_map(|p| p.to_le_bytes()).collect();
        let message_id = Digest::of_parts(&[
            b"lidar",
            vehicle_id.as_bytes(),
            &scan.observed_unix_nanos.to_le_bytes(),
            Digest::of(&points).as_bytes(),
        ]);
        self.bus
            .append(&DRONE_LIDAR, key.as_ref(), &message_id.to_hex(), &scan)
            .await?;
        self.door().stats_mut().accept(Accepted::Lidar);
        Ok(())
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

/// A JSON datagram on its way to the disk.
#[derive(Debug)]
struct Json {
    bytes: Box<[u8]>,
    arrived: Timestamp,
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

async fn take_samples(
    shared: Arc<Shared>,
    mut samples: mpsc::Receiver<Json>,
) -> Result<(), RunError> {
    while let Some(json) = samples.recv().await {
        if let Err(reason) = shared.take_sample(json).await {
            shared.door().stats_mut().reject(reason);
            tracing::debug!(reason = reason.code(), "sample refused");
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
                for vehicle in shared.door().expire(now()) {
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

/// 32 bytes, raw or as 64 hex digits with space around them.
fn read_key(file: &Path) -> Result<SigningKey, BuildError> {
    let refused = |why: String| BuildError::config("signing_key_file", why);
    let bytes = std::fs::read(file).map_err(|error| {
        refused(format!(
            "is {}, which cannot be read: {error}",
            file.display()
        ))
    })?;
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
