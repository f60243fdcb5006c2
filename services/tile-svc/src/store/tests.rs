use super::*;
use crate::canvas::Canvas;
use crate::domain::pyramid::Below;
use crate::domain::raster::{Raster, Rect, digest_of_rgbw};

const CACHE: usize = 64 << 20;

fn coord(z: u8, x: u32, y: u32) -> TileCoord {
    TileCoord::new(z, x, y).unwrap()
}

fn patch(seed: u32) -> Raster {
    let mut bytes = vec![0; TILE_BYTES];
    for (i, pixel) in bytes.chunks_exact_mut(4).enumerate() {
        let value = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 16;
        pixel.copy_from_slice(&[value as u8, (value >> 3) as u8, 7, 1 + (value % 250) as u8]);
    }
    Raster::from_rgbw(&bytes).unwrap()
}

fn painted(seed: u32) -> Planes {
    let mut planes = Planes::empty();
    planes.paint(&patch(seed));
    planes
}

fn entry(frame_id: &str) -> Entry {
    Entry {
        frame_id: frame_id.to_owned(),
        message: frame_id.bytes().rev().collect(),
    }
}

fn commit(tiles: Vec<(TileCoord, Planes)>, frame_id: &str) -> Commit {
    Commit {
        tiles: tiles
            .into_iter()
            .map(|(coord, planes)| Fresh::encode(coord, planes))
            .collect(),
        frames: vec![entry(frame_id)],
        bounds: None,
        simulated: false,
    }
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    let (deep, shallow) = (coord(20, 5, 6), coord(3, 1, 1));
    let mut both = painted(1);
    both.derive(
        [
            Below::Pixels(&patch(9)),
            Below::Nothing,
            Below::Nothing,
            Below::Nothing,
        ],
        Rect::FULL,
    );
    assert_eq!(both.rasters(), 2);
    {
        let store = Store::open(&path, CACHE).unwrap();
        assert_eq!(store.summary(), LayerSummary::EMPTY);
        let mut first = commit(vec![(deep, painted(2)), (shallow, both.clone())], "a");
        first.simulated = true;
        first.bounds = Some(deep.bounds());
        store.commit(&first).unwrap();
        store
            .commit(&commit(vec![(deep, painted(3))], "b"))
            .unwrap();
    }
    let store = Store::open(&path, CACHE).unwrap();
    assert_eq!(
        store.summary(),
        LayerSummary {
            tiles: 2,
            min_zoom: 3,
            max_zoom: 20,
            bounds: Some(deep.bounds()),
            last_change: 2,
            simulated: true,
        }
    );
    assert_eq!(store.read(deep).unwrap().unwrap().planes, painted(3));
    let stored = store.read(shallow).unwrap().unwrap();
    assert_eq!(stored.planes, both);
    assert_eq!(stored.digest, digest_of_rgbw(&both.shown().to_rgbw()));
    assert!(store.read(coord(20, 6, 6)).unwrap().is_none());
    assert!(store.is_painted("a").unwrap() && store.is_painted("b").unwrap());
    assert!(!store.is_painted("c").unwrap());
}

#[test]
fn changes_are_paged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("tiles.redb"), CACHE).unwrap();
    assert_eq!(store.changes(0, 10, usize::MAX).unwrap(), Page::default());
    for id in ["ab", "cd", "ef"] {
        store.commit(&commit(vec![], id)).unwrap();
    }
    let page = |after, limit| {
        let page = store.changes(after, limit, usize::MAX).unwrap();
        (page.messages, page.oldest_kept)
    };
    assert_eq!(page(0, 2), (vec![b"ba".to_vec(), b"dc".to_vec()], 1));
    assert_eq!(page(2, 2), (vec![b"fe".to_vec()], 1));
    assert_eq!(page(u64::MAX, 2), (vec![], 1));
    let bounded = |max_bytes| store.changes(0, 9, max_bytes).unwrap().messages.len();
    assert_eq!([bounded(0), bounded(100), bounded(200)], [1, 2, 3]);
}

#[test]
fn damaged_changes_are_passed_over_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    {
        let store = Store::open(&path, CACHE).unwrap();
        for id in ["ab", "cd", "ef", "gh"] {
            store.commit(&commit(vec![], id)).unwrap();
        }
    }
    for sequence in [1, 2] {
        spoil(&path, CHANGES, sequence, |value| value[36] ^= 4);
    }
    let store = Store::open(&path, CACHE).unwrap();
    let page = store.changes(0, 1, usize::MAX).unwrap();
    // Two pages of damage come before it.
    assert_eq!(page.messages, [b"fe".to_vec()]);
    assert_eq!((page.oldest_kept, page.damaged), (1, 2));
    let page = store.changes(1, 9, usize::MAX).unwrap();
    assert_eq!(page.messages, [b"fe".to_vec(), b"hg".to_vec()]);
    assert_eq!(page.damaged, 1);
}

#[test]
fn the_oldest_changes_go_first_and_their_frames_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("tiles.redb"), CACHE).unwrap();
    let many = |range: std::ops::Range<u64>| Commit {
        tiles: vec![],
        frames: range.map(|i| entry(&format!("f{i}"))).collect(),
        bounds: None,
        simulated: false,
    };
    store.commit(&many(0..MAX_CHANGES)).unwrap();
    assert!(store.is_painted("f0").unwrap());
    store.commit(&many(MAX_CHANGES..MAX_CHANGES + 2)).unwrap();
    assert_eq!(store.changes(0, 1, usize::MAX).unwrap().oldest_kept, 3);
    assert!(!store.is_painted("f1").unwrap());
    assert!(store.is_painted("f2").unwrap());
}

