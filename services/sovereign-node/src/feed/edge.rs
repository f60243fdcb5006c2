//! A client of a node's HTTPS edge: what a phone, a drone's uploader and a person with `curl` would send.

use std::path::Path;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sovereign_model::{Intrinsics, SensorId, Timestamp};
use tokio::time::Instant;

/// What an edge answers that has no room for now.
const NOT_YET: [StatusCode; 2] = [
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::INSUFFICIENT_STORAGE,
];

/// An edge that is busy for longer than this will not recover by waiting.
const BUSY_LIMIT: Duration = Duration::from_secs(30);

/// Talks to one edge, with its token and its own certificate.
#[derive(Debug, Clone)]
pub struct Edge {
    client: Client,
    base: String,
    token: String,
}

/// An exchange with the edge failed.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The certificate or the token of the node is not there.
    #[error("read {what} of the node")]
    Credentials {
        /// What was to be read.
        what: &'static str,
        /// Why it could not.
        #[source]
        source: std::io::Error,
    },
    /// The client could not be made, or the edge not reached.
    #[error("reach the https edge")]
    Http(#[from] reqwest::Error),
    /// The edge answered that it will not take this.
    #[error("the https edge refused the {what} with {status}: {detail}")]
    Refused {
        /// What was sent.
        what: &'static str,
        /// Its answer.
        status: StatusCode,
        /// Its words.
        detail: String,
    },
    /// The edge is there and a service behind it is not.
    #[error("{0} does not answer the https edge: see the log of the node")]
    Silent(&'static str),
}

/// How one picture was taken.
#[derive(Debug, Clone, Default)]
pub struct CaptureNotes {
    /// Exposure; `None` leaves it to the picture.
    pub captured: Option<Timestamp>,
    /// Calibrated camera, when known.
    pub intrinsics: Option<Intrinsics>,
    /// True for data of the simulator.
    pub simulated: bool,
}

/// The edge has the picture.
#[derive(Debug, Deserialize)]
pub struct Accepted {
    /// Its frame id.
    pub frame_id: String,
    /// Whether it was there before.
    pub duplicate: bool,
}

/// What the node thinks of a frame.
#[derive(Debug, Clone)]
pub struct Seen {
    /// In short.
    pub verdict: Verdict,
    /// Why it is not placed.
    pub reason: Option<String>,
}

/// In short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has a pose.
    Placed,
    /// It is kept without one.
    Waiting,
}

/// One GPS fix of a phone, as it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Fix {
    /// Degrees.
    pub latitude_deg: f64,
    /// Degrees.
    pub longitude_deg: f64,
    /// Metres.
    pub altitude_m: f64,
    /// Degrees clockwise from north.
    pub heading_deg: f64,
}

/// `GET /api/v1/stats`, the parts that are used here.
#[derive(Debug, Deserialize)]
pub struct Stats {
    /// Painting; absent while the tile service does not answer.
    pub paint: Option<PaintStats>,
    /// The drone door; absent while it does not answer.
    pub drones: Option<DroneStats>,
}

/// What was painted.
#[derive(Debug, Default, Deserialize)]
pub struct PaintStats {
    /// Frames painted.
    pub frames_painted: u64,
    /// Frames refused, by reason.
    pub frames_refused: std::collections::BTreeMap<String, u64>,
    /// Tiles written, parents included.
    pub tiles_written: u64,
    /// Measured latency; absent before the first frame.
    pub latency: Option<Latency>,
}

/// Frame in to tile committed.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Latency {
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
}

