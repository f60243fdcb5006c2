//! The edge at its boundary: real TLS, a memory bus, and small services behind local channels.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use prost::Message as _;
use reqwest::header;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sovereign_model::Digest;
use sovereign_proto::drone::v1::VehicleState;
use sovereign_proto::geo::v1::{GeoPoint, TileCoord};
use sovereign_proto::mesh::v1::{MeshMessage, PeerTileChange};
use sovereign_proto::mobile::v1::mobile_client::MobileClient;
use sovereign_proto::mobile::v1::{GetIngestStatsRequest, ListClientsRequest, SampleType};
use sovereign_proto::slam::v1::PoseEvent;
use sovereign_proto::tile::v1::{ChangedTile, TileChange};
use sovereign_proto::topics;
use sovereign_service::Channel;
use support::{Edge, Events, LIMIT, frame, jpeg, now, rfc3339};

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
    assert_eq!(capture.image, jpeg(1));
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
    let ahead = rfc3339(at + 6_500_000_000);
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
    assert_eq!(health["ingest_stats"]["buffer_drops_total"], 1);
    edge.stop().await;
}

#[tokio::test]
async fn a_picture_is_taken_as_bytes_once_whatever_its_order() {
    let edge = Edge::start().await;
    let picture = |query: &str, bytes: Vec<u8>| {
        edge.post(&format!("/api/v1/clients/phone-1/pictures{query}"))
            .header(header::CONTENT_TYPE, "image/jpeg")
            .body(bytes)
            .send()
    };
    let answer = picture("", jpeg(1)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        support::problem(answer).await["code"],
        "client_not_registered"
    );
    edge.register("phone-1").await;
    let query = "?timestamp=2020-01-02T03:04:05Z&latitude=1.5&longitude=2.5&simulated=true";
    let first: Value = picture(query, jpeg(1)).await.unwrap().json().await.unwrap();
    assert_eq!(first["duplicate"], false);
    let again: Value = picture(query, jpeg(1)).await.unwrap().json().await.unwrap();
    assert_eq!(
        again,
        json!({"frame_id": first["frame_id"], "duplicate": true})
    );
    let earlier = "?timestamp=2019-01-02T03:04:05Z";
    let other: Value = picture(earlier, jpeg(2))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(other["duplicate"], false);
    let untimed: Value = picture("", jpeg(3)).await.unwrap().json().await.unwrap();
    assert_eq!(untimed["duplicate"], false);

    let mut captures = edge
        .bus
        .consume(&topics::MOBILE_CAPTURE, "test")
        .await
        .unwrap();
    let mut received = Vec::new();
    for (frame, expected) in [
        (&first, 1_577_934_245),
        (&other, 1_546_398_245),
        (&untimed, 0),
    ] {
        let delivery = support::soon(captures.next()).await.unwrap();
        let capture = delivery.message.clone();
        assert_eq!(capture.frame_id, frame["frame_id"].as_str().unwrap());
        assert_eq!(capture.captured_unix_nanos, expected * 1_000_000_000);
        assert_eq!(capture.simulated, expected == 1_577_934_245);
        assert_eq!(capture.telemetry.is_some(), expected == 1_577_934_245);
        received.push(capture.received_unix_nanos);
        delivery.ack().await.unwrap();
    }
    assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");

    let cases = [
        ("?latitude=91&longitude=0", "latitude"),
        ("?latitude=1", "longitude"),
        ("?timestamp=now", "timestamp"),
        ("?timestamp=2999-01-01T00:00:00Z", "timestamp"),
        ("?exposure=1", "exposure"),
        ("?simulated=maybe", "simulated"),
    ];
    for (query, field) in cases {
        let answer = picture(query, jpeg(1)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        let problem = support::problem(answer).await;
        assert!(
            problem["detail"].as_str().unwrap().contains(field),
            "{problem}"
        );
    }
    let answer = picture("", b"GIF89a".to_vec()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let answer = picture("", vec![0; 9 << 20]).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let untyped = edge.post("/api/v1/clients/phone-1/pictures").body(jpeg(1));
    let answer = untyped.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    edge.stop().await;
}

#[tokio::test]
async fn a_picture_of_a_drone_reaches_the_drone_door_with_all_that_was_said() {
    let edge = Edge::start().await;
    let capture = |id: &str, query: &str, bytes: Vec<u8>| {
        edge.post(&format!("/api/v1/drones/{id}/captures{query}"))
            .header(header::CONTENT_TYPE, "image/jpeg")
            .body(bytes)
            .send()
    };
    let query = "?timestamp=2020-01-02T03:04:05.5Z&fx=900&fy=901&cx=640&cy=360&k1=-0.1&width=1280&height=720\
                 &mount_pitch=-45&simulated=true";
    let answer = capture("drone-1", query, jpeg(1)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(
        body,
        json!({"frame_id": "frame-of-drone-1", "duplicate": false})
    );
    {
        let calls = edge.backend.captures.lock().unwrap();
        let seen = &calls[0];
        assert_eq!(seen.vehicle_id, "drone-1");
        assert_eq!(seen.image, jpeg(1));
        assert_eq!(seen.captured_unix_nanos, 1_577_934_245_500_000_000);
        let camera = seen.intrinsics.unwrap();
        assert_eq!((camera.width_px, camera.height_px), (1280, 720));
        assert_eq!((camera.fx_px, camera.fy_px), (900.0, 901.0));
        assert_eq!((camera.k1, camera.k2), (-0.1, 0.0));
        assert_eq!(seen.mount_pitch_deg, Some(-45.0));
        assert!(seen.simulated);
    }
    let bare = capture("drone-1", "", jpeg(1)).await.unwrap();
    assert_eq!(bare.status(), StatusCode::ACCEPTED);
    let cases = [
        ("drone.1", "", "drone_id"),
        ("drone-1", "?fx=900", "width"),
        ("drone-1", "?fx=wide", "fx"),
        ("drone-1", "?fx=-1&fy=1&cx=1&cy=1&width=2&height=2", "fx"),
        ("drone-1", "?mount_pitch=200", "mount_pitch"),
        ("drone-1", "?timestamp=5", "timestamp"),
        ("drone-1", "?fz=1", "fz"),
        ("refused", "", "vehicle_id"),
    ];
    for (id, query, field) in cases {
        let answer = capture(id, query, jpeg(1)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{id}{query}");
        let problem = support::problem(answer).await;
        assert!(
            problem["detail"].as_str().unwrap().contains(field),
            "{problem}"
        );
    }
    let answer = capture("down", "", jpeg(1)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    edge.stop().await;
}

#[tokio::test]
async fn layers_are_listed_and_described_as_tilejson() {
    let edge = Edge::start().await;
    let list = edge.json("/tiles").await;
    assert_eq!(list["layers"][0]["name"], "imagery");
    assert_eq!(list["layers"][0]["bounds"], json!([1.0, 2.0, 3.0, 4.0]));
    assert_eq!(list["layers"][0]["simulated"], true);
    let described = edge.json("/tiles/imagery").await;
    assert_eq!(list["layers"][0]["url"], edge.url("/tiles/imagery"));
    assert_eq!(described["tilejson"], "3.0.0");
    assert_eq!(
        described["tiles"][0],
        edge.url("/tiles/imagery/{z}/{x}/{y}.png")
    );
    assert_eq!(described["bounds"], json!([1.0, 2.0, 3.0, 4.0]));
    assert_eq!(described["center"], json!([2.0, 3.0, 20]));
    assert_eq!(
        (&described["minzoom"], &described["maxzoom"]),
        (&json!(10), &json!(20))
    );
    assert!(
        described["attribution"]
            .as_str()
            .unwrap()
            .contains("test-node")
    );
    assert_eq!(described["simulated"], true);
    let answer = edge.get("/tiles/streets").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(support::problem(answer).await["code"], "not_found");
    edge.stop().await;
}

#[tokio::test]
async fn a_tile_is_served_once_and_then_confirmed() {
    let edge = Edge::start().await;
    for (extension, media_type) in [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("webp", "image/webp"),
    ] {
        let path = format!("/tiles/imagery/12/3/4.{extension}");
        let answer = edge.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], media_type);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-cache");
        let etag = answer.headers()[header::ETAG].clone();
        assert_eq!(etag, format!("\"digest-{extension}\""));
        assert_eq!(
            answer.bytes().await.unwrap(),
            format!("{media_type} 12/3/4")
        );
        let again = edge
            .get(&path)
            .header(header::IF_NONE_MATCH, &etag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[header::ETAG], etag);
        assert!(again.bytes().await.unwrap().is_empty());
        let head = edge.request(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
    }
    let cases = [
        ("/tiles/imagery/12/0/0.png", 204),
        ("/tiles/imagery/12/0/0.png?v=7", 204),
        ("/tiles/streets/12/3/4.png", 404),
        ("/tiles/imagery/2/4/0.png", 400),
        ("/tiles/imagery/2/0/4.png", 400),
        ("/tiles/imagery/25/0/0.png", 400),
        ("/tiles/imagery/-1/0/0.png", 400),
        ("/tiles/imagery/x/0/0.png", 400),
        ("/tiles/imagery/2/0/0.gif", 400),
        ("/tiles/imagery/2/0/0", 400),
        ("/tiles/imagery/2/0/..%2F..%2Fetc.png", 400),
        ("/tiles/imagery/2/%FF/0.png", 400),
        ("/tiles/imagery/2/0", 404),
    ];
    for (path, status) in cases {
        let answer = edge.get(path).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
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
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        allowed.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://map.example"
    );
    let refused = preflight("https://evil.example").await.unwrap();
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
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
async fn state_is_served_as_json_with_what_is_unknown_left_null() {
    let edge = Edge::start().await;
    let vehicles = edge.json("/api/v1/vehicles").await;
    let drone = &vehicles["vehicles"][0];
    assert_eq!(drone["vehicle_id"], "sys-1");
    assert_eq!(
        (&drone["latitude"], &drone["altitude_m"]),
        (&json!(51.5), &Value::Null)
    );
    assert_eq!(drone["observed_unix_ms"], 1500);
    assert!(drone["battery_percent"].is_null());

    let keyframes = edge.json("/api/v1/keyframes?sensor=sys-1&limit=7").await;
    assert_eq!(keyframes["keyframes"][0]["frame_id"], "sys-1 7");
    assert_eq!(keyframes["keyframes"][0]["state"], "tracking");
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?sensor=a.b",
        "?after=1",
    ] {
        let answer = edge
            .get(&format!("/api/v1/keyframes{query}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        assert!(
            support::problem(answer).await["field"].is_string(),
            "{query}"
        );
    }

    let stats = edge.json("/api/v1/stats").await;
    assert_eq!(stats["node"], "test-node");
    assert_eq!(stats["simulated"], true);
    assert_eq!(stats["paint"]["frames_painted"], 3);
    assert_eq!(
        stats["paint"]["latency"],
        json!({"frames": 3, "p50_ms": 38.5, "p99_ms": 90.0})
    );
    assert_eq!(stats["drones"]["datagrams"], 9);
    assert_eq!(stats["unavailable"], json!([]));

    let mesh = edge.json("/api/v1/mesh").await;
    assert_eq!(mesh["node"]["peer_id"], "peer-a");
    assert_eq!(mesh["peers"][0]["agent"], Value::Null);

    edge.register("phone-1").await;
    let phones = edge.json("/api/v1/phones").await;
    assert_eq!(phones["phones"][0]["client_id"], "phone-1");
    assert!(phones["phones"][0]["last_seen_unix_ms"].is_null());
    assert!(phones["phones"][0]["latitude"].is_null());
    edge.upload(&frame("phone-1", "gps", now())).await;
    let phones = edge.json("/api/v1/phones").await;
    assert_eq!(phones["phones"][0]["latitude"], 51.5);
    assert_eq!(phones["phones"][0]["accuracy_m"], 4.0);
    assert_eq!(phones["phones"][0]["accepted"], 1);
    edge.stop().await;
}

#[tokio::test]
async fn what_does_not_answer_is_named_and_not_made_up() {
    let edge = Edge::alone().await;
    let stats = edge.json("/api/v1/stats").await;
    assert_eq!(
        (&stats["paint"], &stats["drones"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(stats["unavailable"], json!(["tile-svc", "drone-ingest"]));
    for path in [
        "/api/v1/vehicles",
        "/api/v1/keyframes",
        "/api/v1/mesh",
        "/tiles",
        "/tiles/imagery/0/0/0.png",
    ] {
        let answer = edge.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(answer.headers().contains_key(header::RETRY_AFTER), "{path}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn events_arrive_as_they_happen() {
    let edge = Edge::start().await;
    let mut events = Events::open(&edge).await;
    assert_eq!(
        events.next().await,
        ("hello".to_owned(), json!({"node": "test-node"}))
    );

    let latency = events.until("latency").await;
    assert_eq!(latency["p50_ms"], 38.5);
    assert_eq!(latency["frames_painted"], 3);

    let key = |text| sovereign_bus::Key::parse(text).unwrap();
    let state = VehicleState {
        vehicle_id: "sys-1".to_owned(),
        observed_unix_nanos: 2_000_000,
        position: Some(GeoPoint {
            latitude_deg: 1.0,
            longitude_deg: 2.0,
            altitude_m: Some(3.0),
        }),
        ..VehicleState::default()
    };
    edge.bus
        .publish(&topics::DRONE_STATE, Some(&key("sys-1")), &state)
        .await
        .unwrap();
    let vehicle = events.until("vehicle").await;
    assert_eq!(vehicle["vehicle_id"], "sys-1");
    assert_eq!(
        (
            &vehicle["latitude"],
            &vehicle["longitude"],
            &vehicle["altitude_m"]
        ),
        (&json!(1.0), &json!(2.0), &json!(3.0))
    );

    let pose = PoseEvent {
        sensor_id: "sys-1".to_owned(),
        state: 3,
        ..PoseEvent::default()
    };
    edge.bus
        .publish(&topics::SLAM_POSE, Some(&key("sys-1")), &pose)
        .await
        .unwrap();
    let pose = events.until("pose").await;
    assert_eq!(
        (&pose["state"], &pose["latitude"]),
        (&json!("lost"), &Value::Null)
    );

    let change = TileChange {
        sequence: 7,
        layer: "imagery".to_owned(),
        frame_id: "f".to_owned(),
        sensor_id: "sys-1".to_owned(),
        tiles: vec![ChangedTile {
            coord: Some(TileCoord { z: 20, x: 5, y: 6 }),
            ..ChangedTile::default()
        }],
        committed_unix_nanos: 3_000_000,
        latency_nanos: 41_200_000,
        simulated: true,
    };
    edge.bus
        .publish(&topics::TILE_CHANGED, None, &change)
        .await
        .unwrap();
    assert_eq!(
        events.until("tile").await,
        json!({
            "layer": "imagery", "sequence": 7, "tiles": [[20, 5, 6]], "committed_unix_ms": 3,
            "latency_ms": 41.2, "sensor_id": "sys-1", "frame_id": "f", "simulated": true,
        })
    );

    let peer = PeerTileChange {
        peer_id: "peer-b".to_owned(),
        change: Some(change),
    };
    edge.bus
        .publish(&topics::MESH_TILE, Some(&key("peer-b")), &peer)
        .await
        .unwrap();
    assert_eq!(
        events.until("mesh").await,
        json!({"kind": "tile", "peer_id": "peer-b", "layer": "imagery", "sequence": 7, "tiles": 1, "simulated": true})
    );
    let message = MeshMessage {
        origin_peer_id: "peer-b".to_owned(),
        topic: "fl.rounds".to_owned(),
        payload: vec![0; 5].into(),
        published_unix_nanos: 4_000_000,
        ..MeshMessage::default()
    };
    edge.bus
        .publish(&topics::MESH_MESSAGE, Some(&key("peer-b")), &message)
        .await
        .unwrap();
    assert_eq!(
        events.until("mesh").await,
        json!({"kind": "message", "peer_id": "peer-b", "topic": "fl.rounds", "bytes": 5, "published_unix_ms": 4})
    );

    edge.register("phone-1").await;
    assert_eq!(events.until("phone").await["client_id"], "phone-1");
    edge.stop().await;
}

#[tokio::test]
async fn states_of_one_vehicle_are_thinned_out_and_the_newest_is_shown() {
    let edge = Edge::start().await;
    let mut events = Events::open(&edge).await;
    events.until("hello").await;
    let key = sovereign_bus::Key::parse("sys-1").unwrap();
    for step in 1..=500_i64 {
        let state = VehicleState {
            vehicle_id: "sys-1".to_owned(),
            observed_unix_nanos: step * 1_000_000,
            ..VehicleState::default()
        };
        edge.bus
            .publish(&topics::DRONE_STATE, Some(&key), &state)
            .await
            .unwrap();
    }
    let mut shown = 0;
    loop {
        shown += 1;
        if events.until("vehicle").await["observed_unix_ms"] == 500 {
            break;
        }
    }
    assert!(shown < 100, "{shown} events for 500 states");
    edge.stop().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_events_and_slows_nobody() {
    let edge = Edge::start().await;
    let mut stuck = Events::open(&edge).await;
    stuck.until("hello").await;
    let mut quick = Events::open(&edge).await;
    quick.until("hello").await;
    // More than what the sockets between us hold, while `stuck` reads nothing.
    let tiles: Vec<_> = (0..400)
        .map(|x| ChangedTile {
            coord: Some(TileCoord { z: 20, x, y: 0 }),
            ..ChangedTile::default()
        })
        .collect();
    let last = 2000;
    for sequence in 1..=last {
        let change = TileChange {
            sequence,
            layer: "imagery".to_owned(),
            tiles: tiles.clone(),
            ..TileChange::default()
        };
        edge.bus
            .publish(&topics::TILE_CHANGED, None, &change)
            .await
            .unwrap();
        // The quick one keeps up.
        assert_eq!(quick.until("tile").await["sequence"], sequence);
    }
    let mut missed = 0;
    let mut seen = 0;
    while seen < last {
        let (name, data) = stuck.next().await;
        match name.as_str() {
            "missed" => missed += data["events"].as_u64().unwrap(),
            "tile" => seen = data["sequence"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert!(missed > 0, "it was told what it lost");
    let stats = edge.json("/api/v1/stats").await;
    assert_eq!(stats["events"]["missed"], missed);
    assert_eq!(stats["events"]["readers"], 2);
    edge.stop().await;
}

#[tokio::test]
async fn the_client_list_of_the_contract_is_streamed() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let mut answer = edge.get("/api/v1/stream").send().await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let line = support::soon(answer.chunk()).await.unwrap().unwrap();
    let line = String::from_utf8(line.to_vec()).unwrap();
    let list: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
    let phone = &list["phone-1"];
    assert_eq!(
        (&phone["Registered"], &phone["ClientID"]),
        (&json!(true), &json!("phone-1"))
    );
    assert_eq!(phone["DataStreams"], json!(["gps", "camera"]));
    assert!(phone["LastSeen"].as_str().unwrap().ends_with('Z'));
    edge.stop().await;
}

#[tokio::test]
async fn health_is_what_the_contract_says() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let at = now();
    edge.upload(&frame("phone-1", "gps", at)).await;
    let health = edge.json("/api/v1/health").await;
    assert_eq!(health["status"], "ok");
    assert_eq!(health["clients"], 1);
    let stats = &health["ingest_stats"];
    assert_eq!(stats["accepted_total"], 1);
    assert_eq!(stats["accepted_by_type"], json!({"gps": 1}));
    assert_eq!(stats["buffer_drops_total"], 0);
    assert_eq!(
        stats["last_accepted_unix_by_client"]["phone-1"],
        at / 1_000_000_000
    );
    let stranger = edge
        .get("/api/v1/health")
        .header("forwarded", "for=192.0.2.1");
    let health: Value = stranger.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        health["ingest_stats"]["last_accepted_unix_by_client"],
        json!({})
    );
    edge.stop().await;
}

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
async fn the_grpc_service_tells_the_same() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    edge.upload(&frame("phone-1", "gps", now())).await;
    edge.upload(&frame("phone-1", "gps", 0)).await;
    let mut client = MobileClient::new(Channel::local(edge.routes.clone()));
    let clients = client
        .list_clients(ListClientsRequest {})
        .await
        .unwrap()
        .into_inner()
        .clients;
    assert_eq!(clients.len(), 1);
    assert_eq!(clients[0].client_id, "phone-1");
    assert_eq!(clients[0].device_model, "Test Phone");
    assert!(clients[0].last_seen_unix_nanos > 0);
    let stats = client
        .get_ingest_stats(GetIngestStatsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((stats.accepted_total, stats.rejected_total), (1, 1));
    assert_eq!(stats.accepted_by_type["gps"], 1);
    assert_eq!(stats.rejected_by_reason["STALE_TIMESTAMP"], 1);
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
    let error = Edge::try_with(config(&folder)).await.err().unwrap();
    assert!(error.contains("own-token"), "{error}");
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

#[test]
fn a_full_capture_fits_the_bus() {
    // What travels beside a picture is far below the room kept for it.
    let capture = sovereign_proto::geo::v1::Capture {
        frame_id: "f".repeat(64),
        sensor_id: "s".repeat(64),
        captured_unix_nanos: i64::MAX,
        received_unix_nanos: i64::MAX,
        image_digest: vec![1; 32].into(),
        media_type: "image/jpeg".to_owned(),
        image: vec![1; LIMIT - (4 << 10)].into(),
        simulated: true,
        ..Default::default()
    };
    assert!(capture.encoded_len() + 256 < LIMIT);
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
