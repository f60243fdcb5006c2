//! Real recordings that are not part of the project.

use std::path::{Path, PathBuf};

/// The folder `name` of the shared recordings: `$SOVEREIGN_DATA/<name>`, else `../shared/data/<name>`
/// beside the project. `None` is said on the standard error, so that a skipped check is seen.
#[expect(clippy::print_stderr, reason = "a skipped check must not look green")]
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SOVEREIGN_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "skipped: the recording {name} is not in {} (set SOVEREIGN_DATA)",
        root.display()
    );
    None
}
