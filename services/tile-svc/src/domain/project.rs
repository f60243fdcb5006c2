//! Orthorectification: laying a frame onto the ground as one tile shows it.
//!
//! Pipeline, from tile to picture so that no hole is left: pixel of the tile -> ground point -> camera
//! axes -> divided by depth -> radial distortion -> bilinear sample of the picture. The first two steps
//! are worked out exactly at the tile's four corners and interpolated between them: a tile is so small
//! that the curvature of map and Earth within it is below a thousandth of a pixel (the tests compare
//! with the exact functions). Over ground with a relief the same is done in [`CELLS`] x [`CELLS`] cells of the
//! tile, each with the heights of its own corners. What is left is arithmetic on [`SPAN`] pixels of a row at a time, in single
//! precision and without branches, compiled for old and new processors with the same result on each.
//!
//! Each pixel carries a weight from 1 to 255, the product of two qualities: how far it is from the
//! border of the picture, and how steeply it is looked at. Where frames overlap the better look wins.
//!
//! Degenerate cases: points behind the camera, beyond the fold of the distortion, outside the cone of
//! sight or within half a pixel of the picture's edge get no colour and no weight.

use nalgebra::Vector3;
use pulp::{Arch, NullaryFnOnce};
use sovereign_model::Image;
use sovereign_model::geo::TileCoord;
use sovereign_model::geo::mercator::{MercatorPoint, geodetic_from_mercator};

use super::blend::{blend, may_win};
use super::raster::{Raster, Rect, TILE_SIDE};
use super::sight::Sight;

#[derive(Debug)]
pub(crate) struct Frame {
    sight: Sight,
    picture: Picture,
    lens: Lens,
}

/// Halves a picture: each pixel is the rounded mean of the 2 x 2 pixels it replaces. An odd last row or
/// column is dropped. `None` when a side is down to one pixel.
#[must_use]
pub(crate) fn halve(image: &Image) -> Option<Image> {
    let (width, height) = (image.width() as usize / 2, image.height() as usize / 2);
    let stride = image.width() as usize * 3;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let upper = &image.pixels()[y * 2 * stride..][..stride];
        let lower = &image.pixels()[(y * 2 + 1) * stride..][..stride];
        for (upper, lower) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
            for channel in 0..3 {
                let sum = u16::from(upper[channel])
                    + u16::from(upper[channel + 3])
                    + u16::from(lower[channel])
                    + u16::from(lower[channel + 3]);
                // At most (4 * 255 + 2) / 4 = 255.
                pixels.push(((sum + 2) / 4) as u8);
            }
        }
    }
    Image::new(
        u32::try_from(width).ok()?,
        u32::try_from(height).ok()?,
        pixels,
    )
    .ok()
}

impl Frame {
    /// A frame whose picture is halved as often as its plan says. The picture has the size that the
    /// camera of `sight` has.
    #[must_use]
    pub(crate) fn new(sight: Sight, mut image: Image, halvings: u32) -> Self {
        let mut scale = 1.0;
        for _ in 0..halvings {
            let Some(half) = halve(&image) else { break };
            image = half;
            scale *= 0.5;
        }
        let lens = Lens::of(&sight, scale, &image);
        Self {
            sight,
            picture: Picture::of(image),
            lens,
        }
    }

