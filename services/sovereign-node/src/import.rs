//! `import`: pictures from a card into a running node, near or far.
//!
//! What the node has already is not sent again: a frame is named by its sensor, its exposure and its bytes, so
//! a command that was interrupted goes on where it was when it is given again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sovereign_host::{EXIT_FAILURE, Environment};
use sovereign_model::{Digest, SensorId, Timestamp, frame_id};
use sovereign_service::chain;
use tokio::time::Instant;

use crate::feed::{
    CaptureNotes, Edge, EdgeError, LeftOuts, Recording, RecordingError, Seen, Verdict,
};
use crate::running::{self, AskError, PROGRAM};
use crate::visit::Report;

/// Verdicts are asked for after this many pictures, and this often at the end.
const ASK_EVERY: usize = 100;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A verdict that has not come when nothing moved for so long is left open.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What `import` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// A picture, or a folder with folders of them.
    path: PathBuf,
    /// HTTPS address of the node, as https://host:port [default: the node on the data folder].
    #[arg(long, value_name = "URL", requires = "token_file")]
    to: Option<String>,
    /// File with the access token of that node.
    #[arg(long, value_name = "FILE", requires = "to")]
    token_file: Option<PathBuf>,
    /// Certificate of that node (PEM), if it is not one that this machine trusts.
    #[arg(long, value_name = "FILE", requires = "to")]
    certificate: Option<PathBuf>,
    /// Data folder of the node [default: $XDG_DATA_HOME/sovereign-map or ./sovereign-data].
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    data_dir: Option<PathBuf>,
    /// Name under which the pictures come in [default: the name of the folder].
    #[arg(long, value_name = "ID")]
    sensor: Option<SensorId>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Edge(#[from] EdgeError),
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// What became of the pictures.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    pictures: Vec<Imported>,
    placed: u64,
    /// On the map as positions, or kept until more is known.
    waiting: u64,
    /// Had no verdict yet when the command ended.
    open: u64,
    /// Of all these, pictures that the node had before.
    known: u64,
    left_out: LeftOuts,
}

#[derive(Debug, Serialize)]
struct Imported {
    file: String,
    frame_id: String,
    /// `placed`, `waiting` or `open`.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    known: bool,
}

pub(crate) fn run(args: &ImportArgs) -> ExitCode {
    let report = Report { json: args.json };
    let imported = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ImportError::Runtime)
        .and_then(|runtime| runtime.block_on(import(args, report)));
    match imported {
        Ok(outcome) if args.json => report.line_for_machines(&serde_json::json!(outcome)),
        Ok(outcome) => report.line(outcome.for_people().trim_end()),
        Err(error) => {
            let text = chain(&error);
            if args.json {
                report.line_for_machines(&serde_json::json!({ "error": text }));
            } else {
                // When nobody reads what is printed, the exit code still tells.
                let _ = writeln!(std::io::stderr(), "{PROGRAM}: {text}");
            }
            return ExitCode::from(EXIT_FAILURE);
        }
    }
    ExitCode::SUCCESS
}

