//! The tables of the file.

use redb::{MultimapTableDefinition, TableDefinition};

pub(super) type Key = (u8, u64);

/// Sealed tile by place.
pub(super) const TILES: TableDefinition<Key, &[u8]> = TableDefinition::new("tiles");
/// Digest of what a tile shows, by place: for whoever lists them.
pub(super) const DIGESTS: TableDefinition<Key, &[u8; 32]> = TableDefinition::new("digests");
/// Places by digest.
pub(super) const PLACES: MultimapTableDefinition<&[u8; 32], Key> =
    MultimapTableDefinition::new("places");
/// Sealed change by sequence.
pub(super) const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("changes");
/// Sealed record by frame id.
pub(super) const FRAMES: TableDefinition<&str, &[u8]> = TableDefinition::new("frames");
/// Frame id by the order in which frames came to be known.
pub(super) const ORDER: TableDefinition<u64, &str> = TableDefinition::new("order");
/// Which frames have pixels in a tile of their own zoom.
pub(super) const GROUND: TableDefinition<(u8, u64, &str), ()> = TableDefinition::new("ground");
/// Tiles to be painted again, with each frame that is a reason. The number grows with each reason: one that
/// comes while a tile is painted again is not taken for painted.
pub(super) const DIRTY: TableDefinition<(u8, u64, &str), u64> = TableDefinition::new("dirty");
/// Sealed summary by name of the layer.
pub(super) const LAYERS: TableDefinition<&str, &[u8]> = TableDefinition::new("layers");
