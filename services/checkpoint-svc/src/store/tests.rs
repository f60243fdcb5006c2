use std::time::Duration;

use super::*;
use crate::config::Config;

const NOW: Timestamp = Timestamp::from_unix_nanos(5);

fn limits(max_bytes: u64) -> Limits {
    let mut limits = Config::default().settings().unwrap().limits;
    for class in &mut limits.retention {
        class.max_bytes = max_bytes;
    }
    limits
}

fn open(dir: &Path) -> Store {
    Store::open(dir, limits(1 << 30)).unwrap()
}

fn put(
    store: &Store,
    bytes: &[u8],
    pin: Option<&str>,
    now: Timestamp,
) -> Result<Inserted, StoreError> {
    let mut upload = store.begin(Class::Picture, 0);
    for chunk in bytes.chunks(70_000) {
        upload.write(chunk)?;
    }
    upload.finish(pin.map(ToOwned::to_owned), now)
}

fn get(store: &Store, digest: &Digest, offset: u64, length: u64) -> Result<Vec<u8>, StoreError> {
    let mut reader = store.read(digest, offset, length)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next()? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn bytes(size: u32, salt: u8) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8 ^ salt).collect()
}

#[test]
fn small_and_large_objects_come_back_whole_and_in_parts_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (bytes(100_000, 0), bytes(3_000_000, 0));
    let store = open(dir.path());
    for content in [&small, &large] {
        assert!(!put(&store, content, None, NOW).unwrap().known);
        assert!(put(&store, content, None, NOW).unwrap().known);
    }
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.usage(Class::Picture).0.size_bytes, 3_100_000);
    for content in [&small, &large] {
        let digest = Digest::of(content);
        assert_eq!(get(&store, &digest, 0, 0).unwrap(), *content);
        for (offset, length) in [(0, 1), (99_999, 5), (50_000, 300_000), (1 << 40, 1)] {
            let from = content.len().min(offset as usize);
            let to = content.len().min(from + length as usize);
            let read = get(&store, &digest, offset, length).unwrap();
            assert_eq!(read, content[from..to], "{length} from {offset}");
        }
    }
}

#[test]
fn damage_is_found_and_another_put_repairs_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (small, large) = (bytes(1000, 1), bytes(2_000_000, 1));
    put(&store, &small, None, NOW).unwrap();
    put(&store, &large, None, NOW).unwrap();
    let pack = dir.path().join("packs").join("0");
    let mut damaged = std::fs::read(&pack).unwrap();
    damaged[500] ^= 1;
    std::fs::write(&pack, damaged).unwrap();
    let mut damaged = large.clone();
    damaged[1_999_999] ^= 1;
    std::fs::write(store.files.object_path(&Digest::of(&large)), damaged).unwrap();
    for content in [&small, &large] {
        let digest = Digest::of(content);
        let error = get(&store, &digest, 0, 0).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(put(&store, content, None, NOW).unwrap().known);
        assert_eq!(get(&store, &digest, 0, 0).unwrap(), *content);
    }
}

#[test]
fn what_is_wanted_least_goes_first_and_what_is_kept_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), limits(10_000)).unwrap();
    let content = |salt| bytes(3000, salt);
    let at = |second: i64| Timestamp::from_unix_nanos(second * 1_000_000_000);
    put(&store, &content(1), Some("unread"), at(1)).unwrap();
    let preferred = put(&store, &content(2), Some("unread"), at(2)).unwrap();
    put(&store, &content(3), None, at(3)).unwrap();
    let change = |name: &str, rank| PinChange {
        digest: preferred.object.digest,
        name: name.to_owned(),
        rank,
    };
    let changes = vec![change("map", Rank::Prefer), change("unread", Rank::Free)];
    assert_eq!(store.update_pins(changes, at(4)).unwrap(), 0);
    let here = |salt| store.object(&Digest::of(&content(salt))).unwrap().is_some();

    put(&store, &content(4), Some("unread"), at(5)).unwrap();
    assert_eq!([1, 2, 3, 4].map(here), [true, true, false, true]);
    put(&store, &content(5), Some("unread"), at(6)).unwrap();
    assert_eq!([1, 2, 3, 4, 5].map(here), [true, false, false, true, true]);
    let error = put(&store, &content(6), None, at(7)).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    let usage = store.usage(Class::Picture).0;
    assert_eq!((usage.expired, usage.evicted, usage.uploading), (1, 1, 0));
}

#[test]
fn age_counts_from_when_the_last_pin_went_and_gives_the_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hours = |hours: u64| {
        Timestamp::from_system_time(
            std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3600),
        )
    };
    let kept = put(&store, &bytes(1000, 1), Some("unread"), hours(0)).unwrap();
    for salt in 2..4 {
        put(&store, &bytes(900_000, salt), None, hours(0)).unwrap();
    }
    let unpin = PinChange {
        digest: kept.object.digest,
        name: "unread".to_owned(),
        rank: Rank::Free,
    };
    store.retain(hours(100)).unwrap();
    assert_eq!(store.usage(Class::Picture).0.objects, 1);
    store.update_pins(vec![unpin], hours(100)).unwrap();
    store.retain(hours(147)).unwrap();
    assert_eq!(store.usage(Class::Picture).0.objects, 1);
    store.retain(hours(149)).unwrap();
    assert_eq!(store.usage(Class::Picture).0.objects, 0);
}

#[test]
fn what_nobody_was_told_of_goes_at_the_start_and_a_lost_index_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let kept = bytes(1000, 1);
    let store = open(dir.path());
    put(&store, &kept, None, NOW).unwrap();
    let orphan = store.files.object_path(&Digest::of(b"orphan"));
    drop(store);
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, b"orphan").unwrap();
    std::fs::write(dir.path().join("incoming").join("0"), b"half").unwrap();
    let store = open(dir.path());
    assert!(!orphan.exists());
    assert_eq!(get(&store, &Digest::of(&kept), 0, 0).unwrap(), kept);
    drop(store);
    std::fs::rename(dir.path().join("index.redb"), dir.path().join("backup")).unwrap();
    let error = Store::open(dir.path(), limits(1 << 30)).unwrap_err();
    assert!(matches!(error, StoreError::IndexLost { .. }), "{error}");
}

#[test]
fn a_pack_of_holes_is_written_anew_and_what_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let kept: Vec<Vec<u8>> = (0..3).map(|salt| bytes(10, salt)).collect();
    let store = open(dir.path());
    for content in &kept {
        put(&store, content, Some("unread"), NOW).unwrap();
    }
    for salt in 0..=255 {
        put(&store, &bytes(400_000, salt), None, NOW).unwrap();
    }
    let packs = || std::fs::read_dir(dir.path().join("packs")).unwrap().count();
    assert_eq!(packs(), 2);
    let later = NOW.checked_add(Duration::from_secs(1 << 20)).unwrap();
    store.retain(later).unwrap();
    assert_eq!(packs(), 1);
    drop(store);
    let store = open(dir.path());
    for content in &kept {
        assert_eq!(get(&store, &Digest::of(content), 0, 0).unwrap(), *content);
    }
}

#[test]
fn many_that_come_together_are_all_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for salt in 0..64 {
            let store = &store;
            scope.spawn(move || put(store, &bytes(1000, salt), None, NOW).unwrap());
        }
    });
    assert_eq!(store.usage(Class::Picture).0.objects, 64);
    for salt in 0..64 {
        let content = bytes(1000, salt);
        assert_eq!(get(&store, &Digest::of(&content), 0, 0).unwrap(), content);
    }
}
