//! Status codes: the one vocabulary for gRPC and HTTP, and what a caller may read about an error.

use std::error::Error;
use std::fmt::Write as _;

/// Outcome of a failed call, the same over gRPC and HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong by itself; the message names the field.
    InvalidArgument,
    /// What was asked for is not there.
    NotFound,
    /// What was to be created is there already and differs.
    AlreadyExists,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials that do not allow this.
    PermissionDenied,
    /// Over a limit; the message names the limit.
    ResourceExhausted,
    /// Right request, wrong state.
    FailedPrecondition,
    /// Try again later.
    Unavailable,
    /// Not finished within the caller's deadline.
    DeadlineExceeded,
    /// What was stored is damaged.
    DataLoss,
    /// A defect or an environment failure of this side; details stay in the log.
    Internal,
}

impl Code {
    /// The gRPC code.
    #[must_use]
    pub fn grpc(self) -> tonic::Code {
        match self {
            Self::InvalidArgument => tonic::Code::InvalidArgument,
            Self::NotFound => tonic::Code::NotFound,
            Self::AlreadyExists => tonic::Code::AlreadyExists,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::ResourceExhausted => tonic::Code::ResourceExhausted,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::DataLoss => tonic::Code::DataLoss,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http(self) -> http::StatusCode {
        match self {
            Self::InvalidArgument => http::StatusCode::BAD_REQUEST,
            Self::NotFound => http::StatusCode::NOT_FOUND,
            Self::AlreadyExists => http::StatusCode::CONFLICT,
            Self::Unauthenticated => http::StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => http::StatusCode::FORBIDDEN,
            Self::ResourceExhausted => http::StatusCode::TOO_MANY_REQUESTS,
            Self::FailedPrecondition => http::StatusCode::PRECONDITION_FAILED,
            Self::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => http::StatusCode::GATEWAY_TIMEOUT,
            Self::DataLoss | Self::Internal => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a gRPC code means here. Codes outside our vocabulary become the nearest one; success and
    /// what cannot be told apart become [`Code::Internal`].
    #[must_use]
    pub fn from_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Self::InvalidArgument,
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::AlreadyExists => Self::AlreadyExists,
            tonic::Code::Unauthenticated => Self::Unauthenticated,
            tonic::Code::PermissionDenied => Self::PermissionDenied,
            tonic::Code::ResourceExhausted => Self::ResourceExhausted,
            tonic::Code::FailedPrecondition | tonic::Code::Aborted => Self::FailedPrecondition,
            tonic::Code::Unavailable | tonic::Code::Cancelled => Self::Unavailable,
            tonic::Code::DeadlineExceeded => Self::DeadlineExceeded,
            tonic::Code::DataLoss => Self::DataLoss,
            tonic::Code::Internal
            | tonic::Code::Unknown
            | tonic::Code::Unimplemented
            | tonic::Code::Ok => Self::Internal,
        }
    }
}

/// An error that knows its [`Code`]; each service implements it in its `error.rs`.
pub trait HasCode: Error {
    /// The code a caller sees.
    fn code(&self) -> Code;
}

/// The status a caller sees: the message with its causes, except for [`Code::Internal`], whose causes
/// go to the log, once, while the caller reads "internal error".
pub fn status_of<E: HasCode>(error: &E) -> tonic::Status {
    match error.code() {
        Code::Internal => {
            tracing::error!(error = %chain(error), "a call failed inside");
            tonic::Status::internal("internal error")
        }
        code @ (Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unavailable
        | Code::DeadlineExceeded
        | Code::DataLoss) => tonic::Status::new(code.grpc(), chain(error)),
    }
}

/// An error with its causes in one line: `a: b: c`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Code; 11] = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Unavailable,
        Code::DeadlineExceeded,
        Code::DataLoss,
        Code::Internal,
    ];

    #[derive(Debug, thiserror::Error)]
    #[error("read the tile")]
    struct Outer {
        #[source]
        cause: std::io::Error,
        code: Code,
    }

    impl HasCode for Outer {
        fn code(&self) -> Code {
            self.code
        }
    }

    fn outer(code: Code) -> Outer {
        Outer {
            cause: std::io::Error::other("disk /srv is full"),
            code,
        }
    }

    #[test]
    fn a_code_survives_the_wire() {
        for code in ALL {
            assert_eq!(Code::from_grpc(code.grpc()), code);
            assert!(code.http().as_u16() >= 400);
        }
    }

    #[test]
    fn a_caller_reads_causes_except_of_internal_errors() {
        let status = status_of(&outer(Code::NotFound));
        assert_eq!(status.code(), tonic::Code::NotFound);
        assert_eq!(status.message(), "read the tile: disk /srv is full");

        let status = status_of(&outer(Code::Internal));
        assert_eq!(status.code(), tonic::Code::Internal);
        assert_eq!(status.message(), "internal error");
    }
}
