//! The one thread that changes the store. What waits for it is done together: one append to the pack,
//! one commit of the index, however many callers.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use sovereign_disk::sync_dir;
use sovereign_model::{Digest, Timestamp, Version};
use sovereign_service::chain;
use tokio::sync::{mpsc, oneshot};

use super::files::{Files, Pack, Place};
use super::index::{Index, Logged, Row, Tables, VERSION_PIN};
use super::usage::Usage;
use crate::domain::{CLASSES, Checkpoint, Class, Decision, Object, Rank, Retention, decide};
use crate::error::StoreError;

/// Requests that wait for the thread; further callers wait for a place.
const MAX_WAITING: usize = 1024;
const MAX_BATCH: usize = 256;
/// Pins of one object; more are refused.
const MAX_PINS: usize = 16;
const MAX_GOING: usize = 65_536;
/// What goes beyond the room that is needed, as a part of the class: not a search for each object.
const SPARE_PART: u64 = 200;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
pub(super) enum Body {
    Packed(Bytes),
    /// On disk already, with the digests of its leaves.
    File {
        path: PathBuf,
        leaves: Vec<u8>,
    },
}

#[derive(Debug)]
pub(super) struct Insert {
    pub(super) object: Object,
    pub(super) body: Body,
    pub(super) pin: Option<String>,
    pub(super) version: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inserted {
    pub(crate) object: Object,
    pub(crate) known: bool,
    pub(crate) version: Option<(Logged, bool)>,
}

/// A pin to set, or with [`Rank::Free`] to remove.
#[derive(Debug, Clone)]
pub(crate) struct PinChange {
    pub(crate) digest: Digest,
    pub(crate) name: String,
    pub(crate) rank: Rank,
}

#[derive(Debug)]
enum Request {
    Insert(Box<Insert>, Reply<Inserted>),
    UpdatePins(Vec<PinChange>, Timestamp, Reply<u64>),
    MakeRoom(Class, u64, Reply<()>),
    Retain(Timestamp, Reply<()>),
}

/// Asks the thread; cheap to clone. With the last of them the thread ends.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Running>);

#[derive(Debug)]
struct Running {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever opens the store next finds the index free.
        drop(self.requests.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(_)) = ended {
            tracing::error!("the thread of the store panicked");
        }
    }
}

impl Writer {
    pub(super) fn start(
        index: Arc<Index>,
        files: Arc<Files>,
        usage: Arc<Usage>,
        limits: Limits,
        pack: Pack,
    ) -> io::Result<Self> {
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let mut work = Work {
            index,
            files,
            usage,
            limits,
            pack,
            rewritten: 0,
        };
        let thread = std::thread::Builder::new()
            .name("objects".to_owned())
            .spawn(move || work.run(waiting))?;
        Ok(Self(Arc::new(Running {
            requests: Some(requests),
            thread: Some(thread),
        })))
    }

    pub(super) fn insert(&self, insert: Insert) -> Result<Inserted, StoreError> {
        self.ask(|reply| Request::Insert(Box::new(insert), reply))
    }

    pub(super) fn update_pins(
        &self,
        changes: Vec<PinChange>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.ask(|reply| Request::UpdatePins(changes, now, reply))
    }

    /// Lets what is wanted least go, if that frees `bytes` of a class.
    pub(super) fn make_room(&self, class: Class, bytes: u64) -> Result<(), StoreError> {
        self.ask(|reply| Request::MakeRoom(class, bytes, reply))
    }

    pub(super) fn retain(&self, now: Timestamp) -> Result<(), StoreError> {
        self.ask(|reply| Request::Retain(now, reply))
    }

    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let requests = self.0.requests.as_ref().ok_or(StoreError::Unanswered)?;
        let sent = requests.blocking_send(request(reply));
        sent.map_err(|_| StoreError::Unanswered)?;
        answer.blocking_recv().map_err(|_| StoreError::Unanswered)?
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) retention: [Retention; CLASSES.len()],
    pub(crate) max_versions: u64,
}

