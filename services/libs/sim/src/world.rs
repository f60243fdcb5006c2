//! The ground: a flat, textured plane with exactly known marks on it.
//!
//! Pipeline: fields and water from value noise, then roads, buildings with shadows, trees, and control
//! marks. Everything is painted once into a raster in the east-north plane of the world's origin.

use rayon::prelude::*;
use sovereign_model::Image;
use sovereign_model::geo::{Enu, Geodetic, LocalFrame};

/// What the world looks like.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// Centre of the world; its altitude is the elevation of the ground, metres above mean sea level.
    pub origin: Geodetic,
    /// Extent east-west, metres.
    pub width_m: f64,
    /// Extent north-south, metres.
    pub height_m: f64,
    /// Size of a ground pixel, metres.
    pub metres_per_pixel: f64,
    /// Another seed gives another world.
    pub seed: u32,
}

impl Default for WorldConfig {
    /// A valley of 360 m by 280 m beside the Lake of Zurich, at 10 cm a pixel.
    fn default() -> Self {
        Self {
            origin: Geodetic {
                latitude_deg: 47.3075,
                longitude_deg: 8.5920,
                altitude_m: 412.0,
            },
            width_m: 360.0,
            height_m: 280.0,
            metres_per_pixel: 0.1,
            seed: 7,
        }
    }
}

/// A mark on the ground whose position is exact: a white disc of 1.2 m in a black square of 2.4 m.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ControlMark {
    /// Centre, metres from the origin (east, north, 0).
    pub position: Enu,
}

/// The ground and its frame of reference.
#[derive(Debug)]
pub struct World {
    config: WorldConfig,
    frame: LocalFrame,
    ground: Image,
    marks: Vec<ControlMark>,
}

const MARK_HALF_SIDE_M: f64 = 1.2;
const MARK_RADIUS_M: f64 = 0.6;
const MARK_SPACING_M: f64 = 60.0;

impl World {
    /// Paints the world. Deterministic in `config`.
    pub fn generate(config: WorldConfig) -> Self {
        let frame = LocalFrame::at(config.origin);
        let marks = marks_of(&config);
        let (buildings, trees) = (buildings_of(&config), trees_of(&config));
        let painter = Painter {
            config: &config,
            buildings: buildings.iter().collect(),
            trees: trees.iter().collect(),
            marks: marks.iter().collect(),
        };
        let width = (config.width_m / config.metres_per_pixel).round() as u32;
        let height = (config.height_m / config.metres_per_pixel).round() as u32;
        let mut pixels = vec![0u8; width as usize * height as usize * 3];
        pixels
            .par_chunks_mut(width as usize * 3)
            .enumerate()
            .for_each(|(row, line)| {
                let north = config.height_m / 2.0 - (row as f64 + 0.5) * config.metres_per_pixel;
                let painter = painter.near(north);
                for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
                    let east =
                        (column as f64 + 0.5) * config.metres_per_pixel - config.width_m / 2.0;
                    pixel.copy_from_slice(&painter.colour(east, north));
                }
            });
        let ground =
            Image::new(width, height, pixels).expect("three bytes were made for every pixel");
        Self {
            config,
            frame,
            ground,
            marks,
        }
    }

    /// East, north, up at the origin.
    pub fn frame(&self) -> &LocalFrame {
        &self.frame
    }

    /// Parameters of the world.
    pub fn config(&self) -> &WorldConfig {
        &self.config
    }

    /// Marks with exact positions.
    pub fn control_marks(&self) -> &[ControlMark] {
        &self.marks
    }

    /// Colour of the ground at `east`, `north` metres from the origin (bilinear); `None` outside the world.
    pub fn colour_at(&self, east: f64, north: f64) -> Option<[u8; 3]> {
        let x = (east + self.config.width_m / 2.0) / self.config.metres_per_pixel - 0.5;
        let y = (self.config.height_m / 2.0 - north) / self.config.metres_per_pixel - 0.5;
        if x < 0.0 || y < 0.0 {
            return None;
        }
        let (column, row) = (x as usize, y as usize);
        let (width, height) = (self.ground.width() as usize, self.ground.height() as usize);
        if column + 1 >= width || row + 1 >= height {
            return None;
        }
        let (fx, fy) = (x - column as f64, y - row as f64);
        let at = (row * width + column) * 3;
        let below = at + width * 3;
        let pixels = self.ground.pixels();
        let mut colour = [0u8; 3];
        for (channel, value) in colour.iter_mut().enumerate() {
            let top = f64::from(pixels[at + channel]) * (1.0 - fx)
                + f64::from(pixels[at + 3 + channel]) * fx;
            let bottom = f64::from(pixels[below + channel]) * (1.0 - fx)
                + f64::from(pixels[below + 3 + channel]) * fx;
            *value = (top * (1.0 - fy) + bottom * fy).round() as u8;
        }
        Some(colour)
    }
}

