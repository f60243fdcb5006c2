//! Flight modes as text, the way ground stations show them.
//!
//! A heartbeat carries a number whose meaning depends on autopilot and vehicle type. What we have no
//! table for is described by the flags of the base mode, which every autopilot sets.

use std::borrow::Cow;

use mavlink::dialects::ardupilotmega::{HEARTBEAT_DATA, MavAutopilot, MavModeFlag, MavType};

pub(crate) fn flight_mode(heartbeat: &HEARTBEAT_DATA) -> Cow<'static, str> {
    let custom = heartbeat
        .base_mode
        .contains(MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED);
    if custom && heartbeat.autopilot == MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA {
        if let Some(table) = ardupilot_table(heartbeat.mavtype) {
            return named(table, heartbeat.custom_mode);
        }
    } else if custom && heartbeat.autopilot == MavAutopilot::MAV_AUTOPILOT_PX4 {
        return px4(heartbeat.custom_mode);
    }
    Cow::Borrowed(from_flags(heartbeat.base_mode))
}

type Table = &'static [(u32, &'static str)];

fn named(table: Table, number: u32) -> Cow<'static, str> {
    match table.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(format!("MODE_{number}")),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "fifty vehicle types, of which four families have mode tables"
)]
fn ardupilot_table(vehicle: MavType) -> Option<Table> {
    match vehicle {
        MavType::MAV_TYPE_QUADROTOR
        | MavType::MAV_TYPE_COAXIAL
        | MavType::MAV_TYPE_HELICOPTER
        | MavType::MAV_TYPE_HEXAROTOR
        | MavType::MAV_TYPE_OCTOROTOR
        | MavType::MAV_TYPE_TRICOPTER
        | MavType::MAV_TYPE_DODECAROTOR
        | MavType::MAV_TYPE_DECAROTOR
        | MavType::MAV_TYPE_GENERIC_MULTIROTOR => Some(COPTER),
        MavType::MAV_TYPE_FIXED_WING
        | MavType::MAV_TYPE_VTOL_TAILSITTER_DUOROTOR
        | MavType::MAV_TYPE_VTOL_TAILSITTER_QUADROTOR
        | MavType::MAV_TYPE_VTOL_TILTROTOR
        | MavType::MAV_TYPE_VTOL_FIXEDROTOR
        | MavType::MAV_TYPE_VTOL_TAILSITTER
        | MavType::MAV_TYPE_VTOL_TILTWING => Some(PLANE),
        MavType::MAV_TYPE_GROUND_ROVER | MavType::MAV_TYPE_SURFACE_BOAT => Some(ROVER),
        MavType::MAV_TYPE_SUBMARINE => Some(SUB),
        _ => None,
    }
}

const COPTER: Table = &[
    (0, "STABILIZE"),
    (1, "ACRO"),
    (2, "ALT_HOLD"),
    (3, "AUTO"),
    (4, "GUIDED"),
    (5, "LOITER"),
    (6, "RTL"),
    (7, "CIRCLE"),
    (9, "LAND"),
    (11, "DRIFT"),
    (13, "SPORT"),
    (14, "FLIP"),
    (15, "AUTOTUNE"),
    (16, "POSHOLD"),
    (17, "BRAKE"),
    (18, "THROW"),
    (19, "AVOID_ADSB"),
    (20, "GUIDED_NOGPS"),
    (21, "SMART_RTL"),
    (22, "FLOWHOLD"),
    (23, "FOLLOW"),
    (24, "ZIGZAG"),
    (25, "SYSTEMID"),
    (26, "AUTOROTATE"),
    (27, "AUTO_RTL"),
    (28, "TURTLE"),
];

const PLANE: Table = &[
    (0, "MANUAL"),
    (1, "CIRCLE"),
    (2, "STABILIZE"),
    (3, "TRAINING"),
    (4, "ACRO"),
    (5, "FBWA"),
    (6, "FBWB"),
    (7, "CRUISE"),
    (8, "AUTOTUNE"),
    (10, "AUTO"),
    (11, "RTL"),
    (12, "LOITER"),
    (13, "TAKEOFF"),
    (14, "AVOID_ADSB"),
    (15, "GUIDED"),
    (16, "INITIALIZING"),
    (17, "QSTABILIZE"),
    (18, "QHOVER"),
    (19, "QLOITER"),
    (20, "QLAND"),
    (21, "QRTL"),
    (22, "QAUTOTUNE"),
    (23, "QACRO"),
    (24, "THERMAL"),
    (25, "LOITER_ALT_QLAND"),
    (26, "AUTOLAND"),
];

const ROVER: Table = &[
    (0, "MANUAL"),
    (1, "ACRO"),
    (3, "STEERING"),
    (4, "HOLD"),
    (5, "LOITER"),
    (6, "FOLLOW"),
    (7, "SIMPLE"),
    (8, "DOCK"),
    (9, "CIRCLE"),
    (10, "AUTO"),
    (11, "RTL"),
    (12, "SMART_RTL"),
    (15, "GUIDED"),
    (16, "INITIALIZING"),
];

const SUB: Table = &[
    (0, "STABILIZE"),
    (1, "ACRO"),
    (2, "ALT_HOLD"),
    (3, "AUTO"),
    (4, "GUIDED"),
    (7, "CIRCLE"),
    (9, "SURFACE"),
    (16, "POSHOLD"),
    (19, "MANUAL"),
    (20, "MOTORDETECT"),
    (21, "SURFTRAK"),
];

