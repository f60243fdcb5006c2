//! From a picture in the content store to a frame that can be laid onto tiles.

use bytes::Bytes;
use sovereign_model::Digest;
use sovereign_objects::{Objects, ObjectsError};
use sovereign_picture::decode;

use crate::arrival::Sighting;
use crate::config::Settings;
use crate::domain::plan::{Plan, plan};
use crate::domain::project::Frame;
use crate::domain::sight::Sight;
use crate::error::{Refusal, WorkError};

#[derive(Clone, Debug)]
pub(crate) struct Darkroom {
    pub(crate) objects: Objects,
    pub(crate) settings: Settings,
}

impl Darkroom {
    pub(crate) fn plan(&self, sighting: &Sighting) -> Result<(Sight, Plan), Refusal> {
        let sight = Sight::new(&sighting.pose, &sighting.camera, self.settings.limits)?;
        let sight = match &sighting.relief {
            Some(relief) => sight.over(relief.clone())?,
            None => sight,
        };
        let plan = plan(&sight, self.settings.zooms)?;
        Ok((sight, plan))
    }

    pub(crate) async fn frame(
        &self,
        digest: Digest,
        sight: Sight,
        plan: &Plan,
    ) -> Result<Result<Frame, Refusal>, WorkError> {
        let bytes = match self.objects.get(digest, sovereign_picture::MAX_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_temporary() => return Err(WorkError::Fetch(error)),
            Err(ObjectsError::Missing(_)) => return Ok(Err(Refusal::PictureMissing)),
            Err(error) => return Ok(Err(Refusal::PictureDamaged(error))),
        };
        let halvings = plan.halvings;
        // A picture that makes the decoder panic must not take the service along.
        match tokio::task::spawn_blocking(move || develop(&bytes, sight, halvings)).await {
            Ok(frame) => Ok(frame),
            Err(error) if error.is_panic() => Ok(Err(Refusal::Decoder)),
            Err(error) => Err(WorkError::Thread(error)),
        }
    }
}

fn develop(bytes: &Bytes, sight: Sight, halvings: u32) -> Result<Frame, Refusal> {
    let image = decode(bytes)?;
    let camera = sight.view().intrinsics();
    let (width, height) = (image.width(), image.height());
    if (width, height) != (camera.width_px(), camera.height_px()) {
        return Err(Refusal::SizeMismatch {
            width,
            height,
            camera_width: camera.width_px(),
            camera_height: camera.height_px(),
        });
    }
    Ok(Frame::new(sight, image, halvings))
}
