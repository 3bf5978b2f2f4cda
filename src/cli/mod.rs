//! One file per subcommand: its flags, its call into the library, what it prints.

pub mod r#gen;

use clap::Parser as _;
use std::process::ExitCode;

#[derive(clap::Parser)]
enum Cli {
    Gen(r#gen::GenArgs),
}

/// Parse the command line, run it, turn the result into an exit code.
pub fn run() -> ExitCode {
    let Cli::Gen(args) = Cli::parse();
    match args.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}
