//! Real recordings that are not part of the project.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The folder `name` of the shared recordings: `$SOVEREIGN_DATA/<name>`, else `../shared/data/<name>`
/// beside the project. `None` is said on the standard error, so that a skipped check is seen.
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SOVEREIGN_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    skipped(&format!(
        "the recording {name} is not in {} (set SOVEREIGN_DATA)",
        root.display()
    ));
    None
}

/// Says on the standard error what was not checked. Written directly: what is printed by a macro is only
/// shown of tests that fail, and a skipped check must not look green.
pub fn skipped(what: &str) {
    // Nobody who could be told is left when the standard error is closed.
    let _ = writeln!(std::io::stderr(), "skipped: {what}");
}
