//! Request bodies, bounded in size, time and in what all of them hold together.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;

/// Memory that bodies being read or handled may hold together, KiB. A request past it waits for
/// [`ROOM_TIMEOUT`], then is told to come back.
pub(crate) const BODY_BUDGET_KIB: usize = 256 << 10;
/// Patience of a request without room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole body; a sender that needs longer is cut off.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory reserved at once for a body of announced size; the rest as it arrives.
const FIRST_RESERVATION: usize = 1 << 20;

/// Code of a problem with something that is larger than it may be.
pub(crate) const TOO_LARGE: &str = "too_large";

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive within {} s", READ_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    BrokeOff,
    #[error("too many uploads are being handled")]
    NoRoom,
}

impl From<BodyFault> for Problem {
    fn from(fault: BodyFault) -> Self {
        let (status, code) = match fault {
            BodyFault::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE),
            BodyFault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            BodyFault::BrokeOff => (StatusCode::BAD_REQUEST, "broke_off"),
            BodyFault::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, fault.to_string())
    }
}

/// A body in memory, with its share of the budget.
pub(crate) struct Held<'a> {
    pub(crate) bytes: Bytes,
    /// Given back when the request has been handled.
    pub(crate) room: SemaphorePermit<'a>,
}

/// Reads the whole body.
///
/// # Errors
/// See [`BodyFault`].
pub(crate) async fn read<'a>(
    body: Body,
    headers: &HeaderMap,
    limit: usize,
    budget: &'a Semaphore,
) -> Result<Held<'a>, BodyFault> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    let expected = announced.unwrap_or(limit);
    if expected > limit {
        return Err(BodyFault::TooLarge { limit });
    }
    let share = u32::try_from((expected >> 10) + 1).unwrap_or(u32::MAX);
    let room = match timeout(ROOM_TIMEOUT, budget.acquire_many(share)).await {
        Ok(Ok(room)) => room,
        Ok(Err(_)) | Err(_) => return Err(BodyFault::NoRoom),
    };
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    if let Some(announced) = announced {
        whole.reserve(announced.min(FIRST_RESERVATION));
    }
    loop {
        match timeout_at(deadline, stream.next()).await {
            Ok(Some(Ok(chunk))) => {
                if whole.len() + chunk.len() > limit {
                    return Err(BodyFault::TooLarge { limit });
                }
                whole.extend_from_slice(&chunk);
            }
            Ok(Some(Err(_))) => return Err(BodyFault::BrokeOff),
            Ok(None) => break,
            Err(_) => return Err(BodyFault::TooSlow),
        }
    }
    Ok(Held {
        bytes: whole.freeze(),
        room,
    })
}