/// Changes a value behind the store's back.
fn spoil(
    path: &Path,
    table: TableDefinition<'_, u64, &[u8]>,
    key: u64,
    change: impl Fn(&mut Vec<u8>),
) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        let mut value = table.get(key).unwrap().unwrap().value().to_vec();
        change(&mut value);
        table.insert(key, value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn no_flipped_bit_and_no_truncation_is_served() {
    let mut sealed = Fresh::encode(coord(9, 1, 2), painted(4)).sealed;
    let key = key_of(coord(9, 1, 2)).to_le_bytes();
    let opens = |bytes: &[u8]| unsealed(&key, bytes).and_then(stored_from_bytes).is_some();
    assert!(opens(&sealed));
    let bits = sealed.len() * 8;
    for i in 0..500 {
        let bit = i * 7_919 % bits;
        sealed[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&sealed), "bit {bit}");
        sealed[bit / 8] ^= 1 << (bit % 8);
    }
    for i in 0..200 {
        assert!(!opens(&sealed[..i * 104_729 % sealed.len()]));
    }
    let elsewhere = key_of(coord(9, 2, 2)).to_le_bytes();
    assert!(
        unsealed(&elsewhere, &sealed).is_none(),
        "a tile in the wrong place"
    );
}

#[test]
fn a_damaged_tile_is_reported_and_rebuilt_from_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    let (parent, children) = (coord(9, 4, 4), coord(9, 4, 4).children().unwrap());
    let mut derived = Planes::empty();
    let pixels = [patch(1), patch(2), patch(3), patch(4)];
    derived.derive(pixels.each_ref().map(Below::Pixels), Rect::FULL);
    {
        let store = Store::open(&path, CACHE).unwrap();
        let mut tiles: Vec<_> = (1..)
            .map(painted)
            .zip(children)
            .map(|(p, c)| (c, p))
            .collect();
        tiles.push((parent, derived.clone()));
        store.commit(&commit(tiles, "a")).unwrap();
    }
    spoil(&path, TILES, key_of(parent), |value| value[900] ^= 4);
    let store = Store::open(&path, CACHE).unwrap();
    assert!(matches!(store.load(parent).unwrap(), Found::Damaged));
    let error = store.read(parent).unwrap_err().to_string();
    assert_eq!(error, "tile 9/4/4 is damaged in the tile store");
    assert!(
        store.read(children[0]).unwrap().is_some(),
        "the others are served"
    );

    // Any change of a child brings the parent back, with everything that the others hold.
    let mut canvas = Canvas::new(&store, 9);
    canvas.expect_parent(
        children[2],
        Rect {
            x0: 0,
            y0: 0,
            x1: 1,
            y1: 1,
        },
    );
    let finished = canvas.finish().unwrap();
    assert_eq!(finished.damaged, [parent]);
    assert_eq!(finished.tiles[0].stored.planes, derived);
}

#[test]
fn a_damaged_child_is_reported_and_what_was_seen_of_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    let (parent, children) = (coord(9, 4, 4), coord(9, 4, 4).children().unwrap());
    let pixels = [patch(1), patch(2), patch(3), patch(4)];
    let mut derived = Planes::empty();
    derived.derive(pixels.each_ref().map(Below::Pixels), Rect::FULL);
    {
        let store = Store::open(&path, CACHE).unwrap();
        let mut tiles: Vec<_> = children.into_iter().zip((1..).map(painted)).collect();
        tiles.push((parent, derived.clone()));
        store.commit(&commit(tiles, "a")).unwrap();
    }
    spoil(&path, TILES, key_of(children[2]), |value| value[900] ^= 4);
    let store = Store::open(&path, CACHE).unwrap();
    // Anything that has the whole parent worked out anew.
    let mut canvas = Canvas::new(&store, 9);
    for child in children {
        canvas.expect_parent(child, Rect::FULL);
    }
    let finished = canvas.finish().unwrap();
    assert_eq!(finished.damaged, [children[2]]);
    assert!(finished.changed.is_empty() && finished.tiles.is_empty());
    assert_eq!(store.read(parent).unwrap().unwrap().planes, derived);
}

#[test]
fn a_copy_of_the_file_at_any_moment_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    let copy = dir.path().join("copy.redb");
    let store = Store::open(&path, CACHE).unwrap();
    for i in 1..=20 {
        store
            .commit(&commit(
                vec![(coord(10, i % 3, 0), painted(i))],
                &format!("f{i}"),
            ))
            .unwrap();
        // What a killed process leaves behind: the file without an orderly end.
        std::fs::copy(&path, &copy).unwrap();
        let left = Store::open(&copy, CACHE).unwrap();
        assert_eq!(left.summary().last_change, u64::from(i));
        assert!(left.is_painted(&format!("f{i}")).unwrap());
        let tile = left.read(coord(10, i % 3, 0)).unwrap().unwrap();
        assert_eq!(tile.planes, painted(i));
    }
}

#[test]
fn decoded_tiles_are_bounded_by_bytes() {
    let mut decoded = Decoded::new(3 * TILE_BYTES);
    let stored = Arc::new(Stored {
        planes: painted(1),
        digest: Digest::of(b""),
    });
    for x in 0..10 {
        decoded.keep(coord(10, x, 0), &stored);
        decoded.keep(coord(10, x, 0), &stored);
    }
    assert_eq!(decoded.bytes, 3 * TILE_BYTES);
    assert!(decoded.find(coord(10, 9, 0)).is_some());
    assert!(decoded.find(coord(10, 6, 0)).is_none());
}
