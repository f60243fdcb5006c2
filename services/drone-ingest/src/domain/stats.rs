//! Counters of the door, since the process started.

use std::collections::BTreeMap;

use super::definition::{self, Definition};
use super::framing::Version;
use super::reject::Reject;

/// MAVLink sources counted by themselves; further ones are counted together, as `other`.
pub(crate) const MAX_SOURCES: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    Sample,
    Capture,
    Lidar,
}

#[derive(Clone, Debug)]
pub(crate) struct Stats {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    pub(crate) refused_bytes: u64,
    pub(crate) signed: u64,
    messages: Vec<u64>,
    versions: [u64; 2],
    sources: BTreeMap<(u8, u8), u64>,
    other_sources: u64,
    samples: u64,
    captures: u64,
    duplicate_captures: u64,
    lidar: u64,
    rejected: [u64; Reject::COUNT],
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            datagrams: 0,
            bytes: 0,
            refused_bytes: 0,
            signed: 0,
            messages: vec![0; definition::all().len()],
            versions: [0; 2],
            sources: BTreeMap::new(),
            other_sources: 0,
            samples: 0,
            captures: 0,
            duplicate_captures: 0,
            lidar: 0,
            rejected: [0; Reject::COUNT],
        }
    }
}

impl Stats {
    pub(crate) fn accept_message(
        &mut self,
        message: &Definition,
        version: Version,
        system_id: u8,
        component_id: u8,
    ) {
        self.messages[message.index] += 1;
        match version {
            Version::V1 => self.versions[0] += 1,
            Version::V2 => self.versions[1] += 1,
        }
        let source = (system_id, component_id);
        if let Some(count) = self.sources.get_mut(&source) {
            *count += 1;
        } else if self.sources.len() < MAX_SOURCES {
            self.sources.insert(source, 1);
        } else {
            self.other_sources += 1;
        }
    }

    /// Counts something else that was accepted.
    pub(crate) fn accept(&mut self, what: Accepted) {
        match what {
            Accepted::Sample => self.samples += 1,
            Accepted::Capture => self.captures += 1,
            Accepted::Lidar => self.lidar += 1,
        }
    }

    pub(crate) fn duplicate_capture(&mut self) {
        self.duplicate_captures += 1;
    }

    pub(crate) fn reject(&mut self, reason: Reject) {
        self.rejected[reason as usize] += 1;
    }

    /// What was accepted, by name; names that never occurred are left out.
    pub(crate) fn accepted_by_type(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let messages = definition::all().iter().map(|d| d.name);
        let others = [
            ("av-v1", self.samples),
            ("capture", self.captures),
            ("capture-duplicate", self.duplicate_captures),
            ("lidar", self.lidar),
        ];
        messages
            .zip(self.messages.iter().copied())
            .chain(others)
            .filter(|(_, count)| *count > 0)
    }

    /// What was refused, by reason; reasons that never occurred are left out.
    pub(crate) fn rejected_by_reason(&self) -> impl Iterator<Item = (Reject, u64)> + '_ {
        let counts = self.rejected.iter().copied();
        Reject::ALL
            .into_iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
    }

    pub(crate) fn messages_by_source(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let other = (self.other_sources > 0).then(|| ("other".to_owned(), self.other_sources));
        self.sources
            .iter()
            .map(|((system, component), count)| (format!("{system}/{component}"), *count))
            .chain(other)
    }

    pub(crate) fn messages_by_version(&self) -> [(&'static str, u64); 2] {
        [("v1", self.versions[0]), ("v2", self.versions[1])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_beyond_the_bound_are_counted_together() {
        let mut stats = Stats::default();
        let heartbeat = definition::of(0).unwrap();
        for n in 0..2_000_u32 {
            stats.accept_message(heartbeat, Version::V2, (n / 256) as u8, (n % 256) as u8);
        }
        let sources: BTreeMap<String, u64> = stats.messages_by_source().collect();
        assert_eq!(sources.len(), MAX_SOURCES + 1);
        assert_eq!(sources["other"], 2_000 - 1_024);
        assert_eq!(sources["3/255"], 1);
        assert_eq!(
            stats.accepted_by_type().collect::<Vec<_>>(),
            [("HEARTBEAT", 2_000)]
        );
    }
}
