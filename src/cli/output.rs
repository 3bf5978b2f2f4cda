//! Results go to stdout, everything else to stderr.

use crate::{Error, Result};
use std::io::{ErrorKind, Write};

/// Print to stdout. A reader that closes the pipe early (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::failed(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}

/// Print a line to stderr. A closed stderr does not stop the work.
pub fn status(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
