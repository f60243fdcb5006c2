//! Tiles as bytes: what is kept (PNG with weights), what is served.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngDecoder, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageDecoder, ImageEncoder, ImageError};

use crate::domain::raster::{TILE_BYTES, TILE_SIDE, rgb, weight};

const SIDE: u32 = TILE_SIDE as u32;

/// Appends what a tile is kept as: a PNG whose fourth channel is the weight. Lossless.
pub(crate) fn write_png(rgbw: &[u8; TILE_BYTES], bytes: &mut Vec<u8>) {
    PngEncoder::new_with_quality(bytes, CompressionType::Fast, FilterType::Up)
        .write_image(rgbw, SIDE, SIDE, ExtendedColorType::Rgba8)
        .expect("a tile has the size that is given, and writing to memory does not fail");
}

/// Back from [`write_png`]; `None` when the bytes are no tile.
pub(crate) fn rgbw_from_png(bytes: &[u8]) -> Option<Vec<u8>> {
    let decoder = PngDecoder::new(Cursor::new(bytes)).ok()?;
    if decoder.dimensions() != (SIDE, SIDE) || decoder.total_bytes() != TILE_BYTES as u64 {
        return None;
    }
    let mut rgbw = vec![0; TILE_BYTES];
    decoder.read_image(&mut rgbw).ok()?;
    Some(rgbw)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Png,
    Jpeg,
    Webp,
    WebpLossy,
}

impl Format {
    #[must_use]
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp | Self::WebpLossy => "image/webp",
        }
    }
}

/// Encodes square pixels for a reader; `quality`, for the lossy formats, is 1 to 100.
pub(crate) fn encode(pixels: &[u32], format: Format, quality: u8) -> Result<Vec<u8>, ImageError> {
    let side = pixels.len().isqrt() as u32;
    let mut bytes = Vec::with_capacity(pixels.len() * 2);
    match format {
        Format::Png => {
            PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up)
                .write_image(&rgba(pixels), side, side, ExtendedColorType::Rgba8)?;
        }
        Format::Webp => WebPEncoder::new_lossless(&mut bytes).encode(
            &rgba(pixels),
            side,
            side,
            ExtendedColorType::Rgba8,
        )?,
        Format::WebpLossy => {
            let rgba = rgba(pixels);
            let encoder = webp::Encoder::from_rgba(&rgba, side, side);
            bytes.extend_from_slice(&encoder.encode(f32::from(quality)));
        }
        Format::Jpeg => {
            let rgb: Vec<u8> = pixels.iter().flat_map(|&pixel| rgb(pixel)).collect();
            JpegEncoder::new_with_quality(&mut bytes, quality).write_image(
                &rgb,
                side,
                side,
                ExtendedColorType::Rgb8,
            )?;
        }
    }
    Ok(bytes)
}

/// Opaque where there is something.
fn rgba(pixels: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(pixels.len() * 4);
    for &pixel in pixels {
        let [r, g, b] = rgb(pixel);
        bytes.extend([r, g, b, if weight(pixel) > 0 { 255 } else { 0 }]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::raster::Raster;

    fn raster() -> Raster {
        let mut bytes = vec![0; TILE_BYTES];
        for (i, pixel) in bytes.chunks_exact_mut(4).enumerate().skip(300) {
            pixel.copy_from_slice(&[i as u8, (i / 7) as u8, 90, (i % 255) as u8 + 1]);
        }
        Raster::from_rgbw(&bytes).unwrap()
    }

    #[test]
    fn what_is_kept_is_lossless() {
        let raster = raster();
        let (mut rgbw, mut png) = ([0; TILE_BYTES], Vec::new());
        raster.write_rgbw(&mut rgbw);
        write_png(&rgbw, &mut png);
        assert_eq!(rgbw_from_png(&png), Some(rgbw.to_vec()));
        assert_eq!(rgbw_from_png(&png[..png.len() / 2]), None);
        assert_eq!(rgbw_from_png(b"no png"), None);
    }

    #[test]
    fn formats_but_jpeg_are_transparent_where_empty() {
        let raster = raster();
        for format in [Format::Png, Format::Webp] {
            let bytes = encode(raster.pixels(), format, 80).unwrap();
            let image = image::load_from_memory(&bytes).unwrap().into_rgba8();
            assert_eq!(image.dimensions(), (256, 256));
            assert_eq!(image.get_pixel(10, 0).0, [0; 4]);
            let [r, g, b] = rgb(raster.row(9)[7]);
            assert_eq!(image.get_pixel(7, 9).0, [r, g, b, 255]);
        }
        let lossy = encode(raster.pixels(), Format::WebpLossy, 80).unwrap();
        assert!(lossy.len() < encode(raster.pixels(), Format::Webp, 80).unwrap().len());
        let image = image::load_from_memory(&lossy).unwrap().into_rgba8();
        assert_eq!(image.get_pixel(10, 0).0[3], 0);
        assert_eq!(image.get_pixel(7, 9).0[3], 255);
        let jpeg = encode(raster.pixels(), Format::Jpeg, 80).unwrap();
        assert_eq!(&jpeg[..3], [0xff, 0xd8, 0xff]);
    }
}
