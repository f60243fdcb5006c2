//! Values that are stored with a digest of their key and themselves, so that what is read back is known to
//! be what was written, and where.

use crate::Digest;

/// Bytes of the digest that a sealed value starts with.
pub const SEAL_BYTES: usize = 32;

/// `value`, sealed under `key`.
///
/// A key that has parts of variable length must carry their boundaries, and so must a key beside others
/// of another length.
pub fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEAL_BYTES + value.len());
    bytes.extend([0; SEAL_BYTES]);
    bytes.extend(value);
    seal(key, &mut bytes);
    bytes
}

/// As [`sealed`], for a value that is written behind [`SEAL_BYTES`] of room already. Without the room
/// nothing is sealed.
pub fn seal(key: &[u8], bytes: &mut [u8]) {
    if let Some((seal, value)) = bytes.split_first_chunk_mut::<SEAL_BYTES>() {
        *seal = *Digest::of_parts(&[key, value]).as_bytes();
    }
}

/// The value behind its seal; `None` when it is not what was sealed under this key.
pub fn unsealed<'a>(key: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (seal, value) = bytes.split_first_chunk::<SEAL_BYTES>()?;
    (Digest::of_parts(&[key, value]).as_bytes() == seal).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_under_a_key_comes_back() {
        let bytes = sealed(b"key", b"value");
        assert_eq!(unsealed(b"key", &bytes), Some(b"value".as_slice()));
        assert_eq!(unsealed(b"kez", &bytes), None);
        assert_eq!(unsealed(b"key", &sealed(b"key", b"")), Some(b"".as_slice()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unsealed(b"key", &damaged), None, "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(unsealed(b"key", &bytes[..end]), None, "cut at {end}");
        }
    }
}
