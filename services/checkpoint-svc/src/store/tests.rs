use super::*;

const NOW: Timestamp = Timestamp::from_unix_nanos(5);

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn put(store: &Store, name: &str, bytes: &[u8]) -> Result<Stored, CheckpointError> {
    let mut upload = store.begin(0)?;
    for chunk in bytes.chunks(700) {
        upload.write(chunk)?;
    }
    upload.finish(&version(name), None, NOW)
}

fn get(store: &Store, name: &str) -> Result<Vec<u8>, CheckpointError> {
    let checkpoint = store.by_version(&version(name))?.unwrap();
    let mut reader = store.read(&checkpoint)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next()? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let store = Store::open(dir.path(), 1 << 30).unwrap();
    put(&store, "v1", &bytes).unwrap();
    drop(store);
    let store = Store::open(dir.path(), 1 << 30).unwrap();
    assert_eq!(get(&store, "v1").unwrap(), bytes);
    assert_eq!(store.size_bytes(), 3_000_000);
    let by_digest = store.by_digest(&Digest::of(&bytes)).unwrap().unwrap();
    assert_eq!(by_digest.version, version("v1"));
    assert_eq!(by_digest.created, NOW);
}

#[test]
fn an_upload_that_is_not_finished_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    let mut upload = store.begin(0).unwrap();
    upload.write(&[1; 100]).unwrap();
    assert!(put(&store, "v1", b"x").is_err(), "the room is taken");
    drop(upload);
    assert_eq!(
        fs::read_dir(dir.path().join("incoming")).unwrap().count(),
        0
    );
    put(&store, "v1", b"x").unwrap();
}

#[test]
fn half_an_upload_of_a_crash_is_cleared_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), 100).unwrap());
    fs::write(dir.path().join("incoming").join("0"), b"half").unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    put(&store, "v1", b"whole").unwrap();
    assert_eq!(
        fs::read_dir(dir.path().join("incoming")).unwrap().count(),
        0
    );
}

#[test]
fn equal_contents_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    put(&store, "v1", b"same").unwrap();
    put(&store, "v2", b"same").unwrap();
    assert_eq!(store.size_bytes(), 4);
    assert_eq!(store.list().unwrap().len(), 2);
    drop(store);
    assert_eq!(Store::open(dir.path(), 100).unwrap().size_bytes(), 4);
}

#[test]
fn the_store_does_not_grow_over_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), 10, 2).unwrap();
    put(&store, "v1", b"12345").unwrap();
    let error = put(&store, "v2", b"678901").unwrap_err();
    assert!(matches!(error, CheckpointError::Full { limit: 10 }));
    put(&store, "v2", b"6").unwrap();
    let error = put(&store, "v3", b"7").unwrap_err();
    assert!(matches!(error, CheckpointError::TooMany { limit: 2 }));
    assert!(store.by_version(&version("v3")).unwrap().is_none());
}

#[test]
fn contents_that_lose_the_race_for_a_version_take_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 1 << 20).unwrap();
    let mut objects = 0;
    for round in 0..20 {
        let name = version(&format!("v{round}"));
        let start = std::sync::Barrier::new(8);
        let won = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|racer| {
                    let (store, name, start) = (&store, &name, &start);
                    scope.spawn(move || {
                        let mut upload = store.begin(0).unwrap();
                        upload.write(&[round, racer]).unwrap();
                        start.wait();
                        upload.finish(name, None, NOW).is_ok()
                    })
                })
                .collect();
            let results = racers.into_iter().map(|racer| racer.join().unwrap());
            results.filter(|won| *won).count()
        });
        assert_eq!(won, 1);
        objects += 1;
        assert_eq!(store.size_bytes(), 2 * objects);
        assert_eq!(bytes_on_disk(&store), 2 * objects);
    }
    assert_eq!(store.inner.usage().uploading, 0);
}

fn bytes_on_disk(store: &Store) -> u64 {
    let folders = fs::read_dir(&store.inner.objects).unwrap();
    let objects = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    objects.map(|o| o.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn damage_of_any_byte_or_of_the_length_is_found_and_a_new_put_repairs_it() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![9_u8; CHUNK_BYTES + 5];
    let store = Store::open(dir.path(), 1 << 30).unwrap();
    put(&store, "v1", &bytes).unwrap();
    let object = store.inner.object_path(&Digest::of(&bytes));
    for at in [0, CHUNK_BYTES - 1, CHUNK_BYTES + 4] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&object, damaged).unwrap();
        assert!(matches!(
            get(&store, "v1"),
            Err(CheckpointError::Damaged { .. })
        ));
    }
    fs::write(&object, &bytes[1..]).unwrap();
    assert!(matches!(
        get(&store, "v1"),
        Err(CheckpointError::Damaged { .. })
    ));
    fs::remove_file(&object).unwrap();
    assert!(matches!(
        get(&store, "v1"),
        Err(CheckpointError::Damaged { .. })
    ));
    assert!(matches!(put(&store, "v1", &bytes), Ok(Stored::Known(_))));
    assert_eq!(get(&store, "v1").unwrap(), bytes);
}

#[test]
fn what_is_not_announced_is_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    put(&store, "v1", b"a").unwrap();
    put(&store, "v2", b"b").unwrap();
    store.announced(&version("v1")).unwrap();
    drop(store);
    let store = Store::open(dir.path(), 100).unwrap();
    let left: Vec<Version> = store
        .unannounced()
        .unwrap()
        .into_iter()
        .map(|c| c.version)
        .collect();
    assert_eq!(left, [version("v2")]);
}

#[test]
fn an_object_that_nothing_names_is_removed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    put(&store, "v1", b"kept").unwrap();
    let orphan = store.inner.object_path(&Digest::of(b"orphan"));
    drop(store);
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, b"orphan").unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    assert!(!orphan.exists());
    assert_eq!(get(&store, "v1").unwrap(), b"kept");
}

#[test]
fn objects_outlive_the_loss_of_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    put(&store, "v1", b"kept").unwrap();
    let object = store.inner.object_path(&Digest::of(b"kept"));
    drop(store);
    let (index, backup) = (dir.path().join("index.redb"), dir.path().join("backup"));
    fs::rename(&index, &backup).unwrap();
    for _ in 0..2 {
        let error = Store::open(dir.path(), 100).unwrap_err();
        assert!(error.to_string().contains("backup"), "{error}");
    }
    assert!(object.exists() && !index.exists());
    fs::rename(&backup, &index).unwrap();
    let store = Store::open(dir.path(), 100).unwrap();
    assert_eq!(get(&store, "v1").unwrap(), b"kept");
}
