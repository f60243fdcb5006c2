use redb::TableDefinition;

use super::format::stored_from_bytes;
use super::map::Page;
use super::*;
use crate::canvas::Canvas;
use crate::domain::planes::{Own, Planes};
use crate::domain::pyramid::Below;
use crate::domain::raster::{Raster, Rect, TILE_BYTES, digest_of_rgbw};

const CACHE: usize = 64 << 20;
const LAYER: Layer = Layer::Imagery;

fn coord(z: u8, x: u32, y: u32) -> TileCoord {
    TileCoord::new(z, x, y).unwrap()
}

fn place(coord: TileCoord) -> Place {
    Place {
        layer: LAYER,
        coord,
    }
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
    Planes::from_parts(patch(seed), Own::Shown)
}

fn painted_beneath_a_child() -> Planes {
    let mut both = painted(1);
    let child = patch(9);
    let mut children = [Below::Nothing; 4];
    children[0] = Below::Pixels(&child);
    both.derive(children, Rect::FULL);
    both
}

fn record(revision: u32, tiles: &[TileCoord]) -> FrameRecord {
    FrameRecord {
        revision,
        simulated: true,
        bounds: tiles.first().map(|tile| tile.bounds()),
        tiles: tiles.to_vec(),
        keyframe: b"keyframe".to_vec(),
    }
}

fn commit(tiles: Vec<(TileCoord, Planes)>, frame_id: &str) -> Commit {
    let own: Vec<TileCoord> = tiles.iter().map(|(coord, _)| *coord).take(1).collect();
    Commit {
        layer: LAYER,
        tiles: tiles
            .into_iter()
            .map(|(coord, planes)| Fresh::encode(place(coord), planes, &mut [0; TILE_BYTES]))
            .collect(),
        removed: vec![],
        frames: vec![(frame_id.to_owned(), record(0, &own))],
        left: vec![],
        clean: vec![],
        change: Some(frame_id.bytes().rev().collect()),
    }
}

fn read(store: &Store, coord: TileCoord) -> Result<Option<Arc<Stored>>, StoreError> {
    store.map().read(place(coord))
}

fn is_known(store: &Store, frame_id: &str) -> bool {
    store.frame(frame_id).unwrap().is_some()
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    let (deep, shallow) = (coord(20, 5, 6), coord(3, 1, 1));
    let both = painted_beneath_a_child();
    assert_eq!(both.rasters(), 2);
    {
        let store = Store::open(&path, CACHE).unwrap();
        assert_eq!(store.map().summary(LAYER), LayerSummary::EMPTY);
        let first = commit(vec![(deep, painted(2)), (shallow, both.clone())], "a");
        store.commit(&first).unwrap();
        store
            .commit(&commit(vec![(deep, painted(3))], "b"))
            .unwrap();
    }
    let store = Store::open(&path, CACHE).unwrap();
    assert_eq!(
        store.map().summary(LAYER),
        LayerSummary {
            tiles: 2,
            min_zoom: 3,
            max_zoom: 20,
            bounds: Some(deep.bounds()),
            last_change: 2,
            simulated: true,
        }
    );
    assert_eq!(store.next_sequence(), 3);
    assert_eq!(read(&store, deep).unwrap().unwrap().planes, painted(3));
    let stored = read(&store, shallow).unwrap().unwrap();
    assert_eq!(stored.planes, both);
    let mut rgbw = [0; TILE_BYTES];
    both.shown().write_rgbw(&mut rgbw);
    assert_eq!(stored.digest, digest_of_rgbw(&rgbw));
    assert!(read(&store, coord(20, 6, 6)).unwrap().is_none());
    assert_eq!(store.frame("a").unwrap(), Some(record(0, &[deep])));
    assert!(is_known(&store, "b") && !is_known(&store, "c"));
    let on_it: Vec<String> = store
        .frames_on(LAYER, &[deep, shallow])
        .unwrap()
        .into_iter()
        .map(|(frame_id, _)| frame_id)
        .collect();
    assert_eq!(on_it, ["a", "b"]);
    assert_eq!(
        store.map().place_of(stored.digest).unwrap(),
        Some(place(shallow))
    );
    let listed = store.map().list(LAYER, None, 1).unwrap();
    assert_eq!(listed, [(shallow, stored.digest)]);
    let after = store.map().list(LAYER, Some(shallow), 9).unwrap();
    assert_eq!((after.len(), after[0].0), (1, deep));
}

