//! The life of a process: read the configuration, install telemetry, compose, run until a signal, exit.

use std::cell::Cell;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, FromArgMatches as _};
use serde_json::json;
use sovereign_service::{Calls as _, Service, StopSource, chain};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{HOST, LogFormat};
use crate::memory::tune_allocator;
use crate::telemetry::Telemetry;
use crate::{CallTable, ConfigError, Environment, Host, HostConfig, HostError, Settings};

/// Work that blocks a thread may go on this long after everything else has ended.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// Name of the flag for the configuration file of a single service.
const CONFIG: &str = "config";

/// Flags that every process of ours takes, beside the one that names its configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Set one configuration value; wins over file and environment. May be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder for everything that is kept [default: $XDG_DATA_HOME/sovereign-map, else
    /// ./sovereign-data; a demo or replay has a folder of its own in there].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How log lines on the standard error look [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Read and check the configuration, then exit.
    #[arg(long)]
    pub check_config: bool,
    /// Log as JSON, and report what went wrong as one JSON object on the standard output.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Adds what the flags say to settings; they come last and win.
    ///
    /// # Errors
    /// A `--set` that is no assignment or names a section that does not exist.
    pub fn apply(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        for assignment in &self.set {
            settings.merge_assignment(assignment)?;
        }
        if let Some(dir) = &self.data_dir {
            settings.set("--data-dir", HOST, "data_dir", dir.display().to_string());
        }
        let format = self.log_format.or(self.json.then_some(LogFormat::Json));
        if let Some(format) = format {
            let format = match format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            };
            settings.set("--log-format", HOST, "log_format", format);
        }
        Ok(())
    }
}

/// A program that is about to run.
#[derive(Debug)]
pub struct Program {
    /// Its name, before messages and in traces.
    pub name: &'static str,
    /// What the process was started with.
    pub environment: Environment,
    /// Only check the configuration.
    pub check_config: bool,
    /// Report errors as JSON on the standard output.
    pub json: bool,
}

/// A process with one service.
pub fn main<S: Service>() -> ExitCode {
    let command = Options::augment_args(clap::Command::new(S::NAME))
        .version(env!("CARGO_PKG_VERSION"))
        .about(format!(
            "{} of Sovereign Map, as a process of its own",
            S::NAME
        ))
        .after_help(
            "Configuration: defaults, then the file, then SOVEREIGN__SECTION__KEY variables, then --set.\n\
             Exit codes: 0 stopped in order, 1 failed, 2 wrong usage, 78 unusable configuration.",
        )
        .arg(
            clap::Arg::new(CONFIG)
                .long(CONFIG)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Configuration file (TOML); also SOVEREIGN_CONFIG"),
        );
    let parsed = command.try_get_matches().and_then(|matches| {
        let file = matches.get_one::<PathBuf>(CONFIG).cloned();
        Ok((file, Options::from_arg_matches(&matches)?))
    });
    let (file, options) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return exit_with_usage(&error),
    };
    let environment = Environment::of_process();
    let settings = || {
        let mut settings = Settings::new(&[S::NAME]);
        if let Some(file) = file.or_else(|| environment.config_file()) {
            settings.merge_file(&file)?;
        }
        settings.merge_environment(&environment)?;
        options.apply(&mut settings)?;
        Ok(settings)
    };
    let settings = settings();
    execute(
        &Program {
            name: S::NAME,
            environment,
            check_config: options.check_config,
            json: options.json,
        },
        settings,
        |settings, host| {
            if host.services.is_some() {
                return Err(ConfigError::key(
                    "host.services",
                    format!(
                        "only applies to sovereign-node, this process is {}",
                        S::NAME
                    ),
                ));
            }
            let table = CallTable::new(host.calls.clone());
            let channels = table.channels(S::Calls::SERVICES)?;
            table.refuse_unused()?;
            let settings = settings.service::<S>()?;
            let doors = S::listens(&settings).into_iter();
            host.refuse_shared_ports(doors.map(|door| (S::NAME, door)))?;
            Ok((settings, channels))
        },
        async |(settings, channels), host| host.add::<S>(settings, &channels).await.map(drop),
    )
}

