use super::*;

fn keyframe(sensor: &str, number: u32) -> Keyframe {
    Keyframe {
        frame_id: format!("{sensor}-{number}"),
        sensor_id: sensor.to_owned(),
        captured_unix_nanos: i64::from(number),
        ..Keyframe::default()
    }
}

fn record(sensor: &str, number: u32) -> Record {
    let capture = Capture {
        sensor_id: sensor.to_owned(),
        picture: Some(sovereign_proto::geo::v1::PictureFacts {
            camera_model: format!("model {}", number % 2),
            ..Default::default()
        }),
        ..Capture::default()
    };
    Record::new(&capture, keyframe(sensor, number))
}

fn ids(keyframes: &[Keyframe]) -> Vec<&str> {
    keyframes.iter().map(|k| k.frame_id.as_str()).collect()
}

#[test]
fn the_newest_of_one_sensor_or_of_all_come_back_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("k.redb"), 100, Counter::default()).unwrap();
    for number in 0..3 {
        store.put(&record("a", number), None).unwrap();
        store.put(&record("b", number), None).unwrap();
    }
    assert_eq!(
        ids(&store.newest(None, 3).unwrap().keyframes),
        ["b-1", "a-2", "b-2"]
    );
    assert_eq!(
        ids(&store.newest(Some("a"), 2).unwrap().keyframes),
        ["a-1", "a-2"]
    );
    assert_eq!(
        ids(&store.newest(Some("c"), 2).unwrap().keyframes),
        Vec::<&str>::new()
    );
    assert_eq!(store.record("b-1").unwrap(), Some(record("b", 1)));
    assert_eq!(store.record("b-9").unwrap(), None);
}

#[test]
fn what_came_after_a_position_is_each_frame_once_with_its_newest_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.redb");
    let store = Store::open(&path, 3, Counter::default()).unwrap();
    let since = |store: &Store, sensor, after, limit| {
        let page = store.since(sensor, after, limit).unwrap();
        let ids = ids(&page.keyframes).into_iter().map(str::to_owned);
        (ids.collect::<Vec<_>>().join(" "), page.position)
    };
    assert_eq!(since(&store, None, 0, 9), (String::new(), 0));
    for number in 0..3 {
        store.put(&record("a", number), None).unwrap();
    }
    let position = store.newest(None, 1).unwrap().position;
    assert_eq!(since(&store, None, position, 9), (String::new(), position));
    assert_eq!(since(&store, None, 0, 2), ("a-0 a-1".to_owned(), 2));
    assert_eq!(since(&store, None, 2, 2), ("a-2".to_owned(), 3));

    let revised = Keyframe {
        revision: 2,
        ..keyframe("a", 0)
    };
    store
        .judged_again(0, Some((record("a", 0), revised)))
        .unwrap();
    let (told, then) = since(&store, None, position, 9);
    assert_eq!(told, "a-0");
    assert_eq!(since(&store, None, 0, 9).0, "a-1 a-2 a-0");

    // The oldest goes for the new one, though its verdict was the newest; the numbers go on all the same.
    store.put(&record("b", 0), None).unwrap();
    drop(store);
    let store = Store::open(&path, 3, Counter::default()).unwrap();
    assert_eq!(
        since(&store, None, 0, 9),
        ("a-1 a-2 b-0".to_owned(), then + 1)
    );
    assert_eq!(since(&store, Some("a"), 2, 9), ("a-2".to_owned(), then + 1));
    assert_eq!(since(&store, None, then + 9, 9), (String::new(), then + 1));
}

#[test]
fn a_known_frame_stays_as_it_is_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.redb");
    let store = Store::open(&path, 100, Counter::default()).unwrap();
    store.put(&record("a", 1), None).unwrap();
    let changed = Keyframe {
        reason: "changed".to_owned(),
        ..keyframe("a", 1)
    };
    let changed = Record {
        verdicts: vec![changed],
        ..record("a", 1)
    };
    store.put(&changed, None).unwrap();
    drop(store);
    let store = Store::open(&path, 100, Counter::default()).unwrap();
    assert_eq!(store.newest(None, 9).unwrap().keyframes, [keyframe("a", 1)]);
}

