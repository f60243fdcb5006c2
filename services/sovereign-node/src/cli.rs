//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mesh_gateway::GatewayService;
use mobile_ingest::MobileService;
use sovereign_host::{
    ConfigError, Environment, Host, HostConfig, OnEnd, Options, Program, Settings, execute,
    exit_with_usage,
};
use sovereign_service::{Service, chain};

use crate::calibration::{self, CalibrationCommand};
use crate::compose::{Plan, SERVICES, compose};
use crate::demo::{self, DemoOptions};
use crate::import::{self, ImportArgs};
use crate::join::wait_for_a_peer;
use crate::network::{Network, NetworkFiles};
use crate::replay::{self, ReplayOptions};
use crate::running::{self, AskArgs, PROGRAM};
use crate::status::{NodeStatus, text_from_status};
use crate::visit::Report;

/// The whole of Sovereign Map in one process.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    after_help = "Exit codes: 0 stopped in order, 1 failed, 2 wrong usage, 78 unusable configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node; it runs until stopped.
    Start(NodeArgs),
    /// Start a node that has to reach a network; fails when it reaches nobody.
    Join(JoinArgs),
    /// Ask a running node about itself.
    Status(AskArgs),
    /// Tell a running node about a camera.
    #[command(subcommand)]
    Camera(CameraCommand),
    /// Start a node and fly simulated drones and phones into it.
    Demo(DemoArgs),
    /// Send pictures from a card to a running node, near or far.
    Import(ImportArgs),
    /// Start a node and play recorded pictures and telemetry into it.
    Replay(ReplayArgs),
}

#[derive(Debug, Subcommand)]
enum CameraCommand {
    /// What a camera really is: its pictures are placed and painted again.
    #[command(subcommand)]
    Calibration(CalibrationCommand),
}

/// Flags of a node.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NodeArgs {
    /// Name of this node [default: the name of the machine].
    #[arg(long, value_name = "NAME")]
    node_id: Option<String>,
    /// Bootstrap nodes (JSON) [default: network/bootstrap/bootstrap_nodes.json, if present].
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,
    /// Seed peers (JSON) [default: network/bootstrap/seed_peers.json, if present].
    #[arg(long, value_name = "FILE")]
    seeds: Option<PathBuf>,
    /// Network description (JSON) [default: network/bootstrap/network_config.json, if present].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of a node to connect to, with or without /p2p/<peer id>. May be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// Address to listen on for peers. May be repeated [default: QUIC and TCP on every interface:
    /// /ip4/0.0.0.0/udp/0/quic-v1 and /ip4/0.0.0.0/tcp/0; peers are authenticated and encrypted].
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Kept for old command lines: there is no chain runtime, so only `false` is accepted.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    enable_chain_runtime: Option<bool>,
    /// Kept for old command lines and refused: there is no chain runtime to apply bridge policies.
    #[arg(long, value_name = "FILE")]
    bridge_policies: Option<PathBuf>,
    /// Settings of host and services (TOML); also SOVEREIGN_CONFIG.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct JoinArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Seconds to wait for the first peer.
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    join_timeout: u64,
}

#[derive(Debug, Args)]
struct DemoArgs {
    #[command(flatten)]
    demo: DemoOptions,
    #[command(flatten)]
    visit: VisitArgs,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    replay: ReplayOptions,
    #[command(flatten)]
    visit: VisitArgs,
}