fn marks_of(config: &WorldConfig) -> Vec<ControlMark> {
    let columns = ((config.width_m - 40.0) / MARK_SPACING_M) as i32;
    let rows = ((config.height_m - 40.0) / MARK_SPACING_M) as i32;
    let mut marks = Vec::new();
    for row in 0..=rows {
        for column in 0..=columns {
            marks.push(ControlMark {
                position: Enu {
                    east: (f64::from(column) - f64::from(columns) / 2.0) * MARK_SPACING_M,
                    north: (f64::from(row) - f64::from(rows) / 2.0) * MARK_SPACING_M,
                    up: 0.0,
                },
            });
        }
    }
    marks
}

/// A roof: centre and half sides in metres, and its colour.
struct Building {
    east: f64,
    north: f64,
    half_width: f64,
    half_depth: f64,
    roof: [f64; 3],
}

/// A crown: centre and radius in metres.
struct Tree {
    east: f64,
    north: f64,
    radius: f64,
}

const BLOCK_M: f64 = 80.0;
const ROAD_M: f64 = 6.0;

fn buildings_of(config: &WorldConfig) -> Vec<Building> {
    const ROOFS: [[f64; 3]; 4] = [
        [168.0, 84.0, 62.0],
        [142.0, 140.0, 146.0],
        [188.0, 150.0, 112.0],
        [104.0, 110.0, 124.0],
    ];
    let mut buildings = Vec::new();
    for slot in 0..70u32 {
        let east = (hash(slot, 1, config.seed) - 0.5) * (config.width_m - 30.0);
        let north = (hash(slot, 2, config.seed) - 0.5) * (config.height_m - 30.0);
        let half_width = 3.5 + 4.5 * hash(slot, 3, config.seed);
        let half_depth = 3.0 + 3.0 * hash(slot, 4, config.seed);
        let clear_of_roads = road_distance(east).min(road_distance(north))
            > half_width.max(half_depth) + ROAD_M / 2.0 + 1.0;
        if clear_of_roads && river_distance(east, north) > 16.0 {
            let roof = ROOFS[(hash(slot, 5, config.seed) * 4.0) as usize % 4];
            buildings.push(Building {
                east,
                north,
                half_width,
                half_depth,
                roof,
            });
        }
    }
    buildings
}

fn trees_of(config: &WorldConfig) -> Vec<Tree> {
    (0..260u32)
        .map(|slot| Tree {
            east: (hash(slot, 11, config.seed) - 0.5) * config.width_m,
            north: (hash(slot, 12, config.seed) - 0.5) * config.height_m,
            radius: 1.4 + 1.8 * hash(slot, 13, config.seed),
        })
        .filter(|tree| {
            road_distance(tree.east).min(road_distance(tree.north)) > ROAD_M
                && river_distance(tree.east, tree.north) > 8.0
        })
        .collect()
}

/// Metres to the nearest line of the road grid along one axis.
fn road_distance(along: f64) -> f64 {
    let offset = (along + BLOCK_M / 2.0).rem_euclid(BLOCK_M);
    (offset - BLOCK_M / 2.0).abs()
}

fn river_distance(east: f64, north: f64) -> f64 {
    (north - 52.0 - 14.0 * (east / 46.0).sin() - 0.18 * east).abs()
}

struct Painter<'a> {
    config: &'a WorldConfig,
    buildings: Vec<&'a Building>,
    trees: Vec<&'a Tree>,
    marks: Vec<&'a ControlMark>,
}

