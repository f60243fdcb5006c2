//! Pictures as bytes, of phones and of drones.

use reqwest::header;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use serde_json::json;
use sovereign_model::Digest;
use sovereign_objects::{PinStrength, UNREAD};
use sovereign_proto::topics;

use crate::support::{self, Edge, jpeg, now};

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
        let digest = Digest::from_slice(&capture.image_digest).unwrap();
        let stored = edge.backend.store.bytes(digest).unwrap();
        assert_eq!(stored.len() as u64, capture.size_bytes);
        // Nobody takes the pin of what came twice off a second time.
        let strength = if expected == 1_577_934_245 {
            PinStrength::Prefer
        } else {
            PinStrength::Keep
        };
        let pins = edge.backend.store.pins(digest);
        assert_eq!(pins, [(UNREAD.to_owned(), strength)]);
        delivery.ack().await.unwrap();
    }
    assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");

    let cases = [
        ("?latitude=91&longitude=0", "latitude"),
        ("?latitude=1", "longitude"),
        ("?timestamp=now", "timestamp"),
        ("?timestamp=2999-01-01T00:00:00Z", "timestamp"),
        ("?timestamp=1969-12-31T23:59:59Z", "timestamp"),
        ("?timestamp=1970-01-01T00:00:00Z", "timestamp"),
        ("?altitude=1e7", "altitude"),
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
    let whole = jpeg(9);
    for (bytes, says) in [
        (b"GIF89a".to_vec(), "a GIF"),
        (whole[..whole.len() - 2].to_vec(), "is cut off"),
        (vec![], "is empty"),
    ] {
        let answer = picture("", bytes).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let detail = support::problem(answer).await["detail"].to_string();
        assert!(detail.contains(says), "{detail}");
    }
    assert_eq!(edge.backend.store.count(), 3);
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
        let (seen, image) = &calls[0];
        assert_eq!(seen.vehicle_id, "drone-1");
        assert_eq!(*image, jpeg(1));
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
        ("drone-1", "?timestamp=1960-01-01T00:00:00Z", "timestamp"),
        ("drone-1", "?timestamp=2199-01-01T00:00:00Z", "timestamp"),
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
    for (id, status) in [
        ("down", StatusCode::SERVICE_UNAVAILABLE),
        ("full", StatusCode::INSUFFICIENT_STORAGE),
    ] {
        let answer = capture(id, "", jpeg(1)).await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
    }
    edge.stop().await;
}

/// A picture that says when it was taken.
fn jpeg_taken(date_time: &str) -> Vec<u8> {
    // One entry that points to the Exif folder, and there the original time and its offset from UTC.
    let mut tiff = b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x1a\0\0\0\0\0\0\0".to_vec();
    tiff.extend(b"\x02\0\x03\x90\x02\0\x14\0\0\0\x38\0\0\0");
    tiff.extend(b"\x11\x90\x02\0\x07\0\0\0\x4c\0\0\0\0\0\0\0");
    tiff.extend(format!("{date_time}\0+00:00\0").as_bytes());
    let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1, 0];
    jpeg.push(u8::try_from(tiff.len() + 8).unwrap());
    jpeg.extend(b"Exif\0\0");
    jpeg.extend(tiff);
    jpeg.extend(&support::jpeg(1)[2..]);
    jpeg
}

#[tokio::test]
async fn a_camera_whose_clock_is_ahead_does_not_hold_the_phone_where_it_was() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let picture = async |latitude: f64, bytes: Vec<u8>| {
        let path = format!("/api/v1/clients/phone-1/pictures?latitude={latitude}&longitude=2");
        let request = edge.post(&path).header(header::CONTENT_TYPE, "image/jpeg");
        let answer = request.body(bytes).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    };
    let mut captures = edge
        .bus
        .consume(&topics::MOBILE_CAPTURE, "test")
        .await
        .unwrap();
    for (latitude, bytes, captured) in [
        (10.0, jpeg_taken("2024:01:02 03:04:05"), 1_704_164_645),
        (11.0, jpeg_taken("2200:01:02 03:04:05"), 0),
        (12.0, jpeg_taken("1960:01:02 03:04:05"), 0),
    ] {
        picture(latitude, bytes).await;
        let delivery = support::soon(captures.next()).await.unwrap();
        let queued = delivery.message.captured_unix_nanos;
        assert_eq!(queued, captured * 1_000_000_000, "{latitude}");
        delivery.ack().await.unwrap();
        let phones = edge.json("/api/v1/phones").await;
        let phone = &phones["phones"][0];
        assert_eq!(phone["latitude"], latitude);
        assert!(phone["position_unix_ms"].as_i64().unwrap() <= now() / 1_000_000);
    }
    edge.stop().await;
}

