//! Generated types into ours and back.

use sovereign_model::{Digest, Version};
use sovereign_proto::checkpoint::v1 as wire;

use crate::domain::{Class, Object, Rank, check_pin_name};
use crate::error::StoreError;
use crate::store::{ClassUsage, Logged, PinChange};

pub(crate) fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, StoreError> {
    Digest::from_slice(bytes).map_err(|cause| StoreError::Digest { field, cause })
}

pub(crate) fn hex_digest(field: &'static str, text: &str) -> Result<Digest, StoreError> {
    Digest::from_hex(text).map_err(|cause| StoreError::Digest { field, cause })
}

pub(crate) fn version(text: &str) -> Result<Version, StoreError> {
    Version::parse(text).map_err(|cause| StoreError::Version {
        field: "version",
        cause,
    })
}

pub(crate) fn class(class: wire::ObjectClass) -> Result<Class, StoreError> {
    match class {
        wire::ObjectClass::Picture => Ok(Class::Picture),
        wire::ObjectClass::Scan => Ok(Class::Scan),
        wire::ObjectClass::Checkpoint => Ok(Class::Checkpoint),
        wire::ObjectClass::Unspecified => Err(StoreError::ClassMissing),
    }
}

fn class_to_wire(class: Class) -> wire::ObjectClass {
    match class {
        Class::Picture => wire::ObjectClass::Picture,
        Class::Scan => wire::ObjectClass::Scan,
        Class::Checkpoint => wire::ObjectClass::Checkpoint,
    }
}

/// A pin's name; absent when it is empty.
pub(crate) fn pin_name(name: String) -> Result<Option<String>, StoreError> {
    match name.as_str() {
        "" => Ok(None),
        valid if check_pin_name(valid) => Ok(Some(name)),
        _ => Err(StoreError::PinName { field: "pin" }),
    }
}

pub(crate) fn pin_change(change: wire::PinChange) -> Result<PinChange, StoreError> {
    let rank = match change.strength() {
        wire::PinStrength::Unspecified => Rank::Free,
        wire::PinStrength::Prefer => Rank::Prefer,
        wire::PinStrength::Keep => Rank::Keep,
    };
    if !check_pin_name(&change.name) {
        return Err(StoreError::PinName {
            field: "changes.name",
        });
    }
    Ok(PinChange {
        digest: digest("changes.digest", &change.digest)?,
        name: change.name,
        rank,
    })
}

fn strength(rank: Rank) -> wire::PinStrength {
    match rank {
        Rank::Free => wire::PinStrength::Unspecified,
        Rank::Prefer => wire::PinStrength::Prefer,
        Rank::Keep => wire::PinStrength::Keep,
    }
}

pub(crate) fn object_info(object: &Object, pins: Vec<(String, Rank)>) -> wire::ObjectInfo {
    let pins = pins.into_iter().map(|(name, rank)| wire::Pin {
        name,
        strength: strength(rank).into(),
    });
    wire::ObjectInfo {
        digest: object.digest.as_bytes().to_vec().into(),
        size_bytes: object.size_bytes,
        class: class_to_wire(object.class).into(),
        stored_unix_nanos: object.stored.as_unix_nanos(),
        pins: pins.collect(),
    }
}

pub(crate) fn class_usage(class: Class, usage: ClassUsage, max_bytes: u64) -> wire::ClassUsage {
    wire::ClassUsage {
        class: class_to_wire(class).into(),
        objects: usage.objects,
        size_bytes: usage.size_bytes,
        max_bytes,
        expired: usage.expired,
        evicted: usage.evicted,
    }
}

pub(crate) fn meta(logged: &Logged, backend: &str) -> wire::CheckpointMeta {
    let checkpoint = &logged.checkpoint;
    wire::CheckpointMeta {
        version: checkpoint.version.to_string(),
        digest: checkpoint.digest.to_hex(),
        cid: checkpoint.digest.cid(),
        size_bytes: checkpoint.size_bytes,
        created_unix_nanos: checkpoint.created.as_unix_nanos(),
        backend: backend.to_owned(),
    }
}

pub(crate) fn change(logged: &Logged, backend: &str) -> wire::CheckpointChange {
    wire::CheckpointChange {
        sequence: logged.sequence,
        meta: Some(meta(logged, backend)),
    }
}
