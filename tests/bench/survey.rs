//! P1: a survey of pictures becomes tiles; how much work is that against decoding the same pictures once?
//! The peer is `djpeg` of libjpeg-turbo. Work is CPU time of whole processes, start and end included.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use sovereign_node::feed::Recording;
use sovereign_tests::system::System;
use sovereign_tests::{data, flight};

use crate::report::{Table, Target};

/// Pictures of the survey.
const PICTURES: usize = 10;
/// Size of the simulated ones, which stand in where there are no real ones.
const SIZE_PX: (u32, u32) = (3840, 2400);
/// Both sides take turns this often.
const PAIRS: usize = 5;
const MAX_WORK: f64 = 3.0;
const MAX_MEMORY_MB: f64 = 300.0;

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let survey = folder.path().join("survey");
    let (pictures, which) = pictures(&survey)?;
    let peer = Command::new("djpeg")
        .arg("-version")
        .stdin(Stdio::null())
        .output();
    let peer = peer.context("run djpeg: install libjpeg-turbo-progs, as `make bench` does")?;
    let version = String::from_utf8_lossy(&peer.stderr);
    let version = version.lines().next().unwrap_or_default();
    table.note(format!(
        "P1   {PICTURES} {which} pictures against {version}"
    ))?;
    let recording = Recording::find(&survey)?;
    let (mut work, mut memory) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        let decoding = cpu_of(async || decode(&pictures)).await?;
        let mut peak = 0;
        let mapping = cpu_of(async || {
            let home = folder.path().join(format!("survey-{pair}"));
            let system = System::unified(&home).await?;
            flight::replay(&recording, &system.edge, system.udp).await?;
            peak = system.peak_memory()?;
            system.stop(&[]).await
        });
        let mapping = mapping.await?;
        // The first pair warms up.
        if pair > 0 {
            work.push(mapping / decoding);
            memory.push(peak as f64 / 1e6);
        }
    }
    let what = format!("{PICTURES} pictures to tiles / decoding alone, CPU");
    table.row("P1", &what, "ratio", &work, Target::AtMost(MAX_WORK))?;
    let what = format!("{PICTURES} pictures to tiles, most memory");
    table.row("P1", &what, "MB", &memory, Target::AtMost(MAX_MEMORY_MB))
}

/// Real pictures where they are, else simulated ones, in a folder of their own.
fn pictures(folder: &Path) -> anyhow::Result<(Vec<PathBuf>, &'static str)> {
    let Some(real) = data::shared("aerial-brighton-beach") else {
        flight::write_pictures(folder, PICTURES as u32, SIZE_PX)?;
        return Ok((jpegs(folder)?, "simulated"));
    };
    std::fs::create_dir_all(folder)?;
    for path in jpegs(&real.join("images"))?.into_iter().take(PICTURES) {
        let name = path.file_name().context("a picture has a name")?;
        std::fs::copy(&path, folder.join(name))?;
    }
    Ok((jpegs(folder)?, "real"))
}

fn jpegs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths: Vec<PathBuf> = paths.map_err(|error: std::io::Error| error)?;
    let is_jpeg = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        extension.eq_ignore_ascii_case("jpg")
    };
    paths.retain(is_jpeg);
    paths.sort();
    Ok(paths)
}

fn decode(pictures: &[PathBuf]) -> anyhow::Result<()> {
    for picture in pictures {
        let mut djpeg = Command::new("djpeg");
        let status = djpeg
            .args(["-outfile", "/dev/null"])
            .arg(picture)
            .status()?;
        ensure!(status.success(), "djpeg of {}", picture.display());
    }
    Ok(())
}

/// Seconds of CPU that the child processes which end within `run` took.
async fn cpu_of(run: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let before = children_cpu()?;
    run().await?;
    Ok(children_cpu()? - before)
}

/// Of children that were waited for: fields 16 and 17 of `/proc/self/stat` (proc(5)), in ticks of 10 ms.
fn children_cpu() -> anyhow::Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // The name is field 2, so the first one after it is field 3.
    let fields = after_name.split_whitespace().skip(13).take(2);
    let ticks: Result<Vec<f64>, _> = fields.map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() / TICKS_PER_SECOND)
}
