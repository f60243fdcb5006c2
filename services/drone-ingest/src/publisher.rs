//! States onto the bus when they are due, apart from the socket, so that a slow bus never delays it.

use std::sync::Arc;
use std::time::Duration;

use sovereign_bus::{Bus, Key};
use sovereign_proto::topics::DRONE_STATE;
use sovereign_service::{RunError, Stop, chain};

use crate::domain::door::Publication;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::wire;

/// How often silent vehicles are looked for, and the longest sleep of the publisher.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    pub(crate) bus: Bus,
    pub(crate) intake: Arc<Intake>,
    pub(crate) metrics: Metrics,
}

impl Publisher {
    pub(crate) async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stopping = stop.requested();
        tokio::pin!(stopping);
        loop {
            let (publications, sleep) = {
                let now = self.intake.now();
                let mut door = self.intake.door();
                let publications = door.take_due(now);
                let next = door.next_due().map(|at| at.since(now));
                (publications, next.unwrap_or(HOUSEKEEPING).min(HOUSEKEEPING))
            };
            self.publish(publications).await;
            tokio::select! {
                () = &mut stopping => return Ok(()),
                () = self.intake.due() => {}
                () = tokio::time::sleep(sleep) => {}
                _ = housekeeping.tick() => {
                    // Bound first, or the door stays locked while the lines are written.
                    let forgotten = self.intake.door().expire(self.intake.now());
                    for vehicle in forgotten {
                        tracing::info!(%vehicle, "vehicle silent, forgotten");
                    }
                }
            }
        }
    }

    pub(crate) async fn publish_last(&self) {
        let last = self.intake.door().take_all(self.intake.now());
        self.publish(last).await;
    }

    async fn publish(&self, publications: Vec<Publication>) {
        for Publication { state, first } in publications {
            if first {
                tracing::info!(vehicle = %state.vehicle_id, source = state.source.as_str(), "vehicle heard");
            }
            // A sensor id is a key: both have the same alphabet and length.
            let key = Key::parse(state.vehicle_id.as_str()).ok();
            let message = wire::state_from_snapshot(&state);
            match self.bus.publish(&DRONE_STATE, key.as_ref(), &message).await {
                Ok(()) => {
                    self.metrics.states_published.inc();
                }
                Err(error) => {
                    self.metrics.state_publish_failures.inc();
                    tracing::debug!(vehicle = %state.vehicle_id, error = %chain(&error), "state not published");
                }
            }
        }
    }
}
