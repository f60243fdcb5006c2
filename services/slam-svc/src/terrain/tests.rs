use geotiff_writer::{Compression, GeoTiffBuilder};
use ndarray::Array2;

use super::*;

/// Heights by place, as a sheet of 200 x 200 pixels that begins north-west at (x, y).
fn sheet(
    path: &Path,
    epsg: u16,
    [x, y, step]: [f64; 3],
    height: impl Fn(f64, f64) -> f64,
    change: impl FnOnce(GeoTiffBuilder) -> GeoTiffBuilder,
) {
    let heights = Array2::from_shape_fn((200, 200), |(row, column)| {
        let (east, south) = ((column as f64 + 0.5) * step, (row as f64 + 0.5) * step);
        height(x + east, y - south) as f32
    });
    let builder = GeoTiffBuilder::new(200, 200)
        .epsg(epsg)
        .pixel_scale(step, step)
        .origin(x, y)
        .nodata("-9999")
        .compression(Compression::Deflate);
    change(builder).write_2d(path, heights.view()).unwrap();
}

fn open(path: &Path) -> Result<Terrain, TerrainError> {
    let settings = TerrainSettings {
        path: path.to_owned(),
        crs: None,
        vertical_datum: None,
    };
    Terrain::open(&settings, Geoid::default())
}

#[test]
fn heights_are_found_in_any_usual_coordinate_system() {
    let folder = tempfile::tempdir().unwrap();
    // The coordinates are what PROJ 9.5 makes of the places.
    for (epsg, (latitude, longitude), x, y, step) in [
        (4326, (47.37, 8.54), 8.54, 47.37, 1e-4),
        (32632, (47.37, 8.54), 465_270.423, 5_246_384.776, 10.0),
        (25832, (47.37, 8.54), 465_270.423, 5_246_384.776, 10.0),
        (3857, (47.37, 8.54), 950_668.451, 6_002_677.998, 10.0),
        (2056, (47.37, 8.54), 2_683_186.286, 1_247_156.744, 10.0),
        (21781, (47.37, 8.54), 683_186.286, 247_156.744, 10.0),
        (27700, (51.5, -1.5), 434_803.918, 178_014.185, 10.0),
        (2193, (-41.3, 174.8), 1_750_697.521, 5_426_376.623, 10.0),
        (32719, (-33.4, -70.6), 351_205.065, 6_303_223.751, 10.0),
    ] {
        let path = folder.path().join(format!("{epsg}.tif"));
        let corner = [x - 100.0 * step, y + 100.0 * step, step];
        // Rises to the north, a metre a pixel.
        sheet(
            &path,
            epsg,
            corner,
            |_, north| 500.0 + (north - y) / step,
            |b| b,
        );
        let terrain = open(&path).unwrap();
        let height = terrain.ellipsoidal_m(latitude, longitude).unwrap();
        let above_sea = height - Geoid::default().height(latitude, longitude);
        // The shifts of old datums are good to a few metres, a part of a pixel here.
        assert!((above_sea - 500.0).abs() < 0.3, "EPSG:{epsg}: {above_sea}");
        assert_eq!(terrain.ellipsoidal_m(latitude + 2.0, longitude), None);
    }
}

#[test]
fn heights_count_from_what_the_file_or_the_operator_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dem.tif");
    sheet(&path, 4326, [8.5, 47.4, 1e-4], |_, _| 500.0, |b| b);
    let sea_m = Geoid::default().height(47.39, 8.51);
    assert!((sea_m - 47.5).abs() < 1.0);
    let height = |vertical_datum| {
        let settings = TerrainSettings {
            path: path.clone(),
            crs: None,
            vertical_datum,
        };
        let terrain = Terrain::open(&settings, Geoid::default()).unwrap();
        terrain.ellipsoidal_m(47.39, 8.51).unwrap()
    };
    assert!((height(None) - 500.0 - sea_m).abs() < 1e-3);
    assert!((height(Some(VerticalDatum::Geoid)) - 500.0 - sea_m).abs() < 1e-3);
    assert!((height(Some(VerticalDatum::Ellipsoid)) - 500.0).abs() < 1e-3);
}

#[test]
fn of_several_sheets_the_finest_with_data_counts() {
    let folder = tempfile::tempdir().unwrap();
    let hole = |x: f64, _: f64| if x > 8.51 { -9999.0 } else { 600.0 };
    sheet(
        &folder.path().join("fine.TIF"),
        4326,
        [8.5, 47.4, 1e-4],
        hole,
        |b| b,
    );
    sheet(
        &folder.path().join("coarse.tiff"),
        4326,
        [8.4, 47.5, 1e-3],
        |_, _| 500.0,
        |b| b,
    );
    std::fs::write(folder.path().join("readme.txt"), "not a sheet").unwrap();
    let terrain = open(folder.path()).unwrap();
    assert_eq!(terrain.len(), 2);
    let above_sea = |latitude: f64, longitude: f64| {
        let sea_m = Geoid::default().height(latitude, longitude);
        (terrain.ellipsoidal_m(latitude, longitude).unwrap() - sea_m).round()
    };
    assert_eq!(above_sea(47.39, 8.505), 600.0);
    assert_eq!(
        above_sea(47.39, 8.515),
        500.0,
        "in the hole of the finer one"
    );
    assert_eq!(above_sea(47.45, 8.45), 500.0);
    assert_eq!(terrain.ellipsoidal_m(46.0, 8.5), None);
}

#[test]
fn what_is_no_terrain_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(folder.path()), Err(TerrainError::Nothing(_))));
    let path = folder.path().join("dem.tif");
    assert!(matches!(open(&path), Err(TerrainError::Read { .. })));
    std::fs::write(&path, "no tiff").unwrap();
    assert!(matches!(open(&path), Err(TerrainError::Format { .. })));
    let heights = Array2::<f32>::zeros((4, 4));
    let nowhere = GeoTiffBuilder::new(4, 4)
        .pixel_scale(1.0, 1.0)
        .origin(0.0, 0.0);
    nowhere.write_2d(&path, heights.view()).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("terrain.crs"), "{error}");
}
