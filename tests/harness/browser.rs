//! The scripts of `tests/browser`, which look at a running node through a real browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command as Running;
use tokio::sync::Mutex;

/// One installation at a time, as tests of one process run at the same time.
static INSTALLING: Mutex<()> = Mutex::const_new(());

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("browser")
}

/// Where screenshots are kept for a person to look at.
///
/// # Errors
///
/// When the folder cannot be made.
pub fn artifacts() -> anyhow::Result<String> {
    let artifacts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/artifacts");
    std::fs::create_dir_all(&artifacts)?;
    Ok(artifacts.display().to_string())
}

/// Runs a script of the folder and gives the figures that it prints.
///
/// # Errors
///
/// When the script fails, with what it said.
pub async fn look(script: &str, args: &[String]) -> anyhow::Result<Value> {
    {
        let _alone = INSTALLING.lock().await;
        tokio::task::spawn_blocking(install).await??;
    }
    let seen = Running::new("node")
        .arg(script)
        .args(args)
        .arg("--json")
        .current_dir(folder())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&seen.stdout);
    ensure!(
        seen.status.success(),
        "{script} failed: {said}{}",
        String::from_utf8_lossy(&seen.stderr)
    );
    let last = said
        .lines()
        .last()
        .with_context(|| format!("{script} printed nothing"))?;
    Ok(serde_json::from_str(last)?)
}

/// Installs what the scripts need, unless it is there as the lock file wants it.
fn install() -> anyhow::Result<()> {
    let browser = folder();
    let lock = std::fs::read(browser.join("package-lock.json"))?;
    let copy = browser.join("node_modules/.installed-package-lock.json");
    if std::fs::read(&copy).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(browser)
        .status()?;
    ensure!(installed.success(), "npm ci in tests/browser");
    Ok(std::fs::write(copy, lock)?)
}
