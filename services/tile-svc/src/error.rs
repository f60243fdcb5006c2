//! What can go wrong: for a caller, and for a frame.

use image::ImageError;
use sovereign_model::Digest;
use sovereign_model::geo::TileCoord;
use sovereign_objects::ObjectsError;
use sovereign_picture::NotAPicture;
use sovereign_proto::convert::FieldError;
use sovereign_service::{Code, HasCode};

use crate::domain::sight::Unpaintable;
use crate::store::StoreError;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such layer.
    #[error("there is no layer `{0}`; ListLayers names those that there are")]
    UnknownLayer(String),
    /// A field of the request cannot be used.
    #[error("the request cannot be used")]
    Request(#[source] FieldError),
    /// There is no such format.
    #[error("there is no tile format {0}")]
    UnknownFormat(i32),
    /// Nothing was painted there.
    #[error("tile {0} has no content")]
    Empty(TileCoord),
    /// No tile shows that.
    #[error("no tile shows {0}")]
    UnknownDigest(Digest),
    /// The store failed.
    #[error("read from the map")]
    Store(#[from] StoreError),
    /// A tile could not be encoded.
    #[error("encode a tile")]
    Encode(#[from] ImageError),
    /// A change in the log does not decode.
    #[error("decode a change of the log")]
    Change(#[from] prost::DecodeError),
    /// The work on a call did not end.
    #[error("finish the work of a call")]
    Work(#[from] tokio::task::JoinError),
}

impl HasCode for Error {
    fn code(&self) -> Code {
        match self {
            Self::UnknownLayer(_) | Self::Empty(_) | Self::UnknownDigest(_) => Code::NotFound,
            Self::Request(_) | Self::UnknownFormat(_) => Code::InvalidArgument,
            Self::Store(StoreError::Damaged { .. }) | Self::Change(_) => Code::DataLoss,
            Self::Store(
                StoreError::Open(_)
                | StoreError::Outdated(_)
                | StoreError::Read(_)
                | StoreError::Write(_),
            )
            | Self::Encode(_)
            | Self::Work(_) => Code::Internal,
        }
    }
}

/// Why a frame was not painted. It is acknowledged all the same: trying again would not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Its pose was not measured.
    #[error("the frame has no pose")]
    NoPose,
    /// Its position is known, its attitude is not.
    #[error("the frame has a position only")]
    PositionOnly,
    /// The verdict cannot be used.
    #[error("the frame is malformed")]
    Malformed(#[source] FieldError),
    /// The content store has it no longer.
    #[error("the picture is not in the content store any more")]
    PictureMissing,
    /// The content store has something else in its place.
    #[error("the picture cannot be had from the content store")]
    PictureDamaged(#[source] ObjectsError),
    /// The picture does not have the size that its camera has.
    #[error("the picture is {width} x {height}, its camera {camera_width} x {camera_height}")]
    SizeMismatch {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Pixels.
        camera_width: u32,
        /// Pixels.
        camera_height: u32,
    },
    /// The picture cannot be decoded.
    #[error("the picture {0}")]
    Picture(#[from] NotAPicture),
    /// The picture made the decoder fail.
    #[error("the decoder failed on the picture")]
    Decoder,
    /// Nothing of it is on the map.
    #[error("nothing of the frame can be painted")]
    Unpaintable(#[from] Unpaintable),
}

impl Refusal {
    /// Short name, for counting.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoPose => "no_pose",
            Self::PositionOnly => "position_only",
            Self::Malformed(_) => "malformed",
            Self::PictureMissing => "picture_missing",
            Self::PictureDamaged(_) => "picture_damaged",
            Self::SizeMismatch { .. } => "size_mismatch",
            Self::Picture(why) => why.label(),
            Self::Decoder => "decoder",
            Self::Unpaintable(Unpaintable::NotAboveGround) => "not_above_ground",
            Self::Unpaintable(Unpaintable::NoPixel) => "no_pixel",
            Self::Unpaintable(Unpaintable::LooksAway) => "looks_away",
            Self::Unpaintable(Unpaintable::OffTheMap) => "off_the_map",
        }
    }

    /// Whether it is part of ordinary work: a camera without a fix is no fault of anyone.
    #[must_use]
    pub(crate) fn is_ordinary(&self) -> bool {
        matches!(
            self,
            Self::NoPose | Self::PositionOnly | Self::Unpaintable(_)
        )
    }
}

/// Work on a frame or on ground could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// The content store does not answer just now.
    #[error("reach the content store")]
    Fetch(#[source] ObjectsError),
    /// The map failed.
    #[error("use the map")]
    Store(#[from] StoreError),
    /// A thread is gone.
    #[error("finish the work")]
    Thread(#[source] tokio::task::JoinError),
    /// The task that paints has ended.
    #[error("the painter has ended")]
    NoPainter,
}
