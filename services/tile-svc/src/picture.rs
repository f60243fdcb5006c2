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
    /// It has no end: the decoder would fill up what is missing with grey.
    #[error("the picture is cut off")]
    Truncated,
    /// More pixels than allowed; nothing was decoded.
    #[error("the picture has {pixels} pixels, more than the limit of {limit}")]
    TooLarge {
        /// What its header says.
        pixels: u64,
        /// Most that are decoded.
        limit: u64,
    },
}

/// A JPEG of which nothing was decoded yet but its header.
pub(crate) type Opened<'b> = JpegDecoder<Cursor<&'b [u8]>>;

/// Reads the header of a JPEG, and looks for its end.
///
/// # Errors
/// Not a JPEG, one of more than `max_pixels`, or one that is cut off.
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
    if !has_end(bytes) {
        return Err(PictureError::Truncated);
    }
    Ok(decoder)
}

/// Whether a JPEG goes on to its end-of-image marker. Segments are stepped over by their lengths: a preview
/// in one of them has an end of its own.
fn has_end(jpeg: &[u8]) -> bool {
    const END: u8 = 0xD9;
    // After 0xFF, in pixels or between segments: an 0xFF of the pixels, markers without a length (TEM,
    // restarts, start of image), and fill.
    let is_segment = |second: u8| !matches!(second, 0x00 | 0x01 | 0xD0..=0xD8 | 0xFF);
    let mut rest = jpeg;
    while let Some(at) = rest
        .windows(2)
        .position(|pair| pair[0] == 0xFF && is_segment(pair[1]))
    {
        let (marker, segment) = (rest[at + 1], &rest[at + 2..]);
        if marker == END {
            return true;
        }
        let &[high, low, ..] = segment else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = segment.get(length..) else {
            return false;
        };
        rest = after;
    }
    false
}

/// Decodes a JPEG.
///
/// # Errors
/// It is damaged in a way that the decoder notices; a wrong code among the pixels is decoded as others.
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
    use std::io::Write as _;
    use std::path::{Path, PathBuf};

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

    /// A JPEG with a preview, which is a JPEG itself, and with rough pixels.
    fn jpeg() -> Vec<u8> {
        let rough = |x: u32, y: u32| image::Rgb([(x * y) as u8, (x ^ y) as u8, (x * 31) as u8]);
        let encoded = |side| {
            let mut bytes = Vec::new();
            let image = image::RgbImage::from_fn(side, side, rough);
            JpegEncoder::new(&mut bytes).encode_image(&image).unwrap();
            bytes
        };
        let (whole, preview) = (encoded(64), encoded(16));
        let mut bytes = whole[..2].to_vec();
        bytes.extend([0xFF, 0xE1]);
        bytes.extend((preview.len() as u16 + 2).to_be_bytes());
        bytes.extend(preview);
        bytes.extend(&whole[2..]);
        bytes
    }

    #[test]
    fn a_picture_that_is_cut_off_is_refused() {
        let whole = jpeg();
        assert_eq!(
            image_from_jpeg(open_jpeg(&whole, 5_000).unwrap())
                .unwrap()
                .width(),
            64
        );
        let scan = whole.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap();
        for end in scan + 20..whole.len() {
            assert!(
                matches!(
                    open_jpeg(&whole[..end], 5_000),
                    Err(PictureError::Truncated)
                ),
                "cut at {end}"
            );
        }
        // What follows the end does not matter.
        assert!(open_jpeg(&[&whole[..], b"trailer"].concat(), 5_000).is_ok());
    }

    #[test]
    fn an_end_counts_only_where_a_marker_may_be() {
        let scan = [0xFF, 0xDA, 0, 2, 1, 0xFF, 0x00, 0xD9, 0xFF, 0xD3, 2];
        let table = [0xFF, 0xC4, 0, 5, 0xFF, 0xD9, 7];
        let picture = |tail: &[u8]| [&[0xFF, 0xD8][..], &scan, &table, &scan, tail].concat();
        assert!(has_end(&picture(&[0xFF, 0xFF, 0xD9])));
        for tail in [
            &[][..],
            &[0xFF],
            &[0xD9],
            &[0xFF, 0xC4],
            &[0xFF, 0xC4, 0, 9, 0xFF, 0xD9],
        ] {
            assert!(!has_end(&picture(tail)), "{tail:?}");
        }
    }

    #[test]
    fn real_pictures_have_an_end() {
        let root = std::env::var_os("SOVEREIGN_DATA").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
            PathBuf::from,
        );
        for folder in [
            "aerial-brighton-beach/images",
            "phone-photos-lund/images",
            "slam-tum-fr1-rpy/rgb",
        ] {
            let folder = root.join(folder);
            let Ok(entries) = std::fs::read_dir(&folder) else {
                // Not through the macro, whose output is hidden while a test passes.
                let line = format!("skipped: no real pictures in {}\n", folder.display());
                std::io::stderr().write_all(line.as_bytes()).unwrap();
                continue;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let open = |bytes: &[u8]| open_jpeg(bytes, 64_000_000).map(drop);
                open(&bytes).unwrap();
                let cut = open(&bytes[..bytes.len() / 2]);
                assert!(matches!(cut, Err(PictureError::Truncated)), "{path:?}");
            }
        }
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
