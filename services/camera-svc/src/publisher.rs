//! Publishing what one reader hands over.

use std::sync::Arc;

use sovereign_bus::{Bus, Key};
use sovereign_proto::topics::CAMERA_FRAME;
use sovereign_service::{RunError, chain};
use tokio::sync::mpsc;

use crate::board::{Board, Shot};
use crate::metrics::Metrics;
use crate::wire::frame_from;

pub(crate) struct Publisher {
    pub(crate) camera: Key,
    pub(crate) board: Arc<Board>,
    pub(crate) bus: Bus,
    pub(crate) metrics: Metrics,
}

impl Publisher {
    pub(crate) async fn run(self, mut shots: mpsc::Receiver<Shot>) -> Result<(), RunError> {
        let camera = &self.camera;
        while let Some(shot) = shots.recv().await {
            let frame = frame_from(camera.as_str(), &shot);
            match self.bus.publish(&CAMERA_FRAME, Some(camera), &frame).await {
                Ok(()) => {
                    self.metrics.frames_published.inc();
                    self.board.published(camera, shot);
                }
                Err(error) => {
                    self.metrics.frames_refused.inc();
                    let last_error = chain(&error);
                    self.board
                        .update(camera, |status| status.last_error = last_error);
                }
            }
        }
        Ok(())
    }
}
