//! Recorded data from disk: pictures, telemetry logs and single packets, sent through the front doors.

use std::ffi::OsStr;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sovereign_model::{SensorId, Timestamp};
use sovereign_picture::{Header, MAX_HEADER_BYTES, NotAPicture};
use sovereign_service::Stop;
use sovereign_sim::SIMULATOR;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::flight::any_address_like;
use super::{CaptureNotes, Edge, EdgeError, LeftOut, LeftOuts, Record, records_from_tlog};

const MAX_FILES: usize = 100_000;
/// Datagrams that may be on their way when time does not pace them: they fit the node's receive buffer
/// also where the kernel grants it no more than its default of 208 KiB.
const MAX_UNSEEN: u64 = 200;
/// Datagrams on their way are lost when the node has counted no further one for this long.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// Longest pause kept between two things: a recorder that was off for a while is no reason to wait so long.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Two things further apart are no pause: the recorder's clock was set.
const CLOCK_STEP: Duration = Duration::from_secs(3600);
/// Files of pictures that are no JPEG, which people have beside those that are.
const OTHER_PICTURES: [&str; 12] = [
    "tif", "tiff", "dng", "png", "heic", "heif", "webp", "bmp", "arw", "cr2", "nef", "raw",
];

/// How fast recorded time passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// This many times as fast as it was recorded.
    Times(f64),
    /// As fast as the node takes it.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Self::Times(times)),
            _ => Err("give a number above 0, or `max`".to_owned()),
        }
    }
}

/// Recorded data could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Nothing usable at the path.
    #[error(
        "nothing to replay in {0}: give a folder or file with .jpg pictures, .tlog telemetry, .bin bytes \
         or .jsonl packets"
    )]
    Nothing(PathBuf),
    /// More files than anyone means.
    #[error("more than {MAX_FILES} files in {0}: replay a folder with fewer")]
    TooMany(PathBuf),
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something would be left out, and everything was asked for.
    #[error("{} {}; without --strict it is left out", .0.file, .0.reason)]
    Strict(LeftOut),
    /// Nothing usable at the path, though there are pictures.
    #[error("nothing to replay in {path}: {} {}", first.file, first.reason)]
    AllLeftOut {
        /// The path.
        path: PathBuf,
        /// The first that was left out.
        first: LeftOut,
    },
    /// The UDP side failed.
    #[error("send a datagram to the node")]
    Send(#[source] std::io::Error),
    /// The HTTPS side failed.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// What was sent.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Pictures accepted for the first time.
    pub frames: u64,
    /// Pictures that the node had already.
    pub duplicates: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// What was not sent.
    pub left_out: LeftOuts,
}

#[derive(Debug)]
struct Picture {
    path: PathBuf,
    /// Exposure by the camera's clock, for order and pace.
    at: Option<Duration>,
    /// Pictures of the simulator name it as the software that made them.
    simulated: bool,
}

impl Picture {
    /// Previews and scans that lie beside the pictures have no position: they were not taken from the air.
    fn with_position(path: PathBuf) -> Result<Self, (PathBuf, String)> {
        let header = match header_of(&path) {
            Ok(header) => header,
            Err(reason) => return Err((path, reason)),
        };
        if header.gps.is_none() {
            let reason = match header.gps_fault {
                Some(fault) => format!("has a position that {fault}"),
                None => "has no GPS position".to_owned(),
            };
            return Err((path, reason));
        }
        let nanos = header.camera_clock.map(Timestamp::as_unix_nanos);
        Ok(Self {
            path,
            at: nanos.and_then(|nanos| Some(Duration::from_nanos(nanos.try_into().ok()?))),
            simulated: header.software.as_deref() == Some(SIMULATOR),
        })
    }
}

/// Files to replay, by kind, in order.
#[derive(Debug, Default)]
pub struct Recording {
    pictures: Vec<Picture>,
    telemetry: Vec<PathBuf>,
    packets: Vec<PathBuf>,
    name: String,
    left_out: LeftOuts,
}

impl Recording {
    /// Finds what can be replayed at `path`, a file or a folder with folders.
    pub fn find(path: &Path) -> Result<Self, RecordingError> {
        let mut files = Vec::new();
        collect(path, &mut files)?;
        if files.len() > MAX_FILES {
            return Err(RecordingError::TooMany(path.to_owned()));
        }
        files.sort();
        let mut recording = Self {
            name: sensor_id_from_path(path),
            ..Self::default()
        };
        for file in files {
            match extension(&file).as_str() {
                "jpg" | "jpeg" => match Picture::with_position(file) {
                    Ok(picture) => recording.pictures.push(picture),
                    Err((file, reason)) => recording.left_out.add(&file, reason),
                },
                "tlog" => recording.telemetry.push(file),
                "bin" | "jsonl" => recording.packets.push(file),
                other if OTHER_PICTURES.contains(&other) => {
                    let format = other.to_uppercase();
                    let reason = format!("is a {format}, and only JPEG is read");
                    recording.left_out.add(&file, reason);
                }
                _ => {}
            }
        }
        recording
            .pictures
            .sort_by(|a, b| (a.at, &a.path).cmp(&(b.at, &b.path)));
        if recording.total() == 0 {
            let path = path.to_owned();
            return Err(match recording.left_out.named.into_iter().next() {
                Some(first) => RecordingError::AllLeftOut { path, first },
                None => RecordingError::Nothing(path),
            });
        }
        Ok(recording)
    }

