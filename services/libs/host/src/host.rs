//! A host: the part of a process in which services are mounted, run and drained. Free of process-wide
//! state, so that several can live in one test.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::registry::Registry;
use sovereign_bus::{Bus, Claim};
use sovereign_bus_nats::NatsConfig;
use sovereign_service::{
    Calls as _, Channel, Clock, Context, Metrics, ReadinessBoard, ReadyLatch, Replicas, RunError,
    Service, Stop, StopSource, chain,
};
use tokio::net::TcpListener;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::addresses::AddressesFile;
use crate::admin::Admin;
use crate::config::{BusConfig, HostConfig, machine_name, without_credentials};
use crate::data_dir::DataDir;
use crate::grpc::{Cut, Grpc, Mounted};
use crate::metrics::HostMetrics;
use crate::{ConfigError, HostError, telemetry};

/// gRPC calls that are still open this long after the services have drained are cut: they are streams
/// without end, and their clients come back.
const OPEN_CALLS_GRACE: Duration = Duration::from_millis(500);
/// Tasks that are cut off get this long to notice. One in code that blocks its thread never does; it
/// is left behind, and the process ends without it.
const CUT_OFF_GRACE: Duration = Duration::from_millis(500);
/// The bus gets this long to write what is pending.
const BUS_CLOSE_GRACE: Duration = Duration::from_secs(5);

type Run = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send>>;

/// What the end of a companion task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// The host goes on.
    Continue,
    /// The host stops in order.
    Stop,
}

/// Services under one roof: one bus, one data folder, one gRPC door, one admin door.
pub struct Host {
    config: HostConfig,
    data: DataDir,
    bus: Bus,
    registry: Arc<Mutex<Registry>>,
    metrics: HostMetrics,
    board: ReadinessBoard,
    grpc: TcpListener,
    admin: TcpListener,
    addresses: BTreeMap<String, SocketAddr>,
    mounted: Vec<Mounted>,
    starts: Vec<Start>,
}

struct Start {
    role: Role,
    latch: Option<ReadyLatch>,
    run: Box<dyn FnOnce(Stop) -> Run + Send>,
}

#[derive(Debug, Clone)]
enum Role {
    Service(String),
    Companion(String, OnEnd),
}

impl Role {
    fn name(&self) -> &str {
        match self {
            Self::Service(name) | Self::Companion(name, _) => name,
        }
    }
}

impl Host {
    /// Locks the data folder, binds the gRPC and admin doors and connects the bus.
    ///
    /// # Errors
    /// [`HostError`] names what could not be had.
    pub async fn start(config: HostConfig) -> Result<Self, HostError> {
        let data = DataDir::lock(&config.data_dir)?;
        // What a killed process left behind would tell of addresses that are nobody's.
        AddressesFile::remove(&config.addresses_file);
        let grpc = listen("grpc", config.grpc_listen).await?;
        let admin = listen("admin", config.admin_listen).await?;
        let addresses = [("grpc", &grpc), ("admin", &admin)]
            .into_iter()
            .filter_map(|(name, listener)| {
                let address = listener.local_addr().ok()?;
                Some((name.to_owned(), address))
            })
            .collect();
        let bus = open_bus(&config, &data)
            .await?
            .with_trace(telemetry::traceparent);
        let mut registry = Registry::default();
        let metrics = HostMetrics::default();
        metrics.register(&config.node_id, &mut registry);
        bus.register(&mut registry);
        Ok(Self {
            config,
            data,
            bus,
            registry: Arc::new(Mutex::new(registry)),
            metrics,
            board: ReadinessBoard::default(),
            grpc,
            admin,
            addresses,
            mounted: Vec::new(),
            starts: Vec::new(),
        })
    }

    /// What a service is given, with its own folder made.
    ///
    /// # Errors
    /// [`HostError::DataDir`] when its folder cannot be made.
    pub fn context(&self, service: &'static str) -> Result<Context, HostError> {
        Ok(Context {
            node: self.config.node_id.clone(),
            bus: self.bus.clone(),
            data_dir: self.data.of(service)?,
            clock: Clock::system(),
            metrics: Metrics::new(self.registry.clone(), service),
            ready: self.board.of(service),
        })
    }

    /// Builds a service and mounts it. The channel calls it within this process.
    ///
    /// # Errors
    /// [`HostError::Build`] when a resource could not be had, [`HostError::Config`] when a channel that it
    /// needs is not among `channels`, [`HostError::Own`] when another process runs it on this bus and one
    /// at a time may.
    pub async fn add<S: Service>(
        &mut self,
        settings: S::Settings,
        channels: &BTreeMap<&'static str, Channel>,
    ) -> Result<Channel, HostError> {
        let calls = S::Calls::from_channels(channels).map_err(|missing| {
            let why = format!("is missing, and {} calls {missing}", S::NAME);
            ConfigError::key(format!("host.calls.{missing}"), why)
        })?;
        if S::REPLICAS == Replicas::One {
            self.own(S::NAME).await?;
        }
        let context = self.context(S::NAME)?;
        let service = S::build(settings, calls, context)
            .await
            .map_err(|source| HostError::from_build(S::NAME, source))?;
        Ok(self.mount(service))
    }