#[test]
fn a_revision_makes_its_ground_dirty_until_it_is_painted_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    let (old, new, far) = (coord(20, 8, 8), coord(20, 9, 8), coord(20, 800, 8));
    {
        let store = Store::open(&path, CACHE).unwrap();
        store.commit(&commit(vec![(old, painted(1))], "a")).unwrap();
        assert_eq!(store.dirty_tiles().unwrap(), 0);
        store.revise(LAYER, "a", &record(1, &[new, far])).unwrap();
    }
    let store = Store::open(&path, CACHE).unwrap();
    assert_eq!(store.dirty_tiles().unwrap(), 3);
    let group = store.dirty_group(LAYER).unwrap();
    assert_eq!(group.causes, ["a"]);
    let tiles: Vec<TileCoord> = group.tiles.iter().map(|(coord, _)| *coord).collect();
    assert_eq!(tiles, [old, new]);
    assert!(store.frames_on(LAYER, &[old]).unwrap().is_empty());
    let again = Commit {
        removed: vec![old],
        clean: group.tiles,
        frames: vec![],
        ..commit(vec![(new, painted(1))], "")
    };
    store.commit(&again).unwrap();
    assert!(read(&store, old).unwrap().is_none());
    assert_eq!(store.map().summary(LAYER).tiles, 1);
    let group = store.dirty_group(LAYER).unwrap();
    // A reason that comes meanwhile is one to paint once more.
    store.revise(LAYER, "b", &record(1, &[far])).unwrap();
    store.revise(LAYER, "a", &record(2, &[far])).unwrap();
    let late = Commit {
        clean: group.tiles,
        change: None,
        frames: vec![],
        ..commit(vec![], "")
    };
    store.commit(&late).unwrap();
    assert_eq!(store.dirty_tiles().unwrap(), 3);
    let mut causes = Vec::new();
    while store.dirty_tiles().unwrap() > 0 {
        let group = store.dirty_group(LAYER).unwrap();
        causes = group.causes;
        let left = ["a", "b"].map(|frame| (frame.to_owned(), vec![far]));
        let gone = Commit {
            left: left.to_vec(),
            clean: group.tiles,
            change: None,
            frames: vec![],
            ..commit(vec![], "")
        };
        store.commit(&gone).unwrap();
    }
    assert_eq!(causes, ["a", "b"], "each frame is a reason of its own");
    assert_eq!(store.dirty_tiles().unwrap(), 0);
    assert!(store.frames_on(LAYER, &[far]).unwrap().is_empty());
    assert_eq!(
        store.next_sequence(),
        3,
        "what changes nothing is not in the log"
    );
}

#[test]
fn a_map_of_an_earlier_version_says_what_to_do() {
    const EARLIER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("tiles");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiles.redb");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(EARLIER).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(&path, CACHE).unwrap_err().to_string();
    assert!(
        error.contains("earlier version") && error.contains("move it away"),
        "{error}"
    );
}

#[test]
fn changes_are_paged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("tiles.redb"), CACHE).unwrap();
    assert_eq!(
        store.map().changes(0, 10, usize::MAX).unwrap(),
        Page::default()
    );
    for id in ["ab", "cd", "ef"] {
        store.commit(&commit(vec![], id)).unwrap();
    }
    let page = |after, limit| {
        let page = store.map().changes(after, limit, usize::MAX).unwrap();
        (page.messages, page.oldest_kept)
    };
    assert_eq!(page(0, 2), (vec![b"ba".to_vec(), b"dc".to_vec()], 1));
    assert_eq!(page(2, 2), (vec![b"fe".to_vec()], 1));
    assert_eq!(page(u64::MAX, 2), (vec![], 1));
    let bounded = |max_bytes| store.map().changes(0, 9, max_bytes).unwrap().messages.len();
    assert_eq!([bounded(0), bounded(5), bounded(6)], [1, 2, 3]);
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
        spoil(&path, CHANGES, sequence, |value| value[32] ^= 4);
    }
    let store = Store::open(&path, CACHE).unwrap();
    let page = store.map().changes(0, 1, usize::MAX).unwrap();
    // Two pages of damage come before it.
    assert_eq!(page.messages, [b"fe".to_vec()]);
    assert_eq!((page.oldest_kept, page.damaged), (1, 2));
    let page = store.map().changes(1, 9, usize::MAX).unwrap();
    assert_eq!(page.messages, [b"fe".to_vec(), b"hg".to_vec()]);
    assert_eq!(page.damaged, 1);
}

