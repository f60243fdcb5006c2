use super::*;

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");
const LAYOUT: Layout = Layout {
    format: 1,
    page_cache_bytes: 1 << 20,
};

fn open(path: &Path) -> (Database, Found) {
    let database = try_open(path, LAYOUT).unwrap();
    let found = database.found().clone();
    (database, found)
}

fn try_open(path: &Path, layout: Layout) -> Result<Database, OpenDatabaseError> {
    Database::open(path, layout, |write| {
        write.open_table(ROWS)?;
        Ok(())
    })
}

fn put(database: &Database, number: u64) {
    let write = database.begin_write().unwrap();
    write
        .open_table(ROWS)
        .unwrap()
        .insert(number, [number as u8; 300].as_slice())
        .unwrap();
    write.commit().unwrap();
}

/// How many rows are there and as they were written.
fn rows(database: &Database) -> Result<u64, redb::Error> {
    let mut whole = 0;
    for row in database.begin_read()?.open_table(ROWS)?.iter()? {
        let (number, value) = row?;
        whole += u64::from(value.value() == [number.value() as u8; 300]);
    }
    Ok(whole)
}

/// A file with so many rows, and its mark: closed in order, or as a killed process leaves it.
fn sample(folder: &Path, count: u64, is_closed: bool) -> (Vec<u8>, Vec<u8>) {
    let path = folder.join("sample.redb");
    let (database, found) = open(&path);
    assert_eq!(found, Found::New);
    (0..count).for_each(|number| put(&database, number));
    if is_closed {
        drop(database);
    }
    (
        fs::read(&path).unwrap(),
        fs::read(mark_path(&path)).unwrap(),
    )
}

#[test]
fn a_file_that_another_has_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.redb");
    let held = open(&path);
    let error = try_open(&path, LAYOUT).unwrap_err();
    assert!(error.to_string().contains("a.redb"), "{error}");
    drop(held);
    assert_eq!(open(&path).1, Found::Whole);
}

#[test]
fn no_flipped_byte_goes_unnoticed_or_ends_the_process() {
    const COUNT: u64 = 12;
    for is_closed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (file, mark) = sample(folder.path(), COUNT, is_closed);
        let path = folder.path().join("flipped.redb");
        let mut noticed = 0;
        // All of the header, where both commits are, and every so often a byte of the rest.
        for at in (0..320).chain((320..file.len()).step_by(97)) {
            let mut flipped = file.clone();
            flipped[at] ^= 0x5A;
            fs::write(&path, &flipped).unwrap();
            fs::write(mark_path(&path), &mark).unwrap();
            let (database, found) = open(&path);
            let missing = rows(&database).map_or(COUNT, |rows| COUNT - rows);
            assert!(missing == 0 || found.is_damaged(), "byte {at}: {found:?}");
            noticed += u32::from(found.is_damaged());
            if let Found::Replaced { aside, .. } = found {
                assert_eq!(fs::read(aside.unwrap()).unwrap(), flipped);
            }
            drop(database);
            assert_eq!(open(&path).1, Found::Whole, "it is told once");
        }
        assert!(noticed > 20, "{noticed} flips did harm");
    }
}

#[test]
fn a_file_that_lost_its_last_commit_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.redb");
    let (database, _) = open(&path);
    put(&database, 0);
    drop(database);
    let before = fs::read(&path).unwrap();
    let (database, _) = open(&path);
    put(&database, 1);
    put(&database, 2);
    drop(database);
    fs::write(&path, before).unwrap();
    let (database, found) = open(&path);
    assert_eq!(found, Found::Behind { commits: 2 });
    assert_eq!(rows(&database).unwrap(), 1);
}

#[test]
fn a_file_that_is_gone_or_empty_is_not_taken_for_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.redb");
    for spoil in [
        |path: &Path| fs::write(path, ""),
        |path: &Path| fs::remove_file(path),
    ] {
        put(&open(&path).0, 0);
        spoil(&path).unwrap();
        assert!(matches!(open(&path).1, Found::Replaced { aside: None, .. }));
    }
}

#[test]
fn a_file_of_a_later_version_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.redb");
    let later = Layout {
        format: 2,
        ..LAYOUT
    };
    let database = try_open(&path, later).unwrap();
    put(&database, 0);
    drop(database);
    let error = try_open(&path, LAYOUT).unwrap_err().to_string();
    assert!(error.contains("a.redb is of format 2"), "{error}");
    assert_eq!(rows(&try_open(&path, later).unwrap()).unwrap(), 1);
}

#[test]
fn damaged_files_are_kept_up_to_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.redb");
    for _ in 0..MAX_ASIDE + 3 {
        fs::write(&path, "no database").unwrap();
        assert!(open(&path).1.is_damaged());
    }
    let aside = fs::read_dir(folder.path()).unwrap();
    // The file and its mark are the other two.
    assert_eq!(aside.count() as u32, MAX_ASIDE + 2);
}
