//! Whether bytes are a JPEG of a sane size, without decoding it.
//!
//! Pipeline: start marker -> segments -> the frame header (SOF), which carries the size. Degenerate
//! cases: a picture that ends before its frame header, a segment shorter than its own length field, a
//! side of zero, a picture larger than [`MAX_PIXELS`].

/// Largest picture taken, in pixels: a reader decodes it into three bytes a pixel.
pub const MAX_PIXELS: u64 = 100_000_000;

/// Why bytes are not a usable JPEG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJpeg {
    /// The start marker is absent.
    #[error("it does not begin as a JPEG")]
    Magic,
    /// The bytes end, or stop making sense, before the frame header.
    #[error("its frame header is absent or damaged")]
    FrameHeader,
    /// Zero or too many pixels.
    #[error("its size of {width} x {height} pixels is not between 1 and {MAX_PIXELS} pixels")]
    Size {
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
    },
}

/// Width and height in pixels.
///
/// # Errors
/// When the bytes are not a JPEG, or its size is not sane.
pub fn jpeg_size(bytes: &[u8]) -> Result<(u16, u16), InvalidJpeg> {
    let mut rest = bytes
        .strip_prefix(&[0xFF, 0xD8, 0xFF])
        .ok_or(InvalidJpeg::Magic)?;
    loop {
        // Any number of fill bytes may stand before a marker.
        let skip = rest.iter().position(|b| *b != 0xFF);
        rest = &rest[skip.ok_or(InvalidJpeg::FrameHeader)?..];
        let (&marker, segment) = rest.split_first().ok_or(InvalidJpeg::FrameHeader)?;
        let length = match segment {
            [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return Err(InvalidJpeg::FrameHeader),
        };
        match marker {
            // Baseline, extended and progressive frames; 0xC4, 0xC8 and 0xCC are other segments.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let Some(&[_, _, _precision, h1, h0, w1, w0]) = segment.first_chunk::<7>() else {
                    return Err(InvalidJpeg::FrameHeader);
                };
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                let pixels = u64::from(width) * u64::from(height);
                if pixels == 0 || pixels > MAX_PIXELS {
                    return Err(InvalidJpeg::Size { width, height });
                }
                return Ok((width, height));
            }
            // Scan data or the end before any frame header, or a marker that carries no length.
            0x00 | 0x01 | 0xD0..=0xDA => return Err(InvalidJpeg::FrameHeader),
            _ => {}
        }
        rest = segment
            .get(length.max(2)..)
            .and_then(|next| next.strip_prefix(&[0xFF]))
            .ok_or(InvalidJpeg::FrameHeader)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let mut bytes = vec![
            0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xFF, 0xC0, 0, 17, 8,
        ];
        bytes.extend(height.to_be_bytes());
        bytes.extend(width.to_be_bytes());
        bytes.extend([3; 12]);
        bytes
    }

    #[test]
    fn the_size_is_read_behind_other_segments_and_fill_bytes() {
        assert_eq!(jpeg_size(&jpeg(4000, 3000)), Ok((4000, 3000)));
    }

    #[test]
    fn what_is_no_jpeg_or_has_no_sane_size_is_refused_with_its_reason() {
        assert_eq!(jpeg_size(b"\x89PNG\r\n"), Err(InvalidJpeg::Magic));
        assert_eq!(jpeg_size(b""), Err(InvalidJpeg::Magic));
        let size = |width, height| Err(InvalidJpeg::Size { width, height });
        assert_eq!(jpeg_size(&jpeg(0, 10)), size(0, 10));
        assert_eq!(jpeg_size(&jpeg(65_535, 65_535)), size(65_535, 65_535));
        let whole = jpeg(64, 48);
        for end in 3..18 {
            assert_eq!(
                jpeg_size(&whole[..end]),
                Err(InvalidJpeg::FrameHeader),
                "{end}"
            );
        }
    }
}
