//! Pictures and statuses as the contract has them.

use sovereign_proto::camera::v1::{CameraState, CameraStatus, Frame};

use crate::board::{Shot, State, Status};

pub(crate) fn frame_from(camera_id: &str, shot: &Shot) -> Frame {
    Frame {
        camera_id: camera_id.to_owned(),
        sequence: shot.sequence,
        captured_unix_nanos: shot.captured.as_unix_nanos(),
        width_px: shot.width_px,
        height_px: shot.height_px,
        jpeg: shot.jpeg.clone(),
    }
}

pub(crate) fn status_from(camera_id: String, status: Status) -> CameraStatus {
    let state = match status.state {
        State::Connecting => CameraState::Connecting,
        State::Streaming => CameraState::Streaming,
        State::Ended => CameraState::Ended,
    };
    CameraStatus {
        camera_id,
        state: state.into(),
        frames: status.frames,
        frames_skipped: status.frames_skipped,
        reconnects: status.reconnects,
        last_error: status.last_error,
    }
}