/// What came in by UDP.
#[derive(Debug, Deserialize)]
pub struct DroneStats {
    /// Datagrams received.
    pub datagrams: u64,
    /// Accepted, by message.
    pub accepted_by_type: std::collections::BTreeMap<String, u64>,
    /// Refused, by reason.
    pub rejected_by_reason: std::collections::BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Layers {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    bounds: Option<[f64; 4]>,
}

impl Edge {
    /// A client of the edge at `address`, with the token and certificate that the node keeps in `folder`.
    pub fn open(address: std::net::SocketAddr, folder: &Path) -> Result<Self, EdgeError> {
        let read = |name: &str, what| {
            std::fs::read_to_string(folder.join(name))
                .map_err(|source| EdgeError::Credentials { what, source })
        };
        let certificate = read("tls-cert.pem", "the certificate")?;
        let token = read("token", "the access token")?;
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(certificate.as_bytes())?])
            // The node is on this machine, whatever the way to the internet is.
            .no_proxy()
            .build()?;
        // The name by which people know their own machine, where it leads to the edge.
        let ip = address.ip();
        let base = if ip.is_loopback() || ip.is_unspecified() {
            format!("https://localhost:{}", address.port())
        } else {
            format!("https://{address}")
        };
        Ok(Self {
            client,
            base,
            token: token.trim().to_owned(),
        })
    }

    /// A client of an edge somewhere else, with its token from a file; `certificate` where this machine does
    /// not trust that of the edge by itself.
    pub fn far(
        url: &str,
        token_file: &Path,
        certificate: Option<&Path>,
    ) -> Result<Self, EdgeError> {
        let read = |path: &Path, what| {
            std::fs::read_to_string(path).map_err(|source| EdgeError::Credentials { what, source })
        };
        let token = read(token_file, "the access token")?;
        let mut client = Client::builder();
        if let Some(path) = certificate {
            let pem = read(path, "the certificate")?;
            client = client.tls_certs_only([Certificate::from_pem(pem.as_bytes())?]);
        }
        Ok(Self {
            client: client.https_only(true).build()?,
            base: url.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
        })
    }

    /// Where a browser finds the console.
    pub fn console_url(&self) -> String {
        format!("{}/", self.base)
    }

    /// Uploads one picture of a drone.
    pub async fn upload_capture(
        &self,
        drone_id: &str,
        jpeg: Vec<u8>,
        notes: &CaptureNotes,
    ) -> Result<Accepted, EdgeError> {
        let mut query = Vec::new();
        if let Some(captured) = notes.captured {
            query.push(("timestamp", rfc3339(captured)));
        }
        if let Some(camera) = &notes.intrinsics {
            let lens = camera.distortion();
            for (name, value) in [
                ("fx", camera.fx_px()),
                ("fy", camera.fy_px()),
                ("cx", camera.cx_px()),
                ("cy", camera.cy_px()),
                ("k1", lens.k1),
                ("k2", lens.k2),
                ("k3", lens.k3),
                ("p1", lens.p1),
                ("p2", lens.p2),
            ] {
                query.push((name, value.to_string()));
            }
            query.push(("width", camera.width_px().to_string()));
            query.push(("height", camera.height_px().to_string()));
        }
        if notes.simulated {
            query.push(("simulated", true.to_string()));
        }
        let jpeg = bytes::Bytes::from(jpeg);
        let reply = self
            .send("picture", || {
                self.client
                    .post(format!("{}/api/v1/drones/{drone_id}/captures", self.base))
                    .query(&query)
                    .header("content-type", "image/jpeg")
                    .body(jpeg.clone())
            })
            .await?;
        Ok(reply.json().await?)
    }

    /// Registers a phone.
    pub async fn register(&self, client_id: &str, model: &str) -> Result<(), EdgeError> {
        let body = json!({
            "client_id": client_id,
            "device_model": model,
            "streams": ["gps", "accelerometer"],
        });
        self.send("registration", || {
            self.client
                .post(format!("{}/api/v1/register", self.base))
                .json(&body)
        })
        .await?;
        Ok(())
    }

    /// Uploads one simulated GPS fix of a phone.
    pub async fn upload_fix(
        &self,
        client_id: &str,
        at: Timestamp,
        fix: Fix,
    ) -> Result<(), EdgeError> {
        let mut frame = simulated_frame(client_id, "gps", at);
        frame["latitude"] = fix.latitude_deg.into();
        frame["longitude"] = fix.longitude_deg.into();
        frame["altitude"] = fix.altitude_m.into();
        frame["heading_deg"] = fix.heading_deg.into();
        self.upload_frame(&frame).await
    }

    /// Uploads one simulated accelerometer sample of a phone, metres per second squared.
    pub async fn upload_acceleration(
        &self,
        client_id: &str,
        at: Timestamp,
        [x, y, z]: [f64; 3],
    ) -> Result<(), EdgeError> {
        let mut frame = simulated_frame(client_id, "accelerometer", at);
        frame["imu_data"] = json!({ "x": x, "y": y, "z": z });
        self.upload_frame(&frame).await
    }

    /// The node's own measurements.
    pub async fn stats(&self) -> Result<Stats, EdgeError> {
        let url = format!("{}/api/v1/stats", self.base);
        let reply = self.send("question", || self.client.get(&url)).await?;
        Ok(reply.json().await?)
    }

    /// Where the layer `imagery` has content: west, south, east, north; `None` while it is empty.
    pub async fn imagery_bounds(&self) -> Result<Option<[f64; 4]>, EdgeError> {
        let url = format!("{}/tiles", self.base);
        let reply = self.send("question", || self.client.get(&url)).await?;
        let layers: Layers = reply.json().await?;
        Ok(layers
            .layers
            .into_iter()
            .find(|layer| layer.name == "imagery")
            .and_then(|layer| layer.bounds))
    }

    /// The newest verdicts on the frames of a sensor, by frame: a thousand at most.
    pub async fn verdicts(
        &self,
        sensor: &SensorId,
    ) -> Result<std::collections::BTreeMap<String, Seen>, EdgeError> {
        #[derive(Deserialize)]
        struct Keyframes {
            keyframes: Vec<Keyframe>,
        }
        #[derive(Deserialize)]
        struct Keyframe {
            frame_id: String,
            state: String,
            reason: Option<String>,
        }
        let url = format!("{}/api/v1/keyframes?sensor={sensor}&limit=1000", self.base);
        let reply = self.send("question", || self.client.get(&url)).await?;
        let listed: Keyframes = reply.json().await?;
        let seen = listed.keyframes.into_iter().map(|keyframe| {
            let verdict = match keyframe.state.as_str() {
                "tracking" => Verdict::Placed,
                _ => Verdict::Waiting,
            };
            let reason = keyframe.reason;
            (keyframe.frame_id, Seen { verdict, reason })
        });
        Ok(seen.collect())
    }

    /// What happens at the node from now on.
    pub async fn events(&self) -> Result<Events, EdgeError> {
        let url = format!("{}/api/v1/events", self.base);
        let reply = self.send("question", || self.client.get(&url)).await?;
        Ok(Events {
            reply,
            text: String::new(),
        })
    }

    async fn upload_frame(&self, frame: &Value) -> Result<(), EdgeError> {
        self.send("sample", || {
            self.client
                .post(format!("{}/api/v1/upload", self.base))
                .json(frame)
        })
        .await?;
        Ok(())
    }

    /// Sends until the edge has decided: 503 or 507 with `Retry-After` means not yet, for [`BUSY_LIMIT`] at most.
    async fn send(
        &self,
        what: &'static str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, EdgeError> {
        let mut busy_since = None;
        loop {
            let reply = request().bearer_auth(&self.token).send().await?;
            let status = reply.status();
            if status.is_success() {
                return Ok(reply);
            }
            let pause = reply
                .headers()
                .get(RETRY_AFTER)
                .filter(|_| NOT_YET.contains(&status))
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(Duration::from_secs);
            let detail = reply.text().await?;
            let waited = busy_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
            match pause.filter(|pause| waited + *pause <= BUSY_LIMIT) {
                Some(pause) => {
                    if busy_since.is_none() {
                        busy_since = Some(Instant::now());
                        tracing::info!(what, detail, "the https edge is busy: trying again");
                    }
                    tokio::time::sleep(pause).await;
                }
                None => {
                    return Err(EdgeError::Refused {
                        what,
                        status,
                        detail,
                    });
                }
            }
        }
    }
}