#[test]
fn the_oldest_frames_are_forgotten_and_their_ground_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("tiles.redb"), CACHE).unwrap();
    let tile = coord(20, 1, 1);
    let many = |range: std::ops::Range<u64>| Commit {
        frames: range
            .map(|i| (format!("f{i}"), record(0, &[tile])))
            .collect(),
        ..commit(vec![], "")
    };
    store.commit(&many(0..MAX_FRAMES)).unwrap();
    assert!(is_known(&store, "f0"));
    store.commit(&many(MAX_FRAMES..MAX_FRAMES + 2)).unwrap();
    assert!(!is_known(&store, "f1") && is_known(&store, "f2"));
    let on_it = store.frames_on(LAYER, &[tile]).unwrap();
    assert_eq!(on_it.len() as u64, MAX_FRAMES);
}

/// Changes a value behind the store's back.
fn spoil<K: redb::Key + Copy + for<'k> std::borrow::Borrow<K::SelfType<'k>> + 'static>(
    path: &Path,
    table: TableDefinition<'_, K, &[u8]>,
    key: K,
    change: impl Fn(&mut Vec<u8>),
) {
    let database = redb::Database::create(path).unwrap();
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
    let here = place(coord(9, 1, 2));
    for planes in [painted(4), painted_beneath_a_child()] {
        let mut sealed = Fresh::encode(here, planes.clone(), &mut [0; TILE_BYTES]).sealed;
        let opens = |bytes: &[u8]| stored_from_bytes(here, bytes).map(|stored| stored.planes);
        let is_safe = |bytes: &[u8]| opens(bytes).is_none_or(|read| read == planes);
        assert!(opens(&sealed).is_some());
        let bits = sealed.len() * 8;
        for i in 0..500 {
            let bit = i * 7_919 % bits;
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert!(is_safe(&sealed), "bit {bit}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        for i in 0..200 {
            assert!(is_safe(&sealed[..i * 104_729 % sealed.len()]));
        }
        let elsewhere = place(coord(9, 2, 2));
        assert!(
            stored_from_bytes(elsewhere, &sealed).is_none(),
            "a tile in the wrong place"
        );
    }
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
    spoil(&path, TILES, key_of(place(parent)), |value| value[900] ^= 4);
    let store = Arc::new(Store::open(&path, CACHE).unwrap());
    assert!(matches!(store.load(place(parent)).unwrap(), Found::Damaged));
    let error = read(&store, parent).unwrap_err().to_string();
    assert_eq!(error, "tile 9/4/4 of imagery is damaged in the tile store");
    assert!(
        read(&store, children[0]).unwrap().is_some(),
        "the others are served"
    );

    // Any change of a child brings the parent back, with everything that the others hold.
    let mut canvas = Canvas::new(Arc::clone(&store), LAYER, 9);
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
    spoil(&path, TILES, key_of(place(children[2])), |value| {
        value[900] ^= 4;
    });
    let store = Arc::new(Store::open(&path, CACHE).unwrap());
    // Anything that has the whole parent worked out anew.
    let mut canvas = Canvas::new(Arc::clone(&store), LAYER, 9);
    for child in children {
        canvas.expect_parent(child, Rect::FULL);
    }
    let finished = canvas.finish().unwrap();
    assert_eq!(finished.damaged, [children[2]]);
    assert!(finished.changed.is_empty() && finished.tiles.is_empty());
    assert_eq!(read(&store, parent).unwrap().unwrap().planes, derived);
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
        assert_eq!(left.map().summary(LAYER).last_change, u64::from(i));
        assert!(is_known(&left, &format!("f{i}")));
        let tile = read(&left, coord(10, i % 3, 0)).unwrap().unwrap();
        assert_eq!(tile.planes, painted(i));
    }
}

#[test]
fn decoded_tiles_are_bounded_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("tiles.redb"), 3 * TILE_BYTES).unwrap();
    for x in 0..10 {
        let tile = vec![(coord(10, x, 0), painted(1))];
        store.commit(&commit(tile, &format!("f{x}"))).unwrap();
    }
    let decoded = &store.map().decoded;
    decoded.run_pending_tasks();
    assert_eq!(decoded.weighted_size(), 3 * TILE_BYTES as u64);
    assert!(decoded.contains_key(&place(coord(10, 9, 0))));
    assert!(!decoded.contains_key(&place(coord(10, 6, 0))));
}

#[test]
fn the_centre_of_sites_that_lie_far_apart_is_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("tiles.redb"), CACHE).unwrap();
    assert_eq!(store.map().centre(LAYER).unwrap(), None);
    let sites = [coord(20, 5, 6), coord(20, 900_000, 700_000)];
    for (site, frame_id) in sites.into_iter().zip(["a", "b"]) {
        let tiles = vec![(site, painted(2)), (coord(3, 1, 1), painted(3))];
        store.commit(&commit(tiles, frame_id)).unwrap();
        let centre = store.map().centre(LAYER).unwrap().unwrap();
        assert!(sites.contains(&centre), "{centre}");
    }
}
