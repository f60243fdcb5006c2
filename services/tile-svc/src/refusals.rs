//! What does not come onto the map: counted, and told to the owner of verdicts.

use std::sync::Arc;

use sovereign_bus::{Bus, Key, PublishError};
use sovereign_proto::topics::TILE_REFUSED;

use crate::arrival::Arrival;
use crate::error::Refusal;
use crate::metrics::Meter;
use crate::wire;

pub(crate) struct Refusals {
    pub(crate) meter: Arc<Meter>,
    pub(crate) bus: Bus,
}

impl Refusals {
    /// Tells of a frame that was refused; on disk when this returns.
    pub(crate) async fn tell(
        &self,
        arrival: &Arrival,
        refusal: &Refusal,
    ) -> Result<(), PublishError> {
        // A sensor id is a key: both have the same alphabet and length.
        if refusal.is_news()
            && let Ok(sensor) = Key::parse(&arrival.sensor_id)
        {
            let (id, message) = wire::refused_from(arrival, refusal);
            self.bus
                .append(&TILE_REFUSED, Some(&sensor), &id, &message)
                .await?;
        }
        self.meter
            .refused(&arrival.frame_id, &arrival.sensor_id, refusal);
        Ok(())
    }
}
