//! What can go wrong: for a caller, and for a frame.

use image::ImageError;
use sovereign_bus::PublishError;
use sovereign_model::Digest;
use sovereign_model::geo::TileCoord;
use sovereign_objects::ObjectsError;
use sovereign_picture::NotAPicture;
use sovereign_proto::convert::FieldError;
use sovereign_service::{Code, HasCode};

use crate::domain::sight::Unpaintable;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no layer `{0}`; ListLayers names those that there are")]
    UnknownLayer(String),
    #[error("the request cannot be used")]
    Request(#[source] FieldError),
    #[error("there is no tile format {0}")]
    UnknownFormat(i32),
    #[error("tile {0} has no content")]
    Empty(TileCoord),
    #[error("no tile shows {0}")]
    UnknownDigest(Digest),
    #[error("read from the map")]
    Store(#[from] StoreError),
    #[error("encode a tile")]
    Encode(#[from] ImageError),
    #[error("decode a change of the log")]
    Change(#[from] prost::DecodeError),
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
    #[error("the frame has no pose")]
    NoPose,
    #[error("the frame has a position only")]
    PositionOnly,
    #[error("the frame is malformed")]
    Malformed(#[source] FieldError),
    #[error("the picture is not in the content store any more")]
    PictureMissing,
    #[error("the picture cannot be had from the content store")]
    PictureDamaged(#[source] ObjectsError),
    #[error("the picture is {width} x {height}, its camera {camera_width} x {camera_height}")]
    SizeMismatch {
        width: u32,
        height: u32,
        camera_width: u32,
        camera_height: u32,
    },
    #[error("the picture {0}")]
    Picture(NotAPicture),
    #[error("the decoder failed on the picture")]
    Decoder,
    #[error("nothing of the frame can be painted: {0}")]
    Unpaintable(Unpaintable),
}

// Their text is part of the refusal's own, so they are no sources.
impl From<NotAPicture> for Refusal {
    fn from(why: NotAPicture) -> Self {
        Self::Picture(why)
    }
}

impl From<Unpaintable> for Refusal {
    fn from(why: Unpaintable) -> Self {
        Self::Unpaintable(why)
    }
}

impl Refusal {
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

    /// Whether the verdict on the frame does not say it.
    #[must_use]
    pub(crate) fn is_news(&self) -> bool {
        !matches!(self, Self::NoPose | Self::PositionOnly)
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

#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error("reach the content store")]
    Fetch(#[source] ObjectsError),
    #[error("tell of a refusal")]
    Tell(#[from] PublishError),
    #[error("use the map")]
    Store(#[from] StoreError),
    #[error("finish the work")]
    Thread(#[source] tokio::task::JoinError),
    #[error("the painter has ended")]
    NoPainter,
}
