//! The index: what is stored, where, how long, and under which versions.

use std::path::Path;

use redb::{ReadTransaction, ReadableTable as _, Table, TableDefinition};
use sovereign_disk::{Database, Layout, WriteTransaction};
use sovereign_model::{Digest, Timestamp, Version};

use super::files::{Place, record_bytes};
use crate::domain::{CLASSES, Checkpoint, Class, Object, Rank};
use crate::error::StoreError;

const LAYOUT: Layout = Layout {
    format: 1,
    page_cache_bytes: 8 << 20,
};
/// A pin that a stored version puts on its content.
pub(crate) const VERSION_PIN: &str = "version";
/// Stands for a file of its own where otherwise a pack is named.
const OWN_FILE: u64 = u64::MAX;

/// Class, bytes, when it was stored, rank, when it got that rank, pack, place in the pack.
type ObjectRow = (u8, u64, i64, u8, i64, u64, u64);
type Bytes = &'static [u8];

const OBJECTS: TableDefinition<'_, Bytes, ObjectRow> = TableDefinition::new("objects");
/// Strength by digest and name.
const PINS: TableDefinition<'_, (Bytes, &str), u8> = TableDefinition::new("pins");
/// What may go, in the order in which it does: class, rank, since when, digest.
const QUEUE: TableDefinition<'_, (u8, u8, i64, Bytes), ()> = TableDefinition::new("queue");
/// SHA-256 of each leaf of an object with a file of its own.
const LEAVES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("leaves");
/// Bytes of a pack, and those of them that are in records in use.
const PACKS: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("packs");
/// What lies in a pack, by pack and place.
const PACKED: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("packed");
/// Digest, bytes, when it was stored, sequence; by version.
const VERSIONS: TableDefinition<'_, &str, (Bytes, u64, i64, u64)> =
    TableDefinition::new("versions");
/// The first version of a content.
const FIRST_VERSIONS: TableDefinition<'_, Bytes, &str> = TableDefinition::new("first_versions");
/// Versions in the order in which they were stored.
const LOG: TableDefinition<'_, u64, &str> = TableDefinition::new("log");

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) object: Object,
    pub(super) rank: Rank,
    pub(super) since: Timestamp,
    pub(super) place: Place,
}

impl Row {
    fn parse(digest: Digest, row: ObjectRow) -> Self {
        let (class, size_bytes, stored, rank, since, pack, offset) = row;
        Self {
            object: Object {
                digest,
                class: CLASSES[usize::from(class).min(CLASSES.len() - 1)],
                size_bytes,
                stored: Timestamp::from_unix_nanos(stored),
            },
            rank: Rank::from_u8(rank),
            since: Timestamp::from_unix_nanos(since),
            place: if pack == OWN_FILE {
                Place::File
            } else {
                Place::Pack { pack, offset }
            },
        }
    }

