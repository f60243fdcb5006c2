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
    // Where there is a tile, not where the middle of the bounds happens to be.
    let near = |index: usize, degrees: f64| {
        (described["center"][index].as_f64().unwrap() - degrees).abs() < 1e-3
    };
    assert!(near(0, 2.0) && near(1, 3.0), "{}", described["center"]);
    assert_eq!(described["center"][2], 20);
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
        ("/tiles/imagery/2/0/0", 204),
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
async fn a_client_says_which_format_and_how_many_pixels_it_wants() {
    let edge = Edge::start().await;
    let text = async |path: &str, accept: &str| {
        let answer = edge
            .get(path)
            .header(header::ACCEPT, accept)
            .send()
            .await
            .unwrap();
        let vary = answer.headers().get(header::VARY).cloned();
        (answer.text().await.unwrap(), vary)
    };
    let (webp, vary) = text("/tiles/imagery/3/2/1", "image/avif,image/webp,*/*;q=0.8").await;
    assert_eq!(webp, "image/webp 3/2/1");
    assert!(vary.unwrap().to_str().unwrap().contains("accept"));
    assert_eq!(
        text("/tiles/imagery/3/2/1", "*/*").await.0,
        "image/png 3/2/1"
    );
    // An extension is a word, whatever the client accepts.
    assert_eq!(
        text("/tiles/imagery/3/2/1.jpg", "image/webp").await.0,
        "image/jpeg 3/2/1"
    );
    assert_eq!(
        text("/tiles/imagery/3/2/1@2x.png", "*/*").await.0,
        "image/png 3/2/1 twice"
    );
    let (page, _) = text(
        "/tiles/imagery",
        "text/html,application/xhtml+xml,*/*;q=0.8",
    )
    .await;
    assert!(
        page.contains("<h1>Layer imagery</h1>") && page.contains("@2x.webp"),
        "{page}"
    );
    let (document, _) = text("/tiles/imagery", "*/*").await;
    assert!(document.contains("tilejson"));
    edge.stop().await;
}

#[tokio::test]
async fn text_is_packed_for_whoever_can_unpack_it() {
    let edge = Edge::start().await;
    for (path, encoding, expected) in [
        ("/tiles/imagery", "gzip", Some("gzip")),
        ("/tiles/imagery", "br, gzip", Some("br")),
        ("/tiles/imagery", "identity", None),
        // Pictures are packed already.
        ("/tiles/imagery/3/2/1.png", "br, gzip", None),
    ] {
        let asked = edge.get(path).header(header::ACCEPT_ENCODING, encoding);
        let answer = asked.send().await.unwrap();
        let encoding = answer.headers().get(header::CONTENT_ENCODING);
        assert_eq!(encoding.map(|e| e.to_str().unwrap()), expected, "{path}");
    }
    edge.stop().await;
}
