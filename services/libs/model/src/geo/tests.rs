use proptest::prelude::*;

use super::mercator::{
    MAX_LATITUDE_DEG, MercatorPoint, geodetic_from_mercator, mercator_from_geodetic,
    meters_per_pixel,
};
use super::*;

fn place(latitude_deg: f64, longitude_deg: f64, altitude_m: f64) -> Geodetic {
    Geodetic::new(latitude_deg, longitude_deg, altitude_m).unwrap()
}

fn assert_near(actual: f64, expected: f64, tolerance: f64) {
    assert!(
        (actual - expected).abs() <= tolerance,
        "{actual} is not within {tolerance} of {expected}"
    );
}

#[test]
fn positions_out_of_range_are_refused_by_field() {
    for (lat, lon, alt, field) in [
        (90.1, 0.0, 0.0, "latitude_deg"),
        (f64::NAN, 0.0, 0.0, "latitude_deg"),
        (0.0, -180.1, 0.0, "longitude_deg"),
        (0.0, f64::INFINITY, 0.0, "longitude_deg"),
        (0.0, 0.0, f64::NAN, "altitude_m"),
        (0.0, 0.0, 2.0e6, "altitude_m"),
    ] {
        assert_eq!(Geodetic::new(lat, lon, alt).unwrap_err().field, field);
    }
}

#[test]
fn ecef_agrees_with_known_places() {
    let Ecef(equator) = ecef_from_geodetic(&place(0.0, 0.0, 0.0));
    assert_near(equator.x, 6_378_137.0, 1e-9);
    let Ecef(pole) = ecef_from_geodetic(&place(90.0, 0.0, 0.0));
    assert_near(pole.z, 6_356_752.314_245, 1e-6);
    // A worked example of the closed formula: prime vertical radius 6,388,838.290 m at 45 degrees.
    let Ecef(mid) = ecef_from_geodetic(&place(45.0, 90.0, 0.0));
    assert_near(mid.y, 6_388_838.290_122 / 2_f64.sqrt(), 1e-3);
    assert_near(mid.x, 0.0, 1e-6);
}

#[test]
fn the_poles_come_back_with_longitude_zero() {
    for latitude in [90.0, -90.0] {
        let back = geodetic_from_ecef(&Ecef(Vector3::new(
            0.0,
            0.0,
            (6_356_752.314_245_179 + 12.0) * f64::signum(latitude),
        )));
        assert_near(back.latitude_deg, latitude, 1e-12);
        assert_eq!(back.longitude_deg, 0.0);
        assert_near(back.altitude_m, 12.0, 1e-6);
    }
}

#[test]
fn local_axes_point_east_north_and_up() {
    let origin = place(47.0, 8.0, 400.0);
    let frame = LocalFrame::at(origin);
    assert_eq!(frame.origin(), origin);
    let zero = frame.enu_from_geodetic(&origin);
    assert_near(zero.to_vector().norm(), 0.0, 1e-9);
    let up = frame.enu_from_geodetic(&place(47.0, 8.0, 450.0));
    assert_near(up.up, 50.0, 1e-8);
    assert_near(up.east.hypot(up.north), 0.0, 1e-8);
    let north = frame.enu_from_geodetic(&place(47.001, 8.0, 400.0));
    assert_near(north.north, 111.18, 0.05);
    assert_near(north.east, 0.0, 1e-6);
    let east = frame.enu_from_geodetic(&place(47.0, 8.001, 400.0));
    assert_near(east.east, 76.06, 0.05);
}

#[test]
fn horizontal_distance_ignores_altitude_and_holds_across_the_globe() {
    let a = place(47.0, 8.0, 400.0);
    let b = place(47.0, 8.001, 900.0);
    let at_sea = LocalFrame::at(a.at_altitude(0.0)).enu_from_geodetic(&b.at_altitude(0.0));
    assert_near(horizontal_distance_m(&a, &b), at_sea.east, 1e-4);
    assert_eq!(horizontal_distance_m(&a, &a), 0.0);
    let quarter = horizontal_distance_m(&place(0.0, 0.0, 0.0), &place(0.0, 90.0, 0.0));
    assert_near(quarter / 10_018_754.0, 1.0, 0.005);
    let across = horizontal_distance_m(&place(10.0, 179.9999, 0.0), &place(10.0, -179.9999, 0.0));
    assert_near(across, 21.93, 0.05);
}

