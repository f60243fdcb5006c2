//! A simulated flight and two walkers, sent through the front doors in real time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sovereign_model::{Intrinsics, Timestamp};
use sovereign_service::{RunError, Stop, Tasks, chain};
use sovereign_sim::{Autopilot, Camera, Survey, SurveyArea, Walk, World, WorldConfig};
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{CaptureNotes, Counts, Edge, EdgeError, Fix};

/// Drones of the demo. Each surveys its own half of the world.
const DRONES: u8 = 2;
const PHONES: usize = 2;
const TELEMETRY_HZ: u32 = 20;
const PICTURES_HZ: f64 = 2.0;
const JPEG_QUALITY: u8 = 88;
/// Survey height above ground, metres, and speed, metres per second.
const HEIGHT_M: f64 = 60.0;
const SPEED_MPS: f64 = 9.0;
/// Distance between survey lines, metres: about 40 % overlap.
const LINE_SPACING_M: f64 = 26.0;
/// The drones stay this far inside the world, metres, so that pictures show no edge.
const MARGIN_M: f64 = 46.0;

/// What was sent so far.
#[derive(Debug, Default)]
pub struct Sent {
    /// Pictures that the edge accepted.
    pub frames: AtomicU64,
    /// Datagrams sent.
    pub datagrams: AtomicU64,
}

impl Sent {
    /// What was sent until now.
    pub fn counts(&self) -> Counts {
        Counts {
            frames: self.frames.load(Ordering::Relaxed),
            datagrams: self.datagrams.load(Ordering::Relaxed),
            ..Counts::default()
        }
    }
}

/// The simulated world and everyone in it.
#[derive(Debug)]
pub struct Flight {
    world: Arc<World>,
    camera: Arc<Camera>,
    edge: Edge,
    udp: SocketAddr,
    sent: Arc<Sent>,
}

impl Flight {
    /// Paints the world; takes a second or two.
    pub fn prepare(edge: Edge, udp: SocketAddr) -> Self {
        let intrinsics = Intrinsics::new(752, 480, 610.0, 610.0, 376.0, 240.0, -0.03, 0.0)
            .expect("these are the numbers of a real camera");
        Self {
            world: Arc::new(World::generate(WorldConfig::default())),
            camera: Arc::new(Camera::new(intrinsics)),
            edge,
            udp,
            sent: Arc::default(),
        }
    }

    /// Counters that grow while [`Flight::run`] runs.
    pub fn sent(&self) -> Arc<Sent> {
        self.sent.clone()
    }

    /// Flies and walks until `stop`.
    pub async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut tasks = Tasks::new(stop.clone());
        let start = Instant::now();
        for number in 0..DRONES {
            let drone = Arc::new(Drone::new(&self, number));
            tasks.spawn(
                format!("telemetry of drone {number}"),
                drone.clone().send_telemetry(start, stop.clone()),
            );
            tasks.spawn(
                format!("pictures of drone {number}"),
                drone.send_pictures(start, stop.clone()),
            );
        }
        for number in 0..PHONES {
            tasks.spawn(
                format!("phone {number}"),
                walk(
                    number,
                    self.world.clone(),
                    self.edge.clone(),
                    start,
                    stop.clone(),
                ),
            );
        }
        tasks.wait().await
    }
}

struct Drone {
    system_id: u8,
    survey: Survey,
    world: Arc<World>,
    camera: Arc<Camera>,
    edge: Edge,
    udp: SocketAddr,
    sent: Arc<Sent>,
}

impl Drone {
    fn new(flight: &Flight, number: u8) -> Self {
        let config = flight.world.config();
        let half_width = config.width_m / 2.0 - MARGIN_M;
        let half_height = config.height_m / 2.0 - MARGIN_M;
        let slice = half_width * 2.0 / f64::from(DRONES);
        let west = -half_width + slice * f64::from(number);
        let area = SurveyArea {
            west,
            east: west + slice,
            south: -half_height,
            north: half_height,
        };
        Self {
            system_id: number + 1,
            survey: Survey::lawnmower(area, LINE_SPACING_M, HEIGHT_M, SPEED_MPS),
            world: flight.world.clone(),
            camera: flight.camera.clone(),
            edge: flight.edge.clone(),
            udp: flight.udp,
            sent: flight.sent.clone(),
        }
    }

