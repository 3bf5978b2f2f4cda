//! Results go to stdout, everything else to stderr. Of the ranks that a launcher has started, rank 0 alone prints; errors come from any.

use crate::comm::launcher;
use crate::io::text::{hide_keys, message, visible};
use crate::{Error, Result};
use std::io::{ErrorKind, Write};

/// Whether this process leaves printing to rank 0.
pub fn is_silent() -> bool {
    launcher::place().0 > 0
}

/// Print to stdout, control characters as escapes. A reader that closes the pipe early (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    if is_silent() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(visible(&hide_keys(text)).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::failed(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}

/// Print a message to stderr (see [`message`]), whichever rank this is. A closed stderr does not stop the work.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", message(text));
}

/// Print a message about the work to stderr.
pub fn status(text: &str) {
    if !is_silent() {
        say(text);
    }
}

/// Say on stderr why the program ends.
pub fn error(error: &Error) {
    say(&format!("error: {error}"));
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
