//! Rounds on disk, by origin and round id. Everything here blocks.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition,
};
use sovereign_model::{Digest, Timestamp};

use crate::domain::{Round, newest_first};
use crate::error::StoreError;

/// Rounds kept of one origin; one more drops the one that opened first.
pub(crate) const MAX_ROUNDS_PER_ORIGIN: usize = 128;
/// Peers kept. One more takes the place of the peer whose rounds are closed for the longest; while every
/// peer has an open round, of the one heard of longest ago. One whose own round closed before those of all
/// others is refused.
pub(crate) const MAX_PEERS: u64 = 256;

/// Model digest, participants, opened and closes in nanoseconds since the Unix epoch, node name.
type Row = (&'static [u8], u32, i64, i64, &'static str);
/// By origin, empty for this node, and round id.
const ROUNDS: TableDefinition<'_, (&str, &str), Row> = TableDefinition::new("rounds");
/// When the last round of each peer in `ROUNDS` closes, and when a new one was last heard of, nanoseconds
/// since the Unix epoch. Made anew at every start, with nobody heard of.
const PEERS: TableDefinition<'_, &str, (i64, i64)> = TableDefinition::new("peers");

/// What became of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is new; so many older ones of its origin, or of a peer that made room, were dropped.
    New { dropped: usize },
    /// It was known, or is older than all that are kept of its origin.
    Known,
    /// There is no room for one more peer.
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
            write.delete_table(PEERS)?;
            {
                let mut peers = write.open_table(PEERS)?;
                for entry in write.open_table(ROUNDS)?.iter()? {
                    let (key, row) = entry?;
                    note(&mut peers, key.value().0, row.value().3, 0)?;
                }
            }
            write.commit()?;
            // A new file is on disk only after its folder is.
            File::open(dir)?.sync_all()?;
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
    pub(crate) fn insert(&self, round: &Round, now: Timestamp) -> Result<Kept, StoreError> {
        let insert = || -> Result<Kept, redb::Error> {
            let write = self.database.begin_write()?;
            let kept = {
                let mut table = write.open_table(ROUNDS)?;
                let mut peers = write.open_table(PEERS)?;
                let origin = round.origin.as_str();
                let key = (origin, round.round_id.as_str());
                if table.get(key)?.is_some() {
                    return Ok(Kept::Known);
                }
                let mut of_origin = rounds_of(&table, origin)?;
                let mut dropped = (of_origin.len() + 1).saturating_sub(MAX_ROUNDS_PER_ORIGIN);
                let opened = round.opened.as_unix_nanos();
                of_origin.sort();
                if dropped > 0 && of_origin[0].0 >= opened {
                    return Ok(Kept::Known);
                }
                for (_, id) in &of_origin[..dropped] {
                    table.remove((origin, id.as_str()))?;
                }
                let (closes, now) = (round.closes.as_unix_nanos(), now.as_unix_nanos());
                let more = !origin.is_empty() && peers.get(origin)?.is_none();
                if more && peers.len()? >= MAX_PEERS {
                    let Some(leaving) = peer_to_replace(&peers, closes, now)? else {
                        return Ok(Kept::TooManyPeers);
                    };
                    for (_, id) in rounds_of(&table, &leaving)? {
                        table.remove((leaving.as_str(), id.as_str()))?;
                        dropped += 1;
                    }
                    peers.remove(leaving.as_str())?;
                }
                note(&mut peers, origin, closes, now)?;
                let row = (
                    round.model.as_bytes().as_slice(),
                    round.min_participants,
                    opened,
                    closes,
                    round.node_id.as_str(),
                );
                table.insert(key, row)?;
                Kept::New { dropped }
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

/// When each round of `origin` opened, and its id.
fn rounds_of(
    table: &Table<'_, (&str, &str), Row>,
    origin: &str,
) -> Result<Vec<(i64, String)>, redb::Error> {
    let mut rounds = Vec::new();
    for entry in table.range((origin, "")..)? {
        let (key, row) = entry?;
        let (other, id) = key.value();
        if other != origin {
            break;
        }
        rounds.push((row.value().2, id.to_owned()));
    }
    Ok(rounds)
}

/// A round of `origin` was heard of at `heard` and closes then; this node is no peer.
fn note(
    peers: &mut Table<'_, &str, (i64, i64)>,
    origin: &str,
    closes: i64,
    heard: i64,
) -> Result<(), redb::Error> {
    if !origin.is_empty() {
        let known = peers.get(origin)?.map(|known| known.value());
        let last = known.map_or(closes, |(last, _)| last.max(closes));
        peers.insert(origin, (last, heard))?;
    }
    Ok(())
}

/// The peer that leaves for one whose round closes at `closes`: the one whose last round closed first,
/// when that was before `now` and `closes`; otherwise, for a round that is open, the one heard of first.
fn peer_to_replace(
    peers: &Table<'_, &str, (i64, i64)>,
    closes: i64,
    now: i64,
) -> Result<Option<String>, redb::Error> {
    let (mut closed_first, mut heard_first) = (None, None);
    for entry in peers.iter()? {
        let (peer, value) = entry?;
        let (last, heard) = value.value();
        let peer = peer.value();
        keep_lower(&mut closed_first, (last, 0), peer);
        keep_lower(&mut heard_first, (heard, last), peer);
    }
    let closed_first = closed_first.filter(|((last, _), _)| *last < closes.min(now));
    let heard_first = heard_first.filter(|_| closes > now);
    Ok(closed_first.or(heard_first).map(|(_, peer)| peer))
}

fn keep_lower(lowest: &mut Option<((i64, i64), String)>, order: (i64, i64), peer: &str) {
    if lowest.as_ref().is_none_or(|(lowest, _)| *lowest > order) {
        *lowest = Some((order, peer.to_owned()));
    }
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

    const NOW: Timestamp = Timestamp::from_unix_nanos(1000);

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
        assert_eq!(store.insert(&first, NOW).unwrap(), Kept::New { dropped: 0 });
        assert_eq!(store.insert(&round("", "r", 9), NOW).unwrap(), Kept::Known);
        let peers = round("peer", "r", 7);
        assert_eq!(store.insert(&peers, NOW).unwrap(), Kept::New { dropped: 0 });
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.list().unwrap(), [peers, first]);
    }

    #[test]
    fn an_origin_keeps_its_newest_rounds_and_displaces_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.insert(&round("", "own", 1), NOW).unwrap();
        let count = MAX_ROUNDS_PER_ORIGIN as i64;
        for n in 0..count {
            store
                .insert(&round("peer", &format!("r-{n}"), 10 + n), NOW)
                .unwrap();
        }
        let older = store.insert(&round("peer", "older", 9), NOW).unwrap();
        assert_eq!(older, Kept::Known);
        let newer = store
            .insert(&round("peer", "newer", 10 + count), NOW)
            .unwrap();
        assert_eq!(newer, Kept::New { dropped: 1 });
        let rounds = store.list().unwrap();
        assert_eq!(rounds.len(), MAX_ROUNDS_PER_ORIGIN + 1);
        assert_eq!(rounds[0].round_id, "newer");
        assert_eq!(rounds.last().unwrap().round_id, "own");
        assert!(rounds.iter().all(|r| r.round_id != "r-0"));
    }

    fn origins(store: &Store) -> Vec<String> {
        let rounds = store.list().unwrap();
        let mut origins: Vec<_> = rounds.into_iter().map(|round| round.origin).collect();
        origins.sort();
        origins.dedup();
        origins
    }

    #[test]
    fn while_every_peer_has_an_open_round_the_one_heard_of_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let open = NOW.as_unix_nanos();
        let at = |nanos| Timestamp::from_unix_nanos(open - 1000 + nanos);
        for n in 0..MAX_PEERS {
            let peer = round(&format!("peer-{n:04}"), "r", open);
            store.insert(&peer, at(n as i64)).unwrap();
        }
        // The first is heard of again, so the second leaves.
        let known = round("peer-0000", "s", open);
        let own = round("", "r", open);
        for round in [known, own] {
            let kept = store.insert(&round, at(900)).unwrap();
            assert_eq!(kept, Kept::New { dropped: 0 });
        }
        let closed = store.insert(&round("closed", "r", open - 1), NOW).unwrap();
        assert_eq!(closed, Kept::TooManyPeers);
        let other = store.insert(&round("other", "r", open), NOW).unwrap();
        assert_eq!(other, Kept::New { dropped: 1 });
        let origins = origins(&store);
        assert_eq!(origins.len() as u64, MAX_PEERS + 1);
        assert!(!origins.contains(&"peer-0001".to_owned()));
    }

    #[test]
    fn one_more_peer_takes_the_place_of_the_one_closed_for_the_longest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.insert(&round("", "own", 1), NOW).unwrap();
        for n in 0..MAX_PEERS {
            for id in ["r", "s"] {
                let peer = round(&format!("peer-{n:04}"), id, 10 + n as i64);
                store.insert(&peer, NOW).unwrap();
            }
        }
        // The first is not silent any more, so the second is silent for the longest.
        store.insert(&round("peer-0000", "t", 900), NOW).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let older = round("older", "r", 10);
        assert_eq!(store.insert(&older, NOW).unwrap(), Kept::TooManyPeers);
        let newer = round("newer", "r", 950);
        assert_eq!(store.insert(&newer, NOW).unwrap(), Kept::New { dropped: 2 });
        let origins = origins(&store);
        assert_eq!(origins.len() as u64, MAX_PEERS + 1);
        assert!(!origins.contains(&"peer-0001".to_owned()));
        for kept in ["", "peer-0000", "peer-0002", "newer"] {
            assert!(origins.contains(&kept.to_owned()), "{kept}");
        }
    }
}