    pub(crate) fn lay(&self, tile: TileCoord, raster: &mut Raster) -> Laid {
        // A sample is between two pixels, across and down.
        if self.picture.width < 2 || self.picture.height < 2 {
            return Laid::default();
        }
        Arch::new().dispatch(Laying {
            frame: self,
            patches: Patches::of(&self.sight, tile),
            raster,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Laid {
    pub(crate) covers: bool,
    /// Where pixels changed, by whole spans.
    pub(crate) changed: Option<Rect>,
}

struct Laying<'a> {
    frame: &'a Frame,
    patches: Patches,
    raster: &'a mut Raster,
}

/// Compiled once for every kind of processor, with all that it calls: hence the forced inlining here.
impl NullaryFnOnce for Laying<'_> {
    type Output = Laid;

    #[inline(always)]
    fn call(self) -> Laid {
        let Frame { lens, picture, .. } = self.frame;
        let mut samples = Samples::default();
        let mut laid = Laid::default();
        // Columns of spans: what neighbouring rows sample is close together and still in the cache.
        for first in (0..TILE_SIDE).step_by(SPAN) {
            for v in 0..TILE_SIDE {
                if !lens.look_along(&self.patches.row(v, first), first, &mut samples) {
                    continue;
                }
                laid.covers = true;
                let Some(base) = self.raster.row_mut(v)[first..].first_chunk_mut() else {
                    continue;
                };
                // Most of a frame loses against its neighbours, and need not be sampled.
                if may_win(base, &samples.weight) && blend(base, &picture.sample(&samples)) {
                    laid.changed = Some(Rect::with_run(laid.changed, v, first, first + SPAN));
                }
            }
        }
        laid
    }
}

/// Cells along a tile's side where the ground is not a plane; each is a whole number of spans.
const CELLS: usize = 16;

/// Ground of one tile in camera axes, in units of the camera's height, cell by cell.
struct Patches {
    cells: usize,
    patches: Vec<Patch>,
}

/// Ground of one cell: exact at the corners, bilinear between them.
struct Patch {
    origin: Vector3<f64>,
    along: Vector3<f64>,
    down: Vector3<f64>,
    twist: Vector3<f64>,
}

/// The points of one row of a cell: `start + step * column`, columns counted from `first`.
struct Row {
    start: Vector3<f32>,
    step: Vector3<f32>,
    first: usize,
}

impl Row {
    #[inline(always)]
    fn point(&self, column: usize) -> (f32, f32, f32) {
        let t = (column - self.first) as f32;
        (
            self.start.x + self.step.x * t,
            self.start.y + self.step.y * t,
            self.start.z + self.step.z * t,
        )
    }
}

impl Patches {
    fn of(sight: &Sight, tile: TileCoord) -> Self {
        let pose = sight.pose();
        let altitude = pose.ground_altitude_m();
        let height = pose.height_above_ground_m;
        let (corner, side) = (tile.north_west(), tile.side());
        let relief = sight.relief();
        let cells = if relief.is_some() { CELLS } else { 1 };
        let at = |column: usize, row: usize| {
            let place = geodetic_from_mercator(MercatorPoint {
                x: corner.x + column as f64 / cells as f64 * side,
                y: corner.y + row as f64 / cells as f64 * side,
            });
            let enu = sight
                .view()
                .frame()
                .enu_from_geodetic(&place.at_altitude(altitude));
            let rises = relief.map_or(0.0, |relief| {
                relief.at(place.latitude_deg, place.longitude_deg)
            });
            // The ground is the plane, not the sphere that bends away under it.
            let point = Vector3::new(enu.east, enu.north, rises - height);
            sight.camera_from_enu() * point / height
        };
        let corners: Vec<Vector3<f64>> = (0..=cells)
            .flat_map(|row| (0..=cells).map(move |column| (column, row)))
            .map(|(column, row)| at(column, row))
            .collect();
        let patches = (0..cells * cells).map(|cell| {
            let nw = cell / cells * (cells + 1) + cell % cells;
            let sw = nw + cells + 1;
            let corners = [nw, nw + 1, sw, sw + 1].map(|at| corners[at]);
            Patch::between(corners, TILE_SIDE / cells)
        });
        Self {
            cells,
            patches: patches.collect(),
        }
    }

    /// Centres of the pixels of row `v` of the tile in the cell that has column `u`.
    #[inline(always)]
    fn row(&self, v: usize, u: usize) -> Row {
        let side = TILE_SIDE / self.cells;
        let (row, column) = (v / side, u / side);
        self.patches[row * self.cells + column].row(v - row * side, column * side)
    }
}

impl Patch {
    /// Between the points at its corners (north-west, north-east, south-west, south-east), `pixels` along
    /// each side.
    fn between([nw, ne, sw, se]: [Vector3<f64>; 4], pixels: usize) -> Self {
        let pixels = pixels as f64;
        Self {
            origin: nw,
            along: (ne - nw) / pixels,
            down: (sw - nw) / pixels,
            twist: (se - sw - ne + nw) / (pixels * pixels),
        }
    }

    #[inline(always)]
    fn row(&self, v: usize, first: usize) -> Row {
        let v = v as f64 + 0.5;
        let step = self.along + self.twist * v;
        Row {
            start: (self.origin + self.down * v + step * 0.5).map(|v| v as f32),
            step: step.map(|v| v as f32),
            first,
        }
    }
}

const SPAN: usize = 16;

/// Where in the picture each pixel of a span comes from, as whole pixels from the centre of the first one
/// and [`FRACTIONS`] of the next, and what it is worth (0: nothing).
struct Samples {
    column: [u32; SPAN],
    right: [u32; SPAN],
    line: [u32; SPAN],
    lower: [u32; SPAN],
    weight: [u32; SPAN],
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            column: [0; SPAN],
            right: [0; SPAN],
            line: [0; SPAN],
            lower: [0; SPAN],
            weight: [0; SPAN],
        }
    }
}

