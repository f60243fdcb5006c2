//! Rounds on disk, by origin and round id, and the log of this node's own. Everything here blocks.

use std::path::Path;

use redb::{ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition};
use sovereign_disk::{Database, Layout};
use sovereign_model::{Digest, Timestamp};

use crate::domain::{Event, Phase, Round, Terms, newest_first};
use crate::error::StoreError;

/// Rounds kept of one origin; one more drops the one that opened first. Of this node only closed ones
/// are dropped: while all are open no other is opened.
pub(crate) const MAX_ROUNDS_PER_ORIGIN: usize = 128;
/// Peers kept. One more takes the place of the peer whose rounds are closed for the longest; while every
/// peer has an open round, of the one heard of longest ago. One whose own round closed before those of all
/// others is refused.
pub(crate) const MAX_PEERS: u64 = 256;
/// Records kept in the log; the oldest goes, and a reader that was behind it is told so.
const MAX_RECORDS: u64 = 65_536;
const LAYOUT: Layout = Layout {
    format: 1,
    page_cache_bytes: 2 << 20,
};
const STORE_FILE: &str = "rounds.redb";

/// Model digest, participants, opened and closes in nanoseconds since the Unix epoch, node name, whether
/// it is closed.
type Row<'a> = (&'a [u8], u32, i64, i64, &'a str, bool);
/// By origin, empty for this node, and round id.
const ROUNDS: TableDefinition<'_, (&str, &str), Row<'static>> = TableDefinition::new("rounds");
/// What happened to the rounds of this node, with their ids, by sequence. The newest is never removed, so
/// no sequence is used twice.
const LOG: TableDefinition<'_, u64, (&str, Row<'static>)> = TableDefinition::new("log");
/// When the last round of each peer in `ROUNDS` closes, and when a new one was last heard of, nanoseconds
/// since the Unix epoch.
const PEERS: TableDefinition<'_, &str, (i64, i64)> = TableDefinition::new("peers");

type Rounds<'a> = Table<'a, (&'static str, &'static str), Row<'static>>;
type Peers<'a> = Table<'a, &'static str, (i64, i64)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The round is this now; so many older ones of its origin, or of a peer that made room, were dropped.
    Changed { round: Round, dropped: usize },
    /// It changed nothing, or is of a round older than all that are kept of its origin.
    Known,
    /// There is no room for one more peer.
    TooManyPeers,
    /// This node has as many open rounds as it keeps.
    TooManyOpen,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) entries: Vec<(u64, Round)>,
    pub(crate) oldest_kept: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Database,
    max_records: u64,
}

