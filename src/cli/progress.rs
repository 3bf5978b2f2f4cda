//! Progress bars on stderr. indicatif hides them when stderr is not a terminal.

use crate::io::text::visible;
use crate::sampling::SampleProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on stderr, hidden when stderr is not a terminal. `template` follows the bar itself.
pub fn bar(length: usize, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{wide_bar}} {template}")) {
        bar.set_style(style);
    }
    bar
}

/// One progress bar at a time, for the named item being worked on.
#[derive(Default)]
pub struct NamedProgress(Option<(String, ProgressBar)>);

impl NamedProgress {
    /// Move the bar of `name` to `done`. If another item's bar is shown, or none, replace it with `new`, prefixed with the name.
    pub fn show(&mut self, name: &str, done: u64, new: impl FnOnce() -> ProgressBar) -> &ProgressBar {
        if self.0.as_ref().is_some_and(|(current, _)| current != name) {
            self.clear();
        }
        let (_, bar) = self.0.get_or_insert_with(|| {
            let bar = new().with_prefix(visible(name).replace('\n', " ")).with_position(done);
            // An earlier run's work must not count towards this one's estimate.
            bar.reset_eta();
            (name.to_string(), bar)
        });
        bar.set_position(done);
        bar
    }

    /// Remove the bar.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

/// A bar with the name of the benchmark that is under way.
#[derive(Default)]
pub struct EvalProgress(NamedProgress);

impl EvalProgress {
    pub fn update(&mut self, name: &str, p: SampleProgress) {
        let new = || bar(p.total, "{prefix} {pos}/{len}, {msg}, {eta} left");
        let right = format!("{:.1} % right", 100.0 * p.correct as f64 / p.responses.max(1) as f64);
        self.0.show(name, p.done as u64, new).set_message(right);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
