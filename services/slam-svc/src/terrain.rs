//! The terrain model that the operator gives: a GeoTIFF or a folder of them, in any usual coordinate system and
//! vertical datum.
//!
//! Pipeline of a height: place -> the finest sheet that has it -> the sheet's coordinates -> bilinear between
//! four of its pixels -> metres -> height above the ellipsoid. Degenerate cases: a pixel without data makes the
//! next sheet be asked; a place on no sheet has no height.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use geotiff_reader::GeoTiffFile;
use moka::sync::Cache;
use proj4rs::Proj;
use proj4rs::transform::transform;

use crate::domain::geoid::Geoid;
use crate::domain::ground::Elevation;

/// Sheets of one model, each an open file; more are to be merged first.
const MAX_SHEETS: usize = 512;
/// Pixels along a side of what is read at once.
const BLOCK: usize = 256;
/// Blocks that are kept, 256 KiB each.
const MAX_BLOCKS: u64 = 64;
/// Metres in a foot, and in one of the United States' survey.
const FOOT_M: f64 = 0.3048;
const SURVEY_FOOT_M: f64 = 1200.0 / 3937.0;

/// What the heights of a model count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerticalDatum {
    Ellipsoid,
    /// Mean sea level.
    Geoid,
}

/// What an operator says of a model; the rest is in its files.
#[derive(Clone, Debug)]
pub(crate) struct TerrainSettings {
    pub(crate) path: PathBuf,
    pub(crate) crs: Option<String>,
    pub(crate) vertical_datum: Option<VerticalDatum>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TerrainError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} has no GeoTIFF (.tif or .tiff)")]
    Nothing(PathBuf),
    #[error("{0} has more than {MAX_SHEETS} GeoTIFFs: merge them first")]
    TooMany(PathBuf),
    #[error("{path} is no GeoTIFF that can be read")]
    Format {
        path: PathBuf,
        #[source]
        source: geotiff_reader::Error,
    },
    #[error("{path} does not say where its pixels are")]
    NoTransform { path: PathBuf },
    #[error(
        "{path} names no coordinate system that is known: set `terrain.crs`, such as `EPSG:25832`"
    )]
    UnknownCrs { path: PathBuf },
}

impl std::fmt::Debug for Terrain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths = self.sheets.iter().map(|sheet| &sheet.path);
        f.debug_list().entries(paths).finish()
    }
}

pub(crate) struct Terrain {
    sheets: Vec<Sheet>,
    blocks: Cache<BlockKey, Block>,
    geographic: Proj,
    geoid: Geoid,
}

/// Number of the sheet, column and row of the block.
type BlockKey = (usize, usize, usize);
/// Pixels row by row; nothing where the file cannot be read.
type Block = Option<Arc<Vec<f32>>>;

struct Sheet {
    path: PathBuf,
    file: GeoTiffFile,
    crs: Proj,
    no_data: Option<f64>,
    unit_m: f64,
    datum: VerticalDatum,
    /// Degrees of latitude between two pixels, about.
    step_deg: f64,
}