#[tokio::test]
async fn every_refused_picture_is_counted_with_its_reason() {
    let edge = Edge::over_flaky_bus().await;
    edge.register("phone-1").await;
    let phone = "/api/v1/clients/phone-1/pictures";
    let drone = "/api/v1/drones/drone-1/captures";
    let post = |path: String| {
        edge.post(&path)
            .header(header::CONTENT_TYPE, "image/jpeg")
            .body(jpeg(1))
    };
    let broken = || {
        let parts = [Ok(vec![0xFF]), Err(std::io::Error::other("cable pulled"))];
        reqwest::Body::wrap_stream(futures::stream::iter(parts))
    };
    // Request by request: the counter of a phone, that of a drone.
    for (case, request, of_phone, of_drone) in [
        (
            "no token",
            &(|path: &str| edge.http.post(edge.url(path))) as &dyn Fn(&str) -> RequestBuilder,
            "UNAUTHORIZED",
            "unauthenticated",
        ),
        (
            "query",
            &|path| post(format!("{path}?exposure=1")),
            "INVALID_PAYLOAD",
            "invalid_argument",
        ),
        (
            "timestamp",
            &|path| post(format!("{path}?timestamp=now")),
            "INVALID_PAYLOAD",
            "invalid_argument",
        ),
        (
            "ahead",
            &|path| post(format!("{path}?timestamp=2199-01-01T00:00:00Z")),
            "FUTURE_TIMESTAMP",
            "future_timestamp",
        ),
        (
            "media type",
            &|path| edge.post(path).body(jpeg(1)),
            "INVALID_PAYLOAD",
            "unsupported_media_type",
        ),
        (
            "size",
            &|path| post(path.to_owned()).body(vec![0; (64 << 20) + 1]),
            "INVALID_PAYLOAD",
            "too_large",
        ),
        (
            "broken body",
            &|path| post(path.to_owned()).body(broken()),
            "INVALID_PAYLOAD",
            "broke_off",
        ),
        (
            "no picture",
            &|path| post(path.to_owned()).body("GIF89a"),
            "INVALID_PAYLOAD",
            "invalid_argument",
        ),
    ] {
        let of_phone = format!("samples_rejected_total{{reason=\"{of_phone}\"}}");
        let of_drone = format!("captures_refused_total{{reason=\"{of_drone}\"}}");
        for (path, counter) in [(phone, of_phone), (drone, of_drone)] {
            let before = edge.metric(&counter);
            // A body that breaks off takes its answer with it.
            if let Ok(answer) = request(path).send().await {
                assert!(!answer.status().is_success(), "{case}: {path}");
            }
            support::until(|| edge.metric(&counter) == before + 1).await;
        }
    }
    edge.flaky.fail(true);
    let answer = post(phone.to_owned()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let answer = post("/api/v1/drones/down/captures".to_owned()).send().await;
    assert_eq!(answer.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let full = "samples_rejected_total{reason=\"BUFFER_FULL\"}";
    assert_eq!(edge.metric(full), 1);
    let down = "captures_refused_total{reason=\"unavailable\"}";
    assert_eq!(edge.metric(down), 1);
    edge.stop().await;
}

#[tokio::test]
async fn a_picture_that_is_too_large_is_not_asked_for_again() {
    const LIMIT: usize = 64 << 20;
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    // Announced, or found out on the way.
    let unannounced = || {
        let pieces = (0..=LIMIT >> 20).map(|_| Ok::<_, std::io::Error>(vec![7; 1 << 20]));
        let picture = std::iter::once(Ok(jpeg(1))).chain(pieces);
        reqwest::Body::wrap_stream(futures::stream::iter(picture))
    };
    for (path, body) in [
        (
            "/api/v1/clients/phone-1/pictures",
            vec![0; LIMIT + 1].into(),
        ),
        ("/api/v1/drones/drone-1/captures", vec![0; LIMIT + 1].into()),
        ("/api/v1/clients/phone-1/pictures", unannounced()),
        ("/api/v1/drones/drone-1/captures", unannounced()),
    ] {
        let body: reqwest::Body = body;
        let request = edge.post(path).header(header::CONTENT_TYPE, "image/jpeg");
        // A server that answers before the end may take the connection with it.
        let Ok(answer) = request.body(body).send().await else {
            continue;
        };
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(!answer.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(support::problem(answer).await["code"], "too_large");
    }
    let of_drones = "captures_refused_total{reason=\"too_large\"}";
    support::until(|| edge.metric(of_drones) == 2).await;
    let of_phones = "samples_rejected_total{reason=\"INVALID_PAYLOAD\"}";
    support::until(|| edge.metric(of_phones) == 2).await;
    assert_eq!(edge.backend.store.count(), 0);
    assert!(edge.backend.captures.lock().unwrap().is_empty());
    edge.stop().await;
}

#[tokio::test]
async fn a_picture_of_forty_megabytes_is_taken_in_pieces() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let pieces = || {
        let filler = (0..40).map(|_| Ok::<_, std::io::Error>(vec![7; 1 << 20]));
        let picture = std::iter::once(Ok(jpeg(1))).chain(filler);
        reqwest::Body::wrap_stream(futures::stream::iter(picture))
    };
    let length = jpeg(1).len() + (40 << 20);
    for path in [
        "/api/v1/clients/phone-1/pictures",
        "/api/v1/drones/drone-1/captures",
    ] {
        let request = edge.post(path).header(header::CONTENT_TYPE, "image/jpeg");
        let answer = request.body(pieces()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{path}");
    }
    assert_eq!(edge.backend.store.count(), 1);
    assert_eq!(edge.backend.captures.lock().unwrap()[0].1.len(), length);
    edge.stop().await;
}

#[tokio::test]
async fn a_store_without_room_is_no_reason_to_give_up() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let path = "/api/v1/clients/phone-1/pictures";
    let send = async || {
        let request = edge.post(path).header(header::CONTENT_TYPE, "image/jpeg");
        request.body(jpeg(1)).send().await.unwrap()
    };
    edge.backend.store.set_full(true);
    let answer = send().await;
    assert_eq!(answer.status(), StatusCode::INSUFFICIENT_STORAGE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    edge.backend.store.set_full(false);
    assert_eq!(send().await.status(), StatusCode::ACCEPTED);
    edge.stop().await;
}

#[tokio::test]
async fn a_request_that_is_refused_early_gets_its_answer() {
    let edge = Edge::start().await;
    let picture = "/api/v1/drones/d/captures";
    for over_http1 in [true, false] {
        let http = edge.client(|builder| {
            if over_http1 {
                builder.http1_only()
            } else {
                builder
            }
        });
        for (path, media_type, token, expected) in [
            (picture, "image/jpeg", "wrong", StatusCode::UNAUTHORIZED),
            (
                picture,
                "text/plain",
                edge.token.as_str(),
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            (
                "/api/v1/drones/a b/captures",
                "image/jpeg",
                edge.token.as_str(),
                StatusCode::BAD_REQUEST,
            ),
            (
                "/api/v1/nothing",
                "image/jpeg",
                edge.token.as_str(),
                StatusCode::NOT_FOUND,
            ),
            (
                "/tiles/imagery",
                "image/jpeg",
                edge.token.as_str(),
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            (
                "/api/v1/upload",
                "application/json",
                "wrong",
                StatusCode::UNAUTHORIZED,
            ),
        ] {
            for bytes in [10_000, 3_000_000] {
                for _ in 0..5 {
                    let request = http
                        .post(edge.url(path))
                        .bearer_auth(token)
                        .header(header::CONTENT_TYPE, media_type)
                        .body(vec![7; bytes]);
                    let answer = request.send().await;
                    let answer = answer.unwrap_or_else(|error| panic!("{path} {bytes}: {error:?}"));
                    assert_eq!(answer.status(), expected, "{path} {bytes}");
                    assert!(!answer.bytes().await.unwrap().is_empty() || path == picture);
                }
            }
        }
    }
    let wrong = edge.post("/").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.headers()[header::ALLOW], "GET, HEAD");
    edge.stop().await;
}