/// How far south and east shadows fall, metres.
const SHADOW_M: f64 = 1.6;

impl<'a> Painter<'a> {
    /// A painter that knows only what can be seen at `north`: a row of pixels meets few things.
    fn near(&self, north: f64) -> Painter<'a> {
        let near = |centre: f64, reach: f64| (centre - north).abs() <= reach + SHADOW_M;
        Painter {
            config: self.config,
            buildings: self
                .buildings
                .iter()
                .filter(|b| near(b.north, b.half_depth))
                .copied()
                .collect(),
            trees: self
                .trees
                .iter()
                .filter(|t| near(t.north, t.radius))
                .copied()
                .collect(),
            marks: self
                .marks
                .iter()
                .filter(|m| near(m.position.north, MARK_HALF_SIDE_M))
                .copied()
                .collect(),
        }
    }

    fn colour(&self, east: f64, north: f64) -> [u8; 3] {
        if let Some(mark) = self.mark(east, north) {
            return mark;
        }
        let grain = 0.86 + 0.28 * noise(east * 1.9, north * 1.9, self.config.seed);
        let colour = self
            .building(east, north)
            .or_else(|| self.tree(east, north))
            .or_else(|| road(east, north))
            .or_else(|| river(east, north, self.config.seed))
            .unwrap_or_else(|| self.field(east, north));
        let shade = grain
            * if self.in_shadow(east, north) {
                0.55
            } else {
                1.0
            };
        colour.map(|channel| (channel * shade).clamp(0.0, 255.0) as u8)
    }

    fn mark(&self, east: f64, north: f64) -> Option<[u8; 3]> {
        let mark = self.marks.iter().find(|mark| {
            (east - mark.position.east).abs() <= MARK_HALF_SIDE_M
                && (north - mark.position.north).abs() <= MARK_HALF_SIDE_M
        })?;
        let distance = (east - mark.position.east).hypot(north - mark.position.north);
        Some(if distance <= MARK_RADIUS_M {
            [245; 3]
        } else {
            [16; 3]
        })
    }

    fn building(&self, east: f64, north: f64) -> Option<[f64; 3]> {
        let building = self.buildings.iter().find(|b| {
            (east - b.east).abs() <= b.half_width && (north - b.north).abs() <= b.half_depth
        })?;
        let side = if north > building.north { 1.08 } else { 0.86 };
        let tiles = if ((east - building.east) * 2.2).rem_euclid(1.0) < 0.12 {
            0.9
        } else {
            1.0
        };
        Some(building.roof.map(|channel| channel * side * tiles))
    }

    fn tree(&self, east: f64, north: f64) -> Option<[f64; 3]> {
        let tree = self
            .trees
            .iter()
            .find(|tree| (east - tree.east).hypot(north - tree.north) <= tree.radius)?;
        let light = 0.8 + 0.25 * ((north - tree.north) - (east - tree.east)) / tree.radius;
        Some([44.0 * light, 86.0 * light, 40.0 * light])
    }

    fn in_shadow(&self, east: f64, north: f64) -> bool {
        let (e, n) = (east - SHADOW_M, north + SHADOW_M);
        let covered = |e: f64, n: f64| {
            self.buildings
                .iter()
                .any(|b| (e - b.east).abs() <= b.half_width && (n - b.north).abs() <= b.half_depth)
                || self
                    .trees
                    .iter()
                    .any(|t| (e - t.east).hypot(n - t.north) <= t.radius)
        };
        covered(e, n) && !covered(east, north)
    }

    fn field(&self, east: f64, north: f64) -> [f64; 3] {
        const CROPS: [[f64; 3]; 5] = [
            [112.0, 140.0, 72.0],
            [146.0, 150.0, 84.0],
            [88.0, 122.0, 62.0],
            [168.0, 152.0, 104.0],
            [126.0, 112.0, 78.0],
        ];
        let seed = self.config.seed;
        let (column, row) = (
            (east / BLOCK_M - 0.5).floor() as i64,
            (north / BLOCK_M - 0.5).floor() as i64,
        );
        let pick = hash((column + 64) as u32, (row + 64) as u32, seed ^ 99);
        let crop = CROPS[(pick * 5.0) as usize % 5];
        let turned = pick > 0.5;
        let rows = if turned { east } else { north };
        let stripe = 0.95 + 0.09 * (rows * 2.6).sin();
        let patch = 0.82 + 0.36 * noise(east / 13.0, north / 13.0, seed ^ 5);
        crop.map(|channel| channel * stripe * patch)
    }
}