    /// Files to send.
    pub fn total(&self) -> usize {
        self.pictures.len() + self.telemetry.len() + self.packets.len()
    }

    /// Pictures to send, in order.
    pub fn pictures(&self) -> impl Iterator<Item = &Path> {
        self.pictures.iter().map(|picture| picture.path.as_path())
    }

    /// What cannot be sent.
    pub fn left_out(&self) -> &LeftOuts {
        &self.left_out
    }

    /// The name under which its pictures come in.
    pub fn sensor(&self) -> SensorId {
        SensorId::parse(&self.name).expect("the name is made of what an id may have")
    }

    /// True when any picture was made by the simulator.
    pub fn is_simulated(&self) -> bool {
        self.pictures.iter().any(|picture| picture.simulated)
    }

    /// Sends everything: telemetry, packets, then pictures; `progress` hears of each file that is done.
    /// A stop ends it between two of them. What the node refuses or cannot be read is left out and the rest
    /// goes on, unless it is to be `strict`.
    pub async fn send(
        &self,
        edge: &Edge,
        udp: SocketAddr,
        speed: Speed,
        strict: bool,
        stop: &Stop,
        mut progress: impl FnMut(&Path),
    ) -> Result<Counts, RecordingError> {
        let mut counts = Counts {
            left_out: self.left_out.clone(),
            ..Counts::default()
        };
        let mut leave_out = |file: &Path, reason: String| {
            if strict {
                return Err(RecordingError::Strict(LeftOut::of(file, reason)));
            }
            counts.left_out.add(file, reason);
            Ok(())
        };
        if let (true, Some(first)) = (strict, self.left_out.named.first()) {
            return Err(RecordingError::Strict(first.clone()));
        }
        let mut link = UdpLink::open(edge.clone(), udp).await?;
        for file in &self.telemetry {
            match read(file) {
                Ok(log) => {
                    let records = records_from_tlog(&log);
                    link.send_paced(&records, speed, stop).await?;
                }
                Err(reason) => leave_out(file, reason)?,
            }
            progress(file);
        }
        for file in &self.packets {
            let packets = read(file).map(|bytes| packets_of(file, &bytes));
            for packet in packets.unwrap_or_else(|reason| vec![Err(reason)]) {
                if stop.is_requested() {
                    break;
                }
                match packet {
                    Ok(packet) => link.send(&packet).await?,
                    Err(reason) => leave_out(file, reason)?,
                }
            }
            progress(file);
        }
        // What was measured beside a picture has to be known before the picture is.
        link.wait_until_unseen(0).await?;
        let mut pace = Pace::new(speed);
        let (mut frames, mut duplicates) = (0, 0);
        for picture in &self.pictures {
            pace.wait(picture.at, stop).await;
            if stop.is_requested() {
                break;
            }
            let notes = CaptureNotes {
                simulated: picture.simulated,
                ..CaptureNotes::default()
            };
            match read(&picture.path) {
                Ok(bytes) => match edge.upload_capture(&self.name, bytes, &notes).await {
                    Ok(accepted) if accepted.duplicate => duplicates += 1,
                    Ok(_) => frames += 1,
                    Err(EdgeError::Refused { status, detail, .. }) => {
                        leave_out(
                            &picture.path,
                            format!("was refused with {status}: {detail}"),
                        )?;
                    }
                    Err(error) => return Err(error.into()),
                },
                Err(reason) => leave_out(&picture.path, reason)?,
            }
            progress(&picture.path);
        }
        (counts.frames, counts.duplicates) = (frames, duplicates);
        counts.datagrams = link.sent;
        Ok(counts)
    }
}

struct Pace {
    speed: Speed,
    previous: Option<Duration>,
    due: Instant,
}

impl Pace {
    fn new(speed: Speed) -> Self {
        Self {
            speed,
            previous: None,
            due: Instant::now(),
        }
    }

    async fn wait(&mut self, at: Option<Duration>, stop: &Stop) {
        let (Speed::Times(times), Some(at)) = (self.speed, at) else {
            return;
        };
        if let Some(previous) = self.previous.replace(at) {
            let gap = at.saturating_sub(previous);
            let gap = if gap > CLOCK_STEP {
                Duration::ZERO
            } else {
                gap.min(LONGEST_PAUSE)
            };
            self.due += gap.div_f64(times);
            tokio::select! {
                () = tokio::time::sleep_until(self.due) => {}
                () = stop.requested() => {}
            }
        }
    }
}

/// A UDP sender that does not outrun the node: it looks at the node's own count.
struct UdpLink {
    socket: UdpSocket,
    edge: Edge,
    sent: u64,
    /// What the node had counted when we began.
    before: u64,
    /// What never arrived.
    lost: u64,
    /// What arrived or was lost.
    seen: u64,
}

