//! The life of a host, with tiny services in it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

mod adder;
mod traces;

use std::collections::BTreeMap;
use std::time::Duration;

use adder::{Adder, AdderConfig, Doubler, add};
use sovereign_host::{Environment, Host, HostConfig, HostError, OnEnd, Settings};
use sovereign_service::{Channel, RunError, StopSource, chain};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// No condition takes longer, on a slow machine included.
const LIMIT: Duration = Duration::from_secs(60);

async fn host(dir: &TempDir, assignments: &[&str]) -> Host {
    let mut settings = Settings::new(&[]);
    settings.set("test", "host", "data_dir", dir.path().to_str().unwrap());
    for assignment in [
        "host.grpc_listen=127.0.0.1:0",
        "host.admin_listen=127.0.0.1:0",
    ]
    .iter()
    .chain(assignments)
    {
        settings.merge_assignment(assignment).unwrap();
    }
    let config = HostConfig::read(&settings, &Environment::default()).unwrap();
    Host::start(config).await.unwrap()
}

/// A host that runs in the background.
struct Running {
    grpc: String,
    admin: String,
    stop: StopSource,
    ended: JoinSet<Result<(), HostError>>,
}

impl Running {
    fn of(host: Host) -> Self {
        let stop = StopSource::new();
        let asked = stop.stop();
        let mut ended = JoinSet::new();
        let (grpc, admin) = (host.addresses()["grpc"], host.addresses()["admin"]);
        ended.spawn(host.run(asked));
        Self {
            grpc: format!("http://{grpc}"),
            admin: admin.to_string(),
            stop,
            ended,
        }
    }

    async fn ended(mut self) -> Result<(), HostError> {
        tokio::time::timeout(LIMIT, self.ended.join_next())
            .await
            .expect("the host ends in time")
            .unwrap()
            .unwrap()
    }

    async fn stopped(self) -> Result<(), HostError> {
        self.stop.request();
        self.ended().await
    }