#[test]
fn attitude_axes_are_aerospace() {
    let nose = |roll_deg, pitch_deg, yaw_deg| {
        Attitude {
            roll_deg,
            pitch_deg,
            yaw_deg,
        }
        .ned_from_body()
            * Vector3::x()
    };
    assert!((nose(0.0, 0.0, 90.0) - Vector3::y()).norm() < 1e-12);
    assert!((nose(0.0, 90.0, 0.0) + Vector3::z()).norm() < 1e-12);
    let rolled = Attitude {
        roll_deg: 90.0,
        pitch_deg: 0.0,
        yaw_deg: 0.0,
    };
    // Right side down: the right wing points down.
    assert!((rolled.ned_from_body() * Vector3::y() - Vector3::z()).norm() < 1e-12);
}

#[test]
fn bounds_grow_contain_and_meet() {
    let bounds = |south_deg, west_deg, north_deg, east_deg| Bounds {
        west_deg,
        south_deg,
        east_deg,
        north_deg,
    };
    let first = bounds(-1.0, 2.0, 1.0, 5.0);
    assert!(first.contains(&place(1.0, 2.0, 0.0)));
    assert!(first.contains(&place(-1.0, 5.0, 0.0)));
    assert!(!first.contains(&place(0.0, 1.9, 0.0)));
    let other = bounds(1.0, 5.0, 9.0, 9.0);
    assert!(first.intersects(&other));
    assert_eq!(first.union(&other), bounds(-1.0, 2.0, 9.0, 9.0));
    assert!(!first.intersects(&bounds(1.1, 5.0, 1.1, 5.0)));
}

#[test]
fn the_edges_of_the_mercator_square_are_exact() {
    let corner = mercator_from_geodetic(&place(MAX_LATITUDE_DEG, -180.0, 0.0));
    assert_eq!(corner.x, 0.0);
    assert_near(corner.y, 0.0, 1e-15);
    let middle = mercator_from_geodetic(&place(0.0, 0.0, 0.0));
    assert_eq!((middle.x, middle.y), (0.5, 0.5));
    let east = mercator_from_geodetic(&place(-90.0, 180.0, 0.0));
    assert_eq!(east.x, 1.0);
    assert_near(east.y, 1.0, 1e-15);
    let back = geodetic_from_mercator(MercatorPoint { x: 1.0, y: 0.0 });
    assert_eq!(back.longitude_deg, 180.0);
    assert_near(back.latitude_deg, MAX_LATITUDE_DEG, 1e-12);
}

#[test]
fn pixels_shrink_with_zoom_and_latitude() {
    assert_near(meters_per_pixel(0.0, 0), 156_543.033_928, 1e-5);
    assert_near(meters_per_pixel(60.0, 1), 156_543.033_928 / 4.0, 1e-5);
    assert_near(meters_per_pixel(0.0, 22), 0.037_322_768, 1e-8);
}

#[test]
fn places_beyond_the_square_belong_to_the_outermost_tiles() {
    let last = (1 << 10) - 1;
    for (lat, lon, x, y) in [
        (0.0, 180.0, last, 512),
        (89.9, -180.0, 0, 0),
        (-90.0, 180.0, last, last),
        (MAX_LATITUDE_DEG, 0.0, 512, 0),
        (-MAX_LATITUDE_DEG, 0.0, 512, last),
    ] {
        let tile = TileCoord::containing(lat, lon, 10);
        assert_eq!((tile.x(), tile.y()), (x, y), "{lat} {lon}");
    }
    assert_eq!(TileCoord::containing(1.0, 1.0, 99).z(), TileCoord::MAX_ZOOM);
    assert_eq!(TileCoord::containing(f64::NAN, f64::NAN, 3).x(), 0);
}

#[test]
fn a_known_tile_is_found() {
    // The Brandenburg Gate on OpenStreetMap.
    let tile = TileCoord::containing(52.516_27, 13.377_70, 17);
    assert_eq!(tile.to_string(), "17/70406/42987");
}

