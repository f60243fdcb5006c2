//! The door as others see it: datagrams in, a memory bus and gRPC out.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail the test and speak to whoever runs it"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use drone_ingest::domain::framing::{Frames, Item};
use drone_ingest::{Config, DroneService};
use mavlink::dialects::ardupilotmega as dialect;
use mavlink::dialects::ardupilotmega::MavMessage;
use mavlink::{MAVLinkV2MessageRaw, MavHeader};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sovereign_bus::{Bus, Key, Select};
use sovereign_model::Digest;
use sovereign_proto::drone::v1::drones_client::DronesClient;
use sovereign_proto::drone::v1::{
    GetIngestStatsRequest, GetIngestStatsResponse, ListVehiclesRequest, SubmitCaptureRequest,
    VehicleState,
};
use sovereign_proto::geo::v1::Intrinsics;
use sovereign_proto::topics::{DRONE_CAPTURE, DRONE_LIDAR, DRONE_STATE};
use sovereign_service::{
    BuildError, Channel, Context, MAX_MESSAGE_BYTES, Metrics, RunError, Service, StopSource,
};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(20);

struct Running {
    bus: Bus,
    client: DronesClient<Channel>,
    udp: SocketAddr,
    registry: Arc<Mutex<Registry>>,
    stop: StopSource,
    running: JoinHandle<Result<(), RunError>>,
    _dir: tempfile::TempDir,
}

async fn start(config: Config) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::memory(&dir.path().join("journal"), "test").unwrap();
    let mut context = Context::for_tests(DroneService::NAME, bus.clone(), dir.path());
    let registry = Arc::<Mutex<Registry>>::default();
    context.metrics = Metrics::new(Arc::clone(&registry), DroneService::NAME);
    let ready = context.ready.clone();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..config
    };
    let service = DroneService::build(config, (), context).await.unwrap();
    let [("udp", udp)] = service.addresses()[..] else {
        panic!("{:?}", service.addresses());
    };
    let client = DronesClient::new(Channel::local(service.routes()))
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let stop = StopSource::new();
    let running = own(service.run(stop.stop()));
    ready.wait().await;
    Running {
        bus,
        client,
        udp,
        registry,
        stop,
        running,
        _dir: dir,
    }
}

#[expect(clippy::disallowed_methods, reason = "the test joins it")]
fn own<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

impl Running {
    async fn stats(&mut self) -> GetIngestStatsResponse {
        let request = GetIngestStatsRequest {};
        let answer = self.client.get_ingest_stats(request).await.unwrap();
        answer.into_inner()
    }

    async fn vehicles(&mut self) -> Vec<VehicleState> {
        let answer = self.client.list_vehicles(ListVehiclesRequest {}).await;
        answer.unwrap().into_inner().vehicles
    }

