//! Who may read, and who may write.
//!
//! A write needs `Authorization: Bearer <token>`; a cookie is never enough, so a page of another site
//! cannot make a browser write. A read also passes with the session cookie, from a loopback peer, or
//! when the operator made reads public. A loopback peer that speaks for somebody else, as its
//! forwarding headers tell, is not one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sovereign_service::Code;

use super::edge::Edge;
use super::problem::Problem;
use crate::config::ReadAccess;

/// Cookie of a console that was shown the token.
const SESSION_COOKIE: &str = "sovereign_session";
/// A console asks for the token again after this time, whatever its browser does with the cookie.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Headers that a proxy adds for somebody else.
const FORWARDING: [&str; 5] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
    "via",
];

pub(crate) struct Reader;

pub(crate) struct Writer;

impl FromRequestParts<Arc<Edge>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Problem> {
        if may_read(parts, edge) {
            Ok(Self)
        } else {
            edge.metrics.access_refused("read");
            Err(Problem::from_code(
                Code::Unauthenticated,
                "reading from another machine needs the access token: send it as \
                 `Authorization: Bearer <token>`, or open a session with it",
            ))
        }
    }
}

impl FromRequestParts<Arc<Edge>> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Problem> {
        if has_token(&parts.headers, edge) {
            Ok(Self)
        } else {
            Err(Problem::from_code(
                Code::Unauthenticated,
                "this needs the access token: send it as `Authorization: Bearer <token>`",
            ))
        }
    }
}

pub(crate) fn may_read(parts: &Parts, edge: &Edge) -> bool {
    edge.settings.read_access == ReadAccess::Public
        || is_loopback(&parts.extensions, &parts.headers)
        || has_token(&parts.headers, edge)
        || has_session(&parts.headers, edge)
}

pub(crate) fn has_token(headers: &HeaderMap, edge: &Edge) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && edge.token.is_token(token.trim())
        })
}

fn has_session(headers: &HeaderMap, edge: &Edge) -> bool {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .any(|(name, value)| {
            name == SESSION_COOKIE && edge.token.is_session(value, edge.clock.now())
        })
}

/// Whether a request is from this machine, and for nobody else.
pub(crate) fn is_loopback(extensions: &Extensions, headers: &HeaderMap) -> bool {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback())
        && FORWARDING.iter().all(|name| !headers.contains_key(*name))
}

/// `POST /api/v1/session`: gives the browser that has the token a cookie to read with.
pub(crate) async fn open_session(
    writer: Result<Writer, Problem>,
    State(edge): State<Arc<Edge>>,
) -> Result<Response, Problem> {
    writer.inspect_err(|_| edge.metrics.access_refused("session"))?;
    session_answer(&edge.token.session(edge.clock.now(), SESSION), SESSION)
}

/// `DELETE /api/v1/session`: the browser forgets the cookie; a copy of it ends at its time.
pub(crate) async fn close_session() -> Result<Response, Problem> {
    session_answer("", Duration::ZERO)
}

fn session_answer(value: &str, max_age: Duration) -> Result<Response, Problem> {
    let cookie = format!(
        "{SESSION_COOKIE}={value}; Path=/; Max-Age={}; HttpOnly; Secure; SameSite=Strict",
        max_age.as_secs()
    );
    let cookie = HeaderValue::try_from(cookie)
        .map_err(|_| Problem::from_code(Code::Internal, "the session could not be written"))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
