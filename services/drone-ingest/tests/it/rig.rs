//! A running door, and what is sent to it.

use std::fs::Permissions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use drone_ingest::{Calls, Config, DroneService};
use mavlink::dialects::ardupilotmega as dialect;
use mavlink::dialects::ardupilotmega::MavMessage;
use mavlink::{MAVLinkV2MessageRaw, MavHeader};
use prometheus_client::registry::Registry;
use sovereign_bus::Bus;
use sovereign_objects::memory::MemoryStore;
use sovereign_proto::drone::v1::drones_client::DronesClient;
use sovereign_proto::drone::v1::submit_capture_request::Part;
use sovereign_proto::drone::v1::{
    CaptureHeader, GetIngestStatsRequest, GetIngestStatsResponse, ListVehiclesRequest,
    SubmitCaptureRequest, SubmitCaptureResponse, VehicleState,
};
use sovereign_service::{Channel, Context, Metrics, RunError, Service as _, StopSource, limited};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Nothing here takes this long unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    pub(crate) bus: Bus,
    pub(crate) store: MemoryStore,
    pub(crate) client: DronesClient<Channel>,
    pub(crate) udp: SocketAddr,
    registry: Arc<Mutex<Registry>>,
    pub(crate) stop: StopSource,
    running: JoinHandle<Result<(), RunError>>,
    dir: tempfile::TempDir,
}

pub(crate) async fn start(config: Config) -> Running {
    start_in(tempfile::tempdir().unwrap(), config).await
}

/// With a data folder that was there before.
pub(crate) async fn start_in(dir: tempfile::TempDir, config: Config) -> Running {
    let bus = Bus::memory(&dir.path().join("journal"), "test").unwrap();
    let mut context = Context::for_tests(DroneService::NAME, bus.clone(), dir.path());
    let registry = Arc::<Mutex<Registry>>::default();
    context.metrics = Metrics::new(Arc::clone(&registry), DroneService::NAME);
    let ready = context.ready.clone();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..config
    };
    let store = MemoryStore::new();
    let calls = Calls {
        checkpoint: store.channel(),
    };
    let service = DroneService::build(DroneService::settings(config).unwrap(), calls, context)
        .await
        .unwrap();
    let [("udp", udp)] = service.addresses()[..] else {
        panic!("{:?}", service.addresses());
    };
    let client = limited!(DronesClient::new(Channel::local(service.routes())));
    let stop = StopSource::new();
    let running = own(service.run(stop.stop()));
    soon(ready.wait()).await;
    Running {
        bus,
        store,
        client,
        udp,
        registry,
        stop,
        running,
        dir,
    }
}

#[expect(clippy::disallowed_methods, reason = "the test joins it")]
pub(crate) fn own<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(task)
}

impl Running {
    pub(crate) async fn stats(&mut self) -> GetIngestStatsResponse {
        let request = GetIngestStatsRequest {};
        let answer = self.client.get_ingest_stats(request).await.unwrap();
        answer.into_inner()
    }

    pub(crate) async fn vehicles(&mut self) -> Vec<VehicleState> {
        let answer = self.client.list_vehicles(ListVehiclesRequest {}).await;
        answer.unwrap().into_inner().vehicles
    }

    /// Waits until the counters are as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&GetIngestStatsResponse) -> bool) {
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

    pub(crate) async fn finish(self) {
        self.end().await;
    }

    /// Ends in order; what is left is the data folder.
    pub(crate) async fn end(self) -> tempfile::TempDir {
        self.stop.request();
        soon(self.running).await.unwrap().unwrap();
        self.bus.close().await;
        self.dir
    }

    /// Ends as a killed process does.
    pub(crate) async fn kill(self) -> tempfile::TempDir {
        self.running.abort();
        assert!(soon(self.running).await.unwrap_err().is_cancelled());
        self.bus.close().await;
        self.dir
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

/// The value, unless it takes too long.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("this takes too long")
}

pub(crate) async fn sender(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

pub(crate) fn frame(system: u8, component: u8, sequence: u8, message: &MavMessage) -> Vec<u8> {
    let header = MavHeader {
        system_id: system.into(),
        component_id: component,
        sequence,
    };
    let mut raw = MAVLinkV2MessageRaw::new();
    raw.serialize_message(header, message);
    raw.raw_bytes().to_vec()
}

pub(crate) fn heartbeat(base_mode: dialect::MavModeFlag) -> MavMessage {
    MavMessage::HEARTBEAT(dialect::HEARTBEAT_DATA {
        custom_mode: 5,
        mavtype: dialect::MavType::MAV_TYPE_QUADROTOR,
        autopilot: dialect::MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA,
        base_mode,
        ..Default::default()
    })
}

pub(crate) fn global(lat_e7: i32, lon_e7: i32) -> MavMessage {
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

pub(crate) fn attitude(yaw: f32) -> MavMessage {
    MavMessage::ATTITUDE(dialect::ATTITUDE_DATA {
        yaw,
        ..Default::default()
    })
}

pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_nanos()).unwrap()
}

/// A picture of 64 by 48, and `fill` more bytes behind its end.
pub(crate) fn jpeg(fill: usize) -> Bytes {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode_image(&image::GrayImage::new(64, 48))
        .unwrap();
    bytes.resize(bytes.len() + fill, 7);
    bytes.into()
}

/// A picture and what is said of it.
#[derive(Clone)]
pub(crate) struct Capture {
    pub(crate) header: CaptureHeader,
    pub(crate) image: Bytes,
}

pub(crate) fn capture(
    vehicle_id: &str,
    image: impl Into<Bytes>,
    captured_unix_nanos: i64,
) -> Capture {
    Capture {
        header: CaptureHeader {
            vehicle_id: vehicle_id.to_owned(),
            captured_unix_nanos,
            ..Default::default()
        },
        image: image.into(),
    }
}

impl Capture {
    pub(crate) async fn submit(
        self,
        client: &DronesClient<Channel>,
    ) -> Result<SubmitCaptureResponse, tonic::Status> {
        let chunks = (0..self.image.len()).step_by(1 << 20);
        let image = self.image.clone();
        let chunks =
            chunks.map(move |at| Part::Chunk(image.slice(at..image.len().min(at + (1 << 20)))));
        let parts: Vec<Part> = std::iter::once(Part::Header(self.header))
            .chain(chunks)
            .collect();
        submit(client, parts).await
    }
}

pub(crate) async fn submit(
    client: &DronesClient<Channel>,
    parts: Vec<Part>,
) -> Result<SubmitCaptureResponse, tonic::Status> {
    let parts = parts
        .into_iter()
        .map(|part| SubmitCaptureRequest { part: Some(part) });
    let answer = client
        .clone()
        .submit_capture(futures::stream::iter(parts))
        .await?;
    Ok(answer.into_inner())
}

pub(crate) fn rfc3339(unix_nanos: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(unix_nanos.into()).unwrap();
    time.to_string()
}

/// A file that only its owner may read.
pub(crate) fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    file
}

pub(crate) fn data(file: &str) -> Option<Vec<u8>> {
    let root = match std::env::var_os("SOVEREIGN_DATA") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
    };
    match std::fs::read(root.join(file)) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            // Past what libtest keeps of a test that passes: a check that was skipped shows.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "skipped: {file} of the shared data: {error}").unwrap();
            None
        }
    }
}
