//! Who may read and write.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header;
use reqwest::{Method, StatusCode};
use sha2::Sha256;

use mobile_ingest::{Config, MobileService};
use sovereign_service::Service as _;

use crate::support::{self, Edge, Warnings, now};

#[tokio::test]
async fn every_write_needs_the_token_even_from_this_machine() {
    let edge = Edge::start().await;
    let writes = [
        "/api/v1/register",
        "/api/v1/upload",
        "/api/v1/session",
        "/api/v1/clients/phone-1/pictures",
        "/api/v1/drones/drone-1/captures",
    ];
    for path in writes {
        for authorization in ["", "Bearer", "Bearer wrong", "Basic wrong", &edge.token] {
            let mut request = edge.http.post(edge.url(path)).body("{}");
            if !authorization.is_empty() {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(
                answer.status(),
                StatusCode::UNAUTHORIZED,
                "{path} {authorization}"
            );
            assert!(
                answer.headers().contains_key(header::WWW_AUTHENTICATE),
                "{path}"
            );
        }
    }
    // The cookie of a session reads, it does not write.
    let session = edge.post("/api/v1/session").send().await.unwrap();
    assert_eq!(session.status(), StatusCode::NO_CONTENT);
    let cookie = session.headers()[header::SET_COOKIE].to_str().unwrap();
    for part in ["HttpOnly", "Secure", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(&edge.token));
    let pair = cookie.split(';').next().unwrap();
    let answer = edge
        .http
        .post(edge.url("/api/v1/register"))
        .header(header::COOKIE, pair)
        .body(r#"{"client_id": "phone-1"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(edge.count("clients").await, 0);
    // Every refusal is counted somewhere.
    let attempts = 5;
    for (counter, refused) in [
        // The last one had a session.
        (
            "samples_rejected_total{reason=\"UNAUTHORIZED\"}",
            3 * attempts + 1,
        ),
        (
            "captures_refused_total{reason=\"unauthenticated\"}",
            attempts,
        ),
        ("access_refused_total{what=\"session\"}", attempts),
        ("access_refused_total{what=\"read\"}", 0),
    ] {
        assert_eq!(edge.metric(counter), refused, "{counter}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_name_that_is_not_the_nodes_own_is_refused_and_never_repeated() {
    let edge = Edge::start().await;
    for path in [
        "/",
        "/tiles",
        "/tiles/imagery",
        "/api/v1/vehicles",
        "/api/v1/events",
    ] {
        for host in [
            "rebound.example",
            "rebound.example:8443",
            "localhost.example",
            "a b",
        ] {
            let answer = edge.get(path).header(header::HOST, host);
            let answer = answer.send().await.unwrap();
            let refused = answer.status();
            assert!(
                [StatusCode::MISDIRECTED_REQUEST, StatusCode::BAD_REQUEST].contains(&refused),
                "{path} as {host}: {refused}"
            );
            assert!(!answer.text().await.unwrap().contains("example"), "{path}");
        }
        let own = edge
            .get(path)
            .header(header::HOST, "localhost:8443")
            .send()
            .await;
        assert_eq!(own.unwrap().status(), StatusCode::OK, "{path}");
    }
    // A proxy says for whom it asks, and that one has the token.
    let proxied = edge
        .get("/tiles/imagery")
        .header(header::HOST, "map.example")
        .header("x-forwarded-for", "192.0.2.1")
        .bearer_auth(&edge.token);
    assert_eq!(proxied.send().await.unwrap().status(), StatusCode::OK);
    edge.stop().await;
}

#[tokio::test]
async fn reads_for_somebody_else_need_the_token_or_a_session() {
    let edge = Edge::start().await;
    let reads = [
        "/tiles",
        "/tiles/imagery",
        "/tiles/imagery/0/0/0.png",
        "/api/v1/events",
        "/api/v1/stream",
        "/api/v1/vehicles",
        "/api/v1/phones",
        "/api/v1/keyframes",
        "/api/v1/stats",
        "/api/v1/mesh",
    ];
    let session = edge.post("/api/v1/session").send().await.unwrap();
    let cookie = session.headers()[header::SET_COOKIE].to_str().unwrap();
    let pair = cookie.split(';').next().unwrap().to_owned();
    for path in reads {
        let forwarded = || edge.get(path).header("x-forwarded-for", "192.0.2.1");
        let answer = forwarded().send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(
            answer.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let answer = forwarded()
            .header(header::COOKIE, "sovereign_session=1")
            .send()
            .await;
        assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
        let answer = forwarded()
            .header(header::COOKIE, &pair)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{path} with a session");
        let answer = forwarded().bearer_auth(&edge.token).send().await.unwrap();
        assert!(answer.status().is_success(), "{path} with the token");
    }
    assert_eq!(
        edge.metric("access_refused_total{what=\"read\"}"),
        2 * reads.len() as u64
    );
    for path in ["/", "/api/v1/health"] {
        let answer = edge.get(path).header("via", "proxy").send().await.unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::OK,
            "{path} holds nothing to guard"
        );
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_session_that_is_over_or_forged_reads_nothing() {
    let edge = Edge::start().await;
    let reads = async |session: &str| {
        let answer = edge
            .get("/api/v1/vehicles")
            .header("x-forwarded-for", "192.0.2.1")
            .header(header::COOKIE, format!("sovereign_session={session}"))
            .send();
        answer.await.unwrap().status() == StatusCode::OK
    };
    let answer = edge.post("/api/v1/session").send().await.unwrap();
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
    let session = cookie.split([';', '=']).nth(1).unwrap();
    assert!(reads(session).await);
    let (ends, code) = session.split_once('.').unwrap();
    let ends: i64 = ends.parse().unwrap();
    let lasts = ends - now() / 1_000_000_000;
    assert!((1..=12 * 3600).contains(&lasts), "{lasts} s");
    assert!(!reads(&format!("{}.{code}", ends + 3600)).await);
    assert!(!reads(code).await);
    let made_with = |key: &str, ends: i64| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(format!("sovereign console session\0{ends}").as_bytes());
        format!(
            "{ends}.{}",
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        )
    };
    assert_eq!(made_with(&edge.token, ends), session);
    assert!(!reads(&made_with(&edge.token, now() / 1_000_000_000 - 1)).await);
    assert!(!reads(&made_with("another token", ends)).await);
    edge.stop().await;
}

#[tokio::test]
async fn public_read_access_opens_reads_and_nothing_else() {
    let edge = Edge::with(|config| config.read_access = mobile_ingest::ReadAccess::Public).await;
    let read = edge
        .get("/api/v1/stats")
        .header("x-forwarded-for", "192.0.2.1");
    assert_eq!(read.send().await.unwrap().status(), StatusCode::OK);
    let write = edge.http.post(edge.url("/api/v1/upload")).body("{}");
    assert_eq!(
        write.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    edge.stop().await;
}

#[tokio::test]
async fn other_sites_read_only_when_the_operator_says_so() {
    let edge = Edge::with(|config| {
        config.cors_origins = vec!["https://map.example".to_owned()];
    })
    .await;
    let preflight = |origin: &'static str| {
        edge.request(Method::OPTIONS, "/tiles")
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
            .send()
    };
    let allowed = preflight("https://map.example").await.unwrap();
    assert!(allowed.status().is_success());
    assert_eq!(
        allowed.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://map.example"
    );
    assert_eq!(
        allowed.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS],
        "authorization,content-type,if-none-match"
    );
    let refused = preflight("https://evil.example").await.unwrap();
    let refused = refused.headers();
    assert!(!refused.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let from = |origin: &'static str| edge.get("/tiles").header(header::ORIGIN, origin).send();
    let allowed = from("https://map.example").await.unwrap();
    assert_eq!(
        allowed.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://map.example"
    );
    let other = from("https://evil.example").await.unwrap();
    assert!(
        !other
            .headers()
            .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    );
    edge.stop().await;
    let closed = Edge::start().await;
    let answer = closed
        .get("/tiles")
        .header(header::ORIGIN, "https://map.example")
        .send()
        .await
        .unwrap();
    assert!(
        !answer
            .headers()
            .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    );
    closed.stop().await;
}

#[tokio::test]
async fn a_certificate_and_token_of_the_operator_are_used() {
    let made = Edge::start().await;
    let folder = made.folder.path().to_owned();
    let token_file = folder.join("own-token");
    support::write_private(
        &token_file,
        b"an operator's own token is refused for its blanks\n",
    );
    let config = |folder: &std::path::Path| {
        let cert = folder.join("tls-cert.pem");
        let key = folder.join("tls-key.pem");
        let token_file = folder.join("own-token");
        move |config: &mut mobile_ingest::Config| {
            config.tls_cert = Some(cert);
            config.tls_key = Some(key);
            config.token_file = Some(token_file);
        }
    };
    let mut mistaken = Config::default();
    config(&folder)(&mut mistaken);
    let error = MobileService::settings(mistaken).map(drop).unwrap_err();
    assert!(error.to_string().contains("own-token"), "{error}");
    support::write_private(&token_file, b"0123456789-operator-token\n");
    let own = Edge::with(config(&folder)).await;
    let answer = made
        .http
        .post(own.url("/api/v1/session"))
        .bearer_auth("0123456789-operator-token")
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.status(),
        StatusCode::NO_CONTENT,
        "trusted by the client of the first"
    );
    own.stop().await;
    made.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_taken_up_while_it_is_served() {
    let (first, second) = (Edge::start().await, Edge::start().await);
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let install = |from: &Edge| {
        let text = |name: &str| std::fs::read(from.folder.path().join(name)).unwrap();
        support::write_private(&key, &text("tls-key.pem"));
        support::write_private(&cert, &text("tls-cert.pem"));
    };
    install(&first);
    let edge = Edge::with(|config| {
        config.tls_cert = Some(cert.clone());
        config.tls_key = Some(key.clone());
    })
    .await;
    let health = edge.url("/api/v1/health");
    let trusted_by = async |other: &Edge| other.http.get(&health).send().await.is_ok();
    assert!(trusted_by(&first).await);
    assert!(!trusted_by(&second).await);
    assert!(edge.metric("certificate_expires_timestamp_seconds") > 1_700_000_000);

    // One that cannot be used leaves the old one in its place.
    let warnings = Warnings::listen();
    support::write_private(&cert, b"no certificate");
    support::soon(async {
        while warnings.said().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let said = warnings.said().join("\n");
    assert!(said.contains("the old one is served on"), "{said}");
    assert!(
        first
            .client(|client| client)
            .get(&health)
            .send()
            .await
            .is_ok()
    );
    install(&second);
    support::soon(async {
        while !trusted_by(&second).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let anew = first.client(|client| client).get(&health).send().await;
    assert!(anew.is_err(), "the old one is served no more");
    edge.stop().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_mistakes_of_the_configuration() {
    let made = Edge::start().await;
    let folder = made.folder.path();
    let cert = folder.join("tls-cert.pem");
    let key = folder.join("tls-key.pem");
    let empty = folder.join("empty.pem");
    support::write_private(&empty, b"");
    let none = folder.join("none.pem");
    let check = |cert: &std::path::Path, key: &std::path::Path| {
        let config = Config {
            tls_cert: Some(cert.to_owned()),
            tls_key: Some(key.to_owned()),
            ..Config::default()
        };
        MobileService::settings(config)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(&cert, &key), Ok(()));
    for (cert, key, field, file) in [
        (&none, &key, "`tls_cert`", "none.pem"),
        (&empty, &key, "`tls_cert`", "empty.pem"),
        (&cert, &none, "`tls_key`", "none.pem"),
        (&cert, &empty, "`tls_key`", "empty.pem"),
    ] {
        let error = check(cert, key).unwrap_err();
        assert!(error.contains(field) && error.contains(file), "{error}");
    }
    made.stop().await;
}
