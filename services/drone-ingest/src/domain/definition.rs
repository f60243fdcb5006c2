//! The messages of the dialect: id, name and the checksum seed (CRC_EXTRA) of each.

use std::sync::LazyLock;

use mavlink::Message;
use mavlink::dialects::ardupilotmega::MavMessage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    /// Seed that makes the checksum depend on the layout of the message.
    pub(crate) crc_extra: u8,
    pub(crate) index: usize,
}

pub(crate) fn all() -> &'static [Definition] {
    &TABLE.all
}

pub(crate) fn of(id: u32) -> Option<&'static Definition> {
    let table = &*TABLE;
    let place = match table.low.get(id as usize) {
        Some(&place) => usize::from(place),
        None => table
            .all
            .binary_search_by_key(&id, |definition| definition.id)
            .ok()?,
    };
    table.all.get(place)
}

/// Ids that are looked up without a search: the busy ones.
const LOW_IDS: usize = 512;
/// Place of an id that is not defined; beyond the end of `all`.
const ABSENT: u16 = u16::MAX;

struct Table {
    all: Vec<Definition>,
    low: [u16; LOW_IDS],
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut names: Vec<(u32, &'static str)> = MavMessage::all_messages()
        .iter()
        .map(|&(name, id)| (id, name))
        .collect();
    names.sort_unstable();
    let mut low = [ABSENT; LOW_IDS];
    let all: Vec<Definition> = names
        .into_iter()
        .enumerate()
        .map(|(index, (id, name))| Definition {
            id,
            name,
            crc_extra: MavMessage::extra_crc(id),
            index,
        })
        .collect();
    for definition in &all {
        if let (Some(place), Ok(index)) = (
            low.get_mut(definition.id as usize),
            u16::try_from(definition.index),
        ) {
            *place = index;
        }
    }
    Table { all, low }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_that_others_computed_hold() {
        for (id, name, crc_extra) in [
            (0, "HEARTBEAT", 50),
            (1, "SYS_STATUS", 124),
            (2, "SYSTEM_TIME", 137),
            (24, "GPS_RAW_INT", 24),
            (30, "ATTITUDE", 39),
            (31, "ATTITUDE_QUATERNION", 246),
            (33, "GLOBAL_POSITION_INT", 104),
            (74, "VFR_HUD", 20),
            (147, "BATTERY_STATUS", 154),
            (166, "RADIO", 21),
            (109, "RADIO_STATUS", 185),
            (253, "STATUSTEXT", 83),
            (263, "CAMERA_IMAGE_CAPTURED", 133),
            (12900, "OPEN_DRONE_ID_BASIC_ID", 114),
        ] {
            let definition = of(id).unwrap();
            assert_eq!(
                (definition.id, definition.name, definition.crc_extra),
                (id, name, crc_extra)
            );
        }
    }

    #[test]
    fn every_definition_is_found_by_its_id_and_nothing_else_is() {
        for (index, definition) in all().iter().enumerate() {
            assert_eq!(definition.index, index);
            assert_eq!(of(definition.id), Some(definition));
        }
        let known: std::collections::BTreeSet<u32> = all().iter().map(|d| d.id).collect();
        for id in 0..70_000 {
            assert_eq!(of(id).is_some(), known.contains(&id), "{id}");
        }
        assert_eq!(of(0x00ff_ffff), None);
    }
}
