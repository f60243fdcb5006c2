//! Rounds on disk, by origin and round id. Everything here blocks.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use sovereign_model::{Digest, Timestamp};

use crate::domain::{Round, newest_first};
use crate::error::StoreError;

/// Rounds kept of one origin; one more drops the one that opened first.
pub(crate) const MAX_ROUNDS_PER_ORIGIN: usize = 128;
/// Origins kept, this node beside; rounds of one more are refused, so that nobody is displaced.
pub(crate) const MAX_PEERS: usize = 256;

/// Model digest, participants, opened and closes in nanoseconds since the Unix epoch, node name.
type Row = (&'static [u8], u32, i64, i64, &'static str);
/// By origin, empty for this node, and round id.
const ROUNDS: TableDefinition<'_, (&str, &str), Row> = TableDefinition::new("rounds");

/// What became of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is new; so many older ones of its origin were dropped.
    New { dropped: usize },
    /// It was known, or is older than all that are kept of its origin.
    Known,
    /// There is no room for one more origin.
    TooManyPeers,
}

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Arc<Database>,
}

impl Store {
    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be had.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let open = || -> Result<Database, redb::Error> {
            let database = Database::create(dir.join("rounds.redb"))?;
            let write = database.begin_write()?;
            write.open_table(ROUNDS)?;
            write.commit()?;
            Ok(database)
        };
        let database = Arc::new(open().map_err(failed("open the store of rounds"))?);
        Ok(Self { database })
    }

    /// Keeps a round; on disk when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn insert(&self, round: &Round) -> Result<Kept, StoreError> {
        let insert = || -> Result<Kept, redb::Error> {
            let write = self.database.begin_write()?;
            let kept = {
                let mut table = write.open_table(ROUNDS)?;
                let origin = round.origin.as_str();
                let key = (origin, round.round_id.as_str());
                if table.get(key)?.is_some() {
                    return Ok(Kept::Known);
                }
                let mut of_origin = Vec::new();
                for entry in table.range((origin, "")..)? {
                    let (key, row) = entry?;
                    let (other, id) = key.value();
                    if other != origin {
                        break;
                    }
                    of_origin.push((row.value().2, id.to_owned()));
                }
                if of_origin.is_empty() && !origin.is_empty() && origins(&table)? >= MAX_PEERS {
                    return Ok(Kept::TooManyPeers);
                }
                of_origin.sort();
                let over = (of_origin.len() + 1).saturating_sub(MAX_ROUNDS_PER_ORIGIN);
                let opened = round.opened.as_unix_nanos();
                if over > 0 && of_origin[0].0 >= opened {
                    return Ok(Kept::Known);
                }
                for (_, id) in &of_origin[..over] {
                    table.remove((origin, id.as_str()))?;
                }
                let row = (
                    round.model.as_bytes().as_slice(),
                    round.min_participants,
                    opened,
                    round.closes.as_unix_nanos(),
                    round.node_id.as_str(),
                );
                table.insert(key, row)?;
                Kept::New { dropped: over }
            };
            write.commit()?;
            Ok(kept)
        };
        insert().map_err(failed("keep a round"))
    }

    /// Every round, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn list(&self) -> Result<Vec<Round>, StoreError> {
        let read = || -> Result<Vec<Round>, redb::Error> {
            let mut rounds = Vec::new();
            for entry in self.database.begin_read()?.open_table(ROUNDS)?.iter()? {
                let (key, row) = entry?;
                let (origin, round_id) = key.value();
                let (model, min_participants, opened, closes, node_id) = row.value();
                let Ok(model) = Digest::from_slice(model) else {
                    continue;
                };
                rounds.push(Round {
                    origin: origin.to_owned(),
                    round_id: round_id.to_owned(),
                    model,
                    min_participants,
                    opened: Timestamp::from_unix_nanos(opened),
                    closes: Timestamp::from_unix_nanos(closes),
                    node_id: node_id.to_owned(),
                });
            }
            Ok(rounds)
        };
        let mut rounds = read().map_err(failed("list the rounds"))?;
        newest_first(&mut rounds);
        Ok(rounds)
    }
}

/// Peers with rounds in the table.
fn origins(table: &redb::Table<'_, (&str, &str), Row>) -> Result<usize, redb::Error> {
    let (mut count, mut last) = (0, String::new());
    for entry in table.iter()? {
        let (key, _) = entry?;
        let (origin, _) = key.value();
        if origin != last {
            count += 1;
            origin.clone_into(&mut last);
        }
    }
    Ok(count)
}

fn failed(operation: &'static str) -> impl FnOnce(redb::Error) -> StoreError {
    move |cause| StoreError {
        operation,
        cause: Box::new(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(origin: &str, id: &str, opened: i64) -> Round {
        Round {
            origin: origin.to_owned(),
            round_id: id.to_owned(),
            model: Digest::of(b"model"),
            min_participants: 2,
            opened: Timestamp::from_unix_nanos(opened),
            closes: Timestamp::from_unix_nanos(opened + 1),
            node_id: "north".to_owned(),
        }
    }

    #[test]
    fn the_first_record_of_a_round_stays_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = round("", "r", 5);
        assert_eq!(store.insert(&first).unwrap(), Kept::New { dropped: 0 });
        assert_eq!(store.insert(&round("", "r", 9)).unwrap(), Kept::Known);
        let peers = round("peer", "r", 7);
        assert_eq!(store.insert(&peers).unwrap(), Kept::New { dropped: 0 });
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.list().unwrap(), [peers, first]);
    }

    #[test]
    fn an_origin_keeps_its_newest_rounds_and_displaces_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.insert(&round("", "own", 1)).unwrap();
        let count = MAX_ROUNDS_PER_ORIGIN as i64;
        for n in 0..count {
            store
                .insert(&round("peer", &format!("r-{n}"), 10 + n))
                .unwrap();
        }
        let older = store.insert(&round("peer", "older", 9)).unwrap();
        assert_eq!(older, Kept::Known);
        let newer = store.insert(&round("peer", "newer", 10 + count)).unwrap();
        assert_eq!(newer, Kept::New { dropped: 1 });
        let rounds = store.list().unwrap();
        assert_eq!(rounds.len(), MAX_ROUNDS_PER_ORIGIN + 1);
        assert_eq!(rounds[0].round_id, "newer");
        assert_eq!(rounds.last().unwrap().round_id, "own");
        assert!(rounds.iter().all(|r| r.round_id != "r-0"));
    }

    #[test]
    fn the_number_of_origins_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..MAX_PEERS {
            store
                .insert(&round(&format!("peer-{n:04}"), "r", 1))
                .unwrap();
        }
        assert_eq!(
            store.insert(&round("other", "r", 1)).unwrap(),
            Kept::TooManyPeers
        );
        let known = store.insert(&round("peer-0000", "s", 2)).unwrap();
        assert_eq!(known, Kept::New { dropped: 0 });
        assert_eq!(
            store.insert(&round("", "r", 1)).unwrap(),
            Kept::New { dropped: 0 }
        );
    }
}