    fn encode(&self) -> ObjectRow {
        let (pack, offset) = match self.place {
            Place::File => (OWN_FILE, 0),
            Place::Pack { pack, offset } => (pack, offset),
        };
        (
            self.object.class as u8,
            self.object.size_bytes,
            self.object.stored.as_unix_nanos(),
            self.rank as u8,
            self.since.as_unix_nanos(),
            pack,
            offset,
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) sequence: u64,
    pub(crate) checkpoint: Checkpoint,
}

fn digest_of(bytes: &[u8]) -> Option<Digest> {
    Digest::from_slice(bytes).ok()
}

fn logged(version: &str, row: (&[u8], u64, i64, u64)) -> Option<Logged> {
    let (digest, size_bytes, created, sequence) = row;
    let checkpoint = Checkpoint {
        version: Version::parse(version).ok()?,
        digest: digest_of(digest)?,
        size_bytes,
        created: Timestamp::from_unix_nanos(created),
    };
    Some(Logged {
        sequence,
        checkpoint,
    })
}

#[derive(Debug)]
pub(super) struct Index(Database);

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::open(path, LAYOUT, |write| Tables::open(write).map(drop));
        database.map(Self).map_err(StoreError::Open)
    }

    pub(super) fn write(&self) -> Result<WriteTransaction<'_>, redb::Error> {
        self.0.begin_write()
    }

    fn read<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let all = || read(&self.0.begin_read()?);
        all().map_err(StoreError::index(operation))
    }

    pub(super) fn object(&self, digest: &Digest) -> Result<Option<Row>, StoreError> {
        self.read("look up an object", |read| {
            let row = read
                .open_table(OBJECTS)?
                .get(digest.as_bytes().as_slice())?;
            Ok(row.map(|row| Row::parse(*digest, row.value())))
        })
    }

    pub(super) fn leaves(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        self.read("look up the leaves of an object", |read| {
            let leaves = read.open_table(LEAVES)?.get(digest.as_bytes().as_slice())?;
            Ok(leaves.map_or_else(Vec::new, |leaves| leaves.value().to_vec()))
        })
    }

    pub(super) fn pins(&self, digest: &Digest) -> Result<Vec<(String, Rank)>, StoreError> {
        self.read("look up the pins of an object", |read| {
            let pins = read.open_table(PINS)?;
            let mut found = Vec::new();
            for entry in pins.range((digest.as_bytes().as_slice(), "")..)? {
                let (key, strength) = entry?;
                let (of, name) = key.value();
                if of != digest.as_bytes() {
                    break;
                }
                found.push((name.to_owned(), Rank::from_u8(strength.value())));
            }
            Ok(found)
        })
    }

    pub(super) fn list(
        &self,
        class: Class,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Object>, StoreError> {
        self.read("list the objects", |read| {
            let mut found = Vec::new();
            let from: &[u8] = after.map_or(&[], |digest| digest.as_bytes().as_slice());
            for entry in read.open_table(OBJECTS)?.range(from..)? {
                let (digest, row) = entry?;
                let Some(digest) = digest_of(digest.value()) else {
                    continue;
                };
                let object = Row::parse(digest, row.value()).object;
                if object.class == class && Some(&digest) != after {
                    found.push(object);
                    if found.len() == limit {
                        break;
                    }
                }
            }
            Ok(found)
        })
    }

    pub(super) fn all(&self, mut each: impl FnMut(Row)) -> Result<(), StoreError> {
        self.read("read the index", |read| {
            for entry in read.open_table(OBJECTS)?.iter()? {
                let (digest, row) = entry?;
                if let Some(digest) = digest_of(digest.value()) {
                    each(Row::parse(digest, row.value()));
                }
            }
            Ok(())
        })
    }

    pub(super) fn packs(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        self.read("list the packs", |read| {
            let packs = read.open_table(PACKS)?;
            let rows = packs.iter()?.map(|entry| {
                let (pack, row) = entry?;
                Ok((pack.value(), row.value().0))
            });
            rows.collect()
        })
    }

    pub(super) fn version(&self, version: &Version) -> Result<Option<Logged>, StoreError> {
        self.read("look up a version", |read| {
            let row = read.open_table(VERSIONS)?.get(version.as_str())?;
            Ok(row.and_then(|row| logged(version.as_str(), row.value())))
        })
    }

    pub(super) fn version_of(&self, digest: &Digest) -> Result<Option<Logged>, StoreError> {
        self.read("look up a digest", |read| {
            let first = read.open_table(FIRST_VERSIONS)?;
            let Some(version) = first.get(digest.as_bytes().as_slice())? else {
                return Ok(None);
            };
            let row = read.open_table(VERSIONS)?.get(version.value())?;
            Ok(row.and_then(|row| logged(version.value(), row.value())))
        })
    }

    pub(super) fn versions(&self) -> Result<Vec<Logged>, StoreError> {
        self.read("list the versions", |read| {
            let mut all = Vec::new();
            for entry in read.open_table(VERSIONS)?.iter()? {
                let (version, row) = entry?;
                all.extend(logged(version.value(), row.value()));
            }
            Ok(all)
        })
    }

    pub(super) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Logged>, StoreError> {
        self.read("read the log", |read| {
            let versions = read.open_table(VERSIONS)?;
            let mut found = Vec::new();
            for entry in read
                .open_table(LOG)?
                .range(after.saturating_add(1)..)?
                .take(limit)
            {
                let (_, version) = entry?;
                let row = versions.get(version.value())?;
                found.extend(row.and_then(|row| logged(version.value(), row.value())));
            }
            Ok(found)
        })
    }

    /// The first sequence of the log, 0 when it is empty.
    pub(super) fn oldest_change(&self) -> Result<u64, StoreError> {
        self.read("read the log", |read| {
            let log = read.open_table(LOG)?;
            let first = log.first()?;
            Ok(first.map_or(0, |(sequence, _)| sequence.value()))
        })
    }
}