#[test]
fn impossible_tiles_do_not_exist() {
    assert!(TileCoord::new(0, 0, 0).is_some());
    assert!(TileCoord::new(0, 1, 0).is_none());
    assert!(TileCoord::new(3, 0, 8).is_none());
    assert!(TileCoord::new(24, (1 << 24) - 1, 0).is_some());
    assert!(TileCoord::new(25, 0, 0).is_none());
    assert!(TileCoord::new(255, 0, 0).is_none());
    let root = TileCoord::new(0, 0, 0).unwrap();
    assert_eq!(root.parent(), None);
    assert_eq!(TileCoord::new(24, 5, 5).unwrap().children(), None);
    let bounds = root.bounds();
    assert_eq!((bounds.west_deg, bounds.east_deg), (-180.0, 180.0));
    assert_near(bounds.north_deg, MAX_LATITUDE_DEG, 1e-9);
}

prop_compose! {
    fn any_place()(
        latitude_deg in -90.0_f64..=90.0,
        longitude_deg in -180.0_f64..=180.0,
        altitude_m in -500.0_f64..20_000.0,
    ) -> Geodetic {
        Geodetic { latitude_deg, longitude_deg, altitude_m }
    }
}

proptest! {
    #[test]
    fn geodetic_comes_back_through_ecef(point in any_place()) {
        let ecef = ecef_from_geodetic(&point);
        let back = geodetic_from_ecef(&ecef);
        let moved = (ecef_from_geodetic(&back).0 - ecef.0).norm();
        prop_assert!(moved < 1e-7, "{moved} m");
        prop_assert!((back.altitude_m - point.altitude_m).abs() < 1e-7);
    }

    #[test]
    fn geodetic_comes_back_through_a_local_frame(origin in any_place(), point in any_place()) {
        let frame = LocalFrame::at(origin);
        let enu = frame.enu_from_geodetic(&point);
        let back = frame.geodetic_from_enu(&enu);
        let moved = (ecef_from_geodetic(&back).0 - ecef_from_geodetic(&point).0).norm();
        prop_assert!(moved < 1e-6, "{moved} m");
    }

    #[test]
    fn local_distances_are_straight_lines(origin in any_place(), a in any_place(), b in any_place()) {
        let frame = LocalFrame::at(origin);
        let local = (frame.enu_from_geodetic(&a).to_vector() - frame.enu_from_geodetic(&b).to_vector()).norm();
        let straight = (ecef_from_geodetic(&a).0 - ecef_from_geodetic(&b).0).norm();
        prop_assert!((local - straight).abs() < 1e-5);
    }

    #[test]
    fn mercator_comes_back(latitude_deg in -85.05_f64..85.05, longitude_deg in -180.0_f64..=180.0) {
        let point = place(latitude_deg, longitude_deg, 0.0);
        let back = geodetic_from_mercator(mercator_from_geodetic(&point));
        prop_assert!((back.latitude_deg - latitude_deg).abs() < 1e-10);
        prop_assert!((back.longitude_deg - longitude_deg).abs() < 1e-10);
    }

    #[test]
    fn a_tile_contains_its_places_and_its_parent_contains_it(
        latitude_deg in -85.05_f64..85.05,
        longitude_deg in -180.0_f64..180.0,
        z in 1_u8..=24,
    ) {
        let tile = TileCoord::containing(latitude_deg, longitude_deg, z);
        prop_assert_eq!(TileCoord::new(tile.z(), tile.x(), tile.y()), Some(tile));
        let b = tile.bounds();
        let slack = 1e-9;
        prop_assert!(b.west_deg - slack <= longitude_deg && longitude_deg <= b.east_deg + slack);
        prop_assert!(b.south_deg - slack <= latitude_deg && latitude_deg <= b.north_deg + slack);
        let parent = tile.parent().unwrap();
        prop_assert_eq!(parent, TileCoord::containing(latitude_deg, longitude_deg, z - 1));
        prop_assert!(parent.children().unwrap().contains(&tile));
    }

    #[test]
    fn the_middle_of_a_tile_is_in_that_tile(z in 0_u8..=24, fx in 0.0_f64..1.0, fy in 0.0_f64..1.0) {
        let side = f64::from(1_u32 << z);
        let tile = TileCoord::new(z, (fx * side) as u32, (fy * side) as u32).unwrap();
        let corner = tile.north_west();
        let middle = geodetic_from_mercator(MercatorPoint {
            x: corner.x + tile.side() / 2.0,
            y: corner.y + tile.side() / 2.0,
        });
        prop_assert_eq!(TileCoord::containing(middle.latitude_deg, middle.longitude_deg, z), tile);
    }
}
