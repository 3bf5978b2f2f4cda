//! One file per subcommand: its flags, its call into the library, what it prints.

pub mod r#gen;
pub mod model;

use clap::Parser as _;
use std::process::ExitCode;

#[derive(clap::Parser)]
enum Cli {
    Gen(r#gen::GenArgs),
    Model(model::ModelCommand),
}

/// Parse the command line, run it, turn the result into an exit code.
pub fn run() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Gen(args) => args.run(),
        Cli::Model(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}
