//! One table of behaviours, asked of a local and of a remote channel: the answers must be the same.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_server::{
    ServerReflection, ServerReflectionServer,
};
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::*;

/// Message limit of the test service, small so that going over it is cheap.
const LIMIT: usize = 1024;
/// Deadline of calls that never end by themselves.
const SHORT: Duration = Duration::from_millis(300);
/// Deadline of all others: far longer than any of them takes.
const LONG: Duration = Duration::from_secs(60);

struct Probe;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for Probe {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "missing" => Err(Status::not_found("no such thing: ä %")),
            "panic" => panic!("the handler is broken"),
            "slow" => std::future::pending().await,
            _ => Ok(Response::new(serving())),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = stream::iter([Ok(serving())]);
        Ok(Response::new(match request.into_inner().service.as_str() {
            "stuck" => Box::pin(first.chain(stream::pending())),
            "endless" => Box::pin(stream::repeat_with(|| Ok(serving()))),
            "error" => Box::pin(first.chain(stream::iter([Err(Status::data_loss("bad sector"))]))),
            "panic" => Box::pin(first.chain(stream::poll_fn(|_| panic!("the stream is broken")))),
            _ => Box::pin(first),
        }))
    }
}

#[tonic::async_trait]
impl ServerReflection for Probe {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let echo = request.into_inner().map(|asked| {
            asked.map(|asked| ServerReflectionResponse {
                valid_host: asked.host,
                ..Default::default()
            })
        });
        Ok(Response::new(Box::pin(echo)))
    }
}

fn routes() -> Routes {
    Routes::new(
        HealthServer::new(Probe)
            .max_decoding_message_size(LIMIT)
            .max_encoding_message_size(LIMIT),
    )
    .add_service(ServerReflectionServer::new(Probe))
}

/// A local channel, and a remote one with the server behind it, which lives as long as the set.
async fn both() -> ([(&'static str, Channel); 2], JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let incoming = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(socket, _)| socket);
        Some((accepted, listener))
    });
    let mut server = JoinSet::new();
    server.spawn(async move {
        tonic::transport::Server::builder()
            .add_routes(guarded(routes()))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    let channels = [
        ("local", Channel::local(routes())),
        ("remote", Channel::connect(&address).unwrap()),
    ];
    (channels, server)
}

fn ask(service: impl Into<String>) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

#[tokio::test]
async fn bytes_that_are_no_request_are_the_mistake_of_the_caller() {
    // A number where the name of a service belongs.
    let garbage = || stream::iter([serving()]);
    type Codec = tonic_prost::ProstCodec<HealthCheckResponse, HealthCheckResponse>;
    let check = || PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let reflection =
        PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let (channels, _server) = both().await;
    for (kind, channel) in channels {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let request = within(LONG, serving());
        let refused = client.unary(request, check(), Codec::default()).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{kind}");
        assert!(
            refused.message().contains("not a message"),
            "{kind}: {refused}"
        );
        client.ready().await.unwrap();
        let request = within(LONG, garbage());
        let answers = client.streaming(request, reflection.clone(), Codec::default());
        let mut answers = answers.await.unwrap().into_inner();
        let refused = answers.message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{kind}");
    }
}

#[tokio::test]
async fn a_unary_call_has_the_same_outcome_locally_and_remotely() {
    let long = "x".repeat(2 * LIMIT);
    let (channels, _server) = both().await;
    for (kind, channel) in channels {
        for (service, code, message) in [
            ("", None, ""),
            ("missing", Some(Code::NotFound), "no such thing: ä %"),
            ("panic", Some(Code::Internal), "internal error"),
            (
                "slow",
                Some(Code::DeadlineExceeded),
                "not finished within the deadline of the call",
            ),
            (
                &long,
                Some(Code::OutOfRange),
                "Error, decoded message length too large: found 2051 bytes, the limit is: 1024 bytes",
            ),
            // The panic before has not harmed the channel.
            ("again", None, ""),
        ] {
            let deadline = if service == "slow" { SHORT } else { LONG };
            let result = HealthClient::new(channel.clone())
                .check(within(deadline, ask(service)))
                .await;
            let status = result.err();
            assert_eq!(
                status.as_ref().map(Status::code),
                code,
                "{kind} {service}: {status:?}"
            );
            if let Some(status) = status {
                assert_eq!(status.message(), message, "{kind}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_same_status_locally_and_remotely() {
    let (channels, _server) = both().await;
    let expired = (
        Code::DeadlineExceeded,
        "not finished within the deadline of the call",
    );
    for (kind, channel) in channels {
        for (service, deadline, expected) in [
            ("", LONG, None),
            ("error", LONG, Some((Code::DataLoss, "bad sector"))),
            ("panic", LONG, Some((Code::Internal, "internal error"))),
            ("stuck", SHORT, Some(expired)),
            ("endless", SHORT, Some(expired)),
        ] {
            let end = end_of(channel.clone(), service, deadline).await;
            let status = end.as_ref().err().map(|s| (s.code(), s.message()));
            assert_eq!(status, expected, "{kind} {service}");
        }
    }
}

/// Reads what `watch` answers to its end.
async fn end_of(channel: Channel, service: &str, deadline: Duration) -> Result<(), Status> {
    let started = Instant::now();
    let answer = HealthClient::new(channel)
        .watch(within(deadline, ask(service)))
        .await;
    let mut stream = answer?.into_inner();
    while let Some(message) = stream.message().await? {
        assert_eq!(message, serving(), "{service}");
        // A stream that is always ready would keep a timer from running.
        assert!(started.elapsed() < LONG, "{service} does not end");
    }
    Ok(())
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let (channels, _server) = both().await;
    for (kind, channel) in channels {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let requests = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let mut answers = ServerReflectionClient::new(channel)
            .server_reflection_info(requests)
            .await
            .unwrap()
            .into_inner();
        for n in 0..3 {
            let request = ServerReflectionRequest {
                host: format!("host {n}"),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            sender.send(request).await.unwrap();
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!(answer.valid_host, format!("host {n}"), "{kind}");
        }
        drop(sender);
        assert!(answers.message().await.unwrap().is_none(), "{kind}");
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_on_both() {
    let (channels, _server) = both().await;
    for (kind, channel) in channels {
        let status =
            tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient::new(
                channel,
            )
            .server_reflection_info(stream::empty())
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::Unimplemented, "{kind}");
    }
}

#[tokio::test]
async fn a_remote_that_is_not_there_is_unavailable() {
    // Bound, so that nobody else takes the port, and not listening.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let status = HealthClient::new(Channel::connect(&address).unwrap())
        .check(ask(""))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn an_address_that_cannot_be_called_is_refused() {
    for address in [
        "",
        "localhost:1",
        "https://localhost:1",
        "/ip4/127.0.0.1/tcp/1",
        "http://",
    ] {
        let error = Channel::connect(address).unwrap_err();
        assert!(
            error.to_string().contains(&format!("`{address}`")),
            "{error}"
        );
    }
}