/// Flags of `demo` and `replay`.
#[derive(Debug, Args)]
struct VisitArgs {
    /// Settings of host and services (TOML); also SOVEREIGN_CONFIG.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// What the process is to do about peers.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Start,
    Join { limit: Duration },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit_with_usage(&error),
    };
    match cli.command {
        Command::Start(args) => run(&args, Mode::Start),
        Command::Join(args) => {
            let limit = Duration::from_secs(args.join_timeout);
            run(&args.node, Mode::Join { limit })
        }
        Command::Status(args) => running::run(&args, NodeStatus::ask, text_from_status),
        Command::Import(args) => import::run(&args),
        Command::Camera(CameraCommand::Calibration(command)) => calibration::run(&command),
        Command::Demo(DemoArgs { demo, visit }) => run_visit(
            "demo",
            &visit,
            || Ok(()),
            |host, (), report| demo::attach(host, demo, report),
        ),
        Command::Replay(ReplayArgs { replay, visit }) => {
            let options = replay.clone();
            run_visit(
                "replay",
                &visit,
                || {
                    replay::find(&options)
                        .map_err(|error| ConfigError::file(options.path.display(), chain(&error)))
                },
                |host, recording, report| replay::attach(host, replay, recording, report),
            )
        }
    }
}

/// A node with somebody who feeds it: `find` looks for what is needed before anything is started.
fn run_visit<P>(
    name: &str,
    args: &VisitArgs,
    find: impl FnOnce() -> Result<P, ConfigError>,
    attach: impl FnOnce(&mut Host, P, Report),
) -> ExitCode {
    let environment = Environment::of_process();
    let settings = visit_settings(name, args, &environment);
    let report = Report {
        json: args.options.json,
    };
    execute(
        &program(environment, &args.options),
        settings,
        |settings, host| {
            refuse_in_a_visit(name, settings, host)?;
            Ok((find()?, Plan::read(settings, host)?))
        },
        async |(found, plan), host: &mut Host| {
            compose(plan, host).await?;
            attach(host, found, report);
            Ok(())
        },
    )
}

/// As [`settings`], without the files of a network. What a visit leaves is kept apart from a real map,
/// wherever the file and the environment say that is; flags name a folder of its own.
fn visit_settings(
    name: &str,
    args: &VisitArgs,
    environment: &Environment,
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::new(&SERVICES);
    if let Some(file) = args.settings.clone().or_else(|| environment.config_file()) {
        settings.merge_file(&file)?;
    }
    settings.merge_environment(environment)?;
    let dir = HostConfig::read(&settings, environment)?
        .data_dir
        .join(name);
    settings.set("default", "host", "data_dir", dir.display().to_string());
    args.options.apply(&mut settings)?;
    Ok(settings)
}

/// A visit uses every service of its node, and the edge's own token and certificate; it tells no other
/// node of its map.
fn refuse_in_a_visit(
    name: &str,
    settings: &Settings,
    host: &HostConfig,
) -> Result<(), ConfigError> {
    let edge: mobile_ingest::Config = settings.section(MobileService::NAME)?;
    let gateway: mesh_gateway::Config = settings.section(GatewayService::NAME)?;
    let alone = "runs every service with secrets of its own";
    let apart = "joins no network";
    let refused = [
        ("host.services", host.services.is_some(), alone),
        ("mobile-ingest.token_file", edge.token_file.is_some(), alone),
        ("mobile-ingest.tls_cert", edge.tls_cert.is_some(), alone),
        (
            "mesh-gateway.bootstrap",
            !gateway.bootstrap.is_empty(),
            apart,
        ),
        ("mesh-gateway.mdns", gateway.mdns, apart),
    ];
    match refused.into_iter().find(|(_, written, _)| *written) {
        Some((key, _, why)) => Err(ConfigError::key(
            key,
            format!("does not apply to {name}, which {why}"),
        )),
        None => Ok(()),
    }
}

fn program(environment: Environment, options: &Options) -> Program {
    Program {
        name: PROGRAM,
        environment,
        check_config: options.check_config,
        json: options.json,
    }
}

