//! The whole system on one page: who there is, who calls whom, and how they are mounted.
//!
//! ```text
//! camera   slam   drone   checkpoint      call nobody
//!          |  \    |          |
//!        tile  |   |        round
//!        |  \  |   |
//!   gateway  \ |   |
//!         \   \|   |
//!          +-- mobile
//! ```

use std::collections::BTreeMap;

use camera_svc::CameraService;
use checkpoint_svc::CheckpointService;
use drone_ingest::DroneService;
use mesh_gateway::GatewayService;
use mobile_ingest::MobileService;
use round_svc::RoundService;
use slam_svc::SlamService;
use sovereign_host::{CallTable, ConfigError, Host, HostConfig, HostError, Settings};
use sovereign_service::{Channel, Service};
use tile_svc::TileService;

const CAMERA: &str = CameraService::NAME;
const SLAM: &str = SlamService::NAME;
const TILE: &str = TileService::NAME;
const CHECKPOINT: &str = CheckpointService::NAME;
const DRONE: &str = DroneService::NAME;
const MOBILE: &str = MobileService::NAME;
const ROUND: &str = RoundService::NAME;
const GATEWAY: &str = GatewayService::NAME;

/// Every service, in the order in which they are built, and the services that it calls.
const CALLS: [(&str, &[&str]); 8] = [
    (CAMERA, &[]),
    (SLAM, &[]),
    (CHECKPOINT, &[]),
    (DRONE, &[]),
    (TILE, &[SLAM]),
    (GATEWAY, &[TILE]),
    (ROUND, &[CHECKPOINT]),
    (MOBILE, &[DRONE, TILE, SLAM]),
];

/// Every service, by name: the sections of the configuration beside `[host]`.
pub const SERVICES: [&str; 8] = [
    CAMERA, SLAM, CHECKPOINT, DRONE, TILE, GATEWAY, ROUND, MOBILE,
];

/// What is to be mounted, understood in full before anything is bound.
pub struct Plan {
    camera: Option<camera_svc::Config>,
    slam: Option<slam_svc::Config>,
    checkpoint: Option<checkpoint_svc::Config>,
    drone: Option<drone_ingest::Config>,
    tile: Option<tile_svc::Config>,
    gateway: Option<mesh_gateway::Config>,
    round: Option<round_svc::Config>,
    mobile: Option<mobile_ingest::Config>,
    elsewhere: Channels,
}

impl Plan {
    /// Understands the section of every service and where the services are that run elsewhere. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub fn read(settings: &Settings, host: &HostConfig) -> Result<Self, ConfigError> {
        let here = services_here(host)?;
        let elsewhere = channels_elsewhere(&here, &CallTable::new(host.calls.clone()))?;
        let place = Place {
            settings,
            here: &here,
        };
        Ok(Self {
            camera: place.of::<CameraService>()?,
            slam: place.of::<SlamService>()?,
            checkpoint: place.of::<CheckpointService>()?,
            drone: place.of::<DroneService>()?,
            tile: place.of::<TileService>()?,
            gateway: place.of::<GatewayService>()?,
            round: place.of::<RoundService>()?,
            mobile: place.of::<MobileService>()?,
            elsewhere,
        })
    }

    /// Addresses that the gateway dials, when it runs here.
    #[must_use]
    pub fn bootstrap(&self) -> Option<&[String]> {
        self.gateway
            .as_ref()
            .map(|config| config.bootstrap.as_slice())
    }
}

/// Builds and mounts everything in the plan; the channels lead to all of it.
///
/// # Errors
///
/// The first service that could not be built.
pub async fn compose(plan: Plan, host: &mut Host) -> Result<Channels, HostError> {
    let mut channels = plan.elsewhere;
    if let Some(config) = plan.camera {
        channels.add(CAMERA, host.add::<CameraService>(config, ()).await?);
    }
    if let Some(config) = plan.slam {
        channels.add(SLAM, host.add::<SlamService>(config, ()).await?);
    }
    if let Some(config) = plan.checkpoint {
        channels.add(CHECKPOINT, host.add::<CheckpointService>(config, ()).await?);
    }
    if let Some(config) = plan.drone {
        channels.add(DRONE, host.add::<DroneService>(config, ()).await?);
    }
    if let Some(config) = plan.tile {
        let calls = tile_svc::Calls {
            slam: channels.to(SLAM)?,
        };
        channels.add(TILE, host.add::<TileService>(config, calls).await?);
    }
    if let Some(config) = plan.gateway {
        let calls = mesh_gateway::Calls {
            tiles: channels.to(TILE)?,
        };
        channels.add(GATEWAY, host.add::<GatewayService>(config, calls).await?);
    }
    if let Some(config) = plan.round {
        let calls = round_svc::Calls {
            checkpoints: channels.to(CHECKPOINT)?,
        };
        channels.add(ROUND, host.add::<RoundService>(config, calls).await?);
    }
    if let Some(config) = plan.mobile {
        let calls = mobile_ingest::Calls {
            drones: channels.to(DRONE)?,
            tiles: channels.to(TILE)?,
            slam: channels.to(SLAM)?,
            mesh: channels.get(GATEWAY),
        };
        channels.add(MOBILE, host.add::<MobileService>(config, calls).await?);
    }
    Ok(channels)
}

