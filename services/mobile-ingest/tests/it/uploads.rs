//! Samples of phones: registration, order, and what is refused.

use reqwest::header;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use serde_json::json;
use sovereign_model::Digest;
use sovereign_proto::mobile::v1::SampleType;
use sovereign_proto::topics;

use crate::support::{self, Edge, Warnings, frame, jpeg, now, rfc3339};

#[tokio::test]
async fn a_registered_phone_uploads_each_stream_and_all_of_it_is_durably_queued() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    for stream in [
        "gps",
        "accelerometer",
        "gyroscope",
        "magnetometer",
        "barometer",
        "camera",
    ] {
        let answer = edge.upload(&frame("phone-1", stream, now())).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{stream}");
        assert_eq!(answer.text().await.unwrap(), "");
    }
    let mut samples = edge
        .bus
        .consume(&topics::MOBILE_SAMPLE, "test")
        .await
        .unwrap();
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let delivery = support::soon(samples.next()).await.unwrap();
        assert_eq!(delivery.key.as_ref().unwrap().as_str(), "phone-1");
        let sample = delivery.message.clone();
        assert_eq!(sample.client_id, "phone-1");
        assert!(sample.received_unix_nanos > 0);
        let position = sample.position.unwrap();
        assert_eq!(
            (position.latitude_deg, position.longitude_deg),
            (51.5, -0.25)
        );
        match sample.r#type() {
            SampleType::Gps => {
                assert_eq!(sample.values["accuracy_m"], 4.0);
                assert_eq!(sample.values["heading_deg"], 90.0);
            }
            SampleType::Accelerometer
            | SampleType::Gyroscope
            | SampleType::Magnetometer
            | SampleType::Barometer => assert_eq!(sample.values["x"], 1.5),
            SampleType::Unspecified => panic!("a sample without type"),
        }
        kinds.push(sample.r#type());
        delivery.ack().await.unwrap();
    }
    assert_eq!(kinds[0], SampleType::Gps, "in order");
    let mut captures = edge
        .bus
        .consume(&topics::MOBILE_CAPTURE, "test")
        .await
        .unwrap();
    let capture = support::soon(captures.next())
        .await
        .unwrap()
        .message
        .clone();
    assert_eq!(capture.sensor_id, "phone-1");
    assert_eq!(capture.media_type, "image/jpeg");
    let stored = edge.backend.store.bytes(Digest::of(&jpeg(1)));
    assert_eq!(stored.unwrap(), jpeg(1));
    assert_eq!(
        capture.image_digest,
        Digest::of(&jpeg(1)).as_bytes().as_slice()
    );
    let fix = capture.telemetry.unwrap();
    assert_eq!(fix.position.unwrap().altitude_m, Some(35.0));
    let expected = Digest::of_parts(&[
        b"frame",
        b"phone-1",
        &capture.captured_unix_nanos.to_le_bytes(),
        Digest::of(&jpeg(1)).as_bytes(),
    ]);
    assert_eq!(capture.frame_id, expected.to_hex());
    edge.stop().await;
}