    async fn send_telemetry(self: Arc<Self>, start: Instant, stop: Stop) -> Result<(), RunError> {
        let socket = UdpSocket::bind(any_address_like(self.udp))
            .await
            .map_err(|error| RunError::new("open a udp socket", error))?;
        let mut autopilot = Autopilot::new(self.system_id);
        let mut ticks = interval(Duration::from_secs(1) / TELEMETRY_HZ);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let elapsed = start.elapsed();
            let truth = self.survey.truth(&self.world, elapsed);
            let unix = Duration::from_nanos(now().as_unix_nanos().unsigned_abs());
            for frame in autopilot.frames(&truth, elapsed, unix) {
                socket
                    .send_to(&frame, self.udp)
                    .await
                    .map_err(|error| RunError::new("send a datagram to the node", error))?;
                self.sent.datagrams.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn send_pictures(self: Arc<Self>, start: Instant, stop: Stop) -> Result<(), RunError> {
        let drone_id = format!("sys-{}", self.system_id);
        let mut ticks = interval(Duration::from_secs_f64(1.0 / PICTURES_HZ));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first picture waits for the first telemetry.
        ticks.tick().await;
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let (captured, truth) = (now(), self.survey.truth(&self.world, start.elapsed()));
            let drone = self.clone();
            let jpeg = tokio::task::spawn_blocking(move || {
                drone.camera.render_jpeg(&drone.world, &truth, JPEG_QUALITY)
            })
            .await
            .map_err(|error| RunError::new("render a picture", error))?
            .map_err(|error| RunError::new("render a picture", error))?;
            let notes = CaptureNotes {
                captured: Some(captured),
                intrinsics: Some(*self.camera.intrinsics()),
                simulated: true,
            };
            // Never cut off by a stop: the node may have it already, and the count must say so.
            let accepted = self.edge.upload_capture(&drone_id, jpeg, &notes).await;
            if taken(accepted.map(drop), "upload a picture")? {
                self.sent.frames.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn walk(
    number: usize,
    world: Arc<World>,
    edge: Edge,
    start: Instant,
    stop: Stop,
) -> Result<(), RunError> {
    let id = format!("sim-phone-{}", number + 1);
    let walk = Walk {
        centre_east_m: -80.0 + 160.0 * number as f64,
        centre_north_m: -40.0,
        side_m: 80.0,
        speed_mps: 1.4,
    };
    edge.register(&id, "simulated phone")
        .await
        .map_err(|error| RunError::new("register a phone", error))?;
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.requested() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let (at, truth) = (now(), walk.truth(&world, start.elapsed()));
        let fix = Fix {
            latitude_deg: truth.position.latitude_deg,
            longitude_deg: truth.position.longitude_deg,
            altitude_m: truth.position.altitude_m,
            heading_deg: truth.heading_deg,
        };
        let upload = async {
            edge.upload_fix(&id, at, fix).await?;
            edge.upload_acceleration(&id, at, truth.acceleration_mps2)
                .await
        };
        tokio::select! {
            () = stop.requested() => return Ok(()),
            done = upload => taken(done, "upload a sample")?,
        };
    }
}

/// Whether the edge took it. What it refuses, because a clock was set or a machine slept, is said and does
/// not end the flight.
fn taken(answer: Result<(), EdgeError>, operation: &'static str) -> Result<bool, RunError> {
    match answer {
        Ok(()) => Ok(true),
        Err(error @ EdgeError::Refused { .. }) => {
            tracing::warn!(error = %chain(&error), "the flight goes on without it");
            Ok(false)
        }
        Err(
            error @ (EdgeError::Credentials { .. } | EdgeError::Http(_) | EdgeError::Silent(_)),
        ) => Err(RunError::new(operation, error)),
    }
}

pub(super) fn any_address_like(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(ip, 0)
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