impl UdpLink {
    async fn open(edge: Edge, node: SocketAddr) -> Result<Self, RecordingError> {
        let socket = UdpSocket::bind(any_address_like(node))
            .await
            .map_err(RecordingError::Send)?;
        socket.connect(node).await.map_err(RecordingError::Send)?;
        let before = received(&edge).await?;
        Ok(Self {
            socket,
            edge,
            sent: 0,
            before,
            lost: 0,
            seen: 0,
        })
    }

    async fn send_paced(
        &mut self,
        records: &[Record],
        speed: Speed,
        stop: &Stop,
    ) -> Result<(), RecordingError> {
        let mut pace = Pace::new(speed);
        for record in records {
            pace.wait(Some(record.at), stop).await;
            if stop.is_requested() {
                break;
            }
            self.send(&record.bytes).await?;
        }
        Ok(())
    }

    async fn send(&mut self, datagram: &[u8]) -> Result<(), RecordingError> {
        /// The largest datagram that UDP carries over IPv4.
        const LARGEST: usize = 65_507;
        for part in datagram.chunks(LARGEST) {
            if self.sent - self.seen >= MAX_UNSEEN {
                self.wait_until_unseen(MAX_UNSEEN / 2).await?;
            }
            self.socket.send(part).await.map_err(RecordingError::Send)?;
            self.sent += 1;
        }
        Ok(())
    }

    /// Returns when at most `most` datagrams are on their way.
    async fn wait_until_unseen(&mut self, most: u64) -> Result<(), RecordingError> {
        let mut moved = Instant::now();
        loop {
            // The node counts everybody's datagrams, so it may have seen more than was sent here.
            let arrived = received(&self.edge).await?.saturating_sub(self.before);
            let seen = (arrived + self.lost).min(self.sent);
            if seen > self.seen {
                (self.seen, moved) = (seen, Instant::now());
            }
            if self.sent - self.seen <= most {
                return Ok(());
            }
            if moved.elapsed() >= LOST_AFTER {
                let lost = self.sent - self.seen;
                tracing::warn!(lost, "the node did not receive some datagrams");
                self.lost += lost;
                self.seen = self.sent;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// What the node has counted; unknown while its drone door does not answer.
async fn received(edge: &Edge) -> Result<u64, EdgeError> {
    let drones = edge.stats().await?.drones;
    Ok(drones.ok_or(EdgeError::Silent("drone-ingest"))?.datagrams)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), RecordingError> {
    let failed = |source| RecordingError::Read {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed)? {
            collect(&entry.map_err(failed)?.path(), files)?;
            if files.len() > MAX_FILES {
                return Ok(());
            }
        }
    } else {
        std::fs::metadata(path).map_err(failed)?;
        files.push(path.to_owned());
    }
    Ok(())
}

fn extension(path: &Path) -> String {
    path.extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase()
}

/// The bytes of a file, or why there are none.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))
}

#[derive(Deserialize)]
struct PacketLine {
    hex: String,
}

/// A `.bin` file is one stream, cut into datagrams; a `.jsonl` file is a packet a line.
fn packets_of(path: &Path, bytes: &[u8]) -> Vec<Result<Vec<u8>, String>> {
    if extension(path) == "bin" {
        return vec![Ok(bytes.to_vec())];
    }
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str::<PacketLine>(line)
                .ok()
                .and_then(|packet| bytes_from_hex(&packet.hex))
                .ok_or_else(|| {
                    let line = index + 1;
                    format!("has no packet in line {line}, expected an object with `hex`")
                })
        })
        .collect()
}

fn bytes_from_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok())
        .collect()
}

/// A sensor id from the name of the folder: what no id may contain becomes `-`.
fn sensor_id_from_path(path: &Path) -> String {
    let folder = if path.is_dir() {
        Some(path)
    } else {
        path.parent()
    };
    let name = folder
        .and_then(|folder| folder.canonicalize().ok())
        .and_then(|folder| folder.file_name().map(OsStr::to_owned))
        .unwrap_or_default();
    let id: String = name
        .to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    if id.is_empty() {
        "replay".to_owned()
    } else {
        id
    }
}

fn header_of(path: &Path) -> Result<Header, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let mut wanted = 64 << 10;
    loop {
        let more = wanted - bytes.len();
        (&mut file)
            .take(more as u64)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        match Header::read(&bytes) {
            Err(NotAPicture::Header(_)) if bytes.len() == wanted && wanted < MAX_HEADER_BYTES => {
                wanted *= 2;
            }
            read => return read.map_err(|error| error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_positive_number_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for bad in ["0", "-1", "inf", "fast", ""] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_without_recordings_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes.txt"), "nothing").unwrap();
        let error = Recording::find(folder.path()).unwrap_err();
        assert!(error.to_string().contains("nothing to replay"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_packet_is_named() {
        let packets = packets_of(
            Path::new("packets.jsonl"),
            b"{\"hex\":\"fe00\"}\n{\"hex\":\"f\"}\n",
        );
        assert_eq!(packets[0], Ok(vec![0xFE, 0]));
        assert!(packets[1].as_ref().unwrap_err().contains("line 2"));
    }
}
