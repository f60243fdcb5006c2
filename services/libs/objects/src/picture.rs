//! A picture on its way into the store, looked at while it passes: what a reader would refuse never gets
//! in.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use sovereign_picture::{Header, Inspector, NotAPicture};

use crate::{ObjectClass, Objects, ObjectsError, Stored, UNREAD};

/// A picture that is in the store.
#[derive(Debug, Clone)]
pub struct StoredPicture {
    /// Its object.
    pub object: Stored,
    /// What it says about itself.
    pub header: Header,
}

/// Why a picture was not stored; `E` is what can go wrong while it comes.
#[derive(Debug, thiserror::Error)]
pub enum PutPictureError<E: std::error::Error + 'static> {
    /// It did not come to its end.
    #[error("receive the picture")]
    Source(#[source] E),
    /// It is none that can be used.
    #[error("the picture {0}")]
    NotAPicture(#[source] NotAPicture),
    /// The store did not take it.
    #[error("store the picture")]
    Store(#[from] ObjectsError),
}

impl Objects {
    /// Stores a JPEG that comes in `pieces`, pinned as [`UNREAD`]; refuses one that cannot be used as
    /// soon as that is certain, and leaves nothing of it behind.
    ///
    /// # Errors
    /// [`PutPictureError`].
    pub async fn put_picture<E: std::error::Error + 'static>(
        &self,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<StoredPicture, PutPictureError<E>> {
        let mut pieces = std::pin::pin!(pieces);
        let mut inspector = Inspector::new();
        let mut upload = self.put(ObjectClass::Picture, UNREAD);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(PutPictureError::Source)?;
            inspector
                .push(&piece)
                .map_err(PutPictureError::NotAPicture)?;
            upload.push(piece).await?;
        }
        let header = inspector.finish().map_err(PutPictureError::NotAPicture)?;
        let object = upload.finish().await?;
        Ok(StoredPicture { object, header })
    }
}