#[derive(Debug)]
struct Work {
    index: Arc<Index>,
    files: Arc<Files>,
    usage: Arc<Usage>,
    limits: Limits,
    pack: Pack,
    /// The pack that was last written anew, or tried.
    rewritten: u64,
}

/// What a batch does beside the index: folders that must be on disk before it, files that may go and sums
/// that change after it.
#[derive(Debug, Default)]
struct Effects {
    folders: HashSet<PathBuf>,
    objects: HashSet<Digest>,
    packs: HashSet<u64>,
    stored: Vec<(Class, u64)>,
    gone: Vec<(Class, u64, Rank)>,
}

/// An answer that waits for the commit.
type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

fn answer<T: 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Answer {
    Box::new(move |committed| {
        // A caller that gave up is told nothing.
        let _ = reply.send(committed.and(result));
    })
}

impl Work {
    fn run(&mut self, mut waiting: mpsc::Receiver<Request>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH
                && let Ok(next) = waiting.try_recv()
            {
                batch.push(next);
            }
            self.work(batch);
        }
    }

    fn work(&mut self, batch: Vec<Request>) {
        let mut answers = Vec::with_capacity(batch.len());
        let mut effects = Effects::default();
        match self.commit(batch, &mut answers, &mut effects) {
            Ok(()) => {
                self.usage.settle(&effects.stored, &effects.gone);
                for digest in &effects.objects {
                    warn_of(self.files.remove_object(digest));
                }
                for pack in &effects.packs {
                    warn_of(self.files.remove_pack(*pack));
                }
                for answer in answers {
                    answer(Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "nothing of a batch was written");
                let error = Arc::new(error);
                for answer in answers {
                    answer(Err(StoreError::Batch(error.clone())));
                }
            }
        }
    }

    fn commit(
        &mut self,
        batch: Vec<Request>,
        answers: &mut Vec<Answer>,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        let failed = || StoreError::index("write the index");
        let index = Arc::clone(&self.index);
        let write = index.write().map_err(failed())?;
        {
            let mut tables = Tables::open(&write).map_err(failed())?;
            for request in batch {
                // Whoever comes after the one that failed gets no answer, which is one too.
                answers.push(self.handle(request, &mut tables, effects)?);
            }
        }
        let mut sync = || -> io::Result<()> {
            self.pack.sync()?;
            effects
                .folders
                .iter()
                .try_for_each(|folder| sync_dir(folder))
        };
        let synced = sync();
        synced.map_err(StoreError::file("write the objects"))?;
        write.commit().map_err(failed())
    }

    fn handle(
        &mut self,
        request: Request,
        tables: &mut Tables<'_>,
        effects: &mut Effects,
    ) -> Result<Answer, StoreError> {
        Ok(match request {
            Request::Insert(insert, reply) => answer(reply, self.insert(&insert, tables, effects)?),
            Request::UpdatePins(changes, now, reply) => answer(
                reply,
                update_pins(&changes, now, tables).map_err(StoreError::index("write the pins"))?,
            ),
            Request::MakeRoom(class, bytes, reply) => {
                answer(reply, Ok(self.make_room(class, bytes, tables, effects)?))
            }
            Request::Retain(now, reply) => answer(reply, Ok(self.retain(now, tables, effects)?)),
        })
    }

    fn insert(
        &mut self,
        insert: &Insert,
        tables: &mut Tables<'_>,
        effects: &mut Effects,
    ) -> Result<Result<Inserted, StoreError>, StoreError> {
        let failed = || StoreError::index("write the index");
        let object = &insert.object;
        let digest = object.digest;
        let named = match &insert.version {
            None => None,
            Some(version) => {
                let known = tables.version(version).map_err(failed())?;
                let decision = decide(known.as_ref().map(|known| &known.checkpoint), &digest);
                let limit = self.limits.max_versions;
                match decision {
                    Decision::Taken => return Ok(Err(StoreError::Taken(version.clone()))),
                    Decision::Store if tables.version_count().map_err(failed())? >= limit => {
                        return Ok(Err(StoreError::TooMany { limit }));
                    }
                    Decision::Store | Decision::Known => Some((version, known)),
                }
            }
        };
        let known = tables.object(&digest).map_err(failed())?;
        let row = match &known {
            Some(row) => {
                let place = self.repair(row, &insert.body, effects)?;
                if let Some(place) = place {
                    self.note_end(place, tables).map_err(failed())?;
                    let empty = tables.move_to(row, place).map_err(failed())?;
                    self.drop_pack(empty, tables, effects).map_err(failed())?;
                }
                tables
                    .object(&digest)
                    .map_err(failed())?
                    .unwrap_or_else(|| row.clone())
            }
            None => {
                let place = self.put(object, &insert.body, effects)?;
                self.note_end(place, tables).map_err(failed())?;
                let row = Row {
                    object: object.clone(),
                    rank: Rank::Free,
                    since: object.stored,
                    place,
                };
                let leaves: &[u8] = match &insert.body {
                    Body::Packed(_) => &[],
                    Body::File { leaves, .. } => leaves,
                };
                tables.insert(&row, leaves).map_err(failed())?;
                effects.stored.push((object.class, object.size_bytes));
                row
            }
        };
        effects.objects.remove(&digest);
        let pins = [insert.pin.as_deref(), named.as_ref().map(|_| VERSION_PIN)];
        for name in pins.into_iter().flatten() {
            let row = tables.object(&digest).map_err(failed())?;
            if let Some(row) = row {
                tables
                    .pin(&row, name, Rank::Keep, object.stored)
                    .map_err(failed())?;
            }
        }
        let version = match named {
            None => None,
            Some((_, Some(known))) => Some((known, false)),
            Some((version, None)) => {
                let checkpoint = Checkpoint {
                    version: version.clone(),
                    digest,
                    size_bytes: object.size_bytes,
                    created: object.stored,
                };
                let sequence = tables.insert_version(&checkpoint).map_err(failed())?;
                let logged = Logged {
                    sequence,
                    checkpoint,
                };
                Some((logged, true))
            }
        };
        Ok(Ok(Inserted {
            object: row.object,
            known: known.is_some(),
            version,
        }))
    }

    fn put(
        &mut self,
        object: &Object,
        body: &Body,
        effects: &mut Effects,
    ) -> Result<Place, StoreError> {
        let put = match body {
            Body::Packed(bytes) => self.pack.append(&self.files, object, bytes),
            Body::File { path, .. } => self.files.place(path, &object.digest).map(|folder| {
                effects.folders.insert(folder);
                Place::File
            }),
        };
        put.map_err(StoreError::file("write an object"))
    }

    /// Replaces what is there when it is damaged; says where it lies then.
    fn repair(
        &mut self,
        row: &Row,
        body: &Body,
        effects: &mut Effects,
    ) -> Result<Option<Place>, StoreError> {
        if let Place::Pack { pack, offset } = row.place {
            let held = self.files.packed(&row.object, pack, offset);
            if held.map_err(StoreError::file("read an object"))?.is_some() {
                return Ok(None);
            }
        }
        let place = self.put(&row.object, body, effects)?;
        Ok((place != row.place).then_some(place))
    }

    fn note_end(&self, place: Place, tables: &mut Tables<'_>) -> Result<(), redb::Error> {
        match place {
            Place::Pack { pack, .. } => tables.grow(pack, self.pack.end),
            Place::File => Ok(()),
        }
    }

    fn drop_pack(
        &self,
        empty: Option<u64>,
        tables: &mut Tables<'_>,
        effects: &mut Effects,
    ) -> Result<(), redb::Error> {
        match empty {
            Some(pack) if pack != self.pack.number => {
                effects.packs.insert(pack);
                tables.forget_pack(pack)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn make_room(
        &mut self,
        class: Class,
        bytes: u64,
        tables: &mut Tables<'_>,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        let failed = || StoreError::index("make room");
        let spare = self.limits.retention[class as usize].max_bytes / SPARE_PART;
        let (mut going, mut freed) = (Vec::new(), 0_u64);
        tables
            .oldest(class, |row| {
                going.push(row.clone());
                freed += row.object.size_bytes;
                freed >= bytes.saturating_add(spare) || going.len() >= MAX_GOING
            })
            .map_err(failed())?;
        // Nothing goes for an object that finds no room anyway.
        if freed < bytes {
            return Ok(());
        }
        self.let_go(going, tables, effects).map_err(failed())
    }

    fn retain(
        &mut self,
        now: Timestamp,
        tables: &mut Tables<'_>,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        let failed = || StoreError::index("let old objects go");
        for class in CLASSES {
            let Some(max_age) = self.limits.retention[class as usize].max_age else {
                continue;
            };
            let mut going = Vec::new();
            tables
                .oldest(class, |row| {
                    let is_young = row.rank != Rank::Free || now.since(row.since) <= max_age;
                    if !is_young {
                        going.push(row.clone());
                    }
                    is_young || going.len() >= MAX_GOING
                })
                .map_err(failed())?;
            self.let_go(going, tables, effects).map_err(failed())?;
        }
        let sparse = tables.sparse_pack(self.rewritten, self.pack.number);
        match sparse.map_err(failed())? {
            Some(pack) => {
                self.rewritten = pack;
                self.rewrite(pack, tables, effects)
            }
            None => Ok(()),
        }
    }

    fn let_go(
        &self,
        going: Vec<Row>,
        tables: &mut Tables<'_>,
        effects: &mut Effects,
    ) -> Result<(), redb::Error> {
        for row in going {
            let empty = tables.remove(&row)?;
            self.drop_pack(empty, tables, effects)?;
            if row.place == Place::File {
                effects.objects.insert(row.object.digest);
            }
            effects
                .gone
                .push((row.object.class, row.object.size_bytes, row.rank));
        }
        Ok(())
    }

    /// Moves what is in use of a pack to the one that is written. What is damaged stays where it is.
    fn rewrite(
        &mut self,
        pack: u64,
        tables: &mut Tables<'_>,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        let failed = || StoreError::index("write a pack anew");
        let rows = tables.in_pack(pack).map_err(failed())?;
        let mut left = rows.len();
        for row in &rows {
            let Place::Pack { offset, .. } = row.place else {
                continue;
            };
            let bytes = self.files.packed(&row.object, pack, offset);
            let Some(bytes) = bytes.map_err(StoreError::file("read an object"))? else {
                continue;
            };
            let place = self.put(&row.object, &Body::Packed(bytes), effects)?;
            self.note_end(place, tables).map_err(failed())?;
            tables.move_to(row, place).map_err(failed())?;
            left -= 1;
        }
        if left == 0 {
            self.drop_pack(Some(pack), tables, effects)
                .map_err(failed())?;
        }
        Ok(())
    }
}

/// How many of the objects are not here; all of the changes or none.
fn update_pins(
    changes: &[PinChange],
    now: Timestamp,
    tables: &mut Tables<'_>,
) -> Result<Result<u64, StoreError>, redb::Error> {
    for change in changes {
        let pins = tables.pins_of(&change.digest)?;
        let is_new = !pins.iter().any(|(name, _)| *name == change.name);
        if change.rank != Rank::Free && is_new && pins.len() >= MAX_PINS {
            return Ok(Err(StoreError::TooManyPins { limit: MAX_PINS }));
        }
    }
    let mut missing = 0;
    for change in changes {
        match tables.object(&change.digest)? {
            Some(row) => tables.pin(&row, &change.name, change.rank, now)?,
            None => missing += 1,
        }
    }
    Ok(Ok(missing))
}

fn warn_of(removed: io::Result<()>) {
    match removed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "a file of the store could not be removed"),
    }
}
