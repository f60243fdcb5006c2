//! The last word of every camera.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use sovereign_bus::Key;
use sovereign_model::Timestamp;

use crate::error::CameraError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// Its source is opened, or opened again after a pause.
    #[default]
    Connecting,
    Streaming,
    /// A file was read to its end.
    Ended,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) frames: u64,
    pub(crate) frames_skipped: u64,
    pub(crate) reconnects: u64,
    pub(crate) last_error: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Shot {
    /// Grows by one with each frame that the source gave.
    pub(crate) sequence: u64,
    pub(crate) captured: Timestamp,
    pub(crate) width_px: u32,
    pub(crate) height_px: u32,
    pub(crate) jpeg: Bytes,
}

#[derive(Debug)]
pub(crate) struct Board {
    cameras: Mutex<BTreeMap<String, (Status, Option<Shot>)>>,
}

impl Board {
    pub(crate) fn new<'a>(cameras: impl Iterator<Item = &'a Key>) -> Self {
        let blank = |id: &Key| (id.as_str().to_owned(), Default::default());
        Self {
            cameras: Mutex::new(cameras.map(blank).collect()),
        }
    }

    pub(crate) fn statuses(&self) -> Vec<(String, Status)> {
        let cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        let statuses = cameras
            .iter()
            .map(|(id, (status, _))| (id.clone(), status.clone()));
        statuses.collect()
    }

    pub(crate) fn snapshot(&self, camera_id: &str) -> Result<Shot, CameraError> {
        let cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, newest) = cameras
            .get(camera_id)
            .ok_or_else(|| CameraError::Unknown(camera_id.to_owned()))?;
        newest
            .clone()
            .ok_or_else(|| CameraError::NoFrame(camera_id.to_owned()))
    }

    pub(crate) fn update(&self, camera: &Key, change: impl FnOnce(&mut Status)) {
        let mut cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((status, _)) = cameras.get_mut(camera.as_str()) {
            change(status);
        }
    }

    pub(crate) fn published(&self, camera: &Key, shot: Shot) {
        let mut cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((status, newest)) = cameras.get_mut(camera.as_str()) {
            status.frames += 1;
            *newest = Some(shot);
        }
    }
}
