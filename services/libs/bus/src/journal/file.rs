//! The journal's file: what is on disk, and how it is read and written.
//!
//! `entries` describes every retained message and is read whole at start; `payloads` is read only for
//! messages that left the cache. `cursors` holds the last acknowledged number per topic, group and key,
//! `numbers` the last number that a topic gave.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use redb::{Error, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use sovereign_disk::{Database, Layout};

use crate::{OpenError, transport::Headers};

const LAYOUT: Layout = Layout {
    format: 1,
    // Recent payloads are served from the journal's own cache.
    page_cache_bytes: 8 << 20,
};

/// Payloads are cut at this size: redb gives each value its own run of a power of two of pages, so that
/// a whole 5 MiB payload would take and write 8 MiB. The rest of the 64 KiB is for the page's header.
const CHUNK_BYTES: usize = (64 << 10) - 512;

const ENTRIES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("entries");
const PAYLOADS: TableDefinition<'_, (&str, u64, u32), &[u8]> = TableDefinition::new("payloads");
const CURSORS: TableDefinition<'_, (&str, &str, &str), u64> = TableDefinition::new("cursors");
const GROUPS: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("groups");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EntryRecord {
    #[prost(string, tag = "1")]
    pub(super) subject: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) node: String,
    #[prost(string, tag = "4")]
    pub(super) message_id: String,
    #[prost(string, optional, tag = "5")]
    pub(super) traceparent: Option<String>,
    #[prost(uint64, tag = "7")]
    pub(super) payload_bytes: u64,
}

impl EntryRecord {
    pub(super) fn headers(&self) -> Headers {
        Headers {
            node: self.node.as_str().into(),
            message_id: self.message_id.clone(),
            traceparent: self.traceparent.clone(),
        }
    }
}

pub(super) enum Write {
    Message {
        topic: Arc<str>,
        number: u64,
        record: EntryRecord,
        payload: Bytes,
    },
    Remove {
        topic: Arc<str>,
        number: u64,
        payload_bytes: u64,
    },
    Group {
        topic: Arc<str>,
        group: String,
    },
    Cursor {
        topic: Arc<str>,
        group: String,
        key: Arc<str>,
        number: u64,
    },
    /// A key has no message left, so that its cursor says nothing.
    ForgetKey {
        topic: Arc<str>,
        group: String,
        key: Arc<str>,
    },
}

#[derive(Default)]
pub(super) struct Contents {
    pub(super) entries: Vec<(String, u64, EntryRecord)>,
    pub(super) groups: Vec<(String, String)>,
    pub(super) cursors: Vec<(String, String, String, u64)>,
    pub(super) numbers: Vec<(String, u64)>,
}

pub(super) fn open(path: &Path) -> Result<(Database, Contents), OpenError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|cause| OpenError::Folder {
            path: path.to_owned(),
            cause,
        })?;
    }
    let database = Database::open(path, LAYOUT, make_tables)?;
    let contents = read_contents(&database).map_err(|error| OpenError::Read {
        path: path.to_owned(),
        cause: Box::new(error),
    })?;
    Ok((database, contents))
}

fn make_tables(write: &WriteTransaction) -> Result<(), Error> {
    write.open_table(ENTRIES)?;
    write.open_table(PAYLOADS)?;
    write.open_table(CURSORS)?;
    write.open_table(GROUPS)?;
    write.open_table(NUMBERS)?;
    Ok(())
}

fn read_contents(database: &Database) -> Result<Contents, Error> {
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (key, value) = row?;
        let (topic, number) = key.value();
        let record = decode_entry(value.value())?;
        contents.entries.push((topic.to_owned(), number, record));
    }
    for row in transaction.open_table(GROUPS)?.iter()? {
        let (key, _) = row?;
        let (topic, group) = key.value();
        contents.groups.push((topic.to_owned(), group.to_owned()));
    }
    for row in transaction.open_table(CURSORS)?.iter()? {
        let (key, number) = row?;
        let (topic, group, key) = key.value();
        let names = (topic.to_owned(), group.to_owned(), key.to_owned());
        contents
            .cursors
            .push((names.0, names.1, names.2, number.value()));
    }
    for row in transaction.open_table(NUMBERS)?.iter()? {
        let (topic, number) = row?;
        contents
            .numbers
            .push((topic.value().to_owned(), number.value()));
    }
    Ok(contents)
}

fn decode_entry(bytes: &[u8]) -> Result<EntryRecord, Error> {
    prost::Message::decode(bytes)
        .map_err(|error| Error::Corrupted(format!("an entry does not decode: {error}")))
}

pub(super) fn commit(database: &Database, writes: &[Write]) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    write_all(&transaction, writes)?;
    transaction.commit()
}

fn write_all(transaction: &WriteTransaction, writes: &[Write]) -> Result<(), Error> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let mut payloads = transaction.open_table(PAYLOADS)?;
    let mut cursors = transaction.open_table(CURSORS)?;
    let mut groups = transaction.open_table(GROUPS)?;
    let mut numbers = transaction.open_table(NUMBERS)?;
    for write in writes {
        match write {
            Write::Message {
                topic,
                number,
                record,
                payload,
            } => {
                let encoded = prost::Message::encode_to_vec(record);
                entries.insert((&**topic, *number), encoded.as_slice())?;
                for (index, chunk) in (0..).zip(payload.chunks(CHUNK_BYTES)) {
                    payloads.insert((&**topic, *number, index), chunk)?;
                }
                numbers.insert(&**topic, number)?;
            }
            Write::Remove {
                topic,
                number,
                payload_bytes,
            } => {
                entries.remove((&**topic, *number))?;
                let chunks = payload_bytes.div_ceil(CHUNK_BYTES as u64);
                for index in (0..).take_while(|index| u64::from(*index) < chunks) {
                    payloads.remove((&**topic, *number, index))?;
                }
            }
            Write::Group { topic, group } => {
                groups.insert((&**topic, group.as_str()), ())?;
            }
            Write::Cursor {
                topic,
                group,
                key,
                number,
            } => {
                cursors.insert((&**topic, group.as_str(), &**key), number)?;
            }
            Write::ForgetKey { topic, group, key } => {
                cursors.remove((&**topic, group.as_str(), &**key))?;
            }
        }
    }
    Ok(())
}

/// Reads one message; `None` when retention removed it.
pub(super) fn read(
    database: &Database,
    topic: &str,
    number: u64,
) -> Result<Option<(EntryRecord, Bytes)>, Error> {
    let transaction = database.begin_read()?;
    let entries = transaction.open_table(ENTRIES)?;
    let Some(entry) = entries.get((topic, number))? else {
        return Ok(None);
    };
    let record = decode_entry(entry.value())?;
    let payload = read_payload(&transaction, topic, number, &record)?;
    Ok(Some((record, payload)))
}

fn read_payload(
    transaction: &ReadTransaction,
    topic: &str,
    number: u64,
    record: &EntryRecord,
) -> Result<Bytes, Error> {
    let payloads = transaction.open_table(PAYLOADS)?;
    let length = usize::try_from(record.payload_bytes).unwrap_or(usize::MAX);
    let mut payload = Vec::with_capacity(length.min(64 << 20));
    for row in payloads.range((topic, number, 0)..=(topic, number, u32::MAX))? {
        let (_, chunk) = row?;
        payload.extend_from_slice(chunk.value());
    }
    if payload.len() == length {
        Ok(Bytes::from(payload))
    } else {
        Err(Error::Corrupted(format!(
            "payload {number} of {topic} has {} bytes instead of {length}",
            payload.len()
        )))
    }
}