pub(super) struct Tables<'t> {
    objects: Table<'t, Bytes, ObjectRow>,
    pins: Table<'t, (Bytes, &'static str), u8>,
    queue: Table<'t, (u8, u8, i64, Bytes), ()>,
    leaves: Table<'t, Bytes, Bytes>,
    packs: Table<'t, u64, (u64, u64)>,
    packed: Table<'t, (u64, u64), Bytes>,
    versions: Table<'t, &'static str, (Bytes, u64, i64, u64)>,
    first_versions: Table<'t, Bytes, &'static str>,
    log: Table<'t, u64, &'static str>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(write: &'t redb::WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            objects: write.open_table(OBJECTS)?,
            pins: write.open_table(PINS)?,
            queue: write.open_table(QUEUE)?,
            leaves: write.open_table(LEAVES)?,
            packs: write.open_table(PACKS)?,
            packed: write.open_table(PACKED)?,
            versions: write.open_table(VERSIONS)?,
            first_versions: write.open_table(FIRST_VERSIONS)?,
            log: write.open_table(LOG)?,
        })
    }

    pub(super) fn object(&self, digest: &Digest) -> Result<Option<Row>, redb::Error> {
        let row = self.objects.get(digest.as_bytes().as_slice())?;
        Ok(row.map(|row| Row::parse(*digest, row.value())))
    }

    pub(super) fn insert(&mut self, row: &Row, leaves: &[u8]) -> Result<(), redb::Error> {
        let digest = row.object.digest.as_bytes().as_slice();
        self.objects.insert(digest, row.encode())?;
        if !leaves.is_empty() {
            self.leaves.insert(digest, leaves)?;
        }
        self.enter(row)?;
        self.occupy(row)
    }

    pub(super) fn remove(&mut self, row: &Row) -> Result<Option<u64>, redb::Error> {
        let digest = row.object.digest.as_bytes().as_slice();
        self.objects.remove(digest)?;
        self.leaves.remove(digest)?;
        for (name, _) in self.pins_of(&row.object.digest)? {
            self.pins.remove((digest, name.as_str()))?;
        }
        self.leave(row)?;
        self.vacate(row)
    }

    /// An object lies elsewhere from now on; says which pack is of no more use.
    pub(super) fn move_to(&mut self, row: &Row, place: Place) -> Result<Option<u64>, redb::Error> {
        let empty = self.vacate(row)?;
        let row = Row {
            place,
            ..row.clone()
        };
        let digest = row.object.digest.as_bytes().as_slice();
        self.objects.insert(digest, row.encode())?;
        self.occupy(&row)?;
        Ok(empty)
    }

    /// Sets or removes a pin; its object ranks by the strongest one that is left.
    pub(super) fn pin(
        &mut self,
        row: &Row,
        name: &str,
        rank: Rank,
        now: Timestamp,
    ) -> Result<(), redb::Error> {
        let digest = row.object.digest.as_bytes().as_slice();
        if rank == Rank::Free {
            self.pins.remove((digest, name))?;
        } else {
            self.pins.insert((digest, name), rank as u8)?;
        }
        let strongest = self.pins_of(&row.object.digest)?;
        let strongest = strongest.into_iter().map(|(_, rank)| rank).max();
        let rank = strongest.unwrap_or(Rank::Free);
        if rank == row.rank {
            return Ok(());
        }
        self.leave(row)?;
        let row = Row {
            rank,
            since: now,
            ..row.clone()
        };
        self.objects.insert(digest, row.encode())?;
        self.enter(&row)
    }

    pub(super) fn pins_of(&self, digest: &Digest) -> Result<Vec<(String, Rank)>, redb::Error> {
        let mut found = Vec::new();
        for entry in self.pins.range((digest.as_bytes().as_slice(), "")..)? {
            let (key, strength) = entry?;
            let (of, name) = key.value();
            if of != digest.as_bytes() {
                break;
            }
            found.push((name.to_owned(), Rank::from_u8(strength.value())));
        }
        Ok(found)
    }

    /// What may go of a class, in the order in which it does, until `enough` says so.
    pub(super) fn oldest(
        &self,
        class: Class,
        mut enough: impl FnMut(&Row) -> bool,
    ) -> Result<(), redb::Error> {
        let (from, to) = (class as u8, class as u8 + 1);
        let none: &[u8] = &[];
        for entry in self
            .queue
            .range((from, 0, i64::MIN, none)..(to, 0, i64::MIN, none))?
        {
            let (key, _) = entry?;
            let Some(digest) = digest_of(key.value().3) else {
                continue;
            };
            if let Some(row) = self.object(&digest)?
                && enough(&row)
            {
                break;
            }
        }
        Ok(())
    }

    /// The next pack after `last`, round and round, of which less than half is in use.
    pub(super) fn sparse_pack(&self, last: u64, current: u64) -> Result<Option<u64>, redb::Error> {
        let after = self.packs.range(last.saturating_add(1)..)?;
        for entry in after.chain(self.packs.range(..=last)?) {
            let (pack, row) = entry?;
            let (total, live) = row.value();
            if pack.value() != current && live * 2 < total {
                return Ok(Some(pack.value()));
            }
        }
        Ok(None)
    }

    pub(super) fn in_pack(&self, pack: u64) -> Result<Vec<Row>, redb::Error> {
        let mut rows = Vec::new();
        for entry in self.packed.range((pack, 0)..=(pack, u64::MAX))? {
            if let Some(digest) = digest_of(entry?.1.value()) {
                rows.extend(self.object(&digest)?);
            }
        }
        Ok(rows)
    }

    pub(super) fn grow(&mut self, pack: u64, end: u64) -> Result<(), redb::Error> {
        let live = self.packs.get(pack)?.map_or(0, |row| row.value().1);
        self.packs.insert(pack, (end, live))?;
        Ok(())
    }

    pub(super) fn version(&self, version: &Version) -> Result<Option<Logged>, redb::Error> {
        let row = self.versions.get(version.as_str())?;
        Ok(row.and_then(|row| logged(version.as_str(), row.value())))
    }

    pub(super) fn version_count(&self) -> Result<u64, redb::Error> {
        Ok(redb::ReadableTableMetadata::len(&self.versions)?)
    }

    pub(super) fn insert_version(&mut self, checkpoint: &Checkpoint) -> Result<u64, redb::Error> {
        let sequence = self.log.last()?.map_or(0, |(last, _)| last.value()) + 1;
        let version = checkpoint.version.as_str();
        let digest = checkpoint.digest.as_bytes().as_slice();
        let created = checkpoint.created.as_unix_nanos();
        let row = (digest, checkpoint.size_bytes, created, sequence);
        self.versions.insert(version, row)?;
        if self.first_versions.get(digest)?.is_none() {
            self.first_versions.insert(digest, version)?;
        }
        self.log.insert(sequence, version)?;
        Ok(sequence)
    }

    fn enter(&mut self, row: &Row) -> Result<(), redb::Error> {
        if row.rank != Rank::Keep {
            self.queue.insert(queue_key(row), ())?;
        }
        Ok(())
    }

    fn leave(&mut self, row: &Row) -> Result<(), redb::Error> {
        self.queue.remove(queue_key(row))?;
        Ok(())
    }

    fn occupy(&mut self, row: &Row) -> Result<(), redb::Error> {
        if let Place::Pack { pack, offset } = row.place {
            self.packed
                .insert((pack, offset), row.object.digest.as_bytes().as_slice())?;
            let (total, live) = self.packs.get(pack)?.map_or((0, 0), |row| row.value());
            let live = live + record_bytes(row.object.size_bytes);
            self.packs.insert(pack, (total, live))?;
        }
        Ok(())
    }

    fn vacate(&mut self, row: &Row) -> Result<Option<u64>, redb::Error> {
        let Place::Pack { pack, offset } = row.place else {
            return Ok(None);
        };
        self.packed.remove((pack, offset))?;
        let (total, live) = self.packs.get(pack)?.map_or((0, 0), |row| row.value());
        let live = live.saturating_sub(record_bytes(row.object.size_bytes));
        self.packs.insert(pack, (total, live))?;
        Ok((live == 0).then_some(pack))
    }

    pub(super) fn forget_pack(&mut self, pack: u64) -> Result<(), redb::Error> {
        self.packs.remove(pack)?;
        Ok(())
    }
}

fn queue_key(row: &Row) -> (u8, u8, i64, &[u8]) {
    (
        row.object.class as u8,
        row.rank as u8,
        row.since.as_unix_nanos(),
        row.object.digest.as_bytes().as_slice(),
    )
}
