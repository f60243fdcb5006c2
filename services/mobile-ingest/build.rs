//! Builds the console (`web/`) with npm into `$OUT_DIR/web`, from where the crate embeds it.
//!
//! `npm ci` runs only when `node_modules` does not belong to the committed lock file, so a rebuild after an
//! edit of the page needs no network. Nothing is written into the source tree but `node_modules`.
use std::{
    error::Error,
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

/// What the page is made of, relative to this crate. Cargo watches folders recursively.
const INPUTS: [&str; 7] = [
    "web/src",
    "web/public",
    "web/index.html",
    "web/package.json",
    "web/package-lock.json",
    "web/tsconfig.json",
    "web/vite.config.ts",
];

/// Copy of the lock file that `node_modules` was installed from.
const INSTALLED_LOCK: &str = "node_modules/.installed-package-lock.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    for input in INPUTS {
        println!("cargo:rerun-if-changed={input}");
    }
    let web = folder("CARGO_MANIFEST_DIR")?.join("web");
    let page = folder("OUT_DIR")?.join("web");

    let lock = fs::read(web.join("package-lock.json"))?;
    if fs::read(web.join(INSTALLED_LOCK)).ok().as_ref() != Some(&lock) {
        npm(&web, ["ci", "--no-audit", "--no-fund"])?;
        fs::write(web.join(INSTALLED_LOCK), &lock)?;
    }
    npm(
        &web,
        [
            OsStr::new("run"),
            OsStr::new("build"),
            OsStr::new("--"),
            OsStr::new("--emptyOutDir"),
            OsStr::new("--outDir"),
            page.as_os_str(),
        ],
    )?;
    if !page.join("index.html").is_file() {
        return Err(format!("npm run build left no index.html in {}", page.display()).into());
    }
    Ok(())
}

/// A folder that Cargo names in the environment of every build script.
fn folder(name: &str) -> Result<PathBuf, String> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{name} is not set: run this build script through cargo"))
}

/// Runs npm in `web`; an error says what was run, what it printed, and what to do.
fn npm<A: AsRef<OsStr>>(
    web: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(web);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("npm was not found, and the console is built with it: install Node.js 18 or \
                        later with npm (Debian and Ubuntu: `apt-get install nodejs npm`) and build again"
                .into());
        }
        Err(error) => return Err(Box::new(error)),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} failed in {} with {}; Node.js 18 or later is needed, and the first build needs the \
         npm registry\n{}\n{}",
        web.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )
    .into())
}