    async fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, socket.read_to_string(&mut answer))
            .await
            .expect(path)
            .unwrap();
        answer
    }

    /// Waits until `/readyz` answers with `status`.
    async fn readyz(&self, status: &str) -> String {
        let wait = async {
            loop {
                let answer = self.get("/readyz").await;
                if answer.starts_with(&format!("HTTP/1.1 {status}")) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect(status)
    }

    async fn health(&self, service: &str) -> ServingStatus {
        HealthClient::new(Channel::connect(&self.grpc).unwrap())
            .check(HealthCheckRequest {
                service: service.to_owned(),
            })
            .await
            .unwrap()
            .into_inner()
            .status()
    }
}

#[tokio::test]
async fn it_is_ready_once_every_latch_is_set_and_says_so_everywhere() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &[]).await;
    let warm = std::sync::Arc::new(tokio::sync::Notify::new());
    let config = AdderConfig {
        warm: Some(warm.clone()),
        ..AdderConfig::default()
    };
    host.add::<Adder>(config, &BTreeMap::new()).await.unwrap();
    let file = dir.path().join("addresses.json");
    let running = Running::of(host);

    let answer = running.readyz("503").await;
    assert!(answer.contains(r#""adder-svc/warm":false"#), "{answer}");
    assert_eq!(running.health("").await, ServingStatus::NotServing);
    assert!(running.get("/livez").await.starts_with("HTTP/1.1 200"));

    warm.notify_one();
    let answer = running.readyz("200").await;
    assert!(answer.contains(r#""ready":true"#), "{answer}");
    assert!(answer.contains(r#""adder-svc/running":true"#), "{answer}");
    for service in ["", adder::ADDER] {
        let wait = async {
            while running.health(service).await != ServingStatus::Serving {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap();
    }

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(r#""grpc":"127.0.0.1:"#), "{text}");
    assert!(text.contains(r#""adder-svc.udp":"127.0.0.1:9""#), "{text}");
    let channel = Channel::connect(&running.grpc).unwrap();
    assert_eq!(add(channel, adder::ADDER, 41).await.unwrap(), 42);

    let metrics = running.get("/metrics").await;
    assert!(
        metrics.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{metrics}"
    );
    for line in [
        "sovereign_adder_svc_added_total 1",
        "sovereign_host_ready 1",
        "sovereign_host_grpc_accepted_total ",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    running.stopped().await.unwrap();
    assert!(!file.exists(), "the addresses file goes with the process");
}

#[tokio::test]
async fn reflection_names_what_is_mounted() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &[]).await;
    host.add::<Adder>(AdderConfig::default(), &BTreeMap::new())
        .await
        .unwrap();
    let running = Running::of(host);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let answer: ServerReflectionResponse =
        ServerReflectionClient::new(Channel::connect(&running.grpc).unwrap())
            .server_reflection_info(futures::stream::iter([request]))
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(names.contains(&adder::ADDER.to_owned()), "{names:?}");
    assert!(
        names.contains(&"grpc.health.v1.Health".to_owned()),
        "{names:?}"
    );

    let channel = Channel::connect(&running.grpc).unwrap();
    let status = add(channel, adder::DOUBLER, 1).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn two_services_call_each_other_within_the_process() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &[]).await;
    let adder = host
        .add::<Adder>(AdderConfig::default(), &BTreeMap::new())
        .await
        .unwrap();
    let doubler = host
        .add::<Doubler>((), &BTreeMap::from([("adder-svc", adder)]))
        .await
        .unwrap();
    let running = Running::of(host);
    assert_eq!(add(doubler, adder::DOUBLER, 20).await.unwrap(), 42);
    let remote = Channel::connect(&running.grpc).unwrap();
    assert_eq!(add(remote, adder::DOUBLER, 20).await.unwrap(), 42);
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_services_finish_and_cuts_streams_without_end() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &[]).await;
    let drained = dir.path().join("drained");
    let config = AdderConfig {
        drained: Some(drained.clone()),
        ..AdderConfig::default()
    };
    host.add::<Adder>(config, &BTreeMap::new()).await.unwrap();
    let running = Running::of(host);
    let mut open = ServerReflectionClient::new(Channel::connect(&running.grpc).unwrap())
        .server_reflection_info(futures::stream::pending())
        .await
        .unwrap()
        .into_inner();
    running.stopped().await.unwrap();
    assert!(drained.exists());
    assert!(open.message().await.is_err());
    // The folder is free again.
    drop(self::host(&dir, &[]).await);
}

#[tokio::test]
async fn what_ends_unasked_ends_the_host_with_its_name_and_causes() {
    for (ends, expected) in [
        ("error", "adder-svc: add: the numbers ran out"),
        (
            "unasked",
            "adder-svc ended although nobody asked it to stop",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let mut host = host(&dir, &[]).await;
        let config = AdderConfig {
            ends,
            ..AdderConfig::default()
        };
        host.add::<Adder>(config, &BTreeMap::new()).await.unwrap();
        let error = Running::of(host).ended().await.unwrap_err();
        assert_eq!(chain(&error), expected);
        assert_eq!(error.exit_code(), 1);
    }
}

#[tokio::test]
async fn a_panic_ends_the_host_with_the_name_of_the_service() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &[]).await;
    let config = AdderConfig {
        ends: "panic",
        ..AdderConfig::default()
    };
    host.add::<Adder>(config, &BTreeMap::new()).await.unwrap();
    let error = chain(&Running::of(host).ended().await.unwrap_err());
    assert!(error.starts_with("adder-svc: panicked: "), "{error}");
    assert!(error.contains("cannot add"), "{error}");
}

#[tokio::test]
async fn a_service_that_does_not_drain_is_named_after_the_grace_period() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &["host.grace_secs=1"]).await;
    let config = AdderConfig {
        ends: "never",
        ..AdderConfig::default()
    };
    host.add::<Adder>(config, &BTreeMap::new()).await.unwrap();
    let error = Running::of(host).stopped().await.unwrap_err().to_string();
    assert!(error.contains("still busy adder-svc"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_blocks_its_thread_does_not_hold_the_host() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &["host.grace_secs=1"]).await;
    let (release, blocked) = std::sync::mpsc::sync_channel(0);
    let config = AdderConfig {
        blocked: Some(blocked),
        ..AdderConfig::default()
    };
    host.add::<Adder>(config, &BTreeMap::new()).await.unwrap();
    let error = Running::of(host).stopped().await.unwrap_err().to_string();
    assert!(error.contains("still busy adder-svc"), "{error}");
    drop(release);
}

#[tokio::test]
async fn a_refused_value_is_a_configuration_error_with_its_full_name() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &[]).await;
    let config = AdderConfig {
        ends: "refuse",
        ..AdderConfig::default()
    };
    let error = host
        .add::<Adder>(config, &BTreeMap::new())
        .await
        .unwrap_err();
    assert_eq!(
        chain(&error),
        "configuration: `adder-svc.ends`: must not be refuse"
    );
    assert_eq!(error.exit_code(), 78);
}

#[test]
fn a_value_that_a_service_refuses_is_found_before_anything_is_bound() {
    let mut settings = Settings::new(&["adder-svc"]);
    settings.merge_assignment("adder-svc.step=2").unwrap();
    assert_eq!(settings.service::<Adder>().unwrap().step, Some(2));
    settings.merge_assignment("adder-svc.step=0").unwrap();
    let error = settings.service::<Adder>().err().unwrap();
    assert_eq!(error.to_string(), "`adder-svc.step` (--set): must not be 0");
}

#[tokio::test]
async fn a_companion_can_stop_the_host_or_fail_it() {
    let dir = TempDir::new().unwrap();
    let mut host = host(&dir, &[]).await;
    host.add::<Adder>(AdderConfig::default(), &BTreeMap::new())
        .await
        .unwrap();
    host.attach("done", OnEnd::Stop, |_| async { Ok(()) });
    Running::of(host).ended().await.unwrap();

    let mut host = self::host(&dir, &[]).await;
    host.add::<Adder>(AdderConfig::default(), &BTreeMap::new())
        .await
        .unwrap();
    host.attach("calm", OnEnd::Continue, |_| async { Ok(()) });
    host.attach("watcher", OnEnd::Continue, |_| async {
        Err(RunError::new("watch", "nothing to see"))
    });
    let error = Running::of(host).ended().await.unwrap_err();
    assert_eq!(chain(&error), "watcher: watch: nothing to see");
}

#[tokio::test]
async fn a_second_host_is_told_who_has_the_folder() {
    let dir = TempDir::new().unwrap();
    let _held = host(&dir, &[]).await;
    let mut settings = Settings::new(&[]);
    settings.set("test", "host", "data_dir", dir.path().to_str().unwrap());
    let config = HostConfig::read(&settings, &Environment::default()).unwrap();
    let error = Host::start(config).await.unwrap_err().to_string();
    assert!(error.contains("--data-dir"), "{error}");
}