/// Server-sent events of a node.
#[derive(Debug)]
pub struct Events {
    reply: Response,
    text: String,
}

/// One server-sent event.
#[derive(Debug)]
pub struct Event {
    /// `vehicle`, `tile`, `mesh`, ...
    pub name: String,
    /// Its JSON.
    pub data: Value,
}

impl Events {
    /// The next event; `None` when the node ends the stream.
    pub async fn next(&mut self) -> Result<Option<Event>, EdgeError> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = event_from_block(block);
                self.text = rest.to_owned();
                if event.is_some() {
                    return Ok(event);
                }
            }
            let Some(bytes) = self.reply.chunk().await? else {
                return Ok(None);
            };
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}

fn event_from_block(block: &str) -> Option<Event> {
    let field = |name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    Some(Event {
        name: field("event")?.to_owned(),
        data: serde_json::from_str(field("data")?).ok()?,
    })
}

fn simulated_frame(client_id: &str, stream: &str, at: Timestamp) -> Value {
    json!({
        "contract_version": "av-v1",
        "client_id": client_id,
        "type": stream,
        "timestamp": rfc3339(at),
        "simulated": true,
    })
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.as_unix_nanos()))
        .map(|time| time.to_string())
        .expect("every 64-bit count of nanoseconds is a time that jiff knows")
}
