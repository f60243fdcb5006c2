//! The pixels of a JPEG.

use std::io::Cursor;

use sovereign_model::Image;
use zune_core::colorspace::ColorSpace;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::header::options;
use crate::{Header, NotAPicture};

/// Room behind the pixels: whoever reads two neighbours as one word need not copy the picture for it.
const SPARE_BYTES: usize = 2;

/// Decodes a whole JPEG into red, green and blue.
///
/// # Errors
/// [`NotAPicture`]. A wrong code among the pixels is not noticed: it decodes as others.
pub fn decode(bytes: &[u8]) -> Result<Image, NotAPicture> {
    let (header, scan) = Header::with_scan(bytes)?;
    if memchr::memmem::find(&bytes[scan.min(bytes.len())..], &[0xFF, 0xD9]).is_none() {
        return Err(NotAPicture::CutOff);
    }
    let options = options().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    let undecodable = |error: DecodeErrors| NotAPicture::Pixels(error.to_string());
    decoder.decode_headers().map_err(undecodable)?;
    let size = decoder.output_buffer_size().unwrap_or_default();
    let mut pixels = Vec::with_capacity(size + SPARE_BYTES);
    pixels.resize(size, 0);
    decoder.decode_into(&mut pixels).map_err(undecodable)?;
    Image::new(header.width_px, header.height_px, pixels)
        .map_err(|error| NotAPicture::Pixels(error.to_string()))
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
