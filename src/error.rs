//! The error every fallible function of the library returns, and the exit code it stands for.

/// What went wrong. The message names what, where (file, line, id, field) and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line, a configuration or an input file is not usable: exit code 2.
    #[error("{0}")]
    Input(String),
    /// The run itself failed: exit code 1.
    #[error("{0}")]
    Failed(String),
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
            Error::Failed(_) => 1,
        }
    }

    /// The same error with `what: ` put before its message.
    pub fn context(self, what: impl std::fmt::Display) -> Self {
        match self {
            Error::Input(m) => Error::Input(format!("{what}: {m}")),
            Error::Failed(m) => Error::Failed(format!("{what}: {m}")),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Error::Failed(format!("tensor operation: {e}"))
    }
}
