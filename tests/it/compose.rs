//! The containers of docker-compose.yml paint the same map as one process. `make compose-test` brings them
//! up and says where they are; without that there is nothing to compare, which is said.

use std::path::Path;

use anyhow::{Context as _, ensure};
use sovereign_node::feed::{Edge, Recording};
use sovereign_service::Channel;
use sovereign_tests::data::skipped;
use sovereign_tests::flight::{fly, replay, write_flight};
use sovereign_tests::system::System;
use sovereign_tests::tiles::digests;

const FRAMES: u32 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn the_containers_paint_the_same_tiles_as_one_process() -> anyhow::Result<()> {
    let Some(tiles) = std::env::var_os("SOVEREIGN_COMPOSE_TILES") else {
        skipped("no containers here, run `make compose-test`");
        return Ok(());
    };
    let tiles = tiles.to_str().context("SOVEREIGN_COMPOSE_TILES is a URL")?;
    let credentials = std::env::var_os("SOVEREIGN_COMPOSE_CREDENTIALS")
        .context("SOVEREIGN_COMPOSE_CREDENTIALS is not set")?;
    let folder = tempfile::tempdir()?;
    let flight = folder.path().join("flight");
    write_flight(&flight, FRAMES)?;
    let recording = Recording::find(&flight)?;

    let edge = Edge::open(([127, 0, 0, 1], 8443).into(), Path::new(&credentials))?;
    let udp = ([127, 0, 0, 1], 14550).into();
    replay(&recording, &edge, udp).await?;
    let in_containers = digests(Channel::connect(tiles)?).await?;
    fly(&edge, udp).await?;

    let system = System::unified(folder.path()).await?;
    replay(&recording, &system.edge, system.udp).await?;
    let in_one_process = digests(system.tiles()?).await?;
    system.stop(&[]).await?;

    ensure!(
        in_containers.len() > 50,
        "only {} tiles",
        in_containers.len()
    );
    ensure!(in_containers == in_one_process, "the maps differ");
    Ok(())
}