/// The camera in single precision, in pixels of the picture as it is after halving.
#[derive(Debug)]
struct Lens {
    fx: f32,
    fy: f32,
    cx: f32,
    cy: f32,
    k1: f32,
    k2: f32,
    k3: f32,
    p1: f32,
    p2: f32,
    max_r2: f32,
    min_cos: f32,
    width: f32,
    height: f32,
}

const MAX_WEIGHT: f32 = 255.0;

impl Lens {
    fn of(sight: &Sight, scale: f64, image: &Image) -> Self {
        let camera = sight.view().intrinsics();
        let distortion = camera.distortion();
        Self {
            fx: (camera.fx_px() * scale) as f32,
            fy: (camera.fy_px() * scale) as f32,
            cx: (camera.cx_px() * scale) as f32,
            cy: (camera.cy_px() * scale) as f32,
            k1: distortion.k1 as f32,
            k2: distortion.k2 as f32,
            k3: distortion.k3 as f32,
            p1: distortion.p1 as f32,
            p2: distortion.p2 as f32,
            // Rounding must not cut the corners of the picture off.
            max_r2: (sight.max_r2() * (1.0 + 1e-5)) as f32,
            min_cos: sight.min_cos() as f32,
            width: image.width() as f32,
            height: image.height() as f32,
        }
    }

    /// Position in the picture of a point in camera axes, and its squared undistorted radius.
    #[inline(always)]
    fn project(&self, x: f32, y: f32, z: f32) -> (f32, f32, f32) {
        let depth = 1.0 / z;
        let (xn, yn) = (x * depth, y * depth);
        let r2 = xn * xn + yn * yn;
        let scale = 1.0 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3));
        let xy = 2.0 * xn * yn;
        let dx = self.p1 * xy + self.p2 * (r2 + 2.0 * xn * xn);
        let dy = self.p2 * xy + self.p1 * (r2 + 2.0 * yn * yn);
        (
            self.fx * (xn * scale + dx) + self.cx,
            self.fy * (yn * scale + dy) + self.cy,
            r2,
        )
    }

    /// Fills `samples` for the span that begins at column `first`; returns whether any of it is on the
    /// picture.
    #[inline(always)]
    fn look_along(&self, row: &Row, first: usize, samples: &mut Samples) -> bool {
        let per_half_side = 2.0 / self.width.min(self.height);
        let per_steepness = 1.0 / (1.0 - self.min_cos);
        let mut any = 0;
        for u in 0..SPAN {
            let (x, y, z) = row.point(first + u);
            let (px, py, r2) = self.project(x, y, z);
            // Lengths are in heights, so the cosine is one over the distance.
            let cos = 1.0 / (x * x + y * y + z * z).sqrt();
            let border = px.min(self.width - px).min(py.min(self.height - py));
            let steepness = (cos - self.min_cos) * per_steepness;
            let quality = (border * per_half_side).min(1.0) * steepness;
            let seen = (z > 0.0) & (r2 <= self.max_r2) & (border >= 0.5) & (steepness > 0.0);
            let weight = 1.0 + (MAX_WEIGHT - 1.0) * quality.clamp(0.0, 1.0);
            (samples.column[u], samples.right[u]) = split(px - 0.5);
            (samples.line[u], samples.lower[u]) = split(py - 0.5);
            samples.weight[u] = if seen { floor(weight) } else { 0 };
            any |= samples.weight[u];
        }
        any != 0
    }
}

/// Pixels with room behind the last one, so that two neighbours can be read as one word.
#[derive(Debug)]
struct Picture {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

/// Steps between two pixels that the bilinear sample tells apart.
const FRACTIONS: u32 = 256;

impl Picture {
    fn of(image: Image) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut bytes = image.into_pixels();
        // Two pixels are six bytes of an eight-byte word. Exactly: the default doubles what is full.
        bytes.reserve_exact(2);
        bytes.extend([0; 2]);
        Self {
            width,
            height,
            bytes,
        }
    }

