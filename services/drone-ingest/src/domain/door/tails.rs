//! Frames that do not end with their datagram: a serial bridge sends what it has, wherever a frame is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use sovereign_model::Timestamp;

/// Senders whose unfinished frames are kept; of more, the one that was silent longest is given up.
pub(super) const MAX_TAILS: usize = 1_024;
/// The largest frame: a MAVLink 2 header, 255 bytes, a checksum and a signature.
pub(super) const MAX_FRAME: usize = 10 + 255 + 2 + 13;

/// The beginnings of frames, by sender.
#[derive(Debug, Default)]
pub(super) struct Tails {
    by_sender: HashMap<SocketAddr, Tail>,
}

#[derive(Debug)]
struct Tail {
    bytes: Vec<u8>,
    heard: Timestamp,
}

impl Tails {
    pub(super) fn has(&self, from: SocketAddr) -> bool {
        self.by_sender.contains_key(&from)
    }

    pub(super) fn take(&mut self, from: SocketAddr) -> Option<Vec<u8>> {
        self.by_sender.remove(&from).map(|tail| tail.bytes)
    }

    /// Keeps the beginning of a frame; the bytes of the one that had to go for it.
    pub(super) fn keep(&mut self, from: SocketAddr, bytes: &[u8], now: Timestamp) -> Option<usize> {
        let full = self.by_sender.len() >= MAX_TAILS && !self.has(from);
        let oldest = full.then(|| self.by_sender.iter().min_by_key(|(_, tail)| tail.heard));
        let oldest = oldest.flatten().map(|(sender, _)| *sender);
        let gone = oldest.and_then(|sender| self.take(sender));
        let tail = Tail {
            bytes: bytes.to_vec(),
            heard: now,
        };
        self.by_sender.insert(from, tail);
        gone.map(|bytes| bytes.len())
    }

    /// Gives up what was not finished for so long; how many bytes each had.
    pub(super) fn expire(&mut self, now: Timestamp, after: Duration) -> Vec<usize> {
        let old = self
            .by_sender
            .extract_if(|_, tail| now.since(tail.heard) > after);
        old.map(|(_, tail)| tail.bytes.len()).collect()
    }
}