/// Prints what the command line parser says, help and version included.
pub fn exit_with_usage(error: &clap::Error) -> ExitCode {
    // When not even this can be printed, the exit code still tells.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(crate::EXIT_USAGE))
}

/// A process: `plan` understands all of the configuration before anything is bound, `compose` mounts
/// services on the host, which then runs until SIGTERM or SIGINT.
///
/// A second signal ends the process without draining.
pub fn execute<P>(
    program: &Program,
    settings: Result<Settings, ConfigError>,
    plan: impl FnOnce(&Settings, &HostConfig) -> Result<P, ConfigError>,
    compose: impl AsyncFnOnce(P, &mut Host) -> Result<(), HostError>,
) -> ExitCode {
    tune_allocator();
    // Whoever came first installed the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(source) => {
            let operation = "start the runtime";
            let source = source.into();
            return program.fail(&HostError::Setup { operation, source });
        }
    };
    let code = runtime.block_on(async {
        let planned = settings.and_then(|settings| {
            let config = HostConfig::read(&settings, &program.environment)?;
            let plan = plan(&settings, &config)?;
            Ok((config, plan))
        });
        let (config, plan) = match planned {
            Ok(planned) => planned,
            Err(error) => return program.fail(&error.into()),
        };
        if program.check_config {
            program.report_checked();
            return ExitCode::SUCCESS;
        }
        let telemetry = match Telemetry::install(program.name, &config) {
            Ok(telemetry) => telemetry,
            Err(error) => return program.fail(&error),
        };
        tracing::info!(
            program = program.name,
            version = env!("CARGO_PKG_VERSION"),
            node = config.node_id,
            data_dir = %config.data_dir.display(),
            "starting"
        );
        let code = match run(config, plan, compose).await {
            Ok(()) => {
                tracing::info!("stopped");
                ExitCode::SUCCESS
            }
            Err(error) => program.fail_in_log(&error),
        };
        telemetry.finish();
        code
    });
    runtime.shutdown_timeout(BLOCKING_GRACE);
    code
}

async fn run<P>(
    config: HostConfig,
    plan: P,
    compose: impl AsyncFnOnce(P, &mut Host) -> Result<(), HostError>,
) -> Result<(), HostError> {
    let mut signals = Signals::listen()?;
    let source = StopSource::new();
    let running = Cell::new(false);
    let work = async {
        let mut host = Host::start(config).await?;
        compose(plan, &mut host).await?;
        running.set(true);
        host.run(source.stop()).await
    };
    tokio::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            name = signals.next() => {
                if source.stop().is_requested() {
                    return Err(HostError::Impatient);
                }
                tracing::info!(signal = name, "asked to stop");
                source.request();
                if !running.get() {
                    // Nothing runs yet that would have to drain.
                    return Ok(());
                }
            }
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, HostError> {
        let listen = |kind| {
            signal(kind).map_err(|source| HostError::Setup {
                operation: "listen for signals",
                source: source.into(),
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next that asks for the end.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                // A terminal that closes must not end a node, and certificates are taken up without being told.
                _ = self.hangup.recv() => tracing::info!(
                    "SIGHUP: certificates are read again by themselves, other settings with a restart"
                ),
            }
        }
    }
}

impl Program {
    /// Reports an error from before there was a log.
    fn fail(&self, error: &HostError) -> ExitCode {
        self.report(error);
        // The standard error is the last resort; when it is gone, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{}: {}", self.name, chain(error));
        ExitCode::from(error.exit_code())
    }

    fn fail_in_log(&self, error: &HostError) -> ExitCode {
        if !tracing::enabled!(tracing::Level::ERROR) {
            return self.fail(error);
        }
        self.report(error);
        tracing::error!("{}", chain(error));
        ExitCode::from(error.exit_code())
    }

    fn report(&self, error: &HostError) {
        if !self.json {
            return;
        }
        let key = if let HostError::Config(error) = error {
            error.key_path()
        } else {
            None
        };
        let report = json!({
            "error": chain(error),
            "key": key,
            "exit_code": error.exit_code(),
        });
        let _ = writeln!(std::io::stdout(), "{report}");
    }

    fn report_checked(&self) {
        let line = if self.json {
            json!({ "ok": true }).to_string()
        } else {
            "the configuration is usable".to_owned()
        };
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
