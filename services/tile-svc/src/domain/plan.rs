//! Which tiles a frame touches, and at which zoom.
//!
//! Pipeline: metres of ground a pixel -> the zoom whose pixels are nearest to that -> the polygon that
//! is seen, on the map -> the tiles that it meets, by separating axes.
//!
//! Degenerate cases: across 180 degrees the polygon is laid out around the camera and columns wrap; a
//! frame of more than [`MAX_TILES_A_FRAME`] tiles is painted at a coarser zoom, where it has fewer.

use sovereign_model::geo::mercator::{mercator_from_geodetic, meters_per_pixel};
use sovereign_model::geo::{Bounds, TileCoord};

use super::sight::{Sight, Unpaintable};

/// Tiles that one frame may be painted into, 256 KiB of memory each while it is. A frame that would
/// need more is painted one zoom coarser, which takes a quarter of them, until it fits.
pub(crate) const MAX_TILES_A_FRAME: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZoomRange {
    pub(crate) min: u8,
    /// Finest zoom that is painted, at most [`TileCoord::MAX_ZOOM`].
    pub(crate) max: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) zoom: u8,
    pub(crate) tiles: Vec<TileCoord>,
    /// How often the picture is to be halved before it is sampled, so that a tile that is coarser
    /// than the picture shows averages and not chance pixels.
    pub(crate) halvings: u32,
    pub(crate) bounds: Bounds,
}

/// Decides where a frame goes.
pub(crate) fn plan(sight: &Sight, zooms: ZoomRange) -> Result<Plan, Unpaintable> {
    let latitude = sight.pose().position.latitude_deg;
    let sample = sight.ground_sample_m();
    let native = (meters_per_pixel(latitude, 0) / sample).log2().round();
    // A float-to-int cast saturates.
    let mut zoom = (native.max(0.0) as u8).clamp(zooms.min, zooms.max);
    let tiles = loop {
        match tiles_of(sight, zoom) {
            Some(tiles) => break tiles,
            None if zoom > zooms.min => zoom -= 1,
            None => return Err(Unpaintable::OffTheMap),
        }
    };
    if tiles.is_empty() {
        return Err(Unpaintable::OffTheMap);
    }
    let coarser = (meters_per_pixel(latitude, zoom) / sample).log2().floor();
    Ok(Plan {
        zoom,
        tiles,
        halvings: coarser.max(0.0) as u32,
        bounds: bounds_of(sight),
    })
}

/// Across 180 degrees it is all longitudes.
fn bounds_of(sight: &Sight) -> Bounds {
    let places = sight.region().iter().map(|&point| {
        let place = sight.ground_from_enu(point);
        Bounds {
            west_deg: place.longitude_deg,
            south_deg: place.latitude_deg,
            east_deg: place.longitude_deg,
            north_deg: place.latitude_deg,
        }
    });
    places
        .reduce(|a, b| a.union(&b))
        .expect("a region has three corners at least")
}

/// Tiles of a zoom that the polygon of `sight` meets; `None` when there are too many.
fn tiles_of(sight: &Sight, zoom: u8) -> Option<Vec<TileCoord>> {
    let columns = 2_f64.powi(i32::from(zoom));
    let camera_x = mercator_from_geodetic(&sight.pose().position).x;
    // In tiles, with x laid out around the camera so that 180 degrees is no seam.
    let polygon: Vec<[f64; 2]> = sight
        .region()
        .iter()
        .map(|&point| {
            let on_map = mercator_from_geodetic(&sight.ground_from_enu(point));
            let offset = on_map.x - camera_x;
            [
                (camera_x + offset - offset.round()) * columns,
                on_map.y * columns,
            ]
        })
        .collect();
    let range = |axis: usize| {
        let low = polygon.iter().map(|p| p[axis]).fold(f64::MAX, f64::min);
        let high = polygon.iter().map(|p| p[axis]).fold(f64::MIN, f64::max);
        low.floor() as i64..=high.floor() as i64
    };
    let rows = (*range(1).start()).max(0)..=(*range(1).end()).min(columns as i64 - 1);
    let columns_range = range(0);
    let length = |range: &std::ops::RangeInclusive<i64>| {
        usize::try_from(range.end() - range.start() + 1).unwrap_or(0)
    };
    // A box holds at most a few times the tiles of the polygon inside it.
    if length(&rows).saturating_mul(length(&columns_range)) > 4 * MAX_TILES_A_FRAME {
        return None;
    }
    let mut tiles = Vec::new();
    for x in columns_range {
        for y in rows.clone() {
            if meets(&polygon, x as f64, y as f64) {
                let wrapped = x.rem_euclid(columns as i64);
                tiles.extend(
                    u32::try_from(wrapped)
                        .ok()
                        .zip(u32::try_from(y).ok())
                        .and_then(|(x, y)| TileCoord::new(zoom, x, y)),
                );
            }
        }
    }
    tiles.sort_unstable();
    tiles.dedup();
    (tiles.len() <= MAX_TILES_A_FRAME).then_some(tiles)
}