/// Channels to services, by name, here or elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    by_name: BTreeMap<&'static str, Channel>,
}

impl Channels {
    fn add(&mut self, service: &'static str, channel: Channel) {
        self.by_name.insert(service, channel);
    }

    /// The channel to a service, when there is one.
    #[must_use]
    pub fn get(&self, service: &str) -> Option<Channel> {
        self.by_name.get(service).cloned()
    }

    /// The channel to a service that has to be there.
    ///
    /// # Errors
    ///
    /// It runs neither here nor, by the configuration, elsewhere.
    pub fn to(&self, service: &str) -> Result<Channel, ConfigError> {
        self.get(service).ok_or_else(|| {
            ConfigError::key(
                format!("host.calls.{service}"),
                format!("is missing, {service} does not run here"),
            )
        })
    }
}

/// Reads the sections of the services that run here; the others are checked all the same.
struct Place<'a> {
    settings: &'a Settings,
    here: &'a [&'static str],
}

impl Place<'_> {
    fn of<S: Service>(&self) -> Result<Option<S::Config>, ConfigError> {
        let config = self.settings.service::<S>()?;
        Ok(self.here.contains(&S::NAME).then_some(config))
    }
}

fn services_here(host: &HostConfig) -> Result<Vec<&'static str>, ConfigError> {
    let Some(wanted) = &host.services else {
        return Ok(SERVICES.to_vec());
    };
    let known = |name: &String| {
        SERVICES
            .into_iter()
            .find(|service| service == name)
            .ok_or_else(|| {
                ConfigError::key(
                    "host.services",
                    format!(
                        "`{name}` is no service, expected some of {}",
                        SERVICES.join(", ")
                    ),
                )
            })
    };
    let here: Vec<_> = wanted.iter().map(known).collect::<Result<_, _>>()?;
    if here.is_empty() {
        return Err(ConfigError::key("host.services", "names no service"));
    }
    Ok(here)
}

fn channels_elsewhere(here: &[&'static str], table: &CallTable) -> Result<Channels, ConfigError> {
    let mut channels = Channels::default();
    let callers = CALLS.iter().filter(|(name, _)| here.contains(name));
    for called in callers.flat_map(|(_, called)| *called) {
        if !here.contains(called) && channels.get(called).is_none() {
            channels.add(called, table.channel(called)?);
        }
    }
    if here.contains(&MOBILE)
        && !here.contains(&GATEWAY)
        && let Some(channel) = table.optional(GATEWAY)?
    {
        channels.add(GATEWAY, channel);
    }
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
        assert!(plan.camera.is_some() && plan.mobile.is_some() && plan.gateway.is_some());
        assert!(plan.elsewhere.by_name.is_empty());
    }

    #[test]
    fn a_service_is_built_after_those_that_it_calls() {
        let order: Vec<_> = CALLS.iter().map(|(name, _)| *name).collect();
        assert_eq!(order, SERVICES);
        for (index, (name, called)) in CALLS.iter().enumerate() {
            for service in *called {
                assert!(order[..index].contains(service), "{name} calls {service}");
            }
        }
    }

    #[tokio::test]
    async fn what_runs_elsewhere_is_called_there() {
        let plan = read(&[
            "host.services=['tile-svc', 'drone-ingest']",
            "host.calls.slam-svc=http://127.0.0.1:1",
        ])
        .unwrap();
        assert!(plan.tile.is_some() && plan.drone.is_some());
        assert!(plan.slam.is_none() && plan.gateway.is_none());
        assert!(plan.elsewhere.to(SLAM).is_ok());
        assert!(plan.elsewhere.to(CAMERA).is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_composed_is_refused_by_name() {
        for (assignments, key) in [
            (vec!["host.services=['tile-svc']"], "host.calls.slam-svc"),
            (vec!["host.services=['tiles']"], "host.services"),
            (vec!["host.services=[]"], "host.services"),
            (
                vec!["host.calls.slam-svc=http://127.0.0.1:1"],
                "host.calls.slam-svc",
            ),
            (
                vec!["host.services=['slam-svc']", "tile-svc.no_such_key=1"],
                "tile-svc.no_such_key",
            ),
        ] {
            let error = read(&assignments).err().unwrap();
            assert_eq!(error.key_path(), Some(key), "{error}");
        }
    }
}