fn road(east: f64, north: f64) -> Option<[f64; 3]> {
    let (across, along) = if road_distance(east) < road_distance(north) {
        (road_distance(east), north)
    } else {
        (road_distance(north), east)
    };
    if across > ROAD_M / 2.0 {
        return None;
    }
    let dashed = across < 0.12 && along.rem_euclid(4.0) < 2.0;
    let edge = (across - (ROAD_M / 2.0 - 0.4)).abs() < 0.08;
    Some(if dashed || edge {
        [222.0, 220.0, 208.0]
    } else {
        [108.0, 108.0, 112.0]
    })
}

fn river(east: f64, north: f64, seed: u32) -> Option<[f64; 3]> {
    let distance = river_distance(east, north);
    if distance > 9.0 {
        return None;
    }
    if distance > 7.6 {
        return Some([176.0, 166.0, 132.0]);
    }
    let ripple = 0.9 + 0.2 * noise(east / 2.0, north / 5.0, seed ^ 17);
    Some([58.0 * ripple, 104.0 * ripple, 126.0 * ripple])
}

/// A number in 0..1 from two integers and a seed (Wang-style integer mixing).
fn hash(a: u32, b: u32, seed: u32) -> f64 {
    let mut value = a
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add(b.wrapping_mul(0x85EB_CA77))
        .wrapping_add(seed.wrapping_mul(0xC2B2_AE3D));
    value ^= value >> 15;
    value = value.wrapping_mul(0x2C1B_3C6D);
    value ^= value >> 12;
    value = value.wrapping_mul(0x297A_2D39);
    value ^= value >> 15;
    f64::from(value) / f64::from(u32::MAX)
}

/// Two octaves of value noise in 0..1.
fn noise(x: f64, y: f64, seed: u32) -> f64 {
    let octave = |x: f64, y: f64, seed: u32| {
        let (column, row) = (x.floor(), y.floor());
        let smooth = |t: f64| t * t * (3.0 - 2.0 * t);
        let (fx, fy) = (smooth(x - column), smooth(y - row));
        let corner =
            |dx: i64, dy: i64| hash((column as i64 + dx) as u32, (row as i64 + dy) as u32, seed);
        let south = corner(0, 0) * (1.0 - fx) + corner(1, 0) * fx;
        let north = corner(0, 1) * (1.0 - fx) + corner(1, 1) * fx;
        south * (1.0 - fy) + north * fy
    };
    0.65 * octave(x, y, seed) + 0.35 * octave(x * 2.1, y * 2.1, seed ^ 0xA5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> WorldConfig {
        WorldConfig {
            width_m: 160.0,
            height_m: 120.0,
            metres_per_pixel: 0.2,
            ..WorldConfig::default()
        }
    }

    #[test]
    fn the_same_seed_paints_the_same_ground_and_another_seed_another() {
        let first = World::generate(small());
        let again = World::generate(small());
        let other = World::generate(WorldConfig { seed: 8, ..small() });
        assert_eq!(first.ground.pixels(), again.ground.pixels());
        assert_ne!(first.ground.pixels(), other.ground.pixels());
    }

    #[test]
    fn a_control_mark_is_white_in_its_middle_and_black_around() {
        let world = World::generate(small());
        assert!(world.control_marks().len() >= 4);
        for mark in world.control_marks() {
            let (east, north) = (mark.position.east, mark.position.north);
            assert_eq!(world.colour_at(east, north), Some([245; 3]));
            assert_eq!(world.colour_at(east + 0.9, north), Some([16; 3]));
        }
    }

    #[test]
    fn outside_the_world_there_is_no_colour() {
        let world = World::generate(small());
        assert_eq!(world.colour_at(1000.0, 0.0), None);
        assert_eq!(world.colour_at(0.0, -1000.0), None);
    }
}
