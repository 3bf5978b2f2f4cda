//! One file per subcommand: its flags, its call into the library, what it prints.

pub mod model;

use std::process::ExitCode;

/// Parse the command line, run it, turn the result into an exit code.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