    async fn own(&self, service: &'static str) -> Result<(), HostError> {
        let (node, process) = (&self.config.node_id, std::process::id());
        let machine = machine_name().unwrap_or_else(|| "an unnamed machine".to_owned());
        let claim = Claim {
            service,
            holder: format!("node {node} (process {process} on {machine})"),
            lock: self.data.lock_id(),
        };
        let owned = self.bus.own(claim).await;
        owned.map_err(|source| HostError::Own { service, source })
    }

    /// Mounts a service that was built with a context of this host.
    pub fn mount<S: Service>(&mut self, service: S) -> Channel {
        let readiness = self.board.of(S::NAME);
        let latch = readiness.latch("running");
        let routes = service.routes();
        for (name, address) in service.addresses() {
            self.addresses
                .insert(format!("{}.{name}", S::NAME), address);
        }
        self.mounted.push(Mounted {
            grpc_service: S::GRPC_SERVICE,
            descriptor_set: S::DESCRIPTOR_SET,
            routes: routes.clone(),
            readiness,
        });
        self.starts.push(Start {
            role: Role::Service(S::NAME.to_owned()),
            latch: Some(latch),
            run: Box::new(|stop| Box::pin(service.run(stop))),
        });
        Channel::local(routes)
    }

    /// Adds a task that runs beside the services; when it fails, the host does.
    pub fn attach<F>(
        &mut self,
        name: &str,
        on_end: OnEnd,
        task: impl FnOnce(Stop) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        self.starts.push(Start {
            role: Role::Companion(name.to_owned(), on_end),
            latch: None,
            run: Box::new(|stop| Box::pin(task(stop))),
        });
    }

    /// Addresses bound so far: `grpc`, `admin` and `<service>.<name>`.
    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<String, SocketAddr> {
        &self.addresses
    }

