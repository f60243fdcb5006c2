//! The map.

use reqwest::header;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{self, Edge};

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
