//! Why a frame is refused.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RejectCode {
    InvalidPayload,
    UnsupportedContractVersion,
    MissingClientId,
    InvalidClientId,
    UnsupportedSensorType,
    FutureTimestamp,
    StaleTimestamp,
    InvalidLatitude,
    InvalidLongitude,
    MissingImageData,
    MissingImuData,
    ClientNotRegistered,
    DuplicateFrame,
    OutOfOrderFrame,
    BufferFull,
    Unauthorized,
}

impl RejectCode {
    pub(crate) const ALL: [Self; 16] = [
        Self::InvalidPayload,
        Self::UnsupportedContractVersion,
        Self::MissingClientId,
        Self::InvalidClientId,
        Self::UnsupportedSensorType,
        Self::FutureTimestamp,
        Self::StaleTimestamp,
        Self::InvalidLatitude,
        Self::InvalidLongitude,
        Self::MissingImageData,
        Self::MissingImuData,
        Self::ClientNotRegistered,
        Self::DuplicateFrame,
        Self::OutOfOrderFrame,
        Self::BufferFull,
        Self::Unauthorized,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InvalidPayload => "INVALID_PAYLOAD",
            Self::UnsupportedContractVersion => "UNSUPPORTED_CONTRACT_VERSION",
            Self::MissingClientId => "MISSING_CLIENT_ID",
            Self::InvalidClientId => "INVALID_CLIENT_ID",
            Self::UnsupportedSensorType => "UNSUPPORTED_SENSOR_TYPE",
            Self::FutureTimestamp => "FUTURE_TIMESTAMP",
            Self::StaleTimestamp => "STALE_TIMESTAMP",
            Self::InvalidLatitude => "INVALID_LATITUDE",
            Self::InvalidLongitude => "INVALID_LONGITUDE",
            Self::MissingImageData => "MISSING_IMAGE_DATA",
            Self::MissingImuData => "MISSING_IMU_DATA",
            Self::ClientNotRegistered => "CLIENT_NOT_REGISTERED",
            Self::DuplicateFrame => "DUPLICATE_FRAME",
            Self::OutOfOrderFrame => "OUT_OF_ORDER_FRAME",
            Self::BufferFull => "BUFFER_FULL",
            Self::Unauthorized => "UNAUTHORIZED",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Reject {
    pub(crate) code: RejectCode,
    pub(crate) message: String,
}

impl Reject {
    pub(crate) fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