#[test]
fn beyond_the_capacity_the_oldest_goes_with_all_that_points_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("k.redb"), 3, Counter::default()).unwrap();
    for number in 0..5 {
        store.put(&record("a", number), Some(b"preview")).unwrap();
    }
    assert_eq!(
        ids(&store.newest(Some("a"), 9).unwrap().keyframes),
        ["a-2", "a-3", "a-4"]
    );
    assert_eq!(store.record("a-1").unwrap(), None);
    assert_eq!(store.previews("a").unwrap().len(), 3);
}

#[test]
fn previews_of_a_sensor_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("k.redb"), 1000, Counter::default()).unwrap();
    for number in 0..70 {
        store.put(&record("a", number), Some(&[1])).unwrap();
    }
    store.put(&record("b", 0), Some(&[2])).unwrap();
    let kept = store.previews("a").unwrap();
    assert_eq!(kept.len(), MAX_PREVIEWS_PER_SENSOR);
    assert_eq!(kept[0].0.frame_id, "a-6");
    assert_eq!(store.newest(Some("a"), 1000).unwrap().keyframes.len(), 70);
}

/// A bit falls over in a record, behind the store's back.
fn damage<K: redb::Key + 'static>(
    path: &Path,
    table: TableDefinition<'_, K, &[u8]>,
    key: K::SelfType<'_>,
) {
    let database = redb::Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(table).unwrap();
        let mut bytes = table.get(&key).unwrap().unwrap().value().to_vec();
        *bytes.last_mut().unwrap() ^= 4;
        table.insert(key, bytes.as_slice()).unwrap();
    }
    write.commit().unwrap();
}

#[test]
fn a_damaged_keyframe_counts_as_absent_and_its_frame_is_kept_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.redb");
    {
        let store = Store::open(&path, 100, Counter::default()).unwrap();
        for number in 0..3 {
            store.put(&record("a", number), Some(b"preview")).unwrap();
        }
    }
    damage(&path, KEYFRAMES, 1);
    let counted = Counter::default();
    let store = Store::open(&path, 100, counted.clone()).unwrap();
    assert_eq!(store.record("a-1").unwrap(), None);
    assert_eq!(counted.get(), 1);
    for sensor in [None, Some("a")] {
        // What is damaged takes no room in the answer.
        assert_eq!(
            ids(&store.newest(sensor, 2).unwrap().keyframes),
            ["a-0", "a-2"]
        );
    }
    let previews = store.previews("a").unwrap();
    assert_eq!(previews.len(), 2);
    assert_eq!(previews[0].1, b"preview");
    assert_eq!(counted.get(), 4);

    store.put(&record("a", 1), Some(b"anew")).unwrap();
    assert_eq!(store.record("a-1").unwrap(), Some(record("a", 1)));
    for sensor in [None, Some("a")] {
        assert_eq!(
            ids(&store.newest(sensor, 9).unwrap().keyframes),
            ["a-0", "a-2", "a-1"]
        );
    }
    assert_eq!(store.previews("a").unwrap().len(), 3);
    assert_eq!(counted.get(), 4);
}

#[test]
fn a_damaged_preview_is_no_reference() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.redb");
    {
        let store = Store::open(&path, 100, Counter::default()).unwrap();
        for number in 0..3 {
            store.put(&record("a", number), Some(b"preview")).unwrap();
        }
    }
    damage(&path, PREVIEWS, ("a", 1));
    let counted = Counter::default();
    let store = Store::open(&path, 100, counted.clone()).unwrap();
    let kept = store.previews("a").unwrap();
    let kept: Vec<_> = kept.iter().map(|(k, _)| k.frame_id.as_str()).collect();
    assert_eq!((kept, counted.get()), (vec!["a-0", "a-2"], 1));
}

