//! The identity of the node: an ed25519 key in a file that only its owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use libp2p::identity::Keypair;

use crate::error::KeyError;

/// Name of the key file within the data folder.
pub(crate) const KEY_FILE: &str = "peer.key";
/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Reads the key of `dir`, or creates it at the first start.
///
/// # Errors
///
/// [`KeyError`], also when anyone but the owner may read the file.
pub(crate) fn load_or_create(dir: &Path) -> Result<Keypair, KeyError> {
    let path = dir.join(KEY_FILE);
    let read = |cause| KeyError::Read {
        path: path.clone(),
        cause,
    };
    match fs::metadata(&path) {
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & OTHERS != 0 {
                return Err(KeyError::Permissions { path, mode });
            }
            let bytes = fs::read(&path).map_err(read)?;
            Keypair::from_protobuf_encoding(&bytes)
                .map_err(|cause| KeyError::Decode { path, cause })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keypair = Keypair::generate_ed25519();
            let bytes = keypair.to_protobuf_encoding().map_err(KeyError::Encode)?;
            write_durably(dir, &path, &bytes).map_err(|cause| KeyError::Write { path, cause })?;
            Ok(keypair)
        }
        Err(error) => Err(read(error)),
    }
}

/// The file appears whole or not at all, so a crash cannot leave half an identity.
fn write_durably(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("key.new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap().public().to_peer_id();
        let second = load_or_create(dir.path()).unwrap().public().to_peer_id();
        assert_eq!(first, second);
        let mode = fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("0640") && error.contains("chmod 600"),
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
