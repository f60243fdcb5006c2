//! A running edge and the services behind it.

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mobile_ingest::{Calls, Config, MobileService};
use prometheus_client::registry::Registry;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use sovereign_bus::Bus;
use sovereign_service::{Channel, Context, Metrics, RunError, Service, StopSource, chain};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::service::Routes;

use self::backend::{Backend, calls};
pub(crate) use self::events::Events;
use self::flaky::FlakyTransport;
pub(crate) use self::warnings::Warnings;

mod backend;
mod events;
mod flaky;
mod warnings;

/// Payload limit of the bus in these tests.
pub(crate) const LIMIT: usize = sovereign_bus::DEFAULT_PAYLOAD_LIMIT;
/// Nothing here takes this long unless it hangs.
const LIMIT_OF_PATIENCE: Duration = Duration::from_secs(60);

/// Makes appends fail on request.
#[derive(Clone, Default)]
pub(crate) struct Flaky(Arc<AtomicBool>);

impl Flaky {
    /// From now on appends fail, or do not.
    pub(crate) fn fail(&self, fail: bool) {
        self.0.store(fail, Ordering::SeqCst);
    }
}

/// A running edge.
pub(crate) struct Edge {
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
    pub(crate) bus: Bus,
    pub(crate) backend: Arc<Backend>,
    pub(crate) routes: Routes,
    pub(crate) folder: Arc<TempDir>,
    pub(crate) flaky: Flaky,
    registry: Arc<Mutex<Registry>>,
    address: SocketAddr,
    source: StopSource,
    running: JoinSet<Result<(), RunError>>,
    journal: Arc<TempDir>,
}

