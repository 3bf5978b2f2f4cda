//! The error every fallible function of the library returns, and the exit code it stands for.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// What went wrong. The message names what, where (file, line, id, field) and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line, a configuration or an input file is not usable: exit code 2.
    #[error("{0}")]
    Input(String),
    /// The run itself failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// A server that the run needs does not answer, and may later: exit code 1.
    #[error("{0}")]
    Unavailable(String),
    /// The work is done, and its result breaks a rule of the user's (`--fail-if`): exit code 3.
    #[error("{0}")]
    Rejected(String),
}

/// Result of the library's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Bad usage or input (exit code 2).
    pub fn input(message: impl Into<String>) -> Self {
        Error::Input(message.into())
    }

    /// A failed run (exit code 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Error::Failed(message.into())
    }

    /// The process exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Input(_) => 2,
            Error::Failed(_) | Error::Unavailable(_) => 1,
            Error::Rejected(_) => 3,
        }
    }

    /// The same error with `what: ` put before its message.
    pub fn context(self, what: impl std::fmt::Display) -> Self {
        match self {
            Error::Input(m) => Error::Input(format!("{what}: {m}")),
            Error::Failed(m) => Error::Failed(format!("{what}: {m}")),
            Error::Unavailable(m) => Error::Unavailable(format!("{what}: {m}")),
            Error::Rejected(m) => Error::Rejected(format!("{what}: {m}")),
        }
    }
}

thread_local! {
    /// This thread is inside [`catch_panic`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Run code of a library on data that it may panic on; the panic's message is the error, and is not printed.
///
/// # Errors
/// The message of a panic, in one line.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                usual(info);
            }
        }));
    });
    let before = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(before);
    result.map_err(|panic| {
        let said = panic.downcast_ref::<&str>().map(|text| text.to_string());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Error::Failed(format!("tensor operation: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(catch_panic(|| 3), Ok(3));
        let row = [1, 2];
        assert_eq!(catch_panic(|| assert!(row.is_empty(), "two\n  {}", "lines")), Err("two lines".into()));
        let inner = catch_panic(|| catch_panic(|| panic!("inner")).unwrap_err());
        assert_eq!(inner, Ok("inner".into()));
    }
}
