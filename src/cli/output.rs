//! Results go to stdout, whole; everything else goes to stderr.

use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{ErrorKind, Write};

/// Print to stdout; a reader that has seen enough (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::failed(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}

/// A line on stderr. That nobody can read it is no reason to stop working.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A progress bar on stderr, hidden when that is no terminal. `template` is what stands after the bar itself.
pub fn bar(length: usize, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{wide_bar}} {template}")) {
        bar.set_style(style);
    }
    bar
}

/// The bar of what is under way, by its name.
#[derive(Default)]
pub struct Current(Option<(String, ProgressBar)>);

impl Current {
    /// The bar of `name` at `done`; when another was shown, or none, it is begun with `new`, and the name stands before it.
    pub fn show(&mut self, name: &str, done: u64, new: impl FnOnce() -> ProgressBar) -> &ProgressBar {
        if self.0.as_ref().is_some_and(|(current, _)| current != name) {
            self.clear();
        }
        let (_, bar) = self.0.get_or_insert_with(|| {
            let bar = new().with_prefix(name.to_string()).with_position(done);
            // Time that an earlier run took is none of this one's.
            bar.reset_eta();
            (name.to_string(), bar)
        });
        bar.set_position(done);
        bar
    }

    /// Take it away.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}