/// Whether a convex polygon meets the unit square at (x, y). The caller has compared their boxes.
fn meets(polygon: &[[f64; 2]], x: f64, y: f64) -> bool {
    let corners = [[x, y], [x + 1.0, y], [x + 1.0, y + 1.0], [x, y + 1.0]];
    (0..polygon.len()).all(|i| {
        let (a, b) = (polygon[i], polygon[(i + 1) % polygon.len()]);
        let side = |p: [f64; 2]| (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]);
        // The polygon lies on one side of its edge; a square wholly on the other does not meet it.
        let inner =
            polygon.iter().map(|&p| side(p)).fold(
                0.0,
                |most: f64, s| {
                    if s.abs() > most.abs() { s } else { most }
                },
            );
        corners.iter().any(|&corner| side(corner) * inner >= 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::sight::tests::{LIMITS, camera, pose};
    use super::*;
    use sovereign_model::{CameraPose, Intrinsics};

    const ZOOMS: ZoomRange = ZoomRange { min: 10, max: 22 };

    fn plan_of(pose: &CameraPose, camera: &Intrinsics) -> Result<Plan, Unpaintable> {
        plan(&Sight::new(pose, camera, LIMITS)?, ZOOMS)
    }

    #[test]
    fn the_zoom_is_the_one_whose_pixels_are_nearest_to_the_cameras() {
        for height in [20.0, 46.0, 120.0, 400.0] {
            let plan = plan_of(&pose(-90.0, 30.0, height), &camera()).unwrap();
            let sample = height / 460.0;
            let ratio = meters_per_pixel(46.842_656, plan.zoom) / sample;
            assert!((0.70..=1.42).contains(&ratio), "{height} m: {ratio}");
            assert_eq!(plan.halvings, 0);
        }
    }

    #[test]
    fn a_finer_camera_than_the_map_is_halved() {
        let camera = Intrinsics::from_focal_px(4000, 3000, 8000.0).unwrap();
        let plan = plan_of(&pose(-90.0, 0.0, 40.0), &camera).unwrap();
        // 5 mm a pixel; zoom 22 at this latitude has 25.5 mm.
        assert_eq!((plan.zoom, plan.halvings), (22, 2));
    }

    #[test]
    fn every_tile_with_a_visible_point_is_planned() {
        for (pitch, yaw) in [(-90.0, 33.0), (-60.0, 250.0), (-35.0, 120.0)] {
            let (pose, camera) = (pose(pitch, yaw, 80.0), camera());
            let plan = plan_of(&pose, &camera).unwrap();
            let cone = 60_f64.to_radians().tan() * 80.0;
            for i in 0..=40 {
                for j in 0..=40 {
                    let pixel = [752.0 * f64::from(i) / 40.0, 480.0 * f64::from(j) / 40.0];
                    let view = pose.view(&camera);
                    let Some(ground) = view.ground_enu(pixel) else {
                        continue;
                    };
                    if ground.east.hypot(ground.north) > cone {
                        continue;
                    }
                    let place = view.frame().geodetic_from_enu(&ground);
                    let tile =
                        TileCoord::containing(place.latitude_deg, place.longitude_deg, plan.zoom);
                    assert!(plan.tiles.contains(&tile), "{pitch} {yaw} {pixel:?}");
                }
            }
        }
    }

    #[test]
    fn a_frame_across_the_antimeridian_has_tiles_on_both_sides() {
        let mut pose = pose(-90.0, 0.0, 100.0);
        pose.position.longitude_deg = 179.999_9;
        let plan = plan_of(&pose, &camera()).unwrap();
        let last = (1 << plan.zoom) - 1;
        assert!(plan.tiles.iter().any(|t| t.x() == 0));
        assert!(plan.tiles.iter().any(|t| t.x() == last));
        assert!(plan.tiles.len() < 40);
    }

    #[test]
    fn a_frame_of_too_many_tiles_is_painted_coarser() {
        let camera = Intrinsics::from_focal_px(20_000, 15_000, 15_000.0).unwrap();
        let plan = plan_of(&pose(-90.0, 0.0, 500.0), &camera).unwrap();
        assert!(plan.tiles.len() <= MAX_TILES_A_FRAME);
        assert!(plan.halvings >= 1);
    }

    #[test]
    fn a_rotated_footprint_does_not_plan_its_whole_box() {
        let camera = Intrinsics::from_focal_px(6000, 1000, 6000.0).unwrap();
        let plan = plan_of(&pose(-90.0, 45.0, 150.0), &camera).unwrap();
        let side = |pick: fn(&TileCoord) -> u32| {
            let (low, high) = plan
                .tiles
                .iter()
                .map(pick)
                .fold((u32::MAX, 0), |(l, h), v| (l.min(v), h.max(v)));
            (high - low + 1) as usize
        };
        let in_box = side(|t| t.x()) * side(|t| t.y());
        assert!(
            plan.tiles.len() * 2 < in_box,
            "{} of {in_box}",
            plan.tiles.len()
        );
    }
}
