//! Errors as RFC 9457 problems.

use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sovereign_service::{Code, chain};

use crate::domain::frame::{Reject, RejectCode};
use crate::error::{BodyFault, CallError, IngestError};

/// Seconds after which a refused request is worth another try.
pub(crate) const RETRY_AFTER_SECS: &str = "1";

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    reject: Option<RejectCode>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            field: None,
            reject: None,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The code of the `av-v1` contract that it is counted under.
    pub(crate) fn reject_code(&self) -> RejectCode {
        self.reject.unwrap_or(match self.status {
            StatusCode::UNAUTHORIZED => RejectCode::Unauthorized,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
                RejectCode::BufferFull
            }
            _ => RejectCode::InvalidPayload,
        })
    }

    pub(crate) fn from_code(code: Code, detail: impl Into<String>) -> Self {
        Self::new(code.http(), name(code), detail)
    }

    pub(crate) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::from_code(Code::InvalidArgument, detail);
        problem.field = Some(field.into());
        problem
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid_argument",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::Unauthenticated => "unauthenticated",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::DataLoss => "data_loss",
        Code::Internal => "internal",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            field: self.field.as_deref(),
        };
        // Strings and numbers always encode.
        let json = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (
            self.status,
            [
                (header::CONTENT_TYPE, "application/problem+json"),
                (header::CACHE_CONTROL, "no-store"),
            ],
            json,
        )
            .into_response();
        let headers = response.headers_mut();
        if [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::INSUFFICIENT_STORAGE,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&self.status)
        {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from_static(RETRY_AFTER_SECS),
            );
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"sovereign-map\""),
            );
        }
        response
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error.code {
            // What is wrong with the request, or not there, is the caller's to know in its own words.
            Code::InvalidArgument | Code::NotFound | Code::ResourceExhausted => {
                Self::from_code(error.code, error.message)
            }
            Code::AlreadyExists
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::DataLoss
            | Code::Internal => Self::from_code(
                error.code,
                format!("{} could not answer: {}", error.service, error.message),
            ),
        }
    }
}

impl From<BodyFault> for Problem {
    fn from(fault: BodyFault) -> Self {
        let (status, code) = match fault {
            BodyFault::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            BodyFault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            BodyFault::BrokeOff => (StatusCode::BAD_REQUEST, "broke_off"),
            BodyFault::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, fault.to_string())
    }
}

pub(crate) fn unknown_route(path: &str) -> Problem {
    Problem::from_code(Code::NotFound, format!("there is nothing at {path}"))
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        if let IngestError::Body(fault) = error {
            return fault.into();
        }
        let reject = error.reject_code();
        let mut problem = Self::new(error.status(), problem_code(reject), chain(&error));
        problem.reject = Some(reject);
        problem
    }
}

impl From<Reject> for Problem {
    fn from(reject: Reject) -> Self {
        IngestError::from(reject).into()
    }
}

fn problem_code(code: RejectCode) -> &'static str {
    match code {
        RejectCode::InvalidPayload => "invalid_payload",
        RejectCode::UnsupportedContractVersion => "unsupported_contract_version",
        RejectCode::MissingClientId => "missing_client_id",
        RejectCode::InvalidClientId => "invalid_client_id",
        RejectCode::UnsupportedSensorType => "unsupported_sensor_type",
        RejectCode::FutureTimestamp => "future_timestamp",
        RejectCode::StaleTimestamp => "stale_timestamp",
        RejectCode::InvalidLatitude => "invalid_latitude",
        RejectCode::InvalidLongitude => "invalid_longitude",
        RejectCode::MissingImageData => "missing_image_data",
        RejectCode::MissingImuData => "missing_imu_data",
        RejectCode::ClientNotRegistered => "client_not_registered",
        RejectCode::DuplicateFrame => "duplicate_frame",
        RejectCode::OutOfOrderFrame => "out_of_order_frame",
        RejectCode::BufferFull => "buffer_full",
        RejectCode::Unauthorized => "unauthorized",
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::from_code(
            Code::InvalidArgument,
            format!("the path cannot be read: {}", rejection.body_text()),
        )
    }
}
