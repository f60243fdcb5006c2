//! The pixels of a JPEG.

use std::borrow::Cow;
use std::io::Cursor;

use sovereign_model::Image;
use zune_core::colorspace::ColorSpace;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::header::options;
use crate::{Header, NotAPicture};

/// Room behind the pixels: whoever reads two neighbours as one word need not copy the picture for it.
const SPARE_BYTES: usize = 2;

/// As many bytes of ones as the decoder reads ahead (a zero behind 0xFF tells that it is no marker). No code begins
/// with them (ITU-T T.81, C), so that who needs more than there was fails.
const NO_CODE: &[u8] = &[
    0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0,
];

/// Decodes a whole JPEG into red, green and blue.
///
/// # Errors
/// [`NotAPicture`], also when the pixels end before the size that the header names, with or without an end
/// marker. A wrong code among the pixels is not noticed: it decodes as others. Of a
/// progressive picture neither is a scan that ends too early.
pub fn decode(bytes: &[u8]) -> Result<Image, NotAPicture> {
    let (header, scan) = Header::with_scan(bytes)?;
    let scan = scan.min(bytes.len());
    let Some(length) = memchr::memmem::find(&bytes[scan..], &[0xFF, 0xD9]) else {
        return Err(NotAPicture::CutOff);
    };
    let whole = if is_sequential(&bytes[..scan]) {
        // Behind an end marker the decoder makes up what is missing; without one it has to say so.
        [&bytes[..scan + length], NO_CODE].concat().into()
    } else {
        Cow::Borrowed(bytes)
    };
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(&*whole), options());
    decoder
        .decode_headers()
        .map_err(|error| undecodable(&error))?;
    // Headers may be odd, pixels may not: a decoder that is not strict paints grey what it could not read.
    let strict = options().set_strict_mode(true);
    decoder.set_options(strict.jpeg_set_out_colorspace(ColorSpace::RGB));
    let size = decoder.output_buffer_size().unwrap_or_default();
    let mut pixels = Vec::with_capacity(size + SPARE_BYTES);
    pixels.resize(size, 0);
    decoder
        .decode_into(&mut pixels)
        .map_err(|error| undecodable(&error))?;
    Image::new(header.width_px, header.height_px, pixels)
        .map_err(|error| NotAPicture::Pixels(error.to_string()))
}

/// Whether all coefficients of a block come at once (ITU-T T.81, B.2.3): the scan header, which ends here, then
/// names the first and the last of them, 0 and 63.
fn is_sequential(until_scan: &[u8]) -> bool {
    matches!(until_scan, [.., 0, 63, _])
}

fn undecodable(error: &DecodeErrors) -> NotAPicture {
    let ends_early = matches!(
        error,
        DecodeErrors::ExhaustedData | DecodeErrors::FormatStatic("Premature end of buffer")
    );
    if ends_early {
        NotAPicture::CutOff
    } else {
        NotAPicture::Pixels(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::tests::{jpeg, picture};

    #[test]
    fn colours_and_greys_come_back() {
        let red = image::RgbImage::from_pixel(40, 30, image::Rgb([200, 20, 20]));
        let image = decode(&picture(&red.into())).unwrap();
        assert_eq!((image.width(), image.height()), (40, 30));
        let [r, g, b] = [image.pixels()[0], image.pixels()[1], image.pixels()[2]];
        assert!(r > 190 && g < 40 && b < 40, "{r} {g} {b}");
        let grey = image::GrayImage::from_pixel(16, 16, image::Luma([90]));
        let image = decode(&picture(&grey.into())).unwrap();
        assert_eq!(image.pixels().len(), 16 * 16 * 3);
    }

    /// A picture that is nowhere flat, and where its pixels begin.
    fn busy(width: u32, height: u32) -> (Vec<u8>, usize) {
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * 7 + y * 3) as u8, (x ^ y) as u8, (x * y) as u8])
        });
        let bytes = picture(&image.into());
        let (_, scan) = Header::with_scan(&bytes).unwrap();
        (bytes, scan)
    }

    #[test]
    fn pixels_that_end_early_are_not_made_up() {
        for (width, height) in [(16, 16), (17, 200), (200, 17), (160, 120)] {
            let (bytes, scan) = busy(width, height);
            assert!(decode(&bytes).is_ok(), "{width} x {height}");
            let end = bytes.len() - 2;
            for percent in [0, 1, 20, 50, 90] {
                let kept = scan + (end - scan) * percent / 100;
                let cut = [&bytes[..kept], &[0xFF, 0xD9]].concat();
                assert!(decode(&cut).is_err(), "{width} x {height}, {percent} %");
            }
        }
    }

    #[test]
    fn a_header_that_claims_more_than_there_is_does_not_get_it() {
        let (bytes, _) = busy(160, 120);
        let size = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap() + 5;
        for height in [129_u16, 140, 240, 4000] {
            let mut taller = bytes.clone();
            taller[size..size + 2].copy_from_slice(&height.to_be_bytes());
            assert!(decode(&taller).is_err(), "{height}");
        }
        for width in [177_u16, 320] {
            let mut wider = bytes.clone();
            wider[size + 2..size + 4].copy_from_slice(&width.to_be_bytes());
            assert!(decode(&wider).is_err(), "{width}");
        }
    }

    #[test]
    fn flat_pictures_which_take_a_few_bits_a_row_are_whole() {
        for (width, height) in [(1, 1), (8, 3000), (16, 3000), (3000, 8), (64, 64)] {
            let grey = image::RgbImage::from_pixel(width, height, image::Rgb([128; 3]));
            assert!(decode(&picture(&grey.into())).is_ok(), "{width} x {height}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        let mut bytes = jpeg(40, 30, &[]);
        let header = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        bytes[header + 5..header + 9].fill(0xff);
        assert_eq!(
            decode(&bytes),
            Err(NotAPicture::Size {
                width: 65_535,
                height: 65_535
            })
        );
    }
}
