use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use sovereign_bus::Bus;
use sovereign_model::SensorId;
use tokio::net::UdpSocket;

use super::*;
use crate::domain::reject::Reject;
use crate::intake::lane_of;
use crate::udp::LANE_DEPTH;

/// Nothing here takes this long unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A door on a free port, and its folder.
async fn door() -> (DroneService, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::memory(&dir.path().join("journal"), "test").unwrap();
    let context = Context::for_tests(DroneService::NAME, bus, dir.path());
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    };
    let calls = Calls {
        checkpoint: sovereign_objects::memory::MemoryStore::new().channel(),
    };
    let service = DroneService::build(DroneService::settings(config).unwrap(), calls, context);
    (service.await.unwrap(), dir)
}

async fn sender(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

fn sample(drone_id: &SensorId, battery_percent: usize) -> Value {
    json!({
        "contract_version": "av-v1", "drone_id": drone_id.as_str(), "battery_percent": battery_percent
    })
}

/// A picture of 64 by 48, as base64.
fn picture() -> String {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode_image(&image::GrayImage::new(64, 48))
        .unwrap();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Waits until the door is as wanted.
async fn until(shared: &Intake, wanted: impl Fn(&Door) -> bool) {
    let started = Instant::now();
    while !wanted(&shared.door()) {
        assert!(started.elapsed() < LIMIT, "{:?}", shared.door());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn rejected(door: &Door, reason: Reject) -> usize {
    let mut all = door.stats().rejected_by_reason();
    let count = all.find(|(r, _)| *r == reason);
    count.map_or(0, |(_, count)| usize::try_from(count).unwrap())
}

fn battery(door: &Door, drone_id: &SensorId) -> Option<f64> {
    let all = door.vehicles().into_iter();
    let mut states = all.map(|(state, _)| state);
    states
        .find(|state| state.vehicle_id == *drone_id)?
        .battery_percent
}

#[tokio::test]
async fn a_picture_that_waits_for_the_disk_delays_no_other_drone() {
    const BEHIND: usize = LANE_DEPTH + 8;
    let (service, _dir) = door().await;
    let (shared, stop) = (Arc::clone(&service.intake), StopSource::new());
    let drone = sender(service.udp.address).await;
    let id = |name: String| SensorId::parse(&name).unwrap();
    let slow = id("slow".to_owned());
    let mut others = (0..).map(|n| id(format!("quick-{n}")));
    let quick = others.find(|id| lane_of(id) != lane_of(&slow)).unwrap();
    let test = async {
        // As long as its turn is taken, what it carries is not queued.
        let turn = shared.lane(&slow).lock().await;
        let mut first = sample(&slow, 0);
        first["image_data"] = json!(picture());
        drone.send(first.to_string().as_bytes()).await.unwrap();
        for n in 1..=BEHIND {
            let behind = sample(&slow, n).to_string();
            drone.send(behind.as_bytes()).await.unwrap();
        }
        let full = |door: &Door| rejected(door, Reject::BufferFull);
        until(&shared, |door| full(door) >= BEHIND - LANE_DEPTH).await;
        let other = sample(&quick, 50).to_string();
        drone.send(other.as_bytes()).await.unwrap();
        until(&shared, |door| battery(door, &quick) == Some(50.0)).await;
        assert_eq!(battery(&shared.door(), &slow), None);
        drop(turn);
        let accepted = |door: &Door| {
            let mut all = door.stats().accepted_by_type();
            let count = all.find(|(name, _)| *name == "av-v1");
            count.map_or(0, |(_, count)| usize::try_from(count).unwrap())
        };
        until(&shared, |door| accepted(door) + full(door) == BEHIND + 2).await;
        // The rest in the order in which it came: an earlier arrival after a later one is refused.
        assert_eq!(rejected(&shared.door(), Reject::OutOfOrderSample), 0);
        assert!(battery(&shared.door(), &slow) >= Some((LANE_DEPTH - 1) as f64));
        stop.request();
    };
    let (ended, ()) = tokio::join!(service.run(stop.stop()), test);
    ended.unwrap();
}

/// Counts the warnings of one thread.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn an_outage_of_the_queue_is_one_line_and_every_failure_is_counted() {
    let warnings = Warnings::default();
    let _here = tracing::subscriber::set_default(warnings.clone());
    let (service, _dir) = door().await;
    let (shared, stop) = (Arc::clone(&service.intake), StopSource::new());
    let drone = sender(service.udp.address).await;
    let id = SensorId::parse("scout").unwrap();
    let bus = service.publisher.bus.clone();
    let test = async {
        bus.close().await;
        for failures in 1..=5 {
            let mut sample = sample(&id, 50);
            sample["image_data"] = json!(picture());
            drone.send(sample.to_string().as_bytes()).await.unwrap();
            let failed = |door: &Door| rejected(door, Reject::QueueFailed);
            until(&shared, |door| failed(door) == failures).await;
        }
        stop.request();
    };
    let (ended, ()) = tokio::join!(service.run(stop.stop()), test);
    ended.unwrap();
    assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
}
