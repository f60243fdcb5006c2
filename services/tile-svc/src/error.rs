//! What can go wrong: for a caller, and for a frame.

use image::ImageError;
use sovereign_model::geo::TileCoord;
use sovereign_proto::convert::FieldError;
use sovereign_service::{Code, HasCode};

use crate::domain::sight::Unpaintable;
use crate::picture::PictureError;
use crate::store::{LAYER, StoreError};

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such layer.
    #[error("there is no layer `{0}`; the one layer is `{LAYER}`")]
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
            Self::UnknownLayer(_) | Self::Empty(_) => Code::NotFound,
            Self::Request(_) | Self::UnknownFormat(_) => Code::InvalidArgument,
            Self::Store(StoreError::Damaged { .. }) | Self::Change(_) => Code::DataLoss,
            Self::Store(StoreError::Open(_) | StoreError::Read(_) | StoreError::Write(_))
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
    /// No verdict on its pose exists any more.
    #[error("the verdict on the frame's pose is lost")]
    NoVerdict,
    /// The capture or the verdict cannot be used.
    #[error("the frame is malformed")]
    Malformed(#[source] FieldError),
    /// The picture is not the one that its digest says.
    #[error("the picture does not match its digest")]
    DigestMismatch,
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
    #[error("the picture cannot be used")]
    Picture(#[from] PictureError),
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
            Self::NoVerdict => "no_verdict",
            Self::Malformed(_) => "malformed",
            Self::DigestMismatch => "digest_mismatch",
            Self::SizeMismatch { .. } => "size_mismatch",
            Self::Picture(PictureError::Undecodable(_)) | Self::Decoder => "undecodable",
            Self::Picture(PictureError::Truncated) => "truncated",
            Self::Picture(PictureError::TooLarge { .. }) => "too_large",
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
