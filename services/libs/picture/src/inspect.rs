//! A picture looked at while it passes: its header once enough is there, and its end.

use memchr::memmem;

use crate::header::check_format;
use crate::{Header, MAX_BYTES, MAX_HEADER_BYTES, NotAPicture};

/// Bytes after which the header is read for the first time; most headers end before. Each time that was
/// too early it is read again after twice as many.
const FIRST_LOOK: usize = 64 << 10;

/// The marker that ends a JPEG. Among pixels a byte 0xFF is followed by 0x00 or a restart.
const END: &[u8] = &[0xFF, 0xD9];

/// Looks at the bytes of one picture, in order.
#[derive(Debug, Default)]
pub struct Inspector {
    seen: u64,
    /// All that came, until the header was read.
    prefix: Vec<u8>,
    next_look: usize,
    header: Option<Header>,
    has_end: bool,
    last: Option<u8>,
}

impl Inspector {
    /// Nothing was seen yet.
    pub fn new() -> Self {
        Self {
            next_look: FIRST_LOOK,
            ..Self::default()
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`NotAPicture`] as soon as it is certain.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), NotAPicture> {
        self.seen += bytes.len() as u64;
        if self.seen > MAX_BYTES {
            return Err(NotAPicture::TooLarge);
        }
        if self.header.is_some() {
            self.look_for_end(bytes);
            return Ok(());
        }
        self.prefix.extend_from_slice(bytes);
        if !self.prefix.is_empty() {
            check_format(&self.prefix)?;
        }
        if self.prefix.len() < self.next_look {
            return Ok(());
        }
        match self.read_header() {
            // It may only be too early.
            Err(NotAPicture::Header(_)) if self.prefix.len() < MAX_HEADER_BYTES => {
                self.next_look = (self.prefix.len() * 2).min(MAX_HEADER_BYTES);
                Ok(())
            }
            Err(NotAPicture::Header(_)) => Err(NotAPicture::HeaderTooLong),
            result => result,
        }
    }

    /// All bytes were pushed.
    ///
    /// # Errors
    /// [`NotAPicture`], also for a picture that is cut off.
    pub fn finish(mut self) -> Result<Header, NotAPicture> {
        if self.header.is_none() {
            self.read_header()?;
        }
        match self.header {
            Some(header) if self.has_end => Ok(header),
            Some(_) | None => Err(NotAPicture::CutOff),
        }
    }

    fn read_header(&mut self) -> Result<(), NotAPicture> {
        let (header, scan) = Header::with_scan(&self.prefix)?;
        self.header = Some(header);
        let prefix = std::mem::take(&mut self.prefix);
        self.look_for_end(&prefix[scan.min(prefix.len())..]);
        Ok(())
    }

    fn look_for_end(&mut self, bytes: &[u8]) {
        let split = self.last == Some(END[0]) && bytes.first() == Some(&END[1]);
        self.has_end |= split || memmem::find(bytes, END).is_some();
        self.last = bytes.last().copied().or(self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::tests::{exif, gps_fields, jpeg};

    fn inspected(bytes: &[u8], step: usize) -> Result<Header, NotAPicture> {
        let mut inspector = Inspector::new();
        for chunk in bytes.chunks(step) {
            inspector.push(chunk)?;
        }
        inspector.finish()
    }

    #[test]
    fn pieces_are_read_like_the_whole() {
        let bytes = jpeg(64, 48, &[exif(&gps_fields())]);
        let whole = Header::read(&bytes).unwrap();
        for step in [1, 7, 1000, bytes.len()] {
            assert_eq!(inspected(&bytes, step).unwrap(), whole);
        }
    }

    #[test]
    fn a_header_longer_than_the_first_look_is_waited_for() {
        let filler: Vec<Vec<u8>> = (0..5).map(|_| vec![7; 60_000]).collect();
        let bytes = jpeg(64, 48, &filler);
        assert_eq!(inspected(&bytes, 10_000).unwrap().width_px, 64);
        let endless: Vec<Vec<u8>> = (0..140).map(|_| vec![7; 65_000]).collect();
        let bytes = jpeg(64, 48, &endless);
        assert_eq!(inspected(&bytes, 100_000), Err(NotAPicture::HeaderTooLong));
    }

    #[test]
    fn a_picture_that_is_cut_off_is_refused_wherever_it_is_cut() {
        let bytes = jpeg(64, 48, &[exif(&gps_fields())]);
        for end in 1..bytes.len() {
            assert!(inspected(&bytes[..end], 100).is_err(), "cut at {end}");
        }
        assert_eq!(
            inspected(&bytes[..bytes.len() - 1], 100),
            Err(NotAPicture::CutOff)
        );
        let trailed = [&bytes[..], b"trailer of a maker"].concat();
        assert!(inspected(&trailed, 3).is_ok());
    }

    #[test]
    fn what_is_no_picture_is_refused_with_the_first_bytes() {
        for (bytes, name) in [
            (&b"\x89PNG\r\n\x1a\n"[..], "a PNG"),
            (b"II*\0\x08", "a TIFF or DNG"),
            (b"hello", "no picture"),
        ] {
            let error = Inspector::new().push(bytes).unwrap_err();
            assert_eq!(error, NotAPicture::OtherFormat(name));
        }
        assert_eq!(Inspector::new().finish(), Err(NotAPicture::Empty));
    }

    #[test]
    fn more_bytes_than_any_picture_has_are_refused() {
        let mut inspector = Inspector::new();
        inspector.push(&jpeg(64, 48, &[vec![0; 65_000]])).unwrap();
        let chunk = vec![0; 1 << 20];
        let refused = (0..100).find_map(|_| inspector.push(&chunk).err());
        assert_eq!(refused, Some(NotAPicture::TooLarge));
    }
}
