//! Input that nobody meant to send.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// True of any input: the items cover it exactly, and every frame has a right checksum.
fn assert_sound(bytes: &[u8]) {
    let mut position = 0;
    for item in Frames::of(bytes) {
        match item {
            Item::Frame(frame) => {
                assert_eq!(frame.bytes, &bytes[position..position + frame.bytes.len()]);
                let header = match frame.version {
                    Version::V1 => HEADER_V1,
                    Version::V2 => HEADER_V2,
                };
                let end = header + frame.payload.len();
                let crc = mavlink::calculate_crc(&frame.bytes[1..end], frame.definition.crc_extra);
                assert_eq!(crc.to_le_bytes(), frame.bytes[end..end + 2]);
                let _whatever_it_says = telemetry::decode(&frame);
                position += frame.bytes.len();
            }
            Item::Refused { bytes, .. } => {
                assert!(bytes > 0);
                position += bytes;
            }
        }
    }
    assert_eq!(position, bytes.len());
}

proptest! {
    #[test]
    fn any_bytes_are_covered_and_no_frame_has_a_wrong_checksum(
        bytes in proptest::collection::vec(
            prop_oneof![Just(0xFE_u8), Just(0xFD_u8), 0_u8..12, any::<u8>()],
            0..600,
        )
    ) {
        assert_sound(&bytes);
    }

    #[test]
    fn the_checksum_agrees_with_the_crate(bytes in proptest::collection::vec(any::<u8>(), 0..300), extra: u8) {
        prop_assert_eq!(checksum(&bytes, extra), mavlink::calculate_crc(&bytes, extra));
    }
}

#[test]
fn mutated_vectors_never_panic_and_never_yield_a_wrong_checksum() {
    let Some(vectors) = vectors() else { return };
    let vectors: Vec<Vec<u8>> = vectors.into_iter().map(|(_, bytes)| bytes).collect();
    let mutation = (0_u8..5, any::<prop::sample::Index>(), any::<u8>());
    let strategy = (
        proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
        proptest::collection::vec(mutation, 0..6),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2_000));
    runner
        .run(&strategy, |(picks, mutations)| {
            let mut bytes: Vec<u8> = picks
                .iter()
                .flat_map(|pick| vectors[pick.index(vectors.len())].clone())
                .collect();
            let untouched = mutations.is_empty();
            for (kind, place, byte) in mutations {
                if bytes.is_empty() {
                    break;
                }
                let at = place.index(bytes.len());
                match kind {
                    0 => bytes[at] ^= 1 << (byte % 8),
                    1 => bytes[at] = byte,
                    2 => bytes.insert(at, byte),
                    3 => {
                        bytes.remove(at);
                    }
                    _ => bytes.truncate(at),
                }
            }
            assert_sound(&bytes);
            if untouched {
                prop_assert_eq!(items(&bytes).0.len(), picks.len());
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_mutation_of_one_bit_of_a_vector_is_noticed() {
    let Some(vectors) = vectors() else { return };
    let shortest: BTreeSet<(usize, Vec<u8>)> = vectors
        .into_iter()
        .map(|(_, bytes)| (bytes.len(), bytes))
        .collect();
    for (_, bytes) in shortest.into_iter().take(60) {
        let (frames, _) = items(&bytes);
        // What follows the checksum is the signature, which it does not cover.
        let covered = bytes.len() - frames[0].signature.map_or(0, |s| s.len());
        for bit in 0..covered * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(items(&changed).0.is_empty(), "bit {bit} of {bytes:02x?}");
        }
    }
}
