//! Somebody tells a running node what a camera really is, and the map follows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sovereign_node::feed::{CaptureNotes, Edge};
use sovereign_tests::flight::pictures;
use sovereign_tests::process::{Process, binary};
use sovereign_tests::tiles::{digests, painted_frames};
use sovereign_tests::wait_for;

const PICTURES: u32 = 6;
const PAINTED_WITHIN: Duration = Duration::from_secs(120);
/// The model that the simulated pictures name.
const CAMERA: [&str; 2] = ["--model", "SIM"];
/// Not what their EXIF says.
const FOCAL: [&str; 2] = ["--focal-px-per-width", "0.6"];

type Map = BTreeMap<(u32, u32, u32), Vec<u8>>;

struct Node {
    process: Process,
    edge: Edge,
}

impl Node {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let args = [
            "start",
            "--set",
            "drone-ingest.listen=127.0.0.1:0",
            "--set",
            "mobile-ingest.listen=127.0.0.1:0",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
        ];
        let process = Process::start("sovereign-node", folder, &args).await?;
        let edge = Edge::open(
            process.address("mobile-ingest.https")?,
            &process.data_dir().join("mobile-ingest"),
        )?;
        Ok(Self { process, edge })
    }

    async fn upload(&self, pictures: &[Vec<u8>]) -> anyhow::Result<()> {
        let notes = CaptureNotes {
            simulated: true,
            ..CaptureNotes::default()
        };
        for jpeg in pictures {
            let jpeg = jpeg.clone();
            self.edge.upload_capture("survey", jpeg, &notes).await?;
        }
        Ok(())
    }

    /// What `sovereign-node camera calibration` prints for machines.
    fn calibration(&self, command: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(binary("sovereign-node")?)
            .args(["camera", "calibration"])
            .args(command)
            .args(["--json", "--data-dir"])
            .arg(self.process.data_dir())
            .output()?;
        let printed = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{command:?}: {printed}");
        serde_json::from_str(&printed).context(printed)
    }

    /// The map, once every picture is on it.
    async fn map(&self) -> anyhow::Result<Map> {
        wait_for(PAINTED_WITHIN, async || {
            let painted = painted_frames(self.process.grpc()?).await?;
            Ok((painted.len() == PICTURES as usize).then_some(()))
        })
        .await
        .context("not every picture was painted")?;
        digests(self.process.grpc()?).await
    }

    async fn becomes(&self, map: &Map) -> anyhow::Result<()> {
        wait_for(PAINTED_WITHIN, async || {
            Ok((digests(self.process.grpc()?).await? == *map).then_some(()))
        })
        .await
        .with_context(|| format!("another map: {}", self.process.log()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_is_painted_again_as_if_the_camera_had_been_known_from_the_start()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let pictures = pictures(PICTURES, (752, 480))?;

    let corrected = Node::start(&folder.path().join("corrected")).await?;
    corrected.upload(&pictures).await?;
    let by_exif = corrected.map().await?;
    let known = Node::start(&folder.path().join("known")).await?;
    known.calibration(&[&["set"][..], &CAMERA, &FOCAL].concat())?;
    known.upload(&pictures).await?;
    let by_calibration = known.map().await?;
    ensure!(by_calibration != by_exif, "the calibration says nothing");
    known.process.stop(&[]).await?;

    let said = corrected.calibration(&[&["set"][..], &CAMERA, &FOCAL].concat())?;
    ensure!(said["frames"] == PICTURES, "{said}");
    corrected.becomes(&by_calibration).await?;
    let listed = corrected.calibration(&["list"])?;
    ensure!(
        listed["calibrations"][0]["focal_px_per_width"] == 0.6,
        "{listed}"
    );

    let taken_back = corrected.calibration(&[&["remove"][..], &CAMERA].concat())?;
    ensure!(taken_back["frames"] == PICTURES, "{taken_back}");
    corrected.becomes(&by_exif).await?;
    corrected.process.stop(&[]).await
}