impl Edge {
    /// With services behind it.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with a changed configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let journal = Arc::new(tempfile::tempdir().unwrap());
        let bus = Bus::memory(&journal.path().join("journal"), "test-node").unwrap();
        let backend = Arc::new(Backend::default());
        let calls = calls(&backend);
        Self::build(
            change,
            bus,
            journal,
            backend,
            calls,
            Arc::default_folder(),
            Flaky::default(),
        )
        .await
        .unwrap()
    }

    /// With nothing behind it that answers.
    pub(crate) async fn alone() -> Self {
        let journal = Arc::new(tempfile::tempdir().unwrap());
        let bus = Bus::memory(&journal.path().join("journal"), "test-node").unwrap();
        // Port 1 (tcpmux): nobody serves there, and no test is given it.
        let nowhere = "http://127.0.0.1:1";
        let calls = Calls {
            checkpoint: Channel::connect(nowhere).unwrap(),
            drones: Channel::connect(nowhere).unwrap(),
            tiles: Channel::connect(nowhere).unwrap(),
            slam: Channel::connect(nowhere).unwrap(),
            mesh: None,
        };
        let backend = Arc::new(Backend::default());
        Self::build(
            |_| {},
            bus,
            journal,
            backend,
            calls,
            Arc::default_folder(),
            Flaky::default(),
        )
        .await
        .unwrap()
    }

    /// Over a bus whose appends can be made to fail.
    pub(crate) async fn over_flaky_bus() -> Self {
        let journal = Arc::new(tempfile::tempdir().unwrap());
        let flaky = Flaky::default();
        let transport = FlakyTransport::new(flaky.0.clone());
        let bus = Bus::with_transport(Arc::new(transport), "test-node");
        let backend = Arc::new(Backend::default());
        let calls = calls(&backend);
        Self::build(
            |_| {},
            bus,
            journal,
            backend,
            calls,
            Arc::default_folder(),
            flaky,
        )
        .await
        .unwrap()
    }

    /// Stops, and starts again over the same folders.
    pub(crate) async fn restart(self) -> Self {
        let (journal, folder) = (self.journal.clone(), self.folder.clone());
        let bus = self.bus.clone();
        self.stop().await;
        bus.close().await;
        drop(bus);
        let bus = Bus::memory(&journal.path().join("journal"), "test-node").unwrap();
        let backend = Arc::new(Backend::default());
        let calls = calls(&backend);
        Self::build(
            |_| {},
            bus,
            journal,
            backend,
            calls,
            folder,
            Flaky::default(),
        )
        .await
        .unwrap()
    }

    async fn build(
        change: impl FnOnce(&mut Config),
        bus: Bus,
        journal: Arc<TempDir>,
        backend: Arc<Backend>,
        calls: Calls,
        folder: Arc<TempDir>,
        flaky: Flaky,
    ) -> Result<Self, String> {
        let mut config = Config {
            listen: "127.0.0.1:0".to_owned(),
            ..Config::default()
        };
        change(&mut config);
        let token_file = config.token_file.clone();
        let cert_file = config.tls_cert.clone();
        let mut context = Context::for_tests("mobile-ingest", bus.clone(), folder.path());
        let registry = Arc::<Mutex<Registry>>::default();
        context.metrics = Metrics::new(registry.clone(), "mobile-ingest");
        let ready = context.ready.clone();
        let service =
            MobileService::build(MobileService::settings(config).unwrap(), calls, context)
                .await
                .map_err(|error| chain(&error))?;
        let address = service.addresses()[0].1;
        let routes = service.routes();
        let source = StopSource::new();
        let mut running = JoinSet::new();
        running.spawn(service.run(source.stop()));
        soon(ready.wait()).await;
        let token_file = token_file.unwrap_or_else(|| folder.path().join("token"));
        let cert_file = cert_file.unwrap_or_else(|| folder.path().join("tls-cert.pem"));
        let certificate = std::fs::read(cert_file).unwrap();
        Ok(Self {
            http: trusting(&certificate, |builder| builder),
            token: std::fs::read_to_string(token_file)
                .unwrap()
                .trim()
                .to_owned(),
            bus,
            backend,
            routes,
            folder,
            flaky,
            registry,
            address,
            source,
            running,
            journal,
        })
    }

    /// Address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// A request without token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// A read.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A write with the token.
    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path).bearer_auth(&self.token)
    }

    /// A read that answers.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }

    /// A number of the health answer.
    pub(crate) async fn count(&self, name: &str) -> u64 {
        self.json("/api/v1/health").await[name].as_u64().unwrap()
    }

    /// Registers a phone.
    pub(crate) async fn register(&self, client_id: &str) -> Value {
        let body = json!({"client_id": client_id, "device_model": "Test Phone", "streams": ["gps", "camera"]});
        let answer = self
            .post("/api/v1/register")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Uploads a frame.
    pub(crate) async fn upload(&self, frame: &Value) -> Response {
        self.post("/api/v1/upload")
            .json(frame)
            .send()
            .await
            .unwrap()
    }

    /// A counter, with its labels as they are written; 0 before its first event.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock().unwrap())
            .unwrap();
        let name = format!("sovereign_mobile_ingest_{name} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&name)?.parse().ok())
            .unwrap_or(0)
    }

    /// Another client that trusts this edge.
    pub(crate) fn client(
        &self,
        change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> reqwest::Client {
        let certificate = std::fs::read(self.folder.path().join("tls-cert.pem")).unwrap();
        trusting(&certificate, change)
    }

    /// Asks the edge to stop.
    pub(crate) fn request_stop(&self) {
        self.source.request();
    }

    /// Stops, and sees that it ended in order.
    pub(crate) async fn stop(mut self) {
        self.source.request();
        let ended = soon(self.running.join_next()).await.unwrap();
        ended.unwrap().unwrap();
    }
}

trait Folder {
    fn default_folder() -> Arc<TempDir>;
}

impl Folder for Arc<TempDir> {
    fn default_folder() -> Arc<TempDir> {
        Arc::new(tempfile::tempdir().unwrap())
    }
}

fn trusting(
    certificate: &[u8],
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> reqwest::Client {
    let certificate = reqwest::Certificate::from_pem(certificate).unwrap();
    let builder = reqwest::Client::builder()
        .tls_certs_only([certificate])
        .no_proxy();
    change(builder).build().unwrap()
}

/// The value, unless it takes too long.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT_OF_PATIENCE, future)
        .await
        .expect("this takes too long")
}

/// Waits until `done`.
pub(crate) async fn until(done: impl Fn() -> bool) {
    soon(async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Runs beside the test; the result is awaited, dropping it aborts.
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = T>>> {
    let mut set = JoinSet::new();
    set.spawn(future);
    Box::pin(async move { soon(set.join_next()).await.unwrap().unwrap() })
}

/// A request body that is written piece by piece.
pub(crate) fn slow_body() -> (mpsc::Sender<String>, reqwest::Body) {
    let (send, mut receive) = mpsc::channel::<String>(1);
    let stream = futures::stream::poll_fn(move |context| {
        receive
            .poll_recv(context)
            .map(|part| part.map(Ok::<_, std::io::Error>))
    });
    (send, reqwest::Body::wrap_stream(stream))
}

/// A problem document.
pub(crate) async fn problem(answer: Response) -> Value {
    assert_eq!(
        answer.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    problem
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// RFC 3339 of nanoseconds since the Unix epoch.
pub(crate) fn rfc3339(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos))
        .unwrap()
        .to_string()
}

/// A small JPEG; `seed` tells one from another.
pub(crate) fn jpeg(seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode_image(&image::GrayImage::new(16, 16))
        .unwrap();
    bytes.push(seed);
    bytes
}

/// A valid `av-v1` frame.
pub(crate) fn frame(client_id: &str, stream: &str, nanos: i64) -> Value {
    use base64::Engine as _;
    let mut frame = json!({
        "contract_version": "av-v1",
        "client_id": client_id,
        "type": stream,
        "timestamp": rfc3339(nanos),
        "latitude": 51.5,
        "longitude": -0.25,
        "altitude": 35.0,
    });
    match stream {
        "camera" => {
            frame["image_data"] = json!(base64::engine::general_purpose::STANDARD.encode(jpeg(1)));
        }
        "gps" => {
            frame["accuracy_m"] = json!(4);
            frame["heading_deg"] = json!(90);
        }
        _ => frame["imu_data"] = json!({"x": 1.5, "y": 0, "z": 9.8}),
    }
    frame
}
