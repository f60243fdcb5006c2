//! The whole system on one page: who there is, who calls whom, and how they are mounted. What a service
//! calls it says itself; an arrow points at who is called.
//!
//! ```text
//! drone, slam, tile, round -> checkpoint
//! gateway                  -> checkpoint, tile, round
//! mobile                   -> checkpoint, drone, slam, tile, gateway
//! camera                   calls nobody
//! ```

use std::collections::BTreeMap;
use std::pin::Pin;

use camera_svc::CameraService;
use checkpoint_svc::CheckpointService;
use drone_ingest::DroneService;
use mesh_gateway::GatewayService;
use mobile_ingest::MobileService;
use round_svc::RoundService;
use slam_svc::SlamService;
use sovereign_host::{CallTable, ConfigError, Host, HostConfig, HostError, Settings};
use sovereign_service::{Called, Calls as _, Channel, Listen, Service};
use tile_svc::TileService;

/// Every service, in the order in which they are built: those that are called come first.
const KINDS: [Kind; 8] = [
    Kind::of::<CameraService>(),
    Kind::of::<CheckpointService>(),
    Kind::of::<DroneService>(),
    Kind::of::<SlamService>(),
    Kind::of::<TileService>(),
    Kind::of::<RoundService>(),
    Kind::of::<GatewayService>(),
    Kind::of::<MobileService>(),
];

/// Every service, by name: the sections of the configuration beside `[host]`.
pub(crate) const SERVICES: [&str; 8] = {
    let mut names = [""; 8];
    let mut index = 0;
    while index < names.len() {
        names[index] = KINDS[index].name;
        index += 1;
    }
    names
};

pub(crate) type Channels = BTreeMap<&'static str, Channel>;

type Mounting<'a> = Pin<Box<dyn Future<Output = Result<Channel, HostError>> + 'a>>;
type Mount = Box<dyn for<'a> FnOnce(&'a mut Host, &'a Channels) -> Mounting<'a>>;

/// What is to be mounted, and where it is going to listen.
type Understood = (Mount, Vec<Listen>);

struct Kind {
    name: &'static str,
    called: &'static [Called],
    read: fn(&Settings) -> Result<Understood, ConfigError>,
}

impl Kind {
    const fn of<S: Service>() -> Self {
        Self {
            name: S::NAME,
            called: S::Calls::SERVICES,
            read: |settings| {
                let settings = settings.service::<S>()?;
                let doors = S::listens(&settings);
                let mount: Mount =
                    Box::new(|host, channels| Box::pin(host.add::<S>(settings, channels)));
                Ok((mount, doors))
            },
        }
    }
}

/// What is to be mounted, understood in full before anything is bound.
pub(crate) struct Plan {
    parts: Vec<(&'static str, Mount)>,
    elsewhere: Channels,
}

impl Plan {
    /// Understands the section of every service and where the services are that run elsewhere. Must be
    /// called within a Tokio runtime.
    pub(crate) fn read(settings: &Settings, host: &HostConfig) -> Result<Self, ConfigError> {
        let here = services_here(host)?;
        let elsewhere = channels_elsewhere(&here, &CallTable::new(host.calls.clone()))?;
        let mut parts = Vec::new();
        let mut doors = Vec::new();
        for kind in &KINDS {
            // The section of one that does not run here is understood all the same.
            let (mount, listens) = (kind.read)(settings)?;
            if here.contains(&kind.name) {
                parts.push((kind.name, mount));
                doors.extend(listens.into_iter().map(|door| (kind.name, door)));
            }
        }
        host.refuse_shared_ports(doors)?;
        Ok(Self { parts, elsewhere })
    }

    #[must_use]
    pub(crate) fn runs(&self, service: &str) -> bool {
        self.parts.iter().any(|(name, _)| *name == service)
    }
}

/// Builds and mounts everything in the plan; the channels lead to all of it.
pub(crate) async fn compose(plan: Plan, host: &mut Host) -> Result<Channels, HostError> {
    let mut channels = plan.elsewhere;
    for (name, mount) in plan.parts {
        let channel = mount(host, &channels).await?;
        channels.insert(name, channel);
    }
    Ok(channels)
}

fn services_here(host: &HostConfig) -> Result<Vec<&'static str>, ConfigError> {
    let refuse = |why: String| Err(ConfigError::key("host.services", why));
    let Some(wanted) = &host.services else {
        return Ok(SERVICES.to_vec());
    };
    if wanted.is_empty() {
        return refuse("names no service".to_owned());
    }
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !SERVICES.contains(&name.as_str()))
    {
        let known = SERVICES.join(", ");
        return refuse(format!(
            "`{unknown}` is no service, expected some of {known}"
        ));
    }
    let is_wanted = |name: &&str| wanted.iter().any(|wanted| wanted == name);
    Ok(SERVICES.into_iter().filter(is_wanted).collect())
}

fn channels_elsewhere(here: &[&'static str], table: &CallTable) -> Result<Channels, ConfigError> {
    let callers = KINDS.iter().filter(|kind| here.contains(&kind.name));
    let called: Vec<Called> = callers
        .flat_map(|kind| kind.called)
        .filter(|called| !here.contains(&called.name))
        .copied()
        .collect();
    let channels = table.channels(&called)?;
    table.refuse_unused()?;
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sovereign_host::Environment;

    fn read(assignments: &[&str]) -> Result<Plan, ConfigError> {
        let mut settings = Settings::new(&SERVICES);
        for assignment in assignments {
            settings.merge_assignment(assignment)?;
        }
        let host = HostConfig::read(&settings, &Environment::default())?;
        Plan::read(&settings, &host)
    }

    #[test]
    fn everything_runs_here_unless_told_otherwise() {
        let plan = read(&[]).unwrap();
        assert!(SERVICES.iter().all(|service| plan.runs(service)));
        assert!(plan.elsewhere.is_empty());
    }

    #[test]
    fn a_service_is_built_after_those_that_it_calls() {
        for (index, kind) in KINDS.iter().enumerate() {
            for called in kind.called {
                let built = SERVICES[..index].contains(&called.name);
                assert!(built, "{} calls {}", kind.name, called.name);
            }
        }
    }

    #[tokio::test]
    async fn what_runs_elsewhere_is_called_there() {
        let plan = read(&[
            "host.services=['round-svc', 'camera-svc']",
            "host.calls.checkpoint-svc=http://127.0.0.1:1",
        ])
        .unwrap();
        assert!(plan.runs("round-svc") && plan.runs("camera-svc"));
        assert!(!plan.runs("slam-svc") && !plan.runs("mesh-gateway"));
        let elsewhere: Vec<_> = plan.elsewhere.keys().copied().collect();
        assert_eq!(elsewhere, ["checkpoint-svc"]);
    }

    #[tokio::test]
    async fn what_cannot_be_composed_is_refused_by_name() {
        for (assignments, key) in [
            (
                vec!["host.services=['round-svc']"],
                "host.calls.checkpoint-svc",
            ),
            (vec!["host.services=['tiles']"], "host.services"),
            (vec!["host.services=[]"], "host.services"),
            (
                vec!["host.calls.slam-svc=http://127.0.0.1:1"],
                "host.calls.slam-svc",
            ),
            (
                vec!["host.services=['camera-svc']", "tile-svc.no_such_key=1"],
                "tile-svc.no_such_key",
            ),
        ] {
            let error = read(&assignments).err().unwrap();
            assert_eq!(error.key_path(), Some(key), "{error}");
        }
    }
}
