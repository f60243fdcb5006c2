//! `camera calibration`: tells a running node what a camera really is.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_proto::slam::v1::{
    self as slam, ListCalibrationsRequest, RemoveCalibrationRequest, SetCalibrationRequest,
};
use sovereign_service::Channel;
use tonic::{Code, Status};

use crate::running::{self, AskArgs, AskError, within};

/// Commands of `camera calibration`.
#[derive(Debug, Subcommand)]
pub(crate) enum CalibrationCommand {
    /// Say what a camera really is; replaces what was said of the same model and sensor.
    Set(SetArgs),
    /// Take it back: its pictures are placed as if nobody had said anything.
    Remove(RemoveArgs),
    /// What was said so far.
    List(AskArgs),
}

/// Of one model, of all its sensors or of one.
#[derive(Debug, Clone, Args)]
pub(crate) struct OfCamera {
    /// Model as the EXIF of its pictures has it, such as FC6310.
    #[arg(long)]
    model: String,
    /// Only the camera of this vehicle or phone.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    sensor: String,
}

/// Flags of `set`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    camera: OfCamera,
    /// Focal length over the width of the picture, both in pixels.
    #[arg(long, value_name = "RATIO")]
    focal_px_per_width: f64,
    /// First radial distortion coefficient (Brown).
    #[arg(
        long,
        value_name = "K",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    k1: f64,
    /// Second radial distortion coefficient.
    #[arg(
        long,
        value_name = "K",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    k2: f64,
    #[command(flatten)]
    node: AskArgs,
}

/// Flags of `remove`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    camera: OfCamera,
    #[command(flatten)]
    node: AskArgs,
}

/// What was said of a camera.
#[derive(Debug, Serialize)]
struct Calibration {
    camera_model: String,
    /// Absent for every sensor.
    sensor_id: Option<String>,
    focal_px_per_width: f64,
    k1: f64,
    k2: f64,
    /// RFC 3339.
    set: String,
}

#[derive(Debug, Serialize)]
struct Changed {
    /// Frames that are placed again.
    frames: u64,
}

#[derive(Debug, Serialize)]
struct Listed {
    calibrations: Vec<Calibration>,
    /// Frames that wait to be placed again.
    frames_waiting: u64,
}

/// Runs `camera calibration`.
pub(crate) fn run(command: &CalibrationCommand) -> ExitCode {
    let changed = |changed: &Changed| format!("{} pictures are placed again", changed.frames);
    match command {
        CalibrationCommand::Set(args) => {
            running::run(&args.node, async |grpc| set(grpc, args).await, changed)
        }
        CalibrationCommand::Remove(args) => running::run(
            &args.node,
            async |grpc| remove(grpc, &args.camera).await,
            changed,
        ),
        CalibrationCommand::List(node) => running::run(node, list, text_from_list),
    }
}

async fn set(grpc: &str, args: &SetArgs) -> Result<Changed, AskError> {
    let calibration = slam::Calibration {
        camera_model: args.camera.model.clone(),
        sensor_id: args.camera.sensor.clone(),
        focal_px_per_width: args.focal_px_per_width,
        k1: args.k1,
        k2: args.k2,
        // The service says when it was set.
        set_unix_nanos: 0,
    };
    let request = SetCalibrationRequest {
        calibration: Some(calibration),
    };
    let answer = SlamClient::new(Channel::connect(grpc)?)
        .set_calibration(within(request))
        .await
        .map_err(|status| refused(grpc, status))?;
    Ok(Changed {
        frames: answer.into_inner().frames,
    })
}

async fn remove(grpc: &str, camera: &OfCamera) -> Result<Changed, AskError> {
    let request = RemoveCalibrationRequest {
        camera_model: camera.model.clone(),
        sensor_id: camera.sensor.clone(),
    };
    let answer = SlamClient::new(Channel::connect(grpc)?)
        .remove_calibration(within(request))
        .await
        .map_err(|status| refused(grpc, status))?;
    Ok(Changed {
        frames: answer.into_inner().frames,
    })
}

async fn list(grpc: &str) -> Result<Listed, AskError> {
    let answer = SlamClient::new(Channel::connect(grpc)?)
        .list_calibrations(within(ListCalibrationsRequest {}))
        .await
        .map_err(|status| refused(grpc, status))?
        .into_inner();
    Ok(Listed {
        calibrations: answer
            .calibrations
            .into_iter()
            .map(Calibration::from)
            .collect(),
        frames_waiting: answer.frames_waiting,
    })
}

fn refused(grpc: &str, status: Status) -> AskError {
    let grpc = grpc.to_owned();
    let is_refusal = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::ResourceExhausted,
    ];
    let reason = if is_refusal.contains(&status.code()) {
        status.message().to_owned()
    } else if status.code() == Code::Unimplemented {
        "slam-svc does not run there; name a node where it does with --grpc".to_owned()
    } else {
        return AskError::Silent {
            grpc,
            what: "calibrations",
            source: status,
        };
    };
    AskError::Refused { grpc, reason }
}

impl From<slam::Calibration> for Calibration {
    fn from(said: slam::Calibration) -> Self {
        Self {
            camera_model: said.camera_model,
            sensor_id: Some(said.sensor_id).filter(|id| !id.is_empty()),
            focal_px_per_width: said.focal_px_per_width,
            k1: said.k1,
            k2: said.k2,
            set: jiff::Timestamp::from_nanosecond(i128::from(said.set_unix_nanos))
                .expect("every 64-bit count of nanoseconds is a time that jiff knows")
                .to_string(),
        }
    }
}

fn text_from_list(listed: &Listed) -> String {
    if listed.calibrations.is_empty() {
        return "nothing was said of any camera".to_owned();
    }
    let mut text = String::new();
    for said in &listed.calibrations {
        let sensor = said.sensor_id.as_deref().unwrap_or("every sensor");
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}, {sensor}: focal length {} of the width, k1 {}, k2 {} (set {})",
            said.camera_model, said.focal_px_per_width, said.k1, said.k2, said.set
        );
    }
    if listed.frames_waiting > 0 {
        let _ = writeln!(
            text,
            "{} pictures wait to be placed again",
            listed.frames_waiting
        );
    }
    text
}
