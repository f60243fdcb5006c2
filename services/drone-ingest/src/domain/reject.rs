//! Why something was refused: one code for each reason, the same in counters, metrics and logs.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub(crate) enum Reject {
    /// Bytes in which no frame begins.
    Garbage,
    Truncated,
    UnknownIncompatFlag,
    BadChecksum,
    /// A message id that the dialect does not define, so that its checksum cannot be verified.
    UnknownMessage,
    Unsigned,
    BadSignature,
    /// A signature whose time is not later than the one before, or too old for a first one.
    ReplayedSignature,
    TooManySigners,
    /// An enum value that the dialect does not define.
    UnknownEnumValue,
    /// A number that is not finite, or cannot be what it stands for.
    OutOfRange,
    /// Latitude outside -90 to 90 degrees, or absent beside a longitude.
    InvalidLatitude,
    /// Longitude outside -180 to 180 degrees, or absent beside a latitude.
    InvalidLongitude,
    /// `altitude_meters` is no altitude that anything flies at.
    InvalidAltitude,
    /// `ground_speed_ms` is no speed that anything flies with.
    InvalidGroundSpeed,
    TooManyVehicles,
    InvalidPayload,
    UnsupportedContractVersion,
    MissingDroneId,
    /// `drone_id` is not 1 to 64 of letters, digits, `-`, `_`.
    InvalidDroneId,
    /// `drone_id` has the form that is given to MAVLink vehicles.
    ReservedDroneId,
    /// `timestamp` is later than now by more than the allowed skew.
    FutureTimestamp,
    /// `timestamp` is older than the allowed age.
    StaleTimestamp,
    /// `timestamp` equals the last accepted one of this drone.
    DuplicateSample,
    /// `timestamp` is before the last accepted one of this drone.
    OutOfOrderSample,
    /// `image_data` is not the base64 of a JPEG.
    InvalidImageData,
    /// `lidar_points` is not a list of finite x, y, z triples.
    InvalidLidarPoints,
    /// The queue of JSON samples, or the part of it that the drone has, is full.
    BufferFull,
    QueueFailed,
    InvalidCapture,
    CaptureTooLarge,
}

impl Reject {
    pub(crate) const COUNT: usize = Reject::ALL.len();

    pub(crate) const ALL: [Reject; 31] = [
        Reject::Garbage,
        Reject::Truncated,
        Reject::UnknownIncompatFlag,
        Reject::BadChecksum,
        Reject::UnknownMessage,
        Reject::Unsigned,
        Reject::BadSignature,
        Reject::ReplayedSignature,
        Reject::TooManySigners,
        Reject::UnknownEnumValue,
        Reject::OutOfRange,
        Reject::InvalidLatitude,
        Reject::InvalidLongitude,
        Reject::InvalidAltitude,
        Reject::InvalidGroundSpeed,
        Reject::TooManyVehicles,
        Reject::InvalidPayload,
        Reject::UnsupportedContractVersion,
        Reject::MissingDroneId,
        Reject::InvalidDroneId,
        Reject::ReservedDroneId,
        Reject::FutureTimestamp,
        Reject::StaleTimestamp,
        Reject::DuplicateSample,
        Reject::OutOfOrderSample,
        Reject::InvalidImageData,
        Reject::InvalidLidarPoints,
        Reject::BufferFull,
        Reject::QueueFailed,
        Reject::InvalidCapture,
        Reject::CaptureTooLarge,
    ];

    pub(crate) fn code(self) -> &'static str {
        match self {
            Reject::Garbage => "GARBAGE",
            Reject::Truncated => "TRUNCATED",
            Reject::UnknownIncompatFlag => "UNKNOWN_INCOMPAT_FLAG",
            Reject::BadChecksum => "BAD_CHECKSUM",
            Reject::UnknownMessage => "UNKNOWN_MESSAGE",
            Reject::Unsigned => "UNSIGNED",
            Reject::BadSignature => "BAD_SIGNATURE",
            Reject::ReplayedSignature => "REPLAYED_SIGNATURE",
            Reject::TooManySigners => "TOO_MANY_SIGNERS",
            Reject::UnknownEnumValue => "UNKNOWN_ENUM_VALUE",
            Reject::OutOfRange => "OUT_OF_RANGE",
            Reject::InvalidLatitude => "INVALID_LATITUDE",
            Reject::InvalidLongitude => "INVALID_LONGITUDE",
            Reject::InvalidAltitude => "INVALID_ALTITUDE",
            Reject::InvalidGroundSpeed => "INVALID_GROUND_SPEED",
            Reject::TooManyVehicles => "TOO_MANY_VEHICLES",
            Reject::InvalidPayload => "INVALID_PAYLOAD",
            Reject::UnsupportedContractVersion => "UNSUPPORTED_CONTRACT_VERSION",
            Reject::MissingDroneId => "MISSING_DRONE_ID",
            Reject::InvalidDroneId => "INVALID_DRONE_ID",
            Reject::ReservedDroneId => "RESERVED_DRONE_ID",
            Reject::FutureTimestamp => "FUTURE_TIMESTAMP",
            Reject::StaleTimestamp => "STALE_TIMESTAMP",
            Reject::DuplicateSample => "DUPLICATE_SAMPLE",
            Reject::OutOfOrderSample => "OUT_OF_ORDER_SAMPLE",
            Reject::InvalidImageData => "INVALID_IMAGE_DATA",
            Reject::InvalidLidarPoints => "INVALID_LIDAR_POINTS",
            Reject::BufferFull => "BUFFER_FULL",
            Reject::QueueFailed => "QUEUE_FAILED",
            Reject::InvalidCapture => "INVALID_CAPTURE",
            Reject::CaptureTooLarge => "CAPTURE_TOO_LARGE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_number_with_its_own_code() {
        let mut codes = std::collections::BTreeSet::new();
        for (number, reason) in Reject::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{reason:?}");
            assert!(codes.insert(reason.code()), "{reason:?}");
        }
    }
}
