//! Pixels.

/// An RGB picture, 8 bits a channel, rows from the top, no padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// The pixel buffer does not belong to a picture of that size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{width} x {height} RGB pixels do not have {bytes} bytes")]
pub struct ImageSizeError {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Bytes given.
    pub bytes: usize,
}

impl Image {
    /// Takes `width * height * 3` bytes.
    ///
    /// # Errors
    /// A side of zero, or another number of bytes.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Image, ImageSizeError> {
        let expected = u64::from(width) * u64::from(height);
        let fits = expected > 0
            && expected
                .checked_mul(3)
                .is_some_and(|bytes| u64::try_from(pixels.len()) == Ok(bytes));
        if !fits {
            return Err(ImageSizeError {
                width,
                height,
                bytes: pixels.len(),
            });
        }
        Ok(Image {
            width,
            height,
            pixels,
        })
    }

    /// Pixels across.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels down.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All bytes, R G B R G B ..., rows from the top.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The buffer itself.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Red, green and blue of one pixel; `None` outside.
    #[inline]
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let start = (y as usize * self.width as usize + x as usize) * 3;
        let bytes = self.pixels.get(start..start + 3)?;
        Some([bytes[0], bytes[1], bytes[2]])
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} x {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_exactly_its_bytes() {
        let image = Image::new(2, 2, (0..12).collect()).unwrap();
        assert_eq!(image.pixel(0, 0), Some([0, 1, 2]));
        assert_eq!(image.pixel(1, 1), Some([9, 10, 11]));
        assert_eq!(image.pixel(2, 0), None);
        assert_eq!(image.pixel(0, 2), None);
        assert!(Image::new(2, 2, vec![0; 11]).is_err());
        assert!(Image::new(0, 2, vec![]).is_err());
        assert!(Image::new(u32::MAX, u32::MAX, vec![]).is_err());
    }
}
