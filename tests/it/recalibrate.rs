//! Somebody tells a running node what a camera really is, and the map follows.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sovereign_node::feed::{CaptureNotes, Edge};
use sovereign_tests::flight::pictures;
use sovereign_tests::process::{Process, binary};
use sovereign_tests::tiles::{digests, painted_revisions};
use sovereign_tests::wait_for;

const PICTURES: u32 = 6;
const PAINTED_WITHIN: Duration = Duration::from_secs(120);
/// The model that the simulated pictures name.
const CAMERA: [&str; 2] = ["--model", "SIM"];
/// Not what their EXIF says.
const FOCAL: [&str; 2] = ["--focal-px-per-width", "0.6"];

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

    /// The map, once every picture is painted from this revision of its pose.
    async fn map(&self, revision: u32) -> anyhow::Result<BTreeMap<(u32, u32, u32), Vec<u8>>> {
        wait_for(PAINTED_WITHIN, async || {
            let painted: HashMap<_, _> = painted_revisions(self.process.grpc()?).await?;
            let of_it = painted.values().filter(|painted| **painted == revision);
            Ok((of_it.count() == PICTURES as usize).then_some(()))
        })
        .await
        .with_context(|| format!("revision {revision}: {}", self.process.log()))?;
        digests(self.process.grpc()?).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_is_painted_again_as_if_the_camera_had_been_known_from_the_start()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let pictures = pictures(PICTURES, (752, 480))?;

    let corrected = Node::start(&folder.path().join("corrected")).await?;
    corrected.upload(&pictures).await?;
    let by_exif = corrected.map(1).await?;
    let said = corrected.calibration(&[&["set"][..], &CAMERA, &FOCAL].concat())?;
    ensure!(said["frames"] == PICTURES, "{said}");
    let by_calibration = corrected.map(2).await?;
    ensure!(by_calibration != by_exif, "the map did not change");
    let listed = corrected.calibration(&["list"])?;
    ensure!(
        listed["calibrations"][0]["focal_px_per_width"] == 0.6,
        "{listed}"
    );

    let known = Node::start(&folder.path().join("known")).await?;
    known.calibration(&[&["set"][..], &CAMERA, &FOCAL].concat())?;
    known.upload(&pictures).await?;
    ensure!(known.map(1).await? == by_calibration, "the maps differ");
    known.process.stop(&[]).await?;

    let taken_back = corrected.calibration(&[&["remove"][..], &CAMERA].concat())?;
    ensure!(taken_back["frames"] == PICTURES, "{taken_back}");
    ensure!(
        corrected.map(3).await? == by_exif,
        "the map is not as before"
    );
    corrected.process.stop(&[]).await
}