#[tokio::test]
async fn registration_answers_as_the_contract_has_it() {
    let edge = Edge::start().await;
    let answer = edge.register("phone-1").await;
    assert_eq!(
        answer,
        json!({"status": "registered", "client_id": "phone-1"})
    );
    let cases = [
        (r#"{"client_id": ""}"#, "client_id"),
        (r#"{}"#, "client_id"),
        (r#"{"client_id": "a/b"}"#, "client_id"),
        (r#"{"client_id": 7}"#, "client_id"),
        (r#"{"client_id": "a", "streams": "gps"}"#, "streams"),
        (r#"{"client_id": "a", "device_model": 1}"#, "device_model"),
        ("", "registration"),
        ("[]x", "registration"),
    ];
    for (body, field) in cases {
        let answer = edge
            .post("/api/v1/register")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
        assert!(
            answer.headers()[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with("text/plain"),
            "{body}"
        );
        let text = answer.text().await.unwrap();
        assert!(text.contains(field), "{body}: {text}");
    }
    let large = format!(
        r#"{{"client_id": "a", "device_model": "{}"}}"#,
        "x".repeat(20_000)
    );
    let answer = edge
        .post("/api/v1/register")
        .body(large)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.text().await.unwrap().contains("larger than"));
    let answer = edge.get("/api/v1/register").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()[header::ALLOW], "POST");
    assert_eq!(
        edge.metric("samples_rejected_total{reason=\"INVALID_PAYLOAD\"}"),
        // Two of the cases have no client id, and one has one that is none.
        cases.len() as u64 - 3 + 2,
        "every refusal is counted"
    );
    edge.stop().await;
}

#[tokio::test]
async fn each_refusal_of_an_upload_has_the_status_and_code_of_the_contract() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let at = now();
    let with = |changes: Value| {
        let mut frame = frame("phone-1", "gps", at);
        for (name, value) in changes.as_object().unwrap() {
            frame[name] = value.clone();
        }
        frame
    };
    let long_ago = rfc3339(at - 31_000_000_000);
    let ahead = rfc3339(at + 3_600_000_000_000);
    let cases = [
        (
            with(json!({"contract_version": "av-v9"})),
            400,
            "UNSUPPORTED_CONTRACT_VERSION",
        ),
        (with(json!({"client_id": ""})), 400, "MISSING_CLIENT_ID"),
        (with(json!({"client_id": "a.b"})), 400, "INVALID_CLIENT_ID"),
        (
            with(json!({"type": "sonar"})),
            400,
            "UNSUPPORTED_SENSOR_TYPE",
        ),
        (with(json!({"timestamp": ahead})), 400, "FUTURE_TIMESTAMP"),
        (with(json!({"timestamp": long_ago})), 400, "STALE_TIMESTAMP"),
        (with(json!({"latitude": 91})), 400, "INVALID_LATITUDE"),
        (with(json!({"longitude": 181})), 400, "INVALID_LONGITUDE"),
        (with(json!({"type": "camera"})), 400, "MISSING_IMAGE_DATA"),
        (with(json!({"type": "barometer"})), 400, "MISSING_IMU_DATA"),
        (with(json!({"altitude": "high"})), 400, "INVALID_PAYLOAD"),
        (
            with(json!({"client_id": "stranger"})),
            401,
            "CLIENT_NOT_REGISTERED",
        ),
    ];
    for (frame, status, code) in &cases {
        let answer = edge.upload(frame).await;
        assert_eq!(answer.status().as_u16(), *status, "{code}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], *code);
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    }
    let answer = edge
        .request(Method::PUT, "/api/v1/upload")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "INVALID_PAYLOAD");
    let answer = edge
        .post("/api/v1/upload")
        .header(header::CONTENT_LENGTH, 100 << 20)
        .body(reqwest::Body::wrap_stream(futures::stream::pending::<
            Result<Vec<u8>, std::io::Error>,
        >()))
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.status(),
        StatusCode::BAD_REQUEST,
        "too large to begin with"
    );
    let health: Value = edge.json("/api/v1/health").await;
    let stats = &health["ingest_stats"];
    assert_eq!(stats["accepted_total"], 0);
    assert_eq!(
        stats["rejected_total"],
        cases.len() + 2,
        "every refusal is counted"
    );
    assert_eq!(stats["rejected_by_reason"]["INVALID_PAYLOAD"], 3);
    edge.stop().await;
}

#[tokio::test]
async fn order_is_kept_per_stream_and_a_retry_is_told_apart() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    edge.register("phone-2").await;
    let at = now();
    let code = async |frame: &Value| {
        let answer = edge.upload(frame).await;
        let status = answer.status().as_u16();
        let body = answer.text().await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        (
            status,
            body["error"]["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let gps = frame("phone-1", "gps", at);
    assert_eq!(code(&gps).await, (202, String::new()));
    assert_eq!(code(&gps).await, (409, "DUPLICATE_FRAME".to_owned()));
    let before = frame("phone-1", "gps", at - 1);
    assert_eq!(code(&before).await, (409, "OUT_OF_ORDER_FRAME".to_owned()));
    let same_instant = frame("phone-1", "camera", at);
    assert_eq!(
        code(&same_instant).await,
        (202, String::new()),
        "another stream"
    );
    let other_phone = frame("phone-2", "gps", at - 1);
    assert_eq!(
        code(&other_phone).await,
        (202, String::new()),
        "another phone"
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_sample_without_a_time_follows_whatever_was_accepted_before_it() {
    let edge = Edge::with(|config| config.max_clock_skew_secs = 86_400).await;
    edge.register("phone-1").await;
    let ahead = now() + 3_600_000_000_000;
    let answer = edge.upload(&frame("phone-1", "gps", ahead)).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    for _ in 0..3 {
        let mut untimed = frame("phone-1", "gps", 0);
        untimed.as_object_mut().unwrap().remove("timestamp");
        let answer = edge.upload(&untimed).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }
    let mut samples = edge
        .bus
        .consume(&topics::MOBILE_SAMPLE, "test")
        .await
        .unwrap();
    for expected in ahead..ahead + 4 {
        let delivery = support::soon(samples.next()).await.unwrap();
        assert_eq!(delivery.message.observed_unix_nanos, expected);
        delivery.ack().await.unwrap();
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_accepted_sample_is_known_after_a_restart() {
    let mut edge = Edge::start().await;
    edge.register("phone-1").await;
    let sample = frame("phone-1", "gps", now());
    assert_eq!(edge.upload(&sample).await.status(), StatusCode::ACCEPTED);
    let token = edge.token.clone();
    edge = edge.restart().await;
    assert_eq!(edge.token, token, "the token stays");
    let answer = edge.upload(&sample).await;
    assert_eq!(
        answer.status(),
        StatusCode::UNAUTHORIZED,
        "it has to register again"
    );
    edge.register("phone-1").await;
    let answer = edge.upload(&sample).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "DUPLICATE_FRAME");
    edge.stop().await;
}

#[tokio::test]
async fn a_sample_that_could_not_be_queued_may_be_sent_again() {
    let edge = Edge::over_flaky_bus().await;
    edge.register("phone-1").await;
    let sample = frame("phone-1", "gps", now());
    edge.flaky.fail(true);
    let warnings = Warnings::listen();
    for _ in 0..20 {
        let answer = edge.upload(&sample).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(warnings.said().len(), 1, "{:?}", warnings.said());
    let answer = edge.upload(&sample).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "BUFFER_FULL");
    edge.flaky.fail(false);
    assert_eq!(
        edge.upload(&sample).await.status(),
        StatusCode::ACCEPTED,
        "the timestamp was not remembered"
    );
    let health = edge.json("/api/v1/health").await;
    assert_eq!(health["ingest_stats"]["buffer_drops_total"], 21);
    edge.stop().await;
}

#[tokio::test]
async fn an_upload_may_arrive_in_pieces_of_unknown_total_size() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let (send, body) = support::slow_body();
    let request = edge.post("/api/v1/upload").body(body);
    let upload = support::spawn(async move { request.send().await.unwrap().status() });
    let text = frame("phone-1", "gps", now()).to_string();
    for part in text.as_bytes().chunks(16) {
        send.send(String::from_utf8_lossy(part).into_owned())
            .await
            .unwrap();
    }
    drop(send);
    assert_eq!(upload.await, StatusCode::ACCEPTED);
    edge.stop().await;
}
