//! Pictures as bytes: what comes in (JPEG), what is kept (PNG with weights), what is served.

use std::io::Cursor;

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::codecs::png::{CompressionType, FilterType, PngDecoder, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError};
use sovereign_model::Image;

use crate::domain::raster::{Raster, TILE_BYTES, TILE_PIXELS, TILE_SIDE, rgb, weight};

/// Side of a tile as the encoders take it.
const SIDE: u32 = TILE_SIDE as u32;

/// A picture that cannot be painted from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PictureError {
    /// Not a JPEG that can be decoded.
    #[error("decode the picture")]
    Undecodable(#[source] ImageError),
    /// More pixels than allowed; nothing was decoded.
    #[error("the picture has {pixels} pixels, more than the limit of {limit}")]
    TooLarge {
        /// What its header says.
        pixels: u64,
        /// Most that are decoded.
        limit: u64,
    },
}

/// A JPEG whose header was read and nothing else.
pub(crate) type Opened<'b> = JpegDecoder<Cursor<&'b [u8]>>;

/// Reads the header of a JPEG.
///
/// # Errors
/// Not a JPEG, or one of more than `max_pixels`.
pub(crate) fn open_jpeg(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, PictureError> {
    let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(PictureError::Undecodable)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > max_pixels {
        return Err(PictureError::TooLarge {
            pixels,
            limit: max_pixels,
        });
    }
    Ok(decoder)
}

/// Decodes a JPEG.
///
/// # Errors
/// It is damaged.
pub(crate) fn image_from_jpeg(decoder: Opened<'_>) -> Result<Image, PictureError> {
    let rgb = DynamicImage::from_decoder(decoder)
        .map_err(PictureError::Undecodable)?
        .into_rgb8();
    Image::new(rgb.width(), rgb.height(), rgb.into_raw()).map_err(|error| {
        PictureError::Undecodable(ImageError::Decoding(image::error::DecodingError::new(
            image::ImageFormat::Jpeg.into(),
            error,
        )))
    })
}

/// The bytes that a tile is kept as: a PNG whose fourth channel is the weight. Lossless.
///
/// `rgbw` is what [`Raster::to_rgbw`] gave.
#[must_use]
pub(crate) fn png_from_rgbw(rgbw: &[u8]) -> Vec<u8> {
    // About what an aerial tile compresses to.
    let mut bytes = Vec::with_capacity(TILE_BYTES / 2);
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up)
        .write_image(rgbw, SIDE, SIDE, ExtendedColorType::Rgba8)
        .expect("a tile has the size that is given, and writing to memory does not fail");
    bytes
}

/// Back from [`png_from_rgbw`]; `None` when the bytes are no tile.
#[must_use]
pub(crate) fn raster_from_png(bytes: &[u8]) -> Option<Raster> {
    let decoder = PngDecoder::new(Cursor::new(bytes)).ok()?;
    if decoder.dimensions() != (SIDE, SIDE) || decoder.total_bytes() != TILE_BYTES as u64 {
        return None;
    }
    let mut rgbw = vec![0; TILE_BYTES];
    decoder.read_image(&mut rgbw).ok()?;
    Raster::from_rgbw(&rgbw)
}

/// Formats that tiles are served in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// Lossless, transparent where empty.
    Png,
    /// Lossy, black where empty.
    Jpeg,
    /// Lossless, transparent where empty.
    Webp,
}

impl Format {
    /// IANA media type.
    #[must_use]
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
}

/// Encodes a tile for a reader; `jpeg_quality` is 1 to 100.
///
/// # Errors
/// When the encoder refuses.
pub(crate) fn encode(
    raster: &Raster,
    format: Format,
    jpeg_quality: u8,
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::with_capacity(TILE_BYTES / 2);
    match format {
        Format::Png => {
            PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up)
                .write_image(&rgba(raster), SIDE, SIDE, ExtendedColorType::Rgba8)?;
        }
        Format::Webp => WebPEncoder::new_lossless(&mut bytes).encode(
            &rgba(raster),
            SIDE,
            SIDE,
            ExtendedColorType::Rgba8,
        )?,
        Format::Jpeg => {
            let mut pixels = Vec::with_capacity(TILE_PIXELS * 3);
            for &pixel in raster.pixels() {
                pixels.extend(rgb(pixel));
            }
            JpegEncoder::new_with_quality(&mut bytes, jpeg_quality).write_image(
                &pixels,
                SIDE,
                SIDE,
                ExtendedColorType::Rgb8,
            )?;
        }
    }
    Ok(bytes)
}

/// Opaque where there is something.
fn rgba(raster: &Raster) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TILE_BYTES);
    for &pixel in raster.pixels() {
        let [r, g, b] = rgb(pixel);
        bytes.extend([r, g, b, if weight(pixel) > 0 { 255 } else { 0 }]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let png = png_from_rgbw(&raster.to_rgbw());
        assert_eq!(raster_from_png(&png), Some(raster));
        assert_eq!(raster_from_png(&png[..png.len() / 2]), None);
        assert_eq!(raster_from_png(b"no png"), None);
    }

    #[test]
    fn lossless_formats_are_transparent_where_empty() {
        let raster = raster();
        for format in [Format::Png, Format::Webp] {
            let bytes = encode(&raster, format, 80).unwrap();
            let image = image::load_from_memory(&bytes).unwrap().into_rgba8();
            assert_eq!(image.dimensions(), (256, 256));
            assert_eq!(image.get_pixel(10, 0).0, [0; 4]);
            let [r, g, b] = rgb(raster.row(9)[7]);
            assert_eq!(image.get_pixel(7, 9).0, [r, g, b, 255]);
        }
        let jpeg = encode(&raster, Format::Jpeg, 80).unwrap();
        assert_eq!(&jpeg[..3], [0xff, 0xd8, 0xff]);
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        let image = image::RgbImage::new(40, 30);
        let mut bytes = Vec::new();
        JpegEncoder::new(&mut bytes).encode_image(&image).unwrap();
        let decoder = open_jpeg(&bytes, 1_200).unwrap();
        assert_eq!(image_from_jpeg(decoder).unwrap().width(), 40);
        // The frame header says 65,535 x 65,535.
        let header = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        bytes[header + 5..header + 9].fill(0xff);
        assert!(matches!(
            open_jpeg(&bytes, 64_000_000),
            Err(PictureError::TooLarge {
                pixels: 4_294_836_225,
                ..
            })
        ));
        assert!(matches!(
            open_jpeg(b"\xff\xd8\xff nothing", 1_200),
            Err(PictureError::Undecodable(_))
        ));
    }
}
