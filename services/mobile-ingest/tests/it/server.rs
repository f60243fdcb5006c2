//! The listener and the console.

use reqwest::StatusCode;
use reqwest::header;

use crate::support::{self, Edge, Events, frame, now};

#[tokio::test]
async fn the_console_is_served_with_a_closed_policy() {
    let edge = Edge::start().await;
    let index = edge.get("/").send().await.unwrap();
    assert_eq!(index.status(), StatusCode::OK);
    assert_eq!(
        index.headers()[header::CONTENT_TYPE],
        "text/html; charset=utf-8"
    );
    assert_eq!(index.headers()[header::CACHE_CONTROL], "no-cache");
    assert_eq!(index.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let policy = index.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    let permissions = index.headers()["permissions-policy"].to_str().unwrap();
    assert!(!permissions.contains("self"), "{permissions}");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    let etag = index.headers()[header::ETAG].clone();
    let html = index.text().await.unwrap();
    let again = edge
        .get("/")
        .header(header::IF_NONE_MATCH, etag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let script = html
        .split('"')
        .find(|part| part.contains("assets/") && part.ends_with(".js"))
        .expect("the page loads a script");
    let path = format!("/{}", script.trim_start_matches(['.', '/']));
    let script = edge.get(&path).send().await.unwrap();
    assert_eq!(script.status(), StatusCode::OK);
    assert_eq!(
        script.headers()[header::CONTENT_TYPE],
        "text/javascript; charset=utf-8"
    );
    assert!(
        script.headers()[header::CACHE_CONTROL]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    for path in [
        "/none",
        "/assets/none.js",
        "/api/v1/none",
        "/api",
        "/..%2F..%2Fetc%2Fpasswd",
        "/assets",
    ] {
        let answer = edge.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(support::problem(answer).await["status"], 404);
    }
    let answer = edge.get("/api/v1/session").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer.headers().contains_key(header::ALLOW));
    edge.stop().await;
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_and_clear_text_is_not() {
    let edge = Edge::start().await;
    let answer = edge.get("/api/v1/health").send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let old = edge.client(reqwest::ClientBuilder::http1_only);
    let answer = old.get(edge.url("/api/v1/health")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
    let clear = edge.url("/api/v1/health").replace("https://", "http://");
    assert!(edge.http.get(clear).send().await.is_err());
    edge.stop().await;
}

#[tokio::test]
async fn stopping_ends_event_streams_and_finishes_what_was_begun() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let mut events = Events::open(&edge).await;
    events.until("hello").await;
    let (send, body) = support::slow_body();
    let body_text = frame("phone-1", "gps", now()).to_string();
    let (first, rest) = body_text.split_at(20);
    send.send(first.to_owned()).await.unwrap();
    let request = edge.post("/api/v1/upload").body(body);
    let upload = support::spawn(async move { request.send().await.unwrap().status() });
    // Once the first part is on its way, what is asked next over the same connection comes behind it.
    drop(support::soon(send.reserve()).await.unwrap());
    assert_eq!(edge.count("clients").await, 1);
    edge.request_stop();
    assert!(events.ended().await, "the feed ends");
    send.send(rest.to_owned()).await.unwrap();
    drop(send);
    assert_eq!(upload.await, StatusCode::ACCEPTED);
    edge.stop().await;
}
