//! State as JSON and over gRPC.

use reqwest::StatusCode;
use reqwest::header;
use serde_json::Value;
use serde_json::json;
use sovereign_proto::mobile::v1::mobile_client::MobileClient;
use sovereign_proto::mobile::v1::{GetIngestStatsRequest, ListClientsRequest};
use sovereign_service::Channel;

use crate::support::{self, Edge, Warnings, frame, now};

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
    assert_eq!(
        (&keyframes["after"], &keyframes["position"]),
        (&Value::Null, &json!(0))
    );
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?sensor=a.b",
        "?after=-1",
        "?before=1",
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
async fn a_service_that_is_down_is_counted_with_every_request_and_told_once() {
    let edge = Edge::alone().await;
    let warnings = Warnings::listen();
    for _ in 0..20 {
        for path in ["/tiles/imagery/0/0/0.png", "/api/v1/keyframes"] {
            let answer = edge.get(path).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        let answer = edge.get("/api/v1/mesh").send().await.unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "there is none"
        );
    }
    for (service, failed) in [("tile-svc", 20), ("slam-svc", 20), ("mesh-gateway", 0)] {
        let counter = format!("calls_failed_total{{service=\"{service}\"}}");
        assert_eq!(edge.metric(&counter), failed, "{service}");
    }
    let said = warnings.said();
    let [tiles, slam] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert!(tiles.contains("tile-svc") && slam.contains("slam-svc"));
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