async fn import(args: &ImportArgs, report: Report) -> Result<Outcome, ImportError> {
    let recording = Recording::find(&args.path)?;
    let edge = match (&args.to, &args.token_file) {
        (Some(url), Some(token)) => Edge::far(url, token, args.certificate.as_deref())?,
        _ => {
            let dir = args.data_dir.clone();
            let dir = dir.unwrap_or_else(|| Environment::of_process().data_dir());
            let address = running::listener_from_data_dir(&dir, "mobile-ingest.https")?;
            Edge::open(address, &dir.join("mobile-ingest"))?
        }
    };
    let sensor = match &args.sensor {
        Some(sensor) => sensor.clone(),
        None => recording.sensor(),
    };
    let before: BTreeSet<String> = edge.verdicts(&sensor).await?.into_keys().collect();
    let mut outcome = Outcome {
        left_out: recording.left_out().clone(),
        ..Outcome::default()
    };
    let bar = report.bar(recording.pictures().count() as u64);
    let mut open: BTreeMap<String, (PathBuf, bool)> = BTreeMap::new();
    for path in recording.pictures() {
        bar.set_message(path.display().to_string());
        match send(&edge, &sensor, path, &before).await? {
            Ok((frame, known)) => {
                open.insert(frame, (path.to_owned(), known));
            }
            Err(reason) => outcome.left_out.add(path, reason),
        }
        bar.inc(1);
        if open.len() >= ASK_EVERY {
            let verdicts = edge.verdicts(&sensor).await?;
            outcome.settle(&mut open, &verdicts, |line| bar.println(line));
        }
    }
    let mut moved = Instant::now();
    while !open.is_empty() && moved.elapsed() < STUCK_AFTER {
        let verdicts = edge.verdicts(&sensor).await?;
        let before = open.len();
        outcome.settle(&mut open, &verdicts, |line| bar.println(line));
        if open.len() < before {
            moved = Instant::now();
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    bar.finish_and_clear();
    for (frame_id, (path, known)) in open {
        outcome.add(&path, frame_id, known, "open", None);
    }
    outcome.pictures.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(outcome)
}

/// The frame of a picture that the node has, and whether it had it before; `Err` says why it has not.
async fn send(
    edge: &Edge,
    sensor: &SensorId,
    path: &Path,
    before: &BTreeSet<String>,
) -> Result<Result<(String, bool), String>, EdgeError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(format!("cannot be read: {error}"))),
    };
    let exposed = match sovereign_picture::Header::read(&bytes) {
        Ok(header) => header.exposed.unwrap_or(Timestamp::UNIX_EPOCH),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let frame = frame_id(sensor, exposed, &Digest::of(&bytes)).to_hex();
    if before.contains(&frame) {
        return Ok(Ok((frame, true)));
    }
    let notes = CaptureNotes::default();
    match edge.upload_capture(sensor.as_str(), bytes, &notes).await {
        Ok(accepted) => Ok(Ok((accepted.frame_id, accepted.duplicate))),
        Err(EdgeError::Refused { status, detail, .. }) => {
            Ok(Err(format!("was refused with {status}: {detail}")))
        }
        Err(error) => Err(error),
    }
}

impl Outcome {
    /// Takes the verdicts that have come.
    fn settle(
        &mut self,
        open: &mut BTreeMap<String, (PathBuf, bool)>,
        verdicts: &BTreeMap<String, Seen>,
        tell: impl Fn(String),
    ) {
        open.retain(|frame_id, (path, known)| {
            let Some(seen) = verdicts.get(frame_id) else {
                return true;
            };
            let verdict = match seen.verdict {
                Verdict::Placed => "placed",
                Verdict::Waiting => "waiting",
            };
            let reason = seen.reason.clone();
            if let Some(reason) = &reason {
                tell(format!("{}: {reason}", path.display()));
            }
            self.add(path, frame_id.clone(), *known, verdict, reason);
            false
        });
    }

    fn add(
        &mut self,
        path: &Path,
        frame_id: String,
        known: bool,
        verdict: &'static str,
        reason: Option<String>,
    ) {
        match verdict {
            "placed" => self.placed += 1,
            "waiting" => self.waiting += 1,
            _ => self.open += 1,
        }
        self.known += u64::from(known);
        self.pictures.push(Imported {
            file: path.display().to_string(),
            frame_id,
            verdict,
            reason,
            known,
        });
    }

    fn for_people(&self) -> String {
        let mut text = self.left_out.for_people();
        for picture in &self.pictures {
            if let Some(reason) = &picture.reason {
                text.push_str(&format!("waiting           {}: {reason}\n", picture.file));
            }
        }
        text.push_str(&format!(
            "placed            {}\nwaiting           {}\nwithout verdict   {}\nknown before      {}\nleft out          {}\n",
            self.placed, self.waiting, self.open, self.known, self.left_out.total
        ));
        text
    }
}
