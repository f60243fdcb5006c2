//! Content identity: SHA-256, as hex and as a content id (CIDv1, raw codec, base32).

use std::fmt;

use cid::Cid;
use multihash::Multihash;
use sha2::{Digest as _, Sha256};

/// Multicodec code of raw bytes.
const RAW_CODEC: u64 = 0x55;
/// Multihash code of SHA-256.
const SHA2_256: u64 = 0x12;

/// SHA-256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text or some bytes are not a [`Digest`].
#[derive(Debug, thiserror::Error)]
pub enum ParseDigestError {
    /// Not 32 bytes, or 64 hex digits.
    #[error("digest has {actual} {unit}, must have {expected}")]
    Length {
        /// What was counted.
        unit: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
    /// A character that is not a hex digit.
    #[error("digest contains {character:?}, which is not a hex digit")]
    NotHex {
        /// The first such character.
        character: char,
    },
    /// Not a content id at all.
    #[error("parse content id")]
    Cid(#[source] cid::Error),
    /// A content id of another kind.
    #[error("content id is not CIDv1 of raw bytes with sha2-256")]
    OtherKind,
}

impl Digest {
    /// Digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Digest of the concatenation of `parts`.
    ///
    /// Parts of variable length must carry their own boundary: `["ab", "c"]` and `["a", "bc"]` are the same.
    pub fn of_parts(parts: &[&[u8]]) -> Digest {
        let mut builder = DigestBuilder::new();
        for part in parts {
            builder.update(part);
        }
        builder.finish()
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes 32 bytes that are a digest already.
    ///
    /// # Errors
    /// [`ParseDigestError::Length`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Digest, ParseDigestError> {
        match <[u8; 32]>::try_from(bytes) {
            Ok(array) => Ok(Digest(array)),
            Err(_) => Err(ParseDigestError::Length {
                unit: "bytes",
                expected: 32,
                actual: bytes.len(),
            }),
        }
    }

    /// Parses 64 hex digits of either case.
    ///
    /// # Errors
    /// Another length, or a character that is not a hex digit.
    pub fn from_hex(text: &str) -> Result<Digest, ParseDigestError> {
        if let Some(character) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(ParseDigestError::NotHex { character });
        }
        if text.len() != 64 {
            return Err(ParseDigestError::Length {
                unit: "hex digits",
                expected: 64,
                actual: text.len(),
            });
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => c - b'A' + 10,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        Ok(Digest(bytes))
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        self.to_string()
    }

    /// Content id: CIDv1, raw codec, sha2-256, base32 (`bafkrei...`).
    pub fn cid(&self) -> String {
        let hash = Multihash::<64>::wrap(SHA2_256, &self.0)
            .expect("32 bytes fit into a multihash of at most 64");
        Cid::new_v1(RAW_CODEC, hash).to_string()
    }

    /// Digest inside a content id.
    ///
    /// # Errors
    /// Not a content id, or one that is not CIDv1 of raw bytes with sha2-256.
    pub fn from_cid(text: &str) -> Result<Digest, ParseDigestError> {
        let cid = Cid::try_from(text).map_err(ParseDigestError::Cid)?;
        let ours = cid.version() == cid::Version::V1
            && cid.codec() == RAW_CODEC
            && cid.hash().code() == SHA2_256
            && cid.hash().size() == 32;
        if !ours {
            return Err(ParseDigestError::OtherKind);
        }
        Digest::from_slice(cid.hash().digest())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0_u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl std::str::FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        Digest::from_hex(text)
    }
}

/// Digest of bytes that arrive in pieces.
#[derive(Clone, Default)]
pub struct DigestBuilder(Sha256);

impl DigestBuilder {
    /// Nothing hashed yet.
    pub fn new() -> DigestBuilder {
        DigestBuilder::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Digest of everything appended.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for DigestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestBuilder")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (content, SHA-256 hex, CIDv1): FIPS 180-4 examples, and base32 of the
    /// bytes 01 55 12 20 and the hash, worked out apart from this crate.
    const VECTORS: [(&str, &str, &str); 3] = [
        (
            "",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        ),
        (
            "abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "bafkreif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu",
        ),
        (
            "hello world",
            "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
        ),
    ];

    #[test]
    fn known_vectors_agree_in_hex_and_as_content_ids() {
        for (content, hex, cid) in VECTORS {
            let digest = Digest::of(content.as_bytes());
            assert_eq!(digest.to_hex(), hex);
            assert_eq!(digest.cid(), cid);
            assert_eq!(Digest::from_hex(&hex.to_uppercase()).unwrap(), digest);
            assert_eq!(Digest::from_cid(cid).unwrap(), digest);
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        assert!(matches!(
            Digest::from_hex("zz"),
            Err(ParseDigestError::NotHex { character: 'z' })
        ));
        for text in ["", "ab", &"a".repeat(63), &"a".repeat(65)] {
            assert!(matches!(
                Digest::from_hex(text),
                Err(ParseDigestError::Length { .. })
            ));
        }
        assert!(Digest::from_hex(&"é".repeat(32)).is_err());
        assert!(Digest::from_slice(&[0; 31]).is_err());
    }

    #[test]
    fn content_ids_of_another_kind_are_refused() {
        // CIDv0 of an empty UnixFS directory, and a CIDv1 with the dag-pb codec.
        for text in [
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
            "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
        ] {
            assert!(matches!(
                Digest::from_cid(text),
                Err(ParseDigestError::OtherKind)
            ));
        }
        assert!(matches!(
            Digest::from_cid("not a cid"),
            Err(ParseDigestError::Cid(_))
        ));
    }

    proptest! {
        #[test]
        fn pieces_hash_like_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(Digest::of_parts(&[head, tail]), Digest::of(&bytes));
        }

        #[test]
        fn text_forms_come_back(bytes in any::<[u8; 32]>()) {
            let digest = Digest::from_slice(&bytes).unwrap();
            prop_assert_eq!(Digest::from_hex(&digest.to_hex()).unwrap(), digest);
            prop_assert_eq!(Digest::from_cid(&digest.cid()).unwrap(), digest);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = Digest::from_hex(&text);
            let _ = Digest::from_cid(&text);
        }
    }
}
