//! Results go to stdout, everything else to stderr.

use crate::io::text::{hide_keys, message, visible};
use crate::{Error, Result};
use std::io::{ErrorKind, Write};

/// Print to stdout, control characters as escapes. A reader that closes the pipe early (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(visible(&hide_keys(text)).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::failed(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}

/// Print a message to stderr (see [`message`]). A closed stderr does not stop the work.
pub fn status(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", message(text));
}

/// Say on stderr why the program ends.
pub fn error(error: &Error) {
    status(&format!("error: {error}"));
}

/// Print a text of several lines to stderr as it is; it holds nothing that [`is_altered`].
pub fn lines(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// Print a note to stderr.
pub fn note(text: &str) {
    status(&format!("note: {text}"));
}

/// Whether an argument holds what must not be printed as it is: control characters, line breaks, or a key in an address.
pub fn is_altered(argument: &str) -> bool {
    argument.contains('\n') || visible(&hide_keys(argument)) != argument
}
