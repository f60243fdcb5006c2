//! The content store of `checkpoint-svc` as its callers see it: bytes put once, named by digest
//! everywhere else, verified when they are read.

mod error;
#[cfg(feature = "memory")]
pub mod memory;
mod picture;
mod upload;

use bytes::{Bytes, BytesMut};
use sovereign_model::{Digest, DigestBuilder};
use sovereign_proto::checkpoint::v1::objects_client::ObjectsClient;
use sovereign_proto::checkpoint::v1::{
    GetObjectRequest, PinChange as WirePinChange, UpdatePinsRequest, get_object_response,
};
use sovereign_service::{Channel, limited};

pub use error::ObjectsError;
pub use picture::{PutPictureError, StoredPicture};
pub use sovereign_proto::checkpoint::v1::{ObjectClass, PinStrength};
pub use upload::{Stored, Upload};

/// Pin of a picture that was accepted and not yet seen by the map.
pub const UNREAD: &str = "unread";
/// Pin of a picture that is on the map.
pub const MAP: &str = "map";

/// Pins changed with one call; more are sent in several.
const MAX_PIN_CHANGES: usize = 10_000;

/// A pin set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinChange {
    /// The object.
    pub digest: Digest,
    /// Who keeps it.
    pub name: &'static str,
    /// How much from now on; nothing removes the pin.
    pub strength: Option<PinStrength>,
}

/// Calls the content store.
#[derive(Clone, Debug)]
pub struct Objects {
    client: ObjectsClient<Channel>,
}

impl Objects {
    /// Over a channel to `checkpoint-svc`.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self {
            client: limited!(ObjectsClient::new(channel)),
        }
    }

    /// Starts to store an object, which gets `pin` with [`PinStrength::Keep`] when it is not empty.
    ///
    /// Must be called within a Tokio runtime.
    #[must_use]
    pub fn put(&self, class: ObjectClass, pin: &str) -> Upload {
        Upload::start(self.client.clone(), class, pin)
    }

    /// The whole object, verified.
    ///
    /// # Errors
    /// [`ObjectsError::TooLarge`] past `max_bytes`, otherwise what the store says.
    pub async fn get(&self, digest: Digest, max_bytes: u64) -> Result<Bytes, ObjectsError> {
        let bytes = self.read(digest, 0, 0, max_bytes).await?;
        let mut is = DigestBuilder::new();
        is.update(&bytes);
        if is.finish() == digest {
            Ok(bytes)
        } else {
            Err(ObjectsError::Damaged(digest))
        }
    }

    /// `length` bytes (at least 1) from `offset`, fewer when the object ends before; verified by the store.
    ///
    /// # Errors
    /// What the store says.
    pub async fn range(
        &self,
        digest: Digest,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, ObjectsError> {
        self.read(digest, offset, length, length).await
    }

    /// Sets and removes pins; says how many of the objects are not here.
    ///
    /// # Errors
    /// What the store says.
    pub async fn update_pins(&self, changes: &[PinChange]) -> Result<u64, ObjectsError> {
        let mut missing = 0;
        for changes in changes.chunks(MAX_PIN_CHANGES) {
            let changes = changes.iter().map(|change| WirePinChange {
                digest: Bytes::copy_from_slice(change.digest.as_bytes()),
                name: change.name.to_owned(),
                strength: change.strength.unwrap_or_default().into(),
            });
            let request = UpdatePinsRequest {
                changes: changes.collect(),
            };
            let answer = self.client.clone().update_pins(request).await;
            missing += answer.map_err(ObjectsError::Call)?.into_inner().missing;
        }
        Ok(missing)
    }

    async fn read(
        &self,
        digest: Digest,
        offset: u64,
        length: u64,
        max_bytes: u64,
    ) -> Result<Bytes, ObjectsError> {
        let of = |status| ObjectsError::of(digest, status);
        let request = GetObjectRequest {
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            offset,
            length,
        };
        let answer = self.client.clone().get(request).await.map_err(of)?;
        let mut parts = answer.into_inner();
        let mut bytes = BytesMut::new();
        while let Some(message) = parts.message().await.map_err(of)? {
            match message.part {
                Some(get_object_response::Part::Object(object)) => {
                    let comes = object.size_bytes.saturating_sub(offset);
                    if length == 0 && comes > max_bytes {
                        return Err(ObjectsError::TooLarge(max_bytes));
                    }
                    let comes = comes.min(max_bytes);
                    bytes.reserve(usize::try_from(comes).unwrap_or_default());
                }
                Some(get_object_response::Part::Chunk(chunk)) => {
                    if (bytes.len() + chunk.len()) as u64 > max_bytes {
                        return Err(ObjectsError::TooLarge(max_bytes));
                    }
                    bytes.extend_from_slice(&chunk);
                }
                None => {}
            }
        }
        Ok(bytes.freeze())
    }
}
