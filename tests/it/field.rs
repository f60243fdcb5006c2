//! Inputs that people's systems choked on, through the front doors of a running node. `field-reports/README.md`
//! says what each is, where it was reported, and what is right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use serde_json::Value;
use sovereign_node::feed::{CaptureNotes, Edge, EdgeError};
use sovereign_proto::geo::v1::TrackingState;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_proto::slam::v1::{Keyframe, ListKeyframesRequest};
use sovereign_tests::process::{Process, binary};
use sovereign_tests::tiles::painted_frames;
use sovereign_tests::wait_for;

const DECIDED_WITHIN: Duration = Duration::from_secs(60);

/// What a picture comes to.
enum Right {
    /// On the map, taken at these degrees, 60 m above the ground and straight down.
    Placed(f64, f64),
    /// Kept without a pose, for a reason that has this in it.
    Waits(&'static str),
    /// Refused at the door, in words that have this in them.
    Refused(&'static str),
}

const PICTURES: [(&str, Right); 14] = [
    ("c01_gps_next_ifd_minus1", Right::Placed(10.01, -91.99)),
    ("c02_segment_00e1", Right::Placed(10.02, -91.99)),
    ("c03_no_eoi", Right::Refused("cut off")),
    ("c09_offset_z", Right::Waits("attitude")),
    ("c10_no_refs", Right::Waits("GPSLatitudeRef")),
    ("c10b_ref_word_south", Right::Placed(-33.5, 151.2)),
    ("c10c_signed_rational", Right::Waits("negative")),
    ("c14_xmp_unbound_prefix", Right::Placed(20.03, -91.99)),
    ("c14b_xmp_duplicate_attribute", Right::Placed(20.04, -91.99)),
    ("c14c_xmp_bare_ampersand", Right::Placed(20.05, -91.99)),
    ("c14d_xmp_nul", Right::Placed(20.06, -91.99)),
    ("c14g_xmp_tag700", Right::Placed(10.05, -91.99)),
    ("c14h_xmp_rdf_only", Right::Placed(20.01, -91.99)),
    ("c17_altitude_ref_3", Right::Placed(-21.0, 55.2)),
];

fn reports() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("field-reports")
}

async fn start(folder: &Path) -> anyhow::Result<(Process, Edge)> {
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
    Ok((process, edge))
}

async fn keyframes(process: &Process) -> anyhow::Result<BTreeMap<String, Keyframe>> {
    let mut slam = SlamClient::new(process.grpc()?);
    let request = ListKeyframesRequest {
        limit: 100,
        ..ListKeyframesRequest::default()
    };
    let listed = slam.list_keyframes(request).await?.into_inner().keyframes;
    Ok(listed
        .into_iter()
        .map(|k| (k.sensor_id.clone(), k))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_on_the_map_or_says_why_not() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (process, edge) = start(folder.path()).await?;
    let mut kept = 0;
    for (name, right) in &PICTURES {
        let jpeg = std::fs::read(reports().join(format!("{name}.jpg")))?;
        let sent = edge
            .upload_capture(name, jpeg, &CaptureNotes::default())
            .await;
        match (right, sent) {
            (Right::Refused(words), Err(EdgeError::Refused { detail, .. })) => {
                ensure!(detail.contains(words), "{name}: {detail}");
            }
            (Right::Placed(..) | Right::Waits(_), Ok(_)) => kept += 1,
            (_, other) => anyhow::bail!("{name}: {other:?}"),
        }
    }
    let verdicts = wait_for(DECIDED_WITHIN, async || {
        let verdicts = keyframes(&process).await?;
        Ok((verdicts.len() == kept).then_some(verdicts))
    })
    .await
    .context("not every picture has a verdict")?;
    let mut placed = 0;
    for (name, right) in &PICTURES {
        let Some(keyframe) = verdicts.get(*name) else {
            continue;
        };
        match right {
            Right::Placed(latitude, longitude) => {
                ensure!(
                    keyframe.state() == TrackingState::Tracking,
                    "{name}: {}",
                    keyframe.reason
                );
                let pose = keyframe.pose.context("a pose")?;
                let place = pose.position.context("a position")?;
                ensure!(
                    (place.latitude_deg - latitude).abs() < 1e-6,
                    "{name}: {place:?}"
                );
                ensure!(
                    (place.longitude_deg - longitude).abs() < 1e-6,
                    "{name}: {place:?}"
                );
                ensure!(pose.height_above_ground_m == Some(60.0), "{name}: {pose:?}");
                let middle = keyframe
                    .footprint
                    .iter()
                    .map(|c| c.latitude_deg)
                    .sum::<f64>()
                    / 4.0;
                ensure!(
                    (middle - latitude).abs() < 1e-6,
                    "{name} does not look down"
                );
                placed += 1;
            }
            Right::Waits(words) => {
                ensure!(keyframe.state() == TrackingState::Lost, "{name}");
                ensure!(
                    keyframe.reason.contains(words),
                    "{name}: {}",
                    keyframe.reason
                );
            }
            Right::Refused(_) => anyhow::bail!("{name} was refused and has a verdict"),
        }
    }
    // What has a pose is on the map: one word everywhere.
    wait_for(DECIDED_WITHIN, async || {
        let painted = painted_frames(process.grpc()?).await?;
        Ok((painted.len() == placed).then_some(()))
    })
    .await
    .context("not every placed picture was painted")?;
    process.stop(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_is_placed_and_cannot_be_painted_says_so_in_its_verdict()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (process, edge) = start(folder.path()).await?;
    let mut jpeg = std::fs::read(reports().join("c14d_xmp_nul.jpg"))?;
    // Half of the pixels, and an end as if they were all.
    let scan = jpeg.windows(2).rposition(|pair| pair == [0xFF, 0xDA]);
    let scan = scan.context("a scan")?;
    jpeg.truncate(scan + (jpeg.len() - scan) / 2);
    jpeg.extend([0xFF, 0xD9]);
    edge.upload_capture("half", jpeg, &CaptureNotes::default())
        .await?;
    let said = wait_for(DECIDED_WITHIN, async || {
        let said = keyframes(&process).await?.remove("half");
        Ok(said.filter(|said| said.state() == TrackingState::Lost))
    })
    .await
    .context("the verdict stays")?;
    ensure!(said.reason.contains("cannot be decoded"), "{}", said.reason);
    ensure!(said.revision == 1, "it was not placed before: {said:?}");
    let painted = painted_frames(process.grpc()?).await?;
    ensure!(painted.is_empty(), "{painted:?}");
    process.stop(&["a frame cannot be painted"]).await
}

/// A JPEG of 64 megapixels that says the same of itself as a reported one.
fn huge() -> anyhow::Result<Vec<u8>> {
    let reported = std::fs::read(reports().join("c14d_xmp_nul.jpg"))?;
    let mut pixels = Vec::new();
    let row = |y: u32| (0..8000_u32).map(move |x| ((x / 8 * 37) ^ (y / 8 * 91)) as u8);
    let grey: Vec<u8> = (0..8000).flat_map(row).collect();
    JpegEncoder::new_with_quality(&mut pixels, 50).write_image(
        &grey,
        8000,
        8000,
        ExtendedColorType::L8,
    )?;
    let scan = reported.windows(2).position(|pair| pair == [0xFF, 0xDB]);
    let about = &reported[..scan.context("tables")?];
    Ok([about, &pixels[2..]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pictures_share_a_bounded_memory() -> anyhow::Result<()> {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir()?;
    let (process, edge) = start(folder.path()).await?;
    let huge = huge()?;
    let pictures = 8;
    for number in 0..pictures {
        // A comment makes it another picture.
        let comment = [0xFF, 0xFE, 0, 3, number];
        let jpeg = [&huge[..2], &comment, &huge[2..]].concat();
        edge.upload_capture("huge", jpeg, &CaptureNotes::default())
            .await?;
    }
    wait_for(DECIDED_WITHIN, async || {
        let painted = painted_frames(process.grpc()?).await?;
        Ok((painted.len() == usize::from(pictures)).then_some(()))
    })
    .await
    .context("not every picture was painted")?;
    let peak = process.peak_memory()?;
    ensure!(peak <= 500 * MIB, "the peak was {} MiB", peak / MIB);
    wait_for(Duration::from_secs(10), async || {
        Ok((process.memory()? <= 350 * MIB).then_some(()))
    })
    .await
    .context("the memory is not given back")?;
    process.stop(&[]).await
}

#[test]
fn a_replay_names_what_it_leaves_out_and_goes_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("recording/strip 2");
    std::fs::create_dir_all(&recording)?;
    for name in [
        "c01_gps_next_ifd_minus1",
        "c03_no_eoi",
        "c10_no_refs",
        "c14d_xmp_nul",
    ] {
        let jpeg = format!("{name}.jpg");
        std::fs::copy(
            reports().join(&jpeg),
            recording.join(jpeg.replace("c14d", "c14d.")),
        )?;
    }
    std::fs::rename(
        recording.join("c14d._xmp_nul.jpg"),
        recording.join("c14d.JPEG"),
    )?;
    std::fs::copy(
        reports().join("c18_clock_jump.tlog"),
        recording.join("c18.tlog"),
    )?;
    std::fs::copy(
        reports().join("c16_high_latency2.jsonl"),
        recording.join("c16.jsonl"),
    )?;
    std::fs::write(
        recording.join("damaged.jsonl"),
        "{\"hex\": \"fd\"}\nno packet\n",
    )?;
    std::fs::write(recording.join("raw.DNG"), "II*\0")?;
    std::fs::write(recording.join("notes.txt"), "not a recording")?;
    let replay = |data: &str, more: &[&str]| {
        std::process::Command::new(binary("sovereign-node")?)
            .arg("replay")
            .arg(folder.path().join("recording"))
            .args(["--speed", "max", "--exit-when-done", "--json", "--data-dir"])
            .arg(folder.path().join(data))
            .args(more)
            .output()
            .context("run the replay")
    };
    let forgiving = replay("forgiving", &[])?;
    let printed = String::from_utf8(forgiving.stdout)?;
    ensure!(forgiving.status.success(), "{printed}");
    let summary: Value = serde_json::from_str(&printed)?;
    ensure!(
        summary["frames_in"] == 2 && summary["frames_placed"] == 2,
        "{summary}"
    );
    // 120 of the log with the clock that jumps, 3 and 1 of the packets.
    ensure!(summary["datagrams"]["received"] == 124, "{summary}");
    let named = summary["left_out"]["named"].as_array().context("names")?;
    for (file, reason) in [
        ("c03_no_eoi.jpg", "cut off"),
        ("c10_no_refs.jpg", "GPSLatitudeRef"),
        ("damaged.jsonl", "line 2"),
        ("raw.DNG", "only JPEG is read"),
    ] {
        let found = named.iter().any(|left_out| {
            let has = |key: &str, part: &str| left_out[key].as_str().unwrap_or("").contains(part);
            has("file", file) && has("reason", reason)
        });
        ensure!(found, "{file}: {summary}");
    }
    ensure!(named.len() == 4, "{summary}");
    let strict = replay("strict", &["--strict"])?;
    let printed = String::from_utf8(strict.stdout)?;
    ensure!(!strict.status.success(), "{printed}");
    ensure!(printed.contains("--strict"), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_from_a_card_are_imported_once_with_a_verdict_each() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (process, edge) = start(&folder.path().join("node")).await?;
    let card = folder.path().join("DCIM");
    std::fs::create_dir_all(card.join("100MEDIA"))?;
    for name in [
        "c02_segment_00e1",
        "c03_no_eoi",
        "c09_offset_z",
        "c14d_xmp_nul",
    ] {
        let jpeg = format!("{name}.jpg");
        std::fs::copy(reports().join(&jpeg), card.join("100MEDIA").join(jpeg))?;
    }
    let token = process.data_dir().join("mobile-ingest/token");
    let certificate = process.data_dir().join("mobile-ingest/tls-cert.pem");
    let near = [
        "--data-dir".into(),
        process.data_dir().as_os_str().to_owned(),
    ];
    let far = [
        "--to".into(),
        edge.console_url().into(),
        "--token-file".into(),
        token.into_os_string(),
        "--certificate".into(),
        certificate.into_os_string(),
    ];
    for (place, known) in [(&near[..], 0), (&far[..], 3)] {
        let output = std::process::Command::new(binary("sovereign-node")?)
            .arg("import")
            .arg(&card)
            .args(["--sensor", "card-1", "--json"])
            .args(place)
            .output()?;
        let printed = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{printed}");
        let outcome: Value = serde_json::from_str(&printed)?;
        ensure!(
            outcome["placed"] == 2 && outcome["waiting"] == 1,
            "{outcome}"
        );
        ensure!(
            outcome["known"] == known && outcome["open"] == 0,
            "{outcome}"
        );
        let left_out = &outcome["left_out"]["named"][0];
        ensure!(outcome["left_out"]["total"] == 1, "{outcome}");
        ensure!(
            left_out["file"].as_str().unwrap_or("").contains("c03"),
            "{outcome}"
        );
        let waiting = outcome["pictures"].as_array().context("pictures")?;
        let waiting = waiting
            .iter()
            .find(|picture| picture["verdict"] == "waiting");
        let reason = waiting.and_then(|picture| picture["reason"].as_str());
        ensure!(
            reason.is_some_and(|reason| reason.contains("attitude")),
            "{outcome}"
        );
    }
    let stats = edge.stats().await?.drones.context("the drone door")?;
    ensure!(
        stats.accepted_by_type["capture"] == 3,
        "sent again: {:?}",
        stats.accepted_by_type
    );
    process.stop(&[]).await
}