    /// The pixels of a span, 0 where they have no weight.
    #[inline(always)]
    fn sample(&self, samples: &Samples) -> [u32; SPAN] {
        let (last_column, last_line) = (self.width as u32 - 2, self.height as u32 - 2);
        let stride = self.width * 3;
        let mut corners = [[[0_u8; 4]; SPAN]; 4];
        let mut right = [[0_u16; 4]; SPAN];
        let mut lower = [[0_u16; 4]; SPAN];
        for i in 0..SPAN {
            // On the last pixel the share becomes a whole step. What has no weight may be anywhere.
            let column = samples.column[i].min(last_column);
            let line = samples.line[i].min(last_line);
            right[i] = [share_from(column, samples.column[i], samples.right[i]); 4];
            lower[i] = [share_from(line, samples.line[i], samples.lower[i]); 4];
            let at = line as usize * stride + column as usize * 3;
            let (upper, below) = (
                &self.bytes[at..at + 7],
                &self.bytes[at + stride..at + stride + 7],
            );
            corners[0][i].copy_from_slice(&upper[..4]);
            corners[1][i].copy_from_slice(&upper[3..]);
            corners[2][i].copy_from_slice(&below[..4]);
            corners[3][i].copy_from_slice(&below[3..]);
        }
        // Channel by channel, so that the compiler works on many at once.
        let [a, b, c, d] = corners.each_ref().map(|corner| corner.as_flattened());
        let (right, lower) = (right.as_flattened(), lower.as_flattened());
        let mut mixed = [[0_u8; 4]; SPAN];
        for (i, channel) in mixed.as_flattened_mut().iter_mut().enumerate() {
            let upper = mix(a[i].into(), b[i].into(), right[i]);
            let below = mix(c[i].into(), d[i].into(), right[i]);
            *channel = mix(upper, below, lower[i]) as u8;
        }
        let mut pixels = [0; SPAN];
        for (i, pixel) in pixels.iter_mut().enumerate() {
            let weight = samples.weight[i];
            if weight > 0 {
                *pixel = weight << 24 | u32::from_be_bytes(mixed[i]) >> 8;
            }
        }
        pixels
    }
}

/// The share of the pixel after `used`, which is `whole` or less.
#[inline(always)]
fn share_from(used: u32, whole: u32, share: u32) -> u16 {
    (share + (whole - used) * FRACTIONS).min(FRACTIONS) as u16
}

/// Rounded mean, `share` of 256 from `b`: at most 255 * 256 + 128 in between, which fits.
#[inline(always)]
fn mix(a: u16, b: u16, share: u16) -> u16 {
    (a * (FRACTIONS as u16 - share) + b * share + FRACTIONS as u16 / 2) >> FRACTIONS.ilog2()
}

/// A position as a whole number of pixels and the share of the next one, in [`FRACTIONS`], the nearest.
#[inline(always)]
fn split(position: f32) -> (u32, u32) {
    let whole = floor(position);
    let share = (position - whole as f32) * FRACTIONS as f32;
    (whole, floor(share + 0.5))
}

/// The next whole number below, of 0 to 2^23; any number for others. Unlike a cast it is worked out for
/// many numbers at once.
#[inline(always)]
fn floor(value: f32) -> u32 {
    const WHOLE: f32 = (1 << 23) as f32;
    let value = value.clamp(0.0, WHOLE - 1.0);
    let nearest = (value + WHOLE) - WHOLE;
    let floor = if nearest > value {
        nearest - 1.0
    } else {
        nearest
    };
    (floor + WHOLE).to_bits() & ((1 << 23) - 1)
}

#[cfg(test)]
mod tests {
    use super::super::plan::{ZoomRange, plan};
    use super::super::raster::{rgb, weight};
    use super::super::sight::tests::{LIMITS, camera, pose};
    use super::*;
    use sovereign_model::geo::mercator::mercator_from_geodetic;
    use sovereign_model::{Intrinsics, Relief};

    const ZOOMS: ZoomRange = ZoomRange { min: 10, max: 22 };

    fn grey(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Image {
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| [value(x, y); 3])
            .collect();
        Image::new(width, height, pixels).unwrap()
    }