fn run(args: &NodeArgs, mode: Mode) -> ExitCode {
    let environment = Environment::of_process();
    let settings = settings(args, mode, &environment);
    execute(
        &program(environment, &args.options),
        settings,
        |settings, host| {
            let plan = Plan::read(settings, host)?;
            if let Mode::Join { .. } = mode {
                refuse_join_to_nowhere(settings, &plan)?;
            }
            Ok(plan)
        },
        async |plan, host: &mut Host| {
            let channels = compose(plan, host).await?;
            // Without the gateway the plan of a join was refused.
            if let Mode::Join { limit } = mode
                && let Some(mesh) = channels.get(GatewayService::NAME).cloned()
            {
                host.attach("join", OnEnd::Continue, move |stop| {
                    wait_for_a_peer(mesh, limit, stop)
                });
            }
            Ok(())
        },
    )
}

/// Everything that was written, by rising precedence: the network files, the settings file, the
/// environment, `--set`, the other flags. `--peer` adds to the addresses that are known by then.
fn settings(
    args: &NodeArgs,
    mode: Mode,
    environment: &Environment,
) -> Result<Settings, ConfigError> {
    refuse_what_is_not_here(args)?;
    let network = Network::read(&NetworkFiles {
        network: args.config.clone(),
        bootstrap: args.bootstrap.clone(),
        seeds: args.seeds.clone(),
    })?;
    let mut settings = Settings::new(&SERVICES);
    for (origin, table) in network.settings() {
        settings.merge_table(&origin, table)?;
    }
    if let Some(file) = args.settings.clone().or_else(|| environment.config_file()) {
        settings.merge_file(&file)?;
    }
    settings.merge_environment(environment)?;
    args.options.apply(&mut settings)?;
    let hello = match mode {
        Mode::Start => "start",
        Mode::Join { .. } => "join",
    };
    settings.set("the command", GatewayService::NAME, "mode", hello);
    if let Some(name) = &args.node_id {
        settings.set("--node-id", "host", "node_id", name.clone());
    }
    if !args.listen.is_empty() {
        settings.set(
            "--listen",
            GatewayService::NAME,
            "listen",
            args.listen.clone(),
        );
    }
    let gateway: mesh_gateway::Config = settings.section(GatewayService::NAME)?;
    network.check_listen(&gateway.listen)?;
    if !args.peer.is_empty() {
        let mut known = gateway.bootstrap;
        for peer in &args.peer {
            if !known.contains(peer) {
                known.push(peer.clone());
            }
        }
        settings.set("--peer", GatewayService::NAME, "bootstrap", known);
    }
    Ok(settings)
}

fn refuse_what_is_not_here(args: &NodeArgs) -> Result<(), ConfigError> {
    if args.enable_chain_runtime == Some(true) {
        return Err(ConfigError::key(
            "--enable-chain-runtime",
            "there is no chain runtime; leave the flag out or pass --enable-chain-runtime=false",
        ));
    }
    if args.bridge_policies.is_some() {
        return Err(ConfigError::key(
            "--bridge-policies",
            "there is no chain runtime that could apply them; leave the flag out",
        ));
    }
    Ok(())
}