impl Terrain {
    /// Opens every sheet, so that a wrong one is known at the start.
    pub(crate) fn open(settings: &TerrainSettings, geoid: Geoid) -> Result<Self, TerrainError> {
        let paths = sheets_at(&settings.path)?;
        let geographic = Proj::from_epsg_code(4326).map_err(|_| TerrainError::UnknownCrs {
            path: settings.path.clone(),
        })?;
        let mut sheets = Vec::with_capacity(paths.len());
        for path in paths {
            sheets.push(Sheet::open(path, settings)?);
        }
        sheets.sort_by(|a, b| a.step_deg.total_cmp(&b.step_deg).then(a.path.cmp(&b.path)));
        Ok(Self {
            sheets,
            blocks: Cache::new(MAX_BLOCKS),
            geographic,
            geoid,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.sheets.len()
    }

    fn on_sheet(&self, number: usize, latitude_deg: f64, longitude_deg: f64) -> Option<f64> {
        let sheet = &self.sheets[number];
        let (x, y) = sheet.project(&self.geographic, latitude_deg, longitude_deg)?;
        let (column, row) = sheet.file.transform()?.geo_to_pixel(x, y)?;
        // Heights stand in the middle of pixels.
        let (column, row) = (column - 0.5, row - 0.5);
        let (columns, rows) = (
            f64::from(sheet.file.width()),
            f64::from(sheet.file.height()),
        );
        // Half a pixel around the outermost middles belongs to them.
        let is_on = (-0.5..=columns - 0.5).contains(&column) && (-0.5..=rows - 0.5).contains(&row);
        if !is_on {
            return None;
        }
        let (column, row) = (column.clamp(0.0, columns - 1.0), row.clamp(0.0, rows - 1.0));
        let (left, top) = (column.floor(), row.floor());
        let (right, down) = (column - left, row - top);
        let at = |columns: f64, rows: f64| {
            let column = (left + columns).min(f64::from(sheet.file.width()) - 1.0);
            let row = (top + rows).min(f64::from(sheet.file.height()) - 1.0);
            self.pixel(number, column as usize, row as usize)
        };
        let upper = at(0.0, 0.0)? * (1.0 - right) + at(1.0, 0.0)? * right;
        let lower = at(0.0, 1.0)? * (1.0 - right) + at(1.0, 1.0)? * right;
        let metres = (upper * (1.0 - down) + lower * down) * sheet.unit_m;
        Some(match sheet.datum {
            VerticalDatum::Ellipsoid => metres,
            VerticalDatum::Geoid => metres + self.geoid.height(latitude_deg, longitude_deg),
        })
    }

    fn pixel(&self, number: usize, column: usize, row: usize) -> Option<f64> {
        let sheet = &self.sheets[number];
        let key = (number, column / BLOCK, row / BLOCK);
        let block = self.blocks.get_with(key, || sheet.read(key.1, key.2))?;
        let width = sheet.block_width(key.1);
        let value = f64::from(*block.get(row % BLOCK * width + column % BLOCK)?);
        let is_data = value.is_finite() && sheet.no_data.is_none_or(|none| value != none);
        is_data.then_some(value)
    }
}

impl Elevation for Terrain {
    fn ellipsoidal_m(&self, latitude_deg: f64, longitude_deg: f64) -> Option<f64> {
        (0..self.sheets.len()).find_map(|number| self.on_sheet(number, latitude_deg, longitude_deg))
    }

    fn step_deg(&self) -> f64 {
        self.sheets.first().map_or(1.0, |sheet| sheet.step_deg)
    }
}

impl Sheet {
    fn open(path: PathBuf, settings: &TerrainSettings) -> Result<Self, TerrainError> {
        let file = GeoTiffFile::open(&path).map_err(|source| TerrainError::Format {
            path: path.clone(),
            source,
        })?;
        let crs = match &settings.crs {
            Some(written) => Proj::from_user_string(written).ok(),
            None => file
                .crs()
                .projected_epsg()
                .or(file.crs().geographic_epsg())
                .and_then(|code| Proj::from_epsg_code(code).ok()),
        };
        let Some(crs) = crs else {
            return Err(TerrainError::UnknownCrs { path });
        };
        let Some(transform) = file.transform() else {
            return Err(TerrainError::NoTransform { path });
        };
        let pixel = transform.pixel_height.abs().max(transform.skew_x.abs());
        let step_deg = if crs.is_latlong() {
            pixel
        } else {
            // A degree of latitude is 111 km.
            pixel * crs.to_meter() / 111_000.0
        };
        Ok(Self {
            no_data: file.nodata().and_then(|text| text.trim().parse().ok()),
            unit_m: match file.crs().vertical_units() {
                Some(9002) => FOOT_M,
                Some(9003) => SURVEY_FOOT_M,
                Some(_) | None => 1.0,
            },
            datum: settings.vertical_datum.unwrap_or_else(|| datum_of(&file)),
            step_deg,
            path,
            file,
            crs,
        })
    }

    /// Coordinates of a place in the sheet's own system.
    fn project(
        &self,
        geographic: &Proj,
        latitude_deg: f64,
        longitude_deg: f64,
    ) -> Option<(f64, f64)> {
        let mut point = (longitude_deg.to_radians(), latitude_deg.to_radians(), 0.0);
        transform(geographic, &self.crs, &mut point).ok()?;
        Some(if self.crs.is_latlong() {
            (point.0.to_degrees(), point.1.to_degrees())
        } else {
            (point.0, point.1)
        })
    }

    fn block_width(&self, block: usize) -> usize {
        BLOCK.min(self.file.width() as usize - block * BLOCK)
    }

    /// A block in single precision, row by row; what cannot be read counts as no data, and is said once as
    /// long as it is kept.
    fn read(&self, column: usize, row: usize) -> Block {
        let columns = self.block_width(column);
        let rows = BLOCK.min(self.file.height() as usize - row * BLOCK);
        let (top, left) = (row * BLOCK, column * BLOCK);
        macro_rules! read_as {
            ($sample:ty) => {
                self.file
                    .read_band_window::<$sample>(0, top, left, rows, columns)
                    .map(|window| window.iter().map(|value| *value as f32).collect())
            };
        }
        let read: Result<Vec<f32>, _> = read_as!(f32)
            .or_else(|_| read_as!(i16))
            .or_else(|_| read_as!(u16))
            .or_else(|_| read_as!(f64))
            .or_else(|_| read_as!(i32))
            .or_else(|_| read_as!(u8));
        match read {
            Ok(values) => Some(Arc::new(values)),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "a part of the terrain model cannot be read");
                None
            }
        }
    }
}

/// What a file says that its heights count from; mean sea level when it says nothing, as most models do.
fn datum_of(file: &GeoTiffFile) -> VerticalDatum {
    /// EPSG: WGS 84 in three dimensions, and GeoTIFF's own codes of heights above an ellipsoid.
    const ELLIPSOIDAL: std::ops::RangeInclusive<u16> = 5001..=5035;
    match file.crs().vertical_epsg() {
        Some(4979 | 4937 | 6319) => VerticalDatum::Ellipsoid,
        Some(code) if ELLIPSOIDAL.contains(&code) => VerticalDatum::Ellipsoid,
        Some(_) | None => VerticalDatum::Geoid,
    }
}

fn sheets_at(path: &Path) -> Result<Vec<PathBuf>, TerrainError> {
    let failed = |source| TerrainError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut sheets = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let is_sheet = file.extension().is_some_and(|extension| {
            extension.eq_ignore_ascii_case("tif") || extension.eq_ignore_ascii_case("tiff")
        });
        if is_sheet {
            sheets.push(file);
        }
    }
    match sheets.len() {
        0 => Err(TerrainError::Nothing(path.to_owned())),
        1..=MAX_SHEETS => Ok(sheets),
        _ => Err(TerrainError::TooMany(path.to_owned())),
    }
}

#[cfg(test)]
mod tests;