    /// The data folder of the process, absolute.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        self.data.path()
    }

    /// Readiness of everything that was mounted.
    #[must_use]
    pub fn readiness(&self) -> ReadinessBoard {
        self.board.clone()
    }

    /// Runs until `stop` is requested or something ends unasked, drains, and cleans up.
    ///
    /// # Errors
    /// The first thing that failed, with its name.
    pub async fn run(self, stop: Stop) -> Result<(), HostError> {
        let grace = self.config.grace;
        let addresses_file = AddressesFile::write(&self.config.addresses_file, &self.addresses)?;
        self.announce();
        let source = StopSource::new();
        let (doors_stop, cut) = (StopSource::new(), Cut::default());
        let mut doors = JoinSet::new();
        let admin = Admin {
            board: self.board.clone(),
            registry: self.registry.clone(),
            draining: source.stop(),
        };
        let (listener, admin_stop) = (self.admin, doors_stop.stop());
        doors.spawn(async move {
            let ended = admin.serve(listener, admin_stop).await;
            ended.map_err(|error| RunError::new("serve the admin door", error))
        });
        let (bus, bus_stop) = (self.bus.clone(), doors_stop.stop());
        doors.spawn(async move {
            tokio::select! {
                () = bus_stop.requested() => Ok(()),
                error = bus.failed() => Err(RunError::new("keep the bus", error)),
            }
        });
        let grpc = Grpc::new(self.mounted, self.board)?;
        let (listener, metrics) = (self.grpc, self.metrics);
        let (grpc_stop, grpc_cut) = (source.stop(), cut.clone());
        doors.spawn(async move {
            let ended = grpc.serve(listener, metrics, grpc_stop, grpc_cut).await;
            ended.map_err(|error| RunError::new("serve the gRPC door", error))
        });

        let outcome = Running::start(self.starts, &source)
            .until_drained(&stop, &mut doors, grace)
            .await;

        // What is open on the doors is a stream without end by now; the admin door was kept to the
        // last, so that the drain could be watched.
        doors_stop.request();
        let closing = async { while doors.join_next().await.is_some() {} };
        if tokio::time::timeout(OPEN_CALLS_GRACE, closing)
            .await
            .is_err()
        {
            cut.now();
            let closing = async { while doors.join_next().await.is_some() {} };
            // An admin client that keeps its connection busy does not hold the process.
            let _ = tokio::time::timeout(OPEN_CALLS_GRACE, closing).await;
        }
        if tokio::time::timeout(BUS_CLOSE_GRACE, self.bus.close())
            .await
            .is_err()
        {
            tracing::warn!("the bus did not close in time");
        }
        drop(addresses_file);
        outcome
    }

    fn announce(&self) {
        for (name, address) in &self.addresses {
            tracing::info!(name, %address, "listening");
        }
        for name in ["grpc", "admin"] {
            if let Some(address) = self.addresses.get(name)
                && !address.ip().is_loopback()
            {
                tracing::warn!(
                    name,
                    %address,
                    "this door is unencrypted and open to other machines; keep it within a trusted network"
                );
            }
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

struct Running<'a> {
    source: &'a StopSource,
    /// Companions use the services, so they are asked to stop first.
    companions: StopSource,
    set: JoinSet<Result<(), RunError>>,
    roles: HashMap<Id, Role>,
}

impl<'a> Running<'a> {
    fn start(starts: Vec<Start>, source: &'a StopSource) -> Self {
        let mut set = JoinSet::new();
        let mut roles = HashMap::new();
        let companions = StopSource::new();
        for start in starts {
            let parent = match start.role {
                Role::Service(_) => source.stop(),
                Role::Companion(..) => companions.stop(),
            };
            // Each has its own stop, so that one service can end its own tasks without the others.
            let stop = StopSource::under(&parent).stop();
            let id = set.spawn((start.run)(stop)).id();
            if let Some(latch) = start.latch {
                latch.set();
            }
            roles.insert(id, start.role);
        }
        Self {
            source,
            companions,
            set,
            roles,
        }
    }

    async fn until_drained(
        mut self,
        stop: &Stop,
        doors: &mut JoinSet<Result<(), RunError>>,
        grace: Duration,
    ) -> Result<(), HostError> {
        let mut outcome = loop {
            tokio::select! {
                // Looked at first: what ends after the request has not ended unasked.
                biased;
                () = stop.requested() => break Ok(()),
                Some(ended) = self.set.join_next_with_id() => match self.judge(ended) {
                    Ok(OnEnd::Continue) => {}
                    Ok(OnEnd::Stop) => break Ok(()),
                    Err(error) => break Err(error),
                },
                Some(door) = doors.join_next() => break Err(error_from_door(door)),
            }
        };
        tracing::info!(grace_secs = grace.as_secs(), "stopping");
        self.companions.request();
        let now = Instant::now();
        let (companions_end, end) = (now + grace / 2, now + grace);
        loop {
            let company = !self.source.stop().is_requested() && self.has_companions();
            if !company {
                self.source.request();
            }
            let limit = if company { companions_end } else { end };
            match tokio::time::timeout_at(limit, self.set.join_next_with_id()).await {
                Ok(None) => break,
                Err(_) if company => self.source.request(),
                Ok(Some(ended)) => match (self.judge(ended), &outcome) {
                    (Ok(_), _) => {}
                    (Err(error), Ok(())) => outcome = Err(error),
                    (Err(error), Err(_)) => {
                        tracing::error!(error = %chain(&error), "failed while stopping");
                    }
                },
                Err(_) => {
                    let names = self.roles.values().map(|role| role.name().to_owned());
                    let late = HostError::Drain {
                        names: names.collect(),
                        grace_secs: grace.as_secs(),
                    };
                    match outcome {
                        Ok(()) => outcome = Err(late),
                        Err(_) => tracing::error!(error = %late, "failed while stopping"),
                    }
                    self.set.abort_all();
                    let cut_off = async { while self.set.join_next().await.is_some() {} };
                    // Those that have not noticed by then were named above.
                    let _ = tokio::time::timeout(CUT_OFF_GRACE, cut_off).await;
                    break;
                }
            }
        }
        outcome
    }

    fn has_companions(&self) -> bool {
        let mut roles = self.roles.values();
        roles.any(|role| matches!(role, Role::Companion(..)))
    }

    fn judge(
        &mut self,
        ended: Result<(Id, Result<(), RunError>), JoinError>,
    ) -> Result<OnEnd, HostError> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(RunError::new("panicked", error))),
        };
        let Some(role) = self.roles.remove(&id) else {
            return Ok(OnEnd::Continue);
        };
        match (role, result) {
            (role, Err(source)) => Err(HostError::Run {
                name: role.name().to_owned(),
                source,
            }),
            (Role::Companion(_, on_end), Ok(())) => Ok(on_end),
            (Role::Service(name), Ok(())) if !self.source.stop().is_requested() => {
                Err(HostError::EndedUnasked { name })
            }
            (Role::Service(_), Ok(())) => Ok(OnEnd::Continue),
        }
    }
}

fn error_from_door(door: Result<Result<(), RunError>, JoinError>) -> HostError {
    let name = "host".to_owned();
    match door {
        Ok(Ok(())) => HostError::EndedUnasked { name },
        Ok(Err(source)) => HostError::Run { name, source },
        Err(error) => HostError::Run {
            name,
            source: RunError::new("panicked", error),
        },
    }
}

async fn listen(name: &'static str, address: SocketAddr) -> Result<TcpListener, HostError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| HostError::Listen {
            name,
            address,
            source,
        })
}

async fn open_bus(config: &HostConfig, data: &DataDir) -> Result<Bus, HostError> {
    match &config.bus {
        BusConfig::Memory => {
            let path = data.path().join("bus.redb");
            Bus::memory(&path, &config.node_id)
                .map_err(|source| HostError::OpenBus { path, source })
        }
        BusConfig::Nats {
            url,
            credentials_file,
            replicas,
            partitions,
        } => {
            let nats = NatsConfig {
                url: url.clone(),
                credentials_file: credentials_file.clone(),
                replicas: *replicas,
                partitions: *partitions,
            };
            sovereign_bus_nats::connect(nats, &config.node_id)
                .await
                .map_err(|source| HostError::ConnectBus {
                    url: without_credentials(url),
                    source,
                })
        }
    }
}
