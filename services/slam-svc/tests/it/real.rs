//! Real pictures, where they are at hand.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use slam_svc::Config;
use sovereign_bus::Key;
use sovereign_model::geo::{Enu, Geodetic, LocalFrame};
use sovereign_model::{CameraPose, Digest, Intrinsics};
use sovereign_objects::ObjectClass;
use sovereign_proto::geo::v1::{Capture, TrackingState};
use sovereign_proto::slam::v1::PoseSource;
use sovereign_proto::topics::MOBILE_CAPTURE;

use crate::rig::{Sent, start};

/// A folder of real data, or a line that says why it is not there.
fn real_data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SOVEREIGN_DATA")
        .map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
            PathBuf::from,
        )
        .join(name);
    if folder.join("images").is_dir() {
        Some(folder)
    } else {
        say(&format!(
            "skipped: no real data in {} (set SOVEREIGN_DATA)",
            folder.display()
        ));
        None
    }
}

/// Not through the macros, whose output is hidden while a test passes.
fn say(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

/// A line of the reference: centre and rotation in a local frame.
struct Reference {
    name: String,
    centre: Enu,
    enu_from_camera: nalgebra::UnitQuaternion<f64>,
}

fn references(folder: &Path) -> Vec<Reference> {
    std::fs::read_to_string(folder.join("reference_poses_colmap.csv"))
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("DJI_"))
        .map(|line| {
            let mut fields = line.split(',');
            let name = fields.next().unwrap().to_owned();
            let n: Vec<f64> = fields.map(|field| field.parse().unwrap()).collect();
            Reference {
                name,
                centre: Enu {
                    east: n[0],
                    north: n[1],
                    up: n[2],
                },
                enu_from_camera: nalgebra::UnitQuaternion::from_quaternion(
                    nalgebra::Quaternion::new(n[3], n[4], n[5], n[6]),
                ),
            }
        })
        .collect()
}

#[tokio::test]
async fn the_real_survey_is_placed_as_its_reconstruction_says() {
    let Some(folder) = real_data("aerial-brighton-beach") else {
        return;
    };
    // Origin of the reference: latitude and longitude as its first line says, altitude zero.
    let frame = LocalFrame::at(Geodetic::new(46.842_656_667, -91.994_008_025, 0.0).unwrap());
    let references = references(&folder);
    assert_eq!(references.len(), 10);
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    for reference in &references {
        let image = std::fs::read(folder.join("images").join(&reference.name)).unwrap();
        let sent = Capture {
            frame_id: Digest::of(reference.name.as_bytes()).to_hex(),
            sensor_id: "brighton".to_owned(),
            received_unix_nanos: 1,
            ..Capture::default()
        };
        let sent = Sent::of(sent, image);
        slam.capture(&sent).await;
        let keyframe = slam.keyframe().await;
        let name = &reference.name;
        assert_eq!(
            keyframe.state(),
            TrackingState::Tracking,
            "{name}: {}",
            keyframe.reason
        );
        assert_eq!(keyframe.source(), PoseSource::ImageMetadata);
        assert_eq!(keyframe.footprint.len(), 4);

        let pose = CameraPose::try_from(keyframe.pose.as_ref().unwrap()).unwrap();
        let centre = frame.enu_from_geodetic(&pose.position);
        let off_m =
            (centre.east - reference.centre.east).hypot(centre.north - reference.centre.north);
        assert!(off_m < 2.0, "{name}: {off_m:.2} m from the reference");
        assert!((centre.up - reference.centre.up).abs() < 2.0, "{name}");

        let image_up = -nalgebra::Vector3::y();
        let azimuth = |rotation: &nalgebra::UnitQuaternion<f64>| {
            let up = rotation * image_up;
            up.x.atan2(up.y).to_degrees()
        };
        let off_deg = (azimuth(&pose.enu_from_camera) - azimuth(&reference.enu_from_camera)
            + 540.0)
            .rem_euclid(360.0)
            - 180.0;
        assert!(
            off_deg.abs() < 5.0,
            "{name}: turned by {off_deg:.1} degrees"
        );

        // What neighbours agree on: 0.01663 m a pixel.
        let camera = Intrinsics::try_from(keyframe.intrinsics.as_ref().unwrap()).unwrap();
        let metres_per_pixel = pose.height_above_ground_m / camera.fx_px();
        assert!(
            (metres_per_pixel / 0.016_63 - 1.0).abs() < 0.02,
            "{name}: {metres_per_pixel}"
        );
        say(&format!(
            "{name}: {off_m:.2} m, {off_deg:.1} degrees, {metres_per_pixel:.5} m a pixel"
        ));
    }
    slam.end().await;
}

#[tokio::test]
async fn real_phone_pictures_are_positions() {
    let Some(folder) = real_data("phone-photos-lund") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let phone = Key::parse("phone-1").unwrap();
    let mut pictures: Vec<_> = std::fs::read_dir(folder.join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pictures.sort();
    assert_eq!(pictures.len(), 15);
    for path in pictures {
        let image = std::fs::read(&path).unwrap();
        let sent = Capture {
            frame_id: Digest::of(&image).to_hex(),
            sensor_id: "phone-1".to_owned(),
            ..Capture::default()
        };
        let sent = Sent::of(sent, image);
        slam.store.put(ObjectClass::Picture, sent.image);
        let sent = sent.capture;
        slam.bus
            .append(&MOBILE_CAPTURE, Some(&phone), &sent.frame_id, &sent)
            .await
            .unwrap();
        let keyframe = slam.keyframe().await;
        assert!(
            keyframe.reason.starts_with("no attitude"),
            "{}",
            keyframe.reason
        );
        let pose = slam.pose().await.pose.unwrap();
        let position = pose.position.unwrap();
        // Lund, Sweden.
        assert!((position.latitude_deg - 55.7).abs() < 0.1, "{position:?}");
        assert!((position.longitude_deg - 13.2).abs() < 0.1, "{position:?}");
    }
    slam.end().await;
}
