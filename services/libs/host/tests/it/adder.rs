//! Two tiny services: one adds one, the other asks the first and doubles.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::{Context as TaskContext, Poll};

use prometheus_client::metrics::counter::Counter;
use serde::Deserialize;
use sovereign_service::{
    BuildError, Channel, Context, ReadyLatch, Replicas, RunError, Service, Stop,
};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Routes;
use tonic::{Status, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

pub(crate) const ADDER: &str = "test.v1.Adder";
pub(crate) const DOUBLER: &str = "test.v1.Doubler";

/// Calls the one method of `service`.
pub(crate) async fn add(channel: Channel, service: &str, number: i64) -> Result<i64, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let path = PathAndQuery::try_from(format!("/{service}/Add")).unwrap();
    let answer = grpc
        .unary(
            tonic::Request::new(number),
            path,
            ProstCodec::<i64, i64>::default(),
        )
        .await?;
    Ok(answer.into_inner())
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdderConfig {
    /// What is added, 1 unless written; not 0.
    pub(crate) step: Option<i64>,
    /// How `run` ends: when asked to stop, unless this says otherwise.
    #[serde(skip)]
    pub(crate) ends: &'static str,
    #[serde(skip)]
    pub(crate) warm: Option<Arc<Notify>>,
    #[serde(skip)]
    pub(crate) drained: Option<PathBuf>,
    /// When asked to stop, `run` blocks its thread until the other end is dropped.
    #[serde(skip)]
    pub(crate) blocked: Option<Receiver<()>>,
}

pub(crate) struct Adder {
    config: AdderConfig,
    warm: ReadyLatch,
    added: Counter,
}

impl Service for Adder {
    const NAME: &'static str = "adder-svc";
    const GRPC_SERVICE: &'static str = ADDER;
    const DESCRIPTOR_SET: &'static [u8] = tonic_health::pb::FILE_DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::Any;
    type Config = AdderConfig;
    type Settings = AdderConfig;
    type Calls = ();

    fn settings(config: AdderConfig) -> Result<AdderConfig, BuildError> {
        if config.step == Some(0) {
            return Err(BuildError::config("step", "must not be 0"));
        }
        Ok(config)
    }

    async fn build(config: AdderConfig, (): (), context: Context) -> Result<Self, BuildError> {
        if config.ends == "refuse" {
            return Err(BuildError::config("ends", "must not be refuse"));
        }
        let added = Counter::default();
        context
            .metrics
            .register(|registry| registry.register("added", "Additions", added.clone()));
        Ok(Self {
            config,
            warm: context.ready.latch("warm"),
            added,
        })
    }

    fn routes(&self) -> Routes {
        let step = self.config.step.unwrap_or(1);
        Routes::new(Door::<Plus>(Plus(self.added.clone(), step)))
    }

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("udp", ([127, 0, 0, 1], 9).into())]
    }

    async fn run(mut self, stop: Stop) -> Result<(), RunError> {
        if let Some(warm) = &self.config.warm {
            warm.notified().await;
        }
        self.warm.set();
        match self.config.ends {
            "error" => return Err(RunError::new("add", "the numbers ran out")),
            "unasked" => return Ok(()),
            "panic" => panic!("cannot add"),
            "never" => std::future::pending().await,
            _ => {}
        }
        stop.requested().await;
        if let Some(blocked) = self.config.blocked.take() {
            // Nothing is ever sent: this returns when the sender is gone.
            let _ = tokio::task::block_in_place(|| blocked.recv());
        }
        if let Some(file) = &self.config.drained {
            tokio::fs::write(file, "").await.unwrap();
        }
        Ok(())
    }
}

sovereign_service::calls! {
    /// Who is called.
    pub struct DoublerCalls {
        /// Adds.
        adder: required "adder-svc",
    }
}

pub(crate) struct Doubler {
    adder: Channel,
}

impl Service for Doubler {
    const NAME: &'static str = "doubler-svc";
    const GRPC_SERVICE: &'static str = DOUBLER;
    const DESCRIPTOR_SET: &'static [u8] = tonic_health::pb::FILE_DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::Any;
    type Config = ();
    type Settings = ();
    type Calls = DoublerCalls;

    fn settings((): ()) -> Result<(), BuildError> {
        Ok(())
    }

    async fn build((): (), calls: DoublerCalls, _: Context) -> Result<Self, BuildError> {
        Ok(Self { adder: calls.adder })
    }

    fn routes(&self) -> Routes {
        Routes::new(Door::<Twice>(Twice(self.adder.clone())))
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        stop.requested().await;
        Ok(())
    }
}

#[derive(Clone)]
struct Plus(Counter, i64);

#[derive(Clone)]
struct Twice(Channel);

type Answer = Pin<Box<dyn Future<Output = Result<tonic::Response<i64>, Status>> + Send>>;

impl UnaryService<i64> for Plus {
    type Response = i64;
    type Future = Answer;

    fn call(&mut self, request: tonic::Request<i64>) -> Answer {
        let Self(added, step) = self.clone();
        added.inc();
        Box::pin(async move { Ok(tonic::Response::new(request.into_inner() + step)) })
    }
}

impl UnaryService<i64> for Twice {
    type Response = i64;
    type Future = Answer;

    fn call(&mut self, request: tonic::Request<i64>) -> Answer {
        let adder = self.0.clone();
        Box::pin(async move {
            let sum = add(adder, ADDER, request.into_inner()).await?;
            Ok(tonic::Response::new(2 * sum))
        })
    }
}

/// What generated code does for one unary method.
#[derive(Clone)]
struct Door<M>(M);

impl NamedService for Door<Plus> {
    const NAME: &'static str = ADDER;
}

impl NamedService for Door<Twice> {
    const NAME: &'static str = DOUBLER;
}

impl<M> tonic::codegen::Service<Request<Body>> for Door<M>
where
    M: UnaryService<i64, Response = i64, Future = Answer> + Clone + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = self.0.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<i64, i64>::default());
            Ok(grpc.unary(method, request).await)
        })
    }
}
