//! The feed as a reader gets it.

use reqwest::{Response, StatusCode, header};
use serde_json::Value;

use super::{Edge, soon};

/// Server-sent events as they arrive.
pub(crate) struct Events {
    answer: Response,
    text: String,
}

impl Events {
    /// Opens the feed.
    pub(crate) async fn open(edge: &Edge) -> Self {
        Self::of(edge.get("/api/v1/events")).await
    }

    /// Opens the feed again after the event of this number.
    pub(crate) async fn after(edge: &Edge, last: &str) -> Self {
        Self::of(edge.get("/api/v1/events").header("last-event-id", last)).await
    }

    async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self {
            answer,
            text: String::new(),
        }
    }

    /// Name and data of the next event.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                if let (Some(name), Some(data)) = (field("event"), field("data")) {
                    return (name.to_owned(), serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let chunk = soon(self.answer.chunk())
                .await
                .unwrap()
                .expect("the feed goes on");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Data of the next event of this name.
    pub(crate) async fn until(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next().await;
            if name == wanted {
                return data;
            }
        }
    }

    /// Whether the feed ends in order.
    pub(crate) async fn ended(&mut self) -> bool {
        while let Some(_chunk) = soon(self.answer.chunk()).await.unwrap() {}
        true
    }
}