/// PX4 keeps the main mode in the third byte and the mode within `AUTO` in the fourth.
fn px4(custom_mode: u32) -> Cow<'static, str> {
    const MAIN: Table = &[
        (1, "MANUAL"),
        (2, "ALTCTL"),
        (3, "POSCTL"),
        (5, "ACRO"),
        (6, "OFFBOARD"),
        (7, "STABILIZED"),
        (8, "RATTITUDE"),
    ];
    const AUTO: Table = &[
        (1, "AUTO.READY"),
        (2, "AUTO.TAKEOFF"),
        (3, "AUTO.LOITER"),
        (4, "AUTO.MISSION"),
        (5, "AUTO.RTL"),
        (6, "AUTO.LAND"),
        (8, "AUTO.FOLLOW_TARGET"),
        (9, "AUTO.PRECLAND"),
    ];
    let [_, _, main, sub] = custom_mode.to_le_bytes();
    match main {
        4 => named(AUTO, u32::from(sub)),
        _ => named(MAIN, u32::from(main)),
    }
}

fn from_flags(base_mode: MavModeFlag) -> &'static str {
    for (flag, name) in [
        (MavModeFlag::MAV_MODE_FLAG_AUTO_ENABLED, "AUTO"),
        (MavModeFlag::MAV_MODE_FLAG_GUIDED_ENABLED, "GUIDED"),
        (MavModeFlag::MAV_MODE_FLAG_STABILIZE_ENABLED, "STABILIZE"),
        (MavModeFlag::MAV_MODE_FLAG_MANUAL_INPUT_ENABLED, "MANUAL"),
    ] {
        if base_mode.contains(flag) {
            return name;
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;
    use mavlink::dialects::ardupilotmega::{CopterMode, PlaneMode, RoverMode, SubMode};

    fn heartbeat(
        autopilot: MavAutopilot,
        mavtype: MavType,
        base_mode: MavModeFlag,
        custom_mode: u32,
    ) -> HEARTBEAT_DATA {
        HEARTBEAT_DATA {
            custom_mode,
            mavtype,
            autopilot,
            base_mode,
            ..HEARTBEAT_DATA::default()
        }
    }

    #[test]
    fn modes_read_as_a_ground_station_shows_them() {
        let custom = MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED;
        let ardupilot = MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA;
        let px4 = MavAutopilot::MAV_AUTOPILOT_PX4;
        for (autopilot, vehicle, base_mode, number, text) in [
            (ardupilot, MavType::MAV_TYPE_QUADROTOR, custom, 5, "LOITER"),
            (ardupilot, MavType::MAV_TYPE_FIXED_WING, custom, 5, "FBWA"),
            (ardupilot, MavType::MAV_TYPE_GROUND_ROVER, custom, 4, "HOLD"),
            (ardupilot, MavType::MAV_TYPE_SUBMARINE, custom, 19, "MANUAL"),
            (
                ardupilot,
                MavType::MAV_TYPE_QUADROTOR,
                custom,
                99,
                "MODE_99",
            ),
            (
                px4,
                MavType::MAV_TYPE_QUADROTOR,
                custom,
                0x0404_0000,
                "AUTO.MISSION",
            ),
            (
                px4,
                MavType::MAV_TYPE_QUADROTOR,
                custom,
                0x0003_0000,
                "POSCTL",
            ),
            (
                MavAutopilot::MAV_AUTOPILOT_GENERIC,
                MavType::MAV_TYPE_QUADROTOR,
                MavModeFlag::MAV_MODE_FLAG_GUIDED_ENABLED,
                7,
                "GUIDED",
            ),
            (
                px4,
                MavType::MAV_TYPE_QUADROTOR,
                MavModeFlag::empty(),
                7,
                "",
            ),
        ] {
            assert_eq!(
                flight_mode(&heartbeat(autopilot, vehicle, base_mode, number)),
                text
            );
        }
    }

    #[test]
    fn the_tables_agree_with_the_dialect() {
        for (table, number, text) in [
            (COPTER, CopterMode::COPTER_MODE_TURTLE as u32, "TURTLE"),
            (COPTER, CopterMode::COPTER_MODE_POSHOLD as u32, "POSHOLD"),
            (COPTER, CopterMode::COPTER_MODE_LAND as u32, "LAND"),
            (PLANE, PlaneMode::PLANE_MODE_FLY_BY_WIRE_B as u32, "FBWB"),
            (PLANE, PlaneMode::PLANE_MODE_AUTOLAND as u32, "AUTOLAND"),
            (PLANE, PlaneMode::PLANE_MODE_TAKEOFF as u32, "TAKEOFF"),
            (ROVER, RoverMode::ROVER_MODE_SMART_RTL as u32, "SMART_RTL"),
            (ROVER, RoverMode::ROVER_MODE_GUIDED as u32, "GUIDED"),
            (SUB, SubMode::SUB_MODE_SURFTRAK as u32, "SURFTRAK"),
            (SUB, SubMode::SUB_MODE_SURFACE as u32, "SURFACE"),
        ] {
            assert_eq!(named(table, number), text);
        }
    }
}