fn refuse_join_to_nowhere(settings: &Settings, plan: &Plan) -> Result<(), ConfigError> {
    if !plan.runs(GatewayService::NAME) {
        return Err(ConfigError::key(
            "host.services",
            "join needs mesh-gateway in this process",
        ));
    }
    let gateway: mesh_gateway::Config = settings.section(GatewayService::NAME)?;
    if gateway.bootstrap.is_empty() && !gateway.mdns {
        return Err(ConfigError::key(
            "mesh-gateway.bootstrap",
            "join needs the address of a node: pass --peer MULTIADDR, or list one in the file of \
             --bootstrap or --seeds (`sovereign-node status` on a node prints its addresses)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(args: &[&str]) -> NodeArgs {
        match Cli::try_parse_from([&[PROGRAM, "start"], args].concat()) {
            Ok(Cli {
                command: Command::Start(args),
            }) => args,
            other => panic!("{other:?}"),
        }
    }

    fn read(args: &[&str]) -> Result<Settings, ConfigError> {
        settings(&parse(args), Mode::Start, &Environment::default())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_chain_runtime_is_refused_by_name() {
        for args in [
            vec!["--enable-chain-runtime"],
            vec!["--enable-chain-runtime=true"],
            vec!["--enable-chain-runtime", "true"],
            vec!["--bridge-policies", "config/bridge-policies.json"],
        ] {
            let error = read(&args).unwrap_err();
            assert!(error.to_string().contains("no chain runtime"), "{error}");
        }
        assert!(read(&["--enable-chain-runtime=false"]).is_ok());
    }

    #[test]
    fn flags_win_over_settings() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[mesh-gateway]\nnetwork = 'from-file'\nmax_peers = 7\n\
                    listen = ['/ip4/0.0.0.0/tcp/1']\nbootstrap = ['/ip4/192.0.2.9/tcp/9']\n\
                    [host]\nnode_id = 'file'\n";
        std::fs::write(file.path(), text).unwrap();
        let settings = read(&[
            "--settings",
            file.path().to_str().unwrap(),
            "--set",
            "mesh-gateway.max_peers=9",
            "--set",
            "host.node_id=set",
            "--node-id",
            "flag",
            "--listen",
            "/ip4/127.0.0.1/tcp/4001",
            "--peer",
            "/ip4/192.0.2.1/tcp/1",
        ])
        .unwrap();
        let gateway: mesh_gateway::Config = settings.section("mesh-gateway").unwrap();
        assert_eq!(gateway.network, "from-file");
        assert_eq!(gateway.max_peers, 9);
        assert_eq!(gateway.listen, ["/ip4/127.0.0.1/tcp/4001"]);
        assert_eq!(
            gateway.bootstrap,
            ["/ip4/192.0.2.9/tcp/9", "/ip4/192.0.2.1/tcp/1"]
        );
        let host = sovereign_host::HostConfig::read(&settings, &Environment::default()).unwrap();
        assert_eq!(host.node_id, "flag");
    }

    #[test]
    fn a_visit_is_kept_apart_from_the_real_map() {
        let data_dir = |args: &[&str]| {
            let parsed = Cli::try_parse_from([&[PROGRAM, "demo"], args].concat());
            let Ok(Cli {
                command: Command::Demo(args),
            }) = parsed
            else {
                panic!("{parsed:?}")
            };
            let pairs = [("SOVEREIGN__HOST__DATA_DIR".to_owned(), "/real".to_owned())];
            let environment = Environment::from_pairs(pairs);
            let settings = visit_settings("demo", &args.visit, &environment).unwrap();
            HostConfig::read(&settings, &environment).unwrap().data_dir
        };
        assert_eq!(data_dir(&[]), PathBuf::from("/real/demo"));
        assert_eq!(data_dir(&["--data-dir", "/own"]), PathBuf::from("/own"));
    }

    #[test]
    fn no_listener_is_of_a_transport_that_the_network_excludes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"transport": "tcp"}"#).unwrap();
        let network = ["--config", file.path().to_str().unwrap()];
        assert!(read(&network).is_ok());
        let quic = "mesh-gateway.listen=['/ip4/127.0.0.1/udp/0/quic-v1']";
        for listen in [
            ["--set", quic],
            ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"],
        ] {
            let error = read(&[network, listen].concat()).unwrap_err();
            assert_eq!(error.key_path(), Some("mesh-gateway.listen"), "{error}");
        }
    }

    #[test]
    fn joining_needs_somebody_to_join() {
        let plan = |args: &[&str]| {
            let settings = read(args).unwrap();
            let host =
                sovereign_host::HostConfig::read(&settings, &Environment::default()).unwrap();
            refuse_join_to_nowhere(&settings, &Plan::read(&settings, &host).unwrap())
        };
        let error = plan(&[]).unwrap_err().to_string();
        assert!(error.contains("--peer"), "{error}");
        assert!(plan(&["--peer", "/ip4/192.0.2.1/tcp/1"]).is_ok());
        assert!(plan(&["--set", "mesh-gateway.mdns=true"]).is_ok());
    }
}
