//! The name that a client calls this node by.
//!
//! What runs on this machine reads without a token. A page of another site would too, once its own name leads here
//! (DNS rebinding): to the browser it is then the same site. But its requests still carry that name, so a name that
//! is not ours is refused.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::auth;
use super::problem::Problem;

/// Refuses what comes from this machine under a name that is not this node's.
pub(crate) fn check(certificate: &CertificateDer<'_>, request: &Request) -> Result<(), Problem> {
    if !auth::is_loopback(request.extensions(), request.headers()) || is_ours(certificate, request)
    {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "misdirected",
        "this node does not have the name that the Host header says: use localhost, an IP address, or a name of its \
         certificate",
    ))
}

fn is_ours(certificate: &CertificateDer<'_>, request: &Request) -> bool {
    let said = request.headers().get_all(header::HOST).iter();
    let said = said.map(|host| host.to_str().ok()?.parse().ok());
    let target = request.uri().authority().cloned().map(Some);
    let mut names = target.into_iter().chain(said).peekable();
    // Who says no name was not led here by one.
    names.all(|name| name.is_some_and(|name: Authority| is_name_of(certificate, &name)))
}

fn is_name_of(certificate: &CertificateDer<'_>, name: &Authority) -> bool {
    let host = name.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let certificate = ParsedCertificate::try_from(certificate);
    let name = ServerName::try_from(host);
    certificate.is_ok_and(|certificate| {
        name.is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_node_are_its_addresses_localhost_and_those_of_its_certificate() {
        let made = rcgen::generate_simple_self_signed(["map.example.org".to_owned()]).unwrap();
        let certificate = made.cert.der();
        for (name, ours) in [
            ("localhost", true),
            ("LocalHost.:8443", true),
            ("map.localhost:8443", true),
            ("127.0.0.1:8443", true),
            ("192.0.2.7", true),
            ("[::1]:8443", true),
            ("map.example.org:8443", true),
            ("MAP.example.org", true),
            ("other.example.org", false),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org", false),
            ("notlocalhost", false),
            ("example", false),
        ] {
            let authority: Authority = name.parse().unwrap();
            assert_eq!(is_name_of(certificate, &authority), ours, "{name}");
        }
    }
}