    /// Waits until the counters are as wanted.
    async fn until(&mut self, wanted: impl Fn(&GetIngestStatsResponse) -> bool) {
        let started = Instant::now();
        loop {
            let stats = self.stats().await;
            if wanted(&stats) {
                return;
            }
            assert!(started.elapsed() < LIMIT, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn finish(self) {
        self.stop.request();
        self.running.await.unwrap().unwrap();
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

async fn sender(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

fn frame(system: u8, component: u8, sequence: u8, message: &MavMessage) -> Vec<u8> {
    let header = MavHeader {
        system_id: system.into(),
        component_id: component,
        sequence,
    };
    let mut raw = MAVLinkV2MessageRaw::new();
    raw.serialize_message(header, message);
    raw.raw_bytes().to_vec()
}

fn heartbeat(base_mode: dialect::MavModeFlag) -> MavMessage {
    MavMessage::HEARTBEAT(dialect::HEARTBEAT_DATA {
        custom_mode: 5,
        mavtype: dialect::MavType::MAV_TYPE_QUADROTOR,
        autopilot: dialect::MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA,
        base_mode,
        ..Default::default()
    })
}

fn global(lat_e7: i32, lon_e7: i32) -> MavMessage {
    MavMessage::GLOBAL_POSITION_INT(dialect::GLOBAL_POSITION_INT_DATA {
        lat: lat_e7,
        lon: lon_e7,
        alt: 120_000,
        relative_alt: 40_000,
        vx: 300,
        vy: -400,
        hdg: 9_000,
        ..Default::default()
    })
}

fn attitude(yaw: f32) -> MavMessage {
    MavMessage::ATTITUDE(dialect::ATTITUDE_DATA {
        yaw,
        ..Default::default()
    })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_nanos()).unwrap()
}

/// Header of a picture of 64 by 48, and `fill` more bytes.
fn jpeg(fill: usize) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xC0, 0, 17, 8, 0, 48, 0, 64, 3];
    bytes.resize(bytes.len() + fill, 7);
    bytes
}

fn capture(vehicle_id: &str, image: Vec<u8>, captured_unix_nanos: i64) -> SubmitCaptureRequest {
    SubmitCaptureRequest {
        vehicle_id: vehicle_id.to_owned(),
        image: image.into(),
        captured_unix_nanos,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vehicle_says_is_on_the_bus_and_in_the_list() {
    let mut door = start(Config::default()).await;
    let mut states = door.bus.subscribe(&DRONE_STATE, Select::All).await.unwrap();
    let vehicle = sender(door.udp).await;
    let mode = dialect::MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED
        | dialect::MavModeFlag::MAV_MODE_FLAG_SAFETY_ARMED
        | dialect::MavModeFlag::MAV_MODE_FLAG_HIL_ENABLED;
    let battery = MavMessage::SYS_STATUS(dialect::SYS_STATUS_DATA {
        battery_remaining: -1,
        ..Default::default()
    });
    // Several frames and garbage in one datagram; message 3 was lost on the way.
    let mut datagram = vec![0, 0xFE, 1];
    for (sequence, message) in [
        (0, heartbeat(mode)),
        (1, battery),
        (2, global(555_000_000, -131_000_000)),
        (4, attitude(std::f32::consts::FRAC_PI_2)),
    ] {
        datagram.extend(frame(7, 1, sequence, &message));
    }
    vehicle.send(&datagram).await.unwrap();

    let event = states.recv().await.unwrap();
    assert_eq!(event.key, Some(Key::parse("sys-7").unwrap()));
    let state = event.message;
    assert_eq!(state.vehicle_id, "sys-7");
    assert_eq!(state.flight_mode, "LOITER");
    assert_eq!(state.armed, Some(true));
    assert!(state.simulated);
    assert_eq!(state.source, "mavlink2");
    assert_eq!(state.sensor_health, "healthy");
    assert_eq!(state.battery_percent, None);
    assert_eq!(state.ground_speed_mps, Some(5.0));
    assert_eq!(state.heading_deg, Some(90.0));
    assert_eq!(state.relative_altitude_m, Some(40.0));
    assert_eq!(state.confidence, 0.9);
    let position = state.position.as_ref().unwrap();
    assert_eq!(position.latitude_deg, 55.5);
    assert_eq!(position.longitude_deg, -13.1);
    assert_eq!(position.altitude_m, Some(120.0));
    assert!((state.attitude.unwrap().yaw_deg - 90.0).abs() < 1e-4);
    let link = state.link.unwrap();
    assert_eq!((link.messages, link.lost, link.signed), (4, 1, 0));
    assert!((now() - state.observed_unix_nanos).abs() < LIMIT.as_nanos() as i64);
    assert_eq!(door.vehicles().await, [state]);

    let stats = door.stats().await;
    assert_eq!((stats.datagrams, stats.active_vehicles), (1, 1));
    assert_eq!(stats.bytes, datagram.len() as u64);
    assert_eq!(stats.accepted_by_type["HEARTBEAT"], 1);
    assert_eq!(
        stats.messages_by_source,
        HashMap::from([("7/1".to_owned(), 4)])
    );
    assert_eq!(stats.messages_by_version["v2"], 4);
    let refused = [("GARBAGE".to_owned(), 1), ("BAD_CHECKSUM".to_owned(), 1)];
    assert_eq!(stats.rejected_by_reason, HashMap::from(refused));
    assert!(stats.last_accepted_unix_by_vehicle["sys-7"] > 1.7e9);
    let metrics = door.metrics();
    for line in [
        "sovereign_drone_ingest_datagrams_total 1",
        "sovereign_drone_ingest_accepted_total{type=\"GLOBAL_POSITION_INT\"} 1",
        "sovereign_drone_ingest_rejected_total{reason=\"GARBAGE\"} 1",
        "sovereign_drone_ingest_messages_total{version=\"v2\"} 4",
        "sovereign_drone_ingest_link_lost 1",
        "sovereign_drone_ingest_vehicles 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_paced_for_each_vehicle_and_the_last_one_is_flushed() {
    let mut door = start(Config {
        publish_hz: 0.1,
        ..Config::default()
    })
    .await;
    let mut states = door.bus.subscribe(&DRONE_STATE, Select::All).await.unwrap();
    let (one, two) = (sender(door.udp).await, sender(door.udp).await);
    // Two senders with the same system id.
    one.send(&frame(3, 1, 0, &global(10_000_000, 1)))
        .await
        .unwrap();
    let first = states.recv().await.unwrap().message;
    assert_eq!(first.vehicle_id, "sys-3");
    two.send(&frame(3, 1, 0, &global(20_000_000, 1)))
        .await
        .unwrap();
    let second = states.recv().await.unwrap().message;
    assert_eq!(second.vehicle_id, "sys-3-2");
    for n in 1..=50 {
        let message = frame(3, 1, n, &global(10_000_000 + i32::from(n), 1));
        one.send(&message).await.unwrap();
    }
    door.until(|stats| stats.datagrams == 52).await;
    assert_eq!(states.received(), 2, "more often than every ten seconds");
    door.stop.request();
    let last = states.recv().await.unwrap().message;
    assert_eq!(last.vehicle_id, "sys-3");
    assert_eq!(last.position.unwrap().latitude_deg, 1.000005);
    assert_eq!(states.received(), 3);
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_queued_once_with_the_telemetry_of_its_exposure() {
    let mut door = start(Config::default()).await;
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let vehicle = sender(door.udp).await;
    let send = async |sequence, lat, yaw: f32| {
        let mut datagram = frame(1, 1, sequence, &global(lat, 100_000_000));
        datagram.extend(frame(1, 1, sequence + 1, &attitude(yaw.to_radians())));
        vehicle.send(&datagram).await.unwrap();
    };
    send(0, 500_000_000, 350.0).await;
    door.until(|stats| stats.datagrams == 1).await;
    let exposure = now();
    send(2, 500_001_000, 10.0).await;
    door.until(|stats| stats.datagrams == 2).await;
    let mut request = capture("sys-1", jpeg(5_000), exposure);
    request.mount_pitch_deg = Some(-80.0);
    request.simulated = true;
    request.intrinsics = Some(Intrinsics {
        width_px: 64,
        height_px: 48,
        fx_px: 50.0,
        fy_px: 50.0,
        cx_px: 32.0,
        cy_px: 24.0,
        k1: 0.0,
        k2: 0.0,
    });
    let answer = door.client.submit_capture(request.clone()).await;
    let answer = answer.unwrap().into_inner();
    assert!(!answer.duplicate);

    let delivery = captures.next().await.unwrap();
    assert_eq!(delivery.key, Some(Key::parse("sys-1").unwrap()));
    let queued = delivery.message.clone();
    delivery.ack().await.unwrap();
    assert_eq!(queued.frame_id, answer.frame_id);
    let digest = Digest::of(&request.image);
    let parts: [&[u8]; 4] = [
        b"frame",
        b"sys-1",
        &exposure.to_le_bytes(),
        digest.as_bytes(),
    ];
    assert_eq!(queued.frame_id, Digest::of_parts(&parts).to_hex());
    assert_eq!(queued.sensor_id, "sys-1");
    assert_eq!(queued.captured_unix_nanos, exposure);
    assert_eq!(queued.image, request.image);
    assert_eq!(queued.image_digest, digest.as_bytes().as_slice());
    assert_eq!(queued.media_type, "image/jpeg");
    assert_eq!(queued.mount_pitch_deg, Some(-80.0));
    assert_eq!(queued.intrinsics, request.intrinsics);
    assert!(queued.simulated);
    assert!(queued.received_unix_nanos > exposure);
    let telemetry = queued.telemetry.unwrap();
    let latitude = telemetry.position.unwrap().latitude_deg;
    assert!(
        50.0 < latitude && latitude < 50.0001,
        "not interpolated: {latitude}"
    );
    assert_eq!(telemetry.relative_altitude_m, Some(40.0));
    let yaw = telemetry.attitude.unwrap().yaw_deg;
    assert!(!(10.0..=350.0).contains(&yaw), "not the short way: {yaw}");
    assert!(!telemetry.attitude_is_camera);
    assert!(telemetry.time_offset_nanos > 0);

    let again = door.client.submit_capture(request).await.unwrap();
    let again = again.into_inner();
    assert_eq!((again.frame_id, again.duplicate), (queued.frame_id, true));
    // A vehicle that is not heard is not waited for, and its picture says nothing of a place.
    let unheard = capture("quiet-1", jpeg(10), now());
    door.client.submit_capture(unheard).await.unwrap();
    let quiet = captures.next().await.unwrap().message;
    assert_eq!(
        (quiet.sensor_id.as_str(), quiet.telemetry),
        ("quiet-1", None)
    );
    assert!(quiet.received_unix_nanos > queued.received_unix_nanos);
    // Without a time of its own a picture belongs to its arrival, and its time stays unknown.
    let untimed = capture("sys-1", jpeg(20), 0);
    door.client.submit_capture(untimed).await.unwrap();
    let untimed = captures.next().await.unwrap().message;
    assert_eq!(untimed.captured_unix_nanos, 0);
    assert!(untimed.telemetry.is_some());

    let stats = door.stats().await;
    assert_eq!(stats.accepted_by_type["capture"], 3);
    assert_eq!(stats.accepted_by_type["capture-duplicate"], 1);
    assert_eq!(door.vehicles().await[0].confidence, 1.0);
    let metrics = door.metrics();
    let matched = "sovereign_drone_ingest_captures_matched_total{telemetry=\"found\"} 2";
    assert!(metrics.contains(matched), "{metrics}");
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_waits_shortly_for_telemetry_from_after_its_exposure() {
    const AHEAD: i64 = 100_000_000;
    let mut door = start(Config::default()).await;
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let vehicle = sender(door.udp).await;
    let simulated = heartbeat(dialect::MavModeFlag::MAV_MODE_FLAG_HIL_ENABLED);
    vehicle.send(&frame(1, 1, 0, &simulated)).await.unwrap();
    let flight = own(async move {
        for n in 0.. {
            let message = frame(1, 1, 1, &global(500_000_000 + n, 1));
            vehicle.send(&message).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    door.until(|stats| stats.datagrams >= 3).await;
    let started = Instant::now();
    loop {
        // Not waited for, the nearest telemetry would be as old as the exposure is ahead.
        let picture = capture("sys-1", jpeg(1), now() + AHEAD);
        door.client.submit_capture(picture).await.unwrap();
        let delivery = captures.next().await.unwrap();
        let queued = delivery.message.clone();
        delivery.ack().await.unwrap();
        assert!(queued.simulated, "the vehicle said so");
        if queued
            .telemetry
            .is_some_and(|t| t.time_offset_nanos < AHEAD / 4)
        {
            break;
        }
        assert!(started.elapsed() < LIMIT);
    }
    flight.abort();
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_of_one_vehicle_arrive_in_the_order_of_the_queue() {
    let door = start(Config::default()).await;
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let mut submissions = tokio::task::JoinSet::new();
    for n in 0..24 {
        let mut client = door.client.clone();
        submissions.spawn(async move {
            let request = capture("alpha", jpeg(n), 1_700_000_000_000_000_000);
            client.submit_capture(request).await.unwrap();
        });
    }
    let mut last = 0;
    for _ in 0..24 {
        let delivery = captures.next().await.unwrap();
        assert!(delivery.message.received_unix_nanos > last);
        last = delivery.message.received_unix_nanos;
        delivery.ack().await.unwrap();
    }
    while let Some(ended) = submissions.join_next().await {
        ended.unwrap();
    }
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_cannot_be_used_is_refused_by_its_field() {
    let mut door = start(Config::default()).await;
    let limit = door.bus.payload_limit() - (64 << 10);
    let mut bad_camera = capture("alpha", jpeg(10), 5);
    bad_camera.intrinsics = Some(Intrinsics::default());
    let mut bad_mount = capture("alpha", jpeg(10), 5);
    bad_mount.mount_pitch_deg = Some(f64::NAN);
    let mut no_size = jpeg(10);
    no_size[8] = 0;
    for (request, code, names) in [
        (
            capture("a.b", jpeg(10), 5),
            tonic::Code::InvalidArgument,
            "vehicle_id",
        ),
        (
            capture("", jpeg(10), 5),
            tonic::Code::InvalidArgument,
            "vehicle_id",
        ),
        (
            capture("alpha", b"\x89PNG".to_vec(), 5),
            tonic::Code::InvalidArgument,
            "image",
        ),
        (
            capture("alpha", vec![], 5),
            tonic::Code::InvalidArgument,
            "image",
        ),
        (
            capture("alpha", no_size, 5),
            tonic::Code::InvalidArgument,
            "image",
        ),
        (
            capture("alpha", jpeg(10), -5),
            tonic::Code::InvalidArgument,
            "captured_unix_nanos",
        ),
        (bad_camera, tonic::Code::InvalidArgument, "intrinsics."),
        (bad_mount, tonic::Code::InvalidArgument, "mount_pitch_deg"),
        (
            capture("alpha", jpeg(limit), 5),
            tonic::Code::ResourceExhausted,
            &limit.to_string(),
        ),
    ] {
        let status = door.client.submit_capture(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(names), "{names}: {status:?}");
    }
    let largest = jpeg(limit - jpeg(0).len());
    door.client
        .submit_capture(capture("alpha", largest, 5))
        .await
        .unwrap();
    let stats = door.stats().await;
    assert_eq!(stats.rejected_by_reason["INVALID_CAPTURE"], 8);
    assert_eq!(stats.rejected_by_reason["CAPTURE_TOO_LARGE"], 1);
    assert_eq!(stats.accepted_by_type["capture"], 1);
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_brings_state_picture_and_scan() {
    let mut door = start(Config::default()).await;
    let mut states = door.bus.subscribe(&DRONE_STATE, Select::All).await.unwrap();
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let mut scans = door.bus.consume(&DRONE_LIDAR, "test").await.unwrap();
    let drone = sender(door.udp).await;
    let image = jpeg(900);
    let observed = now();
    let sample = json!({
        "contract_version": "av-v1", "drone_id": "scout_1",
        "timestamp": rfc3339(observed),
        "latitude": 12.5, "longitude": 100.25, "altitude_meters": 60.0,
        "heading_degrees": 45.0, "ground_speed_ms": 7.5, "battery_percent": 55.5,
        "flight_mode": "SURVEY", "confidence": 0.1, "simulated": true,
        "image_data": base64::engine::general_purpose::STANDARD.encode(&image),
        "lidar_points": [1.0, 2.0, 3.0, -1.0, -2.0, -3.0],
    });
    drone.send(sample.to_string().as_bytes()).await.unwrap();
    let state = states.recv().await.unwrap().message;
    assert_eq!(state.vehicle_id, "scout_1");
    assert_eq!(state.observed_unix_nanos, observed);
    assert_eq!(state.source, "av-v1");
    assert_eq!(state.flight_mode, "SURVEY");
    assert_eq!(state.battery_percent, Some(55.5));
    assert_eq!(state.confidence, 1.0);
    assert!(state.simulated);
    let queued = captures.next().await.unwrap().message;
    assert_eq!(queued.sensor_id, "scout_1");
    assert_eq!(queued.captured_unix_nanos, observed);
    assert_eq!(queued.image, image);
    assert!(queued.simulated);
    let telemetry = queued.telemetry.unwrap();
    assert_eq!(telemetry.position, state.position);
    assert_eq!((telemetry.attitude, telemetry.time_offset_nanos), (None, 0));
    let scan = scans.next().await.unwrap().message;
    assert_eq!(scan.points_xyz_m, [1.0, 2.0, 3.0, -1.0, -2.0, -3.0]);
    assert_eq!(scan.observed_unix_nanos, observed);
    assert_eq!(scan.position, state.position);

    // The same again, and what the contract forbids: counted by reason, and nothing else happens.
    let with = |field: &str, value: Value| {
        let mut sample = json!({"contract_version": "av-v1", "drone_id": "scout_1"});
        sample[field] = value;
        sample
    };
    for refused in [
        sample.clone(),
        with("timestamp", json!(rfc3339(observed - 1))),
        with("timestamp", json!(rfc3339(now() + 3_600_000_000_000))),
        with("timestamp", json!(rfc3339(now() - 3_600_000_000_000))),
        with("contract_version", json!("av-v9")),
        with("drone_id", json!("")),
        with("drone_id", json!("sys-1")),
        with("lidar_points", json!([1.0])),
        with("image_data", json!("AAAA")),
        json!({"contract_version": "av-v1", "drone_id": "x", "latitude": 99, "longitude": 0}),
    ] {
        drone.send(refused.to_string().as_bytes()).await.unwrap();
    }
    drone.send(b"{ not json").await.unwrap();
    let expected = HashMap::from(
        [
            ("DUPLICATE_SAMPLE", 1),
            ("OUT_OF_ORDER_SAMPLE", 1),
            ("FUTURE_TIMESTAMP", 1),
            ("STALE_TIMESTAMP", 1),
            ("UNSUPPORTED_CONTRACT_VERSION", 1),
            ("MISSING_DRONE_ID", 1),
            ("RESERVED_DRONE_ID", 1),
            ("INVALID_LIDAR_POINTS", 1),
            ("INVALID_IMAGE_DATA", 1),
            ("INVALID_LATITUDE", 1),
            ("INVALID_PAYLOAD", 1),
        ]
        .map(|(reason, count)| (reason.to_owned(), count)),
    );
    door.until(|stats| stats.rejected_by_reason == expected)
        .await;
    let stats = door.stats().await;
    for (name, count) in [("av-v1", 1), ("capture", 1), ("lidar", 1)] {
        assert_eq!(stats.accepted_by_type[name], count, "{name}");
    }
    door.finish().await;
}

fn rfc3339(unix_nanos: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(unix_nanos.into()).unwrap();
    time.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_whose_picture_was_not_queued_may_come_again() {
    let mut door = start(Config::default()).await;
    let drone = sender(door.udp).await;
    let sample = json!({
        "contract_version": "av-v1", "drone_id": "scout", "timestamp": rfc3339(now()),
        "image_data": base64::engine::general_purpose::STANDARD.encode(jpeg(10)),
    });
    door.bus.close().await;
    for sent in 1..=2 {
        drone.send(sample.to_string().as_bytes()).await.unwrap();
        door.until(|stats| stats.rejected_by_reason.get("QUEUE_FAILED") == Some(&sent))
            .await;
    }
    let stats = door.stats().await;
    assert_eq!(stats.accepted_by_type, HashMap::new());
    assert_eq!(stats.active_vehicles, 0);
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_only_what_is_signed_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, format!("{}\n", Digest::of(b"door").to_hex())).unwrap();
    let mut door = start(Config {
        signing_key_file: Some(file),
        ..Config::default()
    })
    .await;
    let vehicle = sender(door.udp).await;
    let key = *Digest::of(b"door").as_bytes();
    let signing =
        mavlink::SigningData::from_config(mavlink::SigningConfig::new(key, 1, true, false));
    let mut signed = Vec::new();
    let header = MavHeader {
        system_id: 4,
        component_id: 1,
        sequence: 0,
    };
    mavlink::write_v2_msg_signed(&mut signed, header, &global(1, 1), Some(&signing)).unwrap();
    vehicle.send(&frame(4, 1, 0, &global(1, 1))).await.unwrap();
    vehicle
        .send(br#"{"contract_version": "av-v1", "drone_id": "x"}"#)
        .await
        .unwrap();
    vehicle.send(&signed).await.unwrap();
    vehicle.send(&signed).await.unwrap();
    door.until(|stats| stats.datagrams == 4).await;
    let stats = door.stats().await;
    assert_eq!(stats.rejected_by_reason["UNSIGNED"], 2);
    assert_eq!(stats.rejected_by_reason["REPLAYED_SIGNATURE"], 1);
    let vehicles = door.vehicles().await;
    assert_eq!(vehicles.len(), 1);
    assert_eq!(vehicles[0].link.unwrap().signed, 1);
    door.finish().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::memory(&dir.path().join("journal"), "test").unwrap();
    let short = dir.path().join("short");
    std::fs::write(&short, "abc").unwrap();
    for (config, key) in [
        (
            Config {
                listen: "0.0.0.0:0".parse().unwrap(),
                ..Config::default()
            },
            "listen",
        ),
        (
            Config {
                signing_key_file: Some(dir.path().join("absent")),
                ..Config::default()
            },
            "signing_key_file",
        ),
        (
            Config {
                signing_key_file: Some(short),
                ..Config::default()
            },
            "signing_key_file",
        ),
        (
            Config {
                publish_hz: 0.0,
                ..Config::default()
            },
            "publish_hz",
        ),
    ] {
        let context = Context::for_tests(DroneService::NAME, bus.clone(), dir.path());
        match DroneService::build(config, (), context).await {
            Err(BuildError::Config { field, .. }) => assert_eq!(field, key),
            Err(BuildError::Operation { operation, .. }) => panic!("{operation}"),
            Ok(_) => panic!("{key} was accepted"),
        }
    }
}

fn data(file: &str) -> Option<Vec<u8>> {
    let root = match std::env::var_os("SOVEREIGN_DATA") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
    };
    match std::fs::read(root.join(file)) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            println!("skipped: {file} of the shared data: {error}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_flight_sent_over_udp_is_counted_as_the_reference_counts_it() {
    for name in ["short_mavlink2", "sub_mavlink2"] {
        let Some(bytes) = data(&format!("mavlink-tlog/{name}.tlog")) else {
            return;
        };
        let Some(expected) = data(&format!("mavlink-tlog/{name}.expected.json")) else {
            return;
        };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let mut door = start(Config::default()).await;
        let replay = sender(door.udp).await;
        let mut sent = 0;
        for item in Frames::of(&bytes) {
            let Item::Frame(frame) = item else { continue };
            replay.send(frame.bytes).await.unwrap();
            sent += 1;
            // No more on the way than the smallest receive buffer holds.
            if sent % 100 == 0 {
                door.until(|stats| stats.datagrams == sent).await;
            }
        }
        door.until(|stats| stats.datagrams == sent).await;
        let stats = door.stats().await;
        assert_eq!(json!(stats.accepted_by_type), expected["by_type"]);
        assert_eq!(json!(stats.messages_by_source), expected["by_source"]);
        assert_eq!(stats.messages_by_version["v2"], expected["messages"]);
        assert_eq!(stats.rejected_by_reason, HashMap::new());
        let vehicles = door.vehicles().await;
        assert_eq!(vehicles.len(), 1, "{vehicles:?}");
        assert_eq!(vehicles[0].vehicle_id, "sys-1");
        // Nothing was lost between us; the recording itself has gaps.
        assert_eq!(vehicles[0].position.is_some(), name == "sub_mavlink2");
        door.finish().await;
    }
}
