//! `make bench`: every figure of `docs/benchmarks.md`, measured here against its peer in the same run.

mod p1;
mod p2;
mod report;
mod survey;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use report::Table;

/// Measures Sovereign Map against its peers and prints ratios, met or not.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Exit codes: 0 measured (met or not), 1 something could not be measured, 2 wrong usage."
)]
struct Cli {
    /// Only these figures; all by default.
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// One JSON object on the standard output and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Frame in to tile committed, in one process and split over NATS; a survey against decoding it.
    P1,
    /// The bus over NATS against raw async-nats.
    P2,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(measure(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn measure(cli: &Cli) -> anyhow::Result<()> {
    let wanted = |figure| cli.figures.is_empty() || cli.figures.contains(&figure);
    let mut table = Table::new(cli.json);
    if wanted(Figure::P2) {
        p2::measure(&mut table).await?;
    }
    if wanted(Figure::P1) {
        survey::measure(&mut table).await?;
        p1::measure(&mut table).await?;
    }
    table.finish()
}

#[expect(
    clippy::print_stderr,
    reason = "the error is for the person who ran this"
)]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("bench: {error:#}");
    ExitCode::FAILURE
}
