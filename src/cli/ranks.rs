//! Commands that several processes of an MPI launcher work on together.

use super::output;
use crate::comm::{Communicator, launcher};
use crate::io::refused;
use crate::{Error, Result};
use std::path::Path;
use std::process::ExitCode;

/// Do `work` on every rank that a launcher has started, mostly one. All ranks end together: one that fails ends the others.
pub(super) fn on_ranks(work: impl FnOnce(&dyn Communicator) -> Result<ExitCode>) -> Result<ExitCode> {
    let comm = launcher::connect()?;
    let comm = comm.as_ref();
    let ended = check_program(comm).and_then(|()| work(comm));
    // One that fails now is heard.
    match ended.and_then(|code| comm.barrier().map(|()| code)) {
        Err(error) if comm.abort(&error) && !comm.is_root() => Ok(ExitCode::from(error.exit_code())),
        // Before the communicator ends, and with it this process.
        Err(error) => {
            output::error(&error);
            Ok(ExitCode::from(error.exit_code()))
        }
        ended => ended,
    }
}

/// See that all ranks run the same program.
fn check_program(comm: &dyn Communicator) -> Result<()> {
    if comm.world_size() == 1 {
        return Ok(());
    }
    let unreadable = |e: std::io::Error| Error::failed(format!("cannot read this program's own file: {e}"));
    let program = std::fs::read(std::env::current_exe().map_err(unreadable)?).map_err(unreadable)?;
    comm.check_same(&serde_json::json!({
        "jigsaw": env!("CARGO_PKG_VERSION"),
        "checksum of the program": crc32fast::hash(&program),
    }))
}

/// Refuse to do on several ranks what one process does alone; `what` names it by its flag.
pub(super) fn one_process(comm: &dyn Communicator, what: &str) -> Result<()> {
    match comm.world_size() {
        1 => Ok(()),
        ranks => Err(Error::input(format!(
            "{what} does not divide its work, and an MPI launcher has started {ranks} processes; start it without the launcher"
        ))),
    }
}

/// As [`undo_if_refused`](refused::undo_if_refused); rank 0 cleans up.
pub(super) fn undo_if_refused<T>(comm: &dyn Communicator, out: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match comm.is_root() {
        true => refused::undo_if_refused(out, work),
        false => work(),
    }
}
