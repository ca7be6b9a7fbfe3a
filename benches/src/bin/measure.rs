//! `measure`: parts of the product by themselves, for the comparison with other tools. Prints one JSON object.

use clap::{Parser, Subcommand};
use rekindle_benches::measures;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures a part of rekindle by itself and prints one JSON object
#[derive(Parser)]
#[command(name = "measure")]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// COPY into typed arrow columns, which are dropped
    Extract {
        /// Plan of one route
        #[arg(long)]
        plan: PathBuf,
        /// Ranges read at once
        #[arg(long, default_value_t = 2)]
        ranges: usize,
    },
    /// CPU time from COPY bytes to RESTORE payloads, on one thread and without a socket
    Transform {
        /// Plan of one route
        #[arg(long)]
        plan: PathBuf,
    },
    /// Load an empty Redis through the engine, by RESTORE
    Carry {
        /// Plan of one route
        #[arg(long)]
        plan: PathBuf,
        /// Without ledger and journal
        #[arg(long)]
        bare: bool,
    },
    /// CPU time of rows into blocks and out again, on one thread
    Codec {
        /// An arrow IPC stream
        rows: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "error: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    // As the product runs.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        match args.part {
            Part::Extract { plan, ranges } => measures::extract(&plan, ranges).await,
            Part::Transform { plan } => measures::transform(&plan).await,
            Part::Carry { plan, bare } => measures::carry(&plan, bare).await,
            Part::Codec { rows } => measures::codec(&rows),
        }
    })?;
    writeln!(std::io::stdout(), "{found}")?;
    Ok(())
}