    #[test]
    fn positions_agree_with_the_exact_functions_to_a_hundredth_of_a_pixel() {
        let mut worst = 0.0_f64;
        let mut compared = 0;
        for (pitch, yaw, height) in [
            (-90.0, 17.0, 46.0),
            (-70.0, 200.0, 120.0),
            (-45.0, 300.0, 60.0),
            (-90.0, 0.0, 1_000.0),
        ] {
            let sight = Sight::new(&pose(pitch, yaw, height), &camera(), LIMITS).unwrap();
            let lens = Lens::of(&sight, 1.0, &grey(752, 480, |_, _| 0));
            for tile in plan(&sight, ZOOMS).unwrap().tiles {
                let patches = Patches::of(&sight, tile);
                for v in [0, 100, 255] {
                    let mut samples = Samples::default();
                    let row = patches.row(v, 0);
                    for u in (0..256).step_by(15) {
                        lens.look_along(&row, u / SPAN * SPAN, &mut samples);
                        if samples.weight[u % SPAN] == 0 {
                            continue;
                        }
                        let (x, y, z) = row.point(u);
                        let (x, y, _) = lens.project(x, y, z);
                        let pixel = [f64::from(x), f64::from(y)];
                        let ground = sight.view().ground_point(pixel).unwrap();
                        let on_map = mercator_from_geodetic(&ground);
                        let offset = |exact: f64, start: f64, column: usize| {
                            ((exact - start) / tile.side() * 256.0 - column as f64 - 0.5).abs()
                        };
                        let corner = tile.north_west();
                        worst = worst
                            .max(offset(on_map.x, corner.x, u))
                            .max(offset(on_map.y, corner.y, v));
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 1_000, "{compared}");
        assert!(worst < 0.01, "{worst} pixels");
    }

    #[test]
    fn over_a_relief_positions_agree_with_rays_that_meet_it() {
        let pose = pose(-75.0, 17.0, 120.0);
        let place = pose.position;
        // Rolling hills of 12 m, a quarter of a kilometre wide.
        let heights = (0..64 * 64).map(|i| {
            let (row, column) = (f64::from(i / 64), f64::from(i % 64));
            (12.0 * (row * 0.3).sin() * (column * 0.3).cos()) as f32
        });
        let relief = Relief::new(
            place.latitude_deg - 0.004,
            place.longitude_deg - 0.006,
            0.008 / 63.0,
            0.012 / 63.0,
            64,
            heights.collect(),
        )
        .unwrap();
        let sight = Sight::new(&pose, &camera(), LIMITS).unwrap();
        let sight = sight.over(relief.clone()).unwrap();
        let lens = Lens::of(&sight, 1.0, &grey(752, 480, |_, _| 0));
        let mut worst = 0.0_f64;
        let mut compared = 0;
        for tile in plan(&sight, ZOOMS).unwrap().tiles {
            let patches = Patches::of(&sight, tile);
            for v in [3, 60, 100, 180, 250] {
                for u in (0..256).step_by(15) {
                    let mut samples = Samples::default();
                    let row = patches.row(v, u);
                    lens.look_along(&row, u / SPAN * SPAN, &mut samples);
                    if samples.weight[u % SPAN] == 0 {
                        continue;
                    }
                    let (x, y, z) = row.point(u);
                    let (x, y, _) = lens.project(x, y, z);
                    let pixel = [f64::from(x), f64::from(y)];
                    let ground = relief.meet(&pose, &camera(), pixel).unwrap();
                    let on_map = mercator_from_geodetic(&ground);
                    let corner = tile.north_west();
                    let offset = |exact: f64, start: f64, column: usize| {
                        ((exact - start) / tile.side() * 256.0 - column as f64 - 0.5).abs()
                    };
                    worst = worst
                        .max(offset(on_map.x, corner.x, u))
                        .max(offset(on_map.y, corner.y, v));
                    compared += 1;
                }
            }
        }
        assert!(compared > 1_000, "{compared}");
        // A cell that an edge of the grid runs through is bilinear all the same.
        assert!(worst < 0.6, "{worst} pixels");
    }

    fn sample(picture: &Picture, x: f32, y: f32) -> [u8; 3] {
        let mut samples = Samples::default();
        (samples.column[3], samples.right[3]) = split(x);
        (samples.line[3], samples.lower[3]) = split(y);
        samples.weight[3] = 1;
        rgb(picture.sample(&samples)[3])
    }

    #[test]
    fn a_position_is_split_into_whole_pixels_and_the_nearest_share() {
        for (position, expected) in [
            (0.0, (0, 0)),
            (7.25, (7, 64)),
            (7.999, (7, 256)),
            (65_534.5, (65_534, 128)),
            (-3.0, (0, 0)),
        ] {
            assert_eq!(split(position), expected, "{position}");
        }
    }

    #[test]
    fn a_sample_is_the_bilinear_mean_of_its_four_pixels() {
        let picture = Picture::of(grey(4, 3, |x, y| (x * 40 + y * 10) as u8));
        assert_eq!(sample(&picture, 1.0, 1.0), [50; 3]);
        assert_eq!(sample(&picture, 1.5, 1.5), [75; 3]);
        assert_eq!(sample(&picture, 3.0, 2.0), [140; 3], "the last pixel");
        let colours = Picture::of(Image::new(2, 2, [10, 20, 30].repeat(4)).unwrap());
        assert_eq!(sample(&colours, 0.39, 0.58), [10, 20, 30]);
    }

    #[test]
    fn weights_fall_towards_the_border_and_with_the_angle() {
        let camera = Intrinsics::from_focal_px(1000, 1000, 500.0).unwrap();
        let sight = Sight::new(&pose(-90.0, 0.0, 100.0), &camera, LIMITS).unwrap();
        let plan = plan(&sight, ZOOMS).unwrap();
        let frame = Frame::new(sight.clone(), grey(1000, 1000, |_, _| 200), plan.halvings);
        let weight_at = |east: f64, north: f64| {
            let place = sight.ground_from_enu([east, north]);
            let tile = TileCoord::containing(place.latitude_deg, place.longitude_deg, plan.zoom);
            let point = mercator_from_geodetic(&place);
            let pixel = |v: f64, start: f64| ((v - start) / tile.side() * 256.0) as usize;
            let mut raster = Raster::empty();
            assert!(frame.lay(tile, &mut raster).covers);
            weight(
                raster.row(pixel(point.y, tile.north_west().y))
                    [pixel(point.x, tile.north_west().x)],
            )
        };
        let (middle, aside, edge) = (
            weight_at(0.0, 0.0),
            weight_at(50.0, 0.0),
            weight_at(99.0, 0.0),
        );
        assert!(middle >= 250, "{middle}");
        assert!(
            middle > aside && aside > edge && edge >= 1,
            "{aside} {edge}"
        );
        assert_eq!(weight_at(-101.0, 0.0), 0);
    }

    #[test]
    fn a_tile_beside_the_frame_has_nothing_of_it() {
        let sight = Sight::new(&pose(-90.0, 0.0, 50.0), &camera(), LIMITS).unwrap();
        let plan = plan(&sight, ZOOMS).unwrap();
        let frame = Frame::new(sight, grey(752, 480, |_, _| 9), 0);
        let near = plan.tiles[0];
        let far = TileCoord::new(near.z(), near.x() + 50, near.y()).unwrap();
        let lay = |tile| frame.lay(tile, &mut Raster::empty());
        assert_eq!(lay(far), Laid::default());
        assert!(plan.tiles.iter().any(|&tile| lay(tile).covers));
    }

    #[test]
    fn halving_averages_and_drops_the_odd_edge() {
        let image = grey(5, 3, |x, y| (x * 10 + y * 4) as u8);
        let half = halve(&image).unwrap();
        assert_eq!((half.width(), half.height()), (2, 1));
        assert_eq!(half.pixels(), [7, 7, 7, 27, 27, 27]);
        assert!(halve(&half).is_none());
    }

    #[test]
    fn a_fine_checkerboard_on_a_coarse_tile_is_grey_and_not_chance() {
        let camera = Intrinsics::from_focal_px(2000, 1500, 8000.0).unwrap();
        let sight = Sight::new(&pose(-90.0, 0.0, 40.0), &camera, LIMITS).unwrap();
        let plan = plan(&sight, ZOOMS).unwrap();
        assert_eq!(plan.halvings, 2);
        let board = grey(2000, 1500, |x, y| if (x + y) % 2 == 0 { 0 } else { 254 });
        let frame = Frame::new(sight, board, plan.halvings);
        for &tile in &plan.tiles {
            let mut raster = Raster::empty();
            frame.lay(tile, &mut raster);
            for &pixel in raster.pixels() {
                assert!(pixel == 0 || rgb(pixel) == [127; 3], "{pixel:08x}");
            }
        }
    }
}
