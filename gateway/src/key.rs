//! The identity of the node: an ed25519 key in a file that is closed to everybody else.

use std::path::Path;

use libp2p::identity::Keypair;
use sovereign_disk::{Readers, read_private, write_whole};

use crate::error::KeyError;

const KEY_FILE: &str = "peer.key";

pub(crate) fn load_or_create(dir: &Path) -> Result<Keypair, KeyError> {
    let path = dir.join(KEY_FILE);
    if let Some(bytes) = read_private(&path)? {
        return Keypair::from_protobuf_encoding(&bytes)
            .map_err(|cause| KeyError::Decode { path, cause });
    }
    let keypair = Keypair::generate_ed25519();
    let bytes = keypair.to_protobuf_encoding().map_err(KeyError::Encode)?;
    write_whole(&path, &bytes, Readers::Owner).map_err(|cause| KeyError::Write { path, cause })?;
    Ok(keypair)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use sovereign_service::chain;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap().public().to_peer_id();
        let second = load_or_create(dir.path()).unwrap().public().to_peer_id();
        assert_eq!(first, second);
        let metadata = fs::metadata(dir.path().join(KEY_FILE)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = load_or_create(dir.path()).unwrap_err();
        let error = chain(&error).to_string();
        assert!(
            error.contains("644") && error.contains("chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_key_is_an_error_and_not_a_new_identity() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        fs::write(dir.path().join(KEY_FILE), b"not a key").unwrap();
        assert!(matches!(
            load_or_create(dir.path()),
            Err(KeyError::Decode { .. })
        ));
    }

    #[test]
    fn a_half_written_key_of_a_crash_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("peer.key.new"), b"half").unwrap();
        load_or_create(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
