//! The same flight through one process and through eight over NATS makes the same map, and shows the same
//! drones and phones.

use anyhow::ensure;
use sovereign_node::feed::Recording;
use sovereign_tests::flight::{fly, replay, write_flight};
use sovereign_tests::system::System;
use sovereign_tests::tiles::digests;

const FRAMES: u32 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn one_process_and_eight_over_nats_paint_the_same_tiles() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flight = folder.path().join("flight");
    write_flight(&flight, FRAMES)?;
    let recording = Recording::find(&flight)?;
    let mut maps = Vec::new();
    for split in [false, true] {
        let own = folder.path().join(if split { "split" } else { "unified" });
        let system = if split {
            System::split(&own).await?
        } else {
            System::unified(&own).await?
        };
        let counts = replay(&recording, &system.edge, system.udp).await?;
        ensure!(counts.frames == u64::from(FRAMES), "{counts:?}");
        maps.push(digests(system.tiles()?).await?);
        // Placed by live telemetry, so no two flights paint the same: after the maps to be compared.
        fly(&system.edge, system.udp).await?;
        system.stop(&[]).await?;
    }
    ensure!(maps[0].len() > 50, "only {} tiles", maps[0].len());
    ensure!(maps[0] == maps[1], "the maps differ");
    Ok(())
}
