//! What the tests of the domain share: recorded and reference data, and frames made on the spot.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use mavlink::dialects::ardupilotmega::MavMessage;
use mavlink::{MAVLinkV1MessageRaw, MAVLinkV2MessageRaw, MavHeader};
use serde_json::Value;
use sovereign_model::Timestamp;

use super::framing::{Frame, Frames, Item};
use super::reject::Reject;

/// A file of the shared data; `None`, and a line that says so, where that data is not.
pub(crate) fn data(file: &str) -> Option<Vec<u8>> {
    let root = match std::env::var_os("SOVEREIGN_DATA") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
    };
    match std::fs::read(root.join(file)) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            // Past what libtest keeps of a test that passes: a check that was skipped shows.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "skipped: {file} of the shared data: {error}").unwrap();
            None
        }
    }
}

pub(crate) fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    lines.map(|l| serde_json::from_slice(l).unwrap()).collect()
}

pub(crate) fn bytes_from_hex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// All that a run of bytes holds.
pub(crate) fn items(bytes: &[u8]) -> (Vec<Frame<'_>>, Vec<(Reject, usize)>) {
    let (mut frames, mut refused) = (Vec::new(), Vec::new());
    for item in Frames::of(bytes) {
        match item {
            Item::Frame(frame) => frames.push(frame),
            Item::Refused { reason, bytes } => refused.push((reason, bytes)),
        }
    }
    (frames, refused)
}

/// A MAVLink 2 frame as the crate writes it.
pub(crate) fn frame_v2(system: u8, component: u8, sequence: u8, message: &MavMessage) -> Vec<u8> {
    let mut raw = MAVLinkV2MessageRaw::new();
    raw.serialize_message(header(system, component, sequence), message);
    raw.raw_bytes().to_vec()
}

/// A MAVLink 1 frame as the crate writes it.
pub(crate) fn frame_v1(system: u8, component: u8, sequence: u8, message: &MavMessage) -> Vec<u8> {
    let mut raw = MAVLinkV1MessageRaw::new();
    raw.serialize_message(header(system, component, sequence), message);
    raw.raw_bytes().to_vec()
}

fn header(system: u8, component: u8, sequence: u8) -> MavHeader {
    MavHeader {
        system_id: system.into(),
        component_id: component,
        sequence,
    }
}

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// So many milliseconds after some day in 2026.
pub(crate) fn ms(ms: i64) -> Timestamp {
    Timestamp::from_unix_nanos(1_780_000_000_000_000_000 + ms * 1_000_000)
}
