//! Results go to stdout, whole; everything else goes to stderr.

use crate::{Error, Result};
use std::io::{ErrorKind, Write};

/// Print to stdout; a reader that has seen enough (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::failed(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}