impl Store {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, MAX_RECORDS)
    }

    fn open_with(dir: &Path, max_records: u64) -> Result<Self, StoreError> {
        let database = Database::open(&dir.join(STORE_FILE), LAYOUT, |write| {
            write.open_table(LOG)?;
            write.delete_table(PEERS)?;
            let mut peers = write.open_table(PEERS)?;
            for entry in write.open_table(ROUNDS)?.iter()? {
                let (key, row) = entry?;
                note(&mut peers, key.value().0, row.value().3, 0)?;
            }
            Ok(())
        })?;
        Ok(Self {
            database,
            max_records,
        })
    }

    /// Lets an event happen to a round; what changed is on disk when it returns.
    pub(crate) fn apply(
        &self,
        origin: &str,
        round_id: &str,
        event: Event,
        now: Timestamp,
    ) -> Result<Kept, StoreError> {
        let apply = || -> Result<Kept, redb::Error> {
            let write = self.database.begin_write()?;
            let kept = {
                let mut rounds = write.open_table(ROUNDS)?;
                let mut peers = write.open_table(PEERS)?;
                let key = (origin, round_id);
                let known = rounds
                    .get(key)?
                    .and_then(|row| round_from_row(origin, round_id, row.value()));
                let Some(round) = Round::apply(known.as_ref(), event, now) else {
                    return Ok(Kept::Known);
                };
                let mut dropped = 0;
                if known.is_none() {
                    match make_room(&mut rounds, &mut peers, &round.terms, now)? {
                        Ok(made) => dropped = made,
                        Err(refused) => return Ok(refused),
                    }
                }
                rounds.insert(key, row_from_round(&round))?;
                if origin.is_empty() {
                    let mut log = write.open_table(LOG)?;
                    let newest = log.last()?.map_or(0, |(sequence, _)| sequence.value());
                    log.insert(newest + 1, (round_id, row_from_round(&round)))?;
                    while log.len()? > self.max_records {
                        log.pop_first()?;
                    }
                }
                Kept::Changed { round, dropped }
            };
            write.commit()?;
            Ok(kept)
        };
        apply().map_err(failed("keep a round"))
    }

    pub(crate) fn list(&self) -> Result<Vec<Round>, StoreError> {
        let read = || -> Result<Vec<Round>, redb::Error> {
            let mut rounds = Vec::new();
            for entry in self.database.begin_read()?.open_table(ROUNDS)?.iter()? {
                let (key, row) = entry?;
                let (origin, round_id) = key.value();
                rounds.extend(round_from_row(origin, round_id, row.value()));
            }
            Ok(rounds)
        };
        let mut rounds = read().map_err(failed("list the rounds"))?;
        newest_first(&mut rounds);
        Ok(rounds)
    }

    /// The open rounds of this node: when each closes, and its id.
    pub(crate) fn open_rounds(&self) -> Result<Vec<(Timestamp, String)>, StoreError> {
        let read = || -> Result<Vec<(Timestamp, String)>, redb::Error> {
            let mut open = Vec::new();
            let table = self.database.begin_read()?.open_table(ROUNDS)?;
            // No other origin is empty, and those of this node come first.
            for entry in table.range(("", "")..)? {
                let (key, row) = entry?;
                let ((origin, round_id), (_, _, _, closes, _, closed)) = (key.value(), row.value());
                if !origin.is_empty() {
                    break;
                }
                if !closed {
                    open.push((Timestamp::from_unix_nanos(closes), round_id.to_owned()));
                }
            }
            Ok(open)
        };
        read().map_err(failed("list the open rounds"))
    }

    pub(crate) fn records(&self, after: u64, limit: usize) -> Result<Records, StoreError> {
        let read = || -> Result<Records, redb::Error> {
            let log = self.database.begin_read()?.open_table(LOG)?;
            let mut entries = Vec::new();
            for entry in log.range(after.saturating_add(1)..)?.take(limit) {
                let (sequence, row) = entry?;
                let (round_id, row) = row.value();
                let round = round_from_row("", round_id, row);
                entries.extend(round.map(|round| (sequence.value(), round)));
            }
            let oldest_kept = log.first()?.map_or(0, |(sequence, _)| sequence.value());
            Ok(Records {
                entries,
                oldest_kept,
            })
        };
        read().map_err(failed("read the log of rounds"))
    }
}

fn row_from_round(round: &Round) -> Row<'_> {
    let terms = &round.terms;
    (
        terms.model.as_bytes(),
        terms.min_participants,
        terms.opened.as_unix_nanos(),
        terms.closes.as_unix_nanos(),
        &terms.node_id,
        round.phase == Phase::Closed,
    )
}

/// Absent when what is stored is no digest, which this store never wrote.
fn round_from_row(origin: &str, round_id: &str, row: Row<'_>) -> Option<Round> {
    let (model, min_participants, opened, closes, node_id, closed) = row;
    Some(Round {
        terms: Terms {
            origin: origin.to_owned(),
            round_id: round_id.to_owned(),
            model: Digest::from_slice(model).ok()?,
            min_participants,
            opened: Timestamp::from_unix_nanos(opened),
            closes: Timestamp::from_unix_nanos(closes),
            node_id: node_id.to_owned(),
        },
        phase: if closed { Phase::Closed } else { Phase::Open },
    })
}

/// Makes room for a new round; how many others were dropped, or why there is none.
fn make_room(
    rounds: &mut Rounds<'_>,
    peers: &mut Peers<'_>,
    terms: &Terms,
    now: Timestamp,
) -> Result<Result<usize, Kept>, redb::Error> {
    let origin = terms.origin.as_str();
    let (opened, closes) = (terms.opened.as_unix_nanos(), terms.closes.as_unix_nanos());
    let mut of_origin = rounds_of(rounds, origin)?;
    let mut dropped = (of_origin.len() + 1).saturating_sub(MAX_ROUNDS_PER_ORIGIN);
    if dropped > 0 && origin.is_empty() {
        of_origin.retain(|(_, _, closed)| *closed);
        if of_origin.len() < dropped {
            return Ok(Err(Kept::TooManyOpen));
        }
    } else if dropped > 0 && of_origin.iter().all(|(first, _, _)| *first >= opened) {
        return Ok(Err(Kept::Known));
    }
    of_origin.sort();
    for (_, id, _) in &of_origin[..dropped] {
        rounds.remove((origin, id.as_str()))?;
    }
    let more = !origin.is_empty() && peers.get(origin)?.is_none();
    if more && peers.len()? >= MAX_PEERS {
        let Some(leaving) = peer_to_replace(peers, closes, now.as_unix_nanos())? else {
            return Ok(Err(Kept::TooManyPeers));
        };
        for (_, id, _) in rounds_of(rounds, &leaving)? {
            rounds.remove((leaving.as_str(), id.as_str()))?;
            dropped += 1;
        }
        peers.remove(leaving.as_str())?;
    }
    note(peers, origin, closes, now.as_unix_nanos())?;
    Ok(Ok(dropped))
}

