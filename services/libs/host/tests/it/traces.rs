//! Traces of a real process, received by a real receiver. Telemetry belongs to a whole process, so each
//! test starts this file once more, as the process that is watched.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{ExitCode, Output};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use sovereign_host::{Environment, OnEnd, Program, Settings, execute};
use sovereign_service::{Channel, Service as _};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::LIMIT;
use super::adder::{ADDER, Adder, add};

/// Where the watched process sends its traces; set there and nowhere else.
const ENDPOINT: &str = "SOVEREIGN__HOST__OTLP_ENDPOINT";
/// More calls than spans that wait to be sent, 2048, so that a full queue is met as well.
const CALLS: i64 = 2500;

/// Keeps what arrives.
#[derive(Clone, Default)]
struct Receiver {
    arrived: Arc<Mutex<Vec<ResourceSpans>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans;
        self.arrived.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn the_spans_of_calls_reach_the_receiver_with_service_and_node() {
    if std::env::var_os(ENDPOINT).is_some() {
        return watched();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let receiver = Receiver::default();
    let arrived = receiver.arrived.clone();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(socket, _)| socket);
            Some((accepted, listener))
        });
        let mut server = JoinSet::new();
        server.spawn(
            tonic::transport::Server::builder()
                .add_routes(Routes::new(TraceServiceServer::new(receiver)))
                .serve_with_incoming(incoming),
        );
        let test = "traces::the_spans_of_calls_reach_the_receiver_with_service_and_node";
        let output = watch(test, &endpoint).await;
        assert!(output.status.success(), "{output:?}");
    });
    let arrived = arrived.lock().unwrap();
    assert!(!arrived.is_empty(), "spans arrived");
    for spans in arrived.iter() {
        let resource = spans.resource.as_ref().unwrap();
        let text = |key| text(&resource.attributes, key);
        assert_eq!(text("service.name"), Some("adder-svc"));
        assert_eq!(text("service.instance.id"), Some("north"));
    }
    let spans = arrived.iter().flat_map(|of| &of.scope_spans);
    let mut methods = spans
        .flat_map(|scope| &scope.spans)
        .filter(|span| span.name == "grpc")
        .map(|span| text(&span.attributes, "method"));
    let expected = format!("/{ADDER}/Add");
    assert!(methods.any(|method| method == Some(expected.as_str())));
}

#[test]
fn a_receiver_that_is_not_there_or_silent_harms_nobody() {
    if std::env::var_os(ENDPOINT).is_some() {
        return watched();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The one refuses connections, the other takes them and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [
        "127.0.0.1:1".to_owned(),
        silent.local_addr().unwrap().to_string(),
    ] {
        let test = "traces::a_receiver_that_is_not_there_or_silent_harms_nobody";
        let output = runtime.block_on(watch(test, &format!("http://{address}")));
        assert!(output.status.success(), "{address}: {output:?}");
    }
}

/// Runs `test` in a process of its own that sends its traces to `endpoint`.
async fn watch(test: &str, endpoint: &str) -> Output {
    let dir = TempDir::new().unwrap();
    let variables: [(&str, &OsStr); 5] = [
        (ENDPOINT, endpoint.as_ref()),
        ("SOVEREIGN__HOST__NODE_ID", "north".as_ref()),
        ("SOVEREIGN__HOST__DATA_DIR", dir.path().as_os_str()),
        ("SOVEREIGN__HOST__GRPC_LISTEN", "127.0.0.1:0".as_ref()),
        ("SOVEREIGN__HOST__ADMIN_LISTEN", "127.0.0.1:0".as_ref()),
    ];
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .envs(variables)
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(LIMIT, process).await;
    ended.expect("the process ends in time").unwrap()
}

/// The watched process: it answers calls, and stops in order when all were answered.
fn watched() {
    let environment = Environment::of_process();
    let mut settings = Settings::new(&[Adder::NAME]);
    settings.merge_environment(&environment).unwrap();
    let program = Program {
        name: Adder::NAME,
        environment,
        check_config: false,
        json: false,
    };
    let code = execute(
        &program,
        Ok(settings),
        |settings, _| settings.service::<Adder>(),
        async |config, host| {
            host.add::<Adder>(config, &BTreeMap::new()).await?;
            let grpc = format!("http://{}", host.addresses()["grpc"]);
            host.attach("caller", OnEnd::Stop, |_| async move {
                let channel = Channel::connect(&grpc).unwrap();
                for number in 0..CALLS {
                    let answer = add(channel.clone(), ADDER, number).await;
                    assert_eq!(answer.unwrap(), number + 1);
                }
                Ok(())
            });
            Ok(())
        },
    );
    assert_eq!(code, ExitCode::SUCCESS);
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    let AnyValue { value } = attribute.value.as_ref()?;
    if let Some(Value::StringValue(text)) = value {
        return Some(text);
    }
    None
}