#[test]
fn the_oldest_makes_room_even_when_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.redb");
    {
        let store = Store::open(&path, 3, Counter::default()).unwrap();
        for number in 0..3 {
            store.put(&record("a", number), Some(b"preview")).unwrap();
        }
    }
    damage(&path, KEYFRAMES, 0);
    let counted = Counter::default();
    let store = Store::open(&path, 3, counted.clone()).unwrap();
    store.put(&record("b", 0), None).unwrap();
    assert_eq!(counted.get(), 1);
    assert_eq!(
        ids(&store.newest(None, 9).unwrap().keyframes),
        ["a-1", "a-2", "b-0"]
    );
    let read = store.database.begin_read().unwrap();
    assert_eq!(read.open_table(BY_FRAME).unwrap().len().unwrap(), 3);
    assert_eq!(read.open_table(BY_SENSOR).unwrap().len().unwrap(), 3);
    assert_eq!(read.open_table(PREVIEWS).unwrap().len().unwrap(), 2);
}

#[test]
fn a_calibration_finds_the_frames_of_its_camera_and_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.redb");
    let calibration = |sensor: &str| Calibration {
        camera: crate::domain::camera::CameraModel {
            model: "model 0".to_owned(),
            focal_px_per_width: 0.7,
            k1: 0.1,
            k2: -0.1,
        },
        sensor_id: sensor.to_owned(),
        set: sovereign_model::Timestamp::from_unix_nanos(5),
    };
    let store = Store::open(&path, 100, Counter::default()).unwrap();
    for number in 0..4 {
        store.put(&record("a", number), None).unwrap();
        store.put(&record("b", number), None).unwrap();
    }
    assert_eq!(store.set_calibration(&calibration("a")).unwrap(), 2);
    assert_eq!(store.waiting().unwrap(), 2);
    assert_eq!(store.set_calibration(&calibration("")).unwrap(), 4);
    assert_eq!(store.waiting().unwrap(), 4);
    drop(store);

    let store = Store::open(&path, 100, Counter::default()).unwrap();
    let kept = store.calibrations().unwrap();
    assert_eq!(kept, [calibration(""), calibration("a")]);
    let mut seen = Vec::new();
    while let Some((place, waiting)) = store.next_waiting().unwrap() {
        let waiting = waiting.unwrap();
        let mut verdict = waiting.current().unwrap().clone();
        seen.push(verdict.frame_id.clone());
        verdict.revision = 1;
        store.judged_again(place, Some((waiting, verdict))).unwrap();
    }
    assert_eq!(seen, ["a-0", "b-0", "a-2", "b-2"]);
    let revised = store.record("a-2").unwrap().unwrap();
    let revisions: Vec<u32> = revised.verdicts.iter().map(|v| v.revision).collect();
    assert_eq!(revisions, [1, 0]);
    assert_eq!(store.remove_calibration("model 0", "a").unwrap(), 2);
    assert_eq!(store.calibrations().unwrap(), [calibration("")]);
    assert_eq!(store.set_calibration(&calibration("c")).unwrap(), 0);
}

#[test]
fn no_more_than_a_few_verdicts_are_kept_of_a_frame() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("k.redb"), 100, Counter::default()).unwrap();
    store.put(&record("a", 0), None).unwrap();
    for revision in 1..40 {
        let known = store.record("a-0").unwrap().unwrap();
        let verdict = Keyframe {
            revision,
            ..keyframe("a", 0)
        };
        store.judged_again(0, Some((known, verdict))).unwrap();
    }
    let known = store.record("a-0").unwrap().unwrap();
    assert_eq!(known.verdicts.len(), MAX_VERDICTS);
    assert_eq!(known.current().unwrap().revision, 39);
}