fn rounds_of(rounds: &Rounds<'_>, origin: &str) -> Result<Vec<(i64, String, bool)>, redb::Error> {
    let mut found = Vec::new();
    for entry in rounds.range((origin, "")..)? {
        let (key, row) = entry?;
        let ((other, id), (_, _, opened, _, _, closed)) = (key.value(), row.value());
        if other != origin {
            break;
        }
        found.push((opened, id.to_owned(), closed));
    }
    Ok(found)
}

/// A round of `origin` was heard of at `heard` and closes then; this node is no peer.
fn note(peers: &mut Peers<'_>, origin: &str, closes: i64, heard: i64) -> Result<(), redb::Error> {
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
    peers: &Peers<'_>,
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
    move |cause| StoreError::Use {
        operation,
        cause: Box::new(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_nanos(1000);

    fn terms(origin: &str, id: &str, opened: i64) -> Terms {
        Terms {
            origin: origin.to_owned(),
            round_id: id.to_owned(),
            model: Digest::of(b"model"),
            min_participants: 2,
            opened: Timestamp::from_unix_nanos(opened),
            closes: Timestamp::from_unix_nanos(opened + 1),
            node_id: "north".to_owned(),
        }
    }

    fn is(phase: Phase, terms: &Terms) -> Round {
        Round {
            terms: terms.clone(),
            phase,
        }
    }

    fn open_at(store: &Store, terms: &Terms, now: Timestamp) -> Kept {
        let (origin, id) = (&terms.origin, &terms.round_id);
        store
            .apply(origin, id, Event::Opened(terms.clone()), now)
            .unwrap()
    }

    fn open(store: &Store, terms: &Terms) -> Kept {
        open_at(store, terms, NOW)
    }

    fn new(terms: &Terms, dropped: usize) -> Kept {
        Kept::Changed {
            round: is(Phase::Open, terms),
            dropped,
        }
    }

    fn expire(store: &Store, id: &str) -> Kept {
        store.apply("", id, Event::Expired, NOW).unwrap()
    }

    #[test]
    fn the_first_terms_of_a_round_stay_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = terms("", "r", 5);
        assert_eq!(open(&store, &first), new(&first, 0));
        assert_eq!(open(&store, &terms("", "r", 9)), Kept::Known);
        let peers = terms("peer", "r", 7);
        assert_eq!(open(&store, &peers), new(&peers, 0));
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let kept = [is(Phase::Open, &peers), is(Phase::Open, &first)];
        assert_eq!(store.list().unwrap(), kept);
    }

    #[test]
    fn each_phase_of_an_own_round_is_in_the_log_once_and_those_of_peers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), 3).unwrap();
        let nothing = Records {
            entries: Vec::new(),
            oldest_kept: 0,
        };
        assert_eq!(store.records(0, 10).unwrap(), nothing);
        let (own, peers) = (terms("", "r", 5), terms("peer", "s", 5));
        for _ in 0..2 {
            open(&store, &own);
            open(&store, &peers);
            assert_eq!(store.open_rounds().unwrap(), [(own.closes, "r".to_owned())]);
        }
        for _ in 0..2 {
            expire(&store, "r");
            assert!(store.open_rounds().unwrap().is_empty());
        }
        drop(store);
        let store = Store::open_with(dir.path(), 3).unwrap();
        let [first, second] = [is(Phase::Open, &own), is(Phase::Closed, &own)];
        let log = store.records(0, 10).unwrap();
        assert_eq!(log.entries, [(1, first), (2, second.clone())]);
        assert_eq!(log.oldest_kept, 1);
        assert_eq!(store.records(1, 10).unwrap().entries, [(2, second)]);
        assert_eq!(store.records(0, 1).unwrap().entries.len(), 1);
        // One more than is kept.
        for id in ["s", "t"] {
            open(&store, &terms("", id, 6));
        }
        let log = store.records(0, 10).unwrap();
        assert_eq!(log.entries.first().unwrap().0, 2);
        assert_eq!((log.entries.len(), log.oldest_kept), (3, 2));
    }

    #[test]
    fn an_origin_keeps_its_newest_rounds_and_displaces_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        open(&store, &terms("", "own", 1));
        let count = MAX_ROUNDS_PER_ORIGIN as i64;
        for n in 0..count {
            open(&store, &terms("peer", &format!("r-{n}"), 10 + n));
        }
        assert_eq!(open(&store, &terms("peer", "older", 9)), Kept::Known);
        let newer = terms("peer", "newer", 10 + count);
        assert_eq!(open(&store, &newer), new(&newer, 1));
        let rounds = store.list().unwrap();
        assert_eq!(rounds.len(), MAX_ROUNDS_PER_ORIGIN + 1);
        assert_eq!(rounds[0].terms.round_id, "newer");
        assert_eq!(rounds.last().unwrap().terms.round_id, "own");
        assert!(rounds.iter().all(|r| r.terms.round_id != "r-0"));
    }

    #[test]
    fn an_open_round_of_this_node_is_never_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..MAX_ROUNDS_PER_ORIGIN {
            open(&store, &terms("", &format!("r-{n}"), 10));
        }
        let more = terms("", "more", 9);
        assert_eq!(open(&store, &more), Kept::TooManyOpen);
        expire(&store, "r-7");
        assert_eq!(open(&store, &more), new(&more, 1));
        assert_eq!(store.open_rounds().unwrap().len(), MAX_ROUNDS_PER_ORIGIN);
        // It was closed, and its record stays.
        assert_eq!(expire(&store, "r-7"), Kept::Known);
        let log = store.records(0, 1000).unwrap().entries;
        assert!(
            log.iter()
                .any(|(_, r)| r.phase == Phase::Closed && r.terms.round_id == "r-7")
        );
    }

    fn origins(store: &Store) -> Vec<String> {
        let rounds = store.list().unwrap();
        let mut origins: Vec<_> = rounds.into_iter().map(|round| round.terms.origin).collect();
        origins.sort();
        origins.dedup();
        origins
    }

    #[test]
    fn while_every_peer_has_an_open_round_the_one_heard_of_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let now = NOW.as_unix_nanos();
        let at = |nanos| Timestamp::from_unix_nanos(now - 1000 + nanos);
        for n in 0..MAX_PEERS {
            let peer = terms(&format!("peer-{n:04}"), "r", now);
            open_at(&store, &peer, at(n as i64));
        }
        // The first is heard of again, so the second leaves.
        let known = terms("peer-0000", "s", now);
        let own = terms("", "r", now);
        for terms in [known, own] {
            assert_eq!(open_at(&store, &terms, at(900)), new(&terms, 0));
        }
        let closed = terms("closed", "r", now - 1);
        assert_eq!(open(&store, &closed), Kept::TooManyPeers);
        let other = terms("other", "r", now);
        assert_eq!(open(&store, &other), new(&other, 1));
        let origins = origins(&store);
        assert_eq!(origins.len() as u64, MAX_PEERS + 1);
        assert!(!origins.contains(&"peer-0001".to_owned()));
    }

    #[test]
    fn one_more_peer_takes_the_place_of_the_one_closed_for_the_longest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        open(&store, &terms("", "own", 1));
        for n in 0..MAX_PEERS {
            for id in ["r", "s"] {
                open(&store, &terms(&format!("peer-{n:04}"), id, 10 + n as i64));
            }
        }
        // The first is not silent any more, so the second is silent for the longest.
        open(&store, &terms("peer-0000", "t", 900));
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(open(&store, &terms("older", "r", 10)), Kept::TooManyPeers);
        let newer = terms("newer", "r", 950);
        assert_eq!(open(&store, &newer), new(&newer, 2));
        let origins = origins(&store);
        assert_eq!(origins.len() as u64, MAX_PEERS + 1);
        assert!(!origins.contains(&"peer-0001".to_owned()));
        for kept in ["", "peer-0000", "peer-0002", "newer"] {
            assert!(origins.contains(&kept.to_owned()), "{kept}");
        }
    }
}
