//! Progress bars on stderr. indicatif hides them when stderr is not a terminal.

use super::output::is_silent;
use crate::io::text::visible;
use crate::sampling::SampleProgress;
use crate::stats::table::duration;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt::Write;

/// A progress bar on stderr, hidden when stderr is not a terminal, and on every rank but 0. `template` follows the bar itself; the times follow
/// that.
pub fn bar(length: usize, template: &str) -> ProgressBar {
    if is_silent() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(length as u64).with_style(style(&format!("{{wide_bar}} {template}, {{times}}")))
}

/// A style with the key `times`: see [`times`].
pub fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("times", |state: &ProgressState, out: &mut dyn Write| {
        // Without a length, or before anything is done, the estimate is 0.
        let left = state.eta().as_secs_f64();
        let left = (left > 0.0 && state.pos() < state.len().unwrap_or(0)).then_some(left);
        let _ = out.write_str(&times(state.elapsed().as_secs_f64(), left));
    })
}

/// Seconds spent and left, for a person: `1 min 20 s elapsed, 3 min 5 s left`.
pub fn times(elapsed: f64, left: Option<f64>) -> String {
    // Less than half a second is no news.
    let left = left.filter(|&left| left >= 0.5).map(|left| format!(", {} left", duration(left))).unwrap_or_default();
    format!("{} elapsed{left}", duration(elapsed))
}

/// Give a bar its length when the first progress is known. What an earlier run has done does not count towards the estimate.
pub fn begin(bar: &ProgressBar, p: SampleProgress) {
    if bar.length() == Some(0) {
        bar.set_length(p.total as u64);
        bar.set_position(p.done as u64);
        bar.reset_eta();
    }
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
        let new = || bar(p.total, "{prefix} {pos}/{len}{msg}");
        let right = format!(", {:.1} % right", 100.0 * p.correct as f64 / p.responses.max(1) as f64);
        self.0.show(name, p.done as u64, new).set_message(right);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_for_people() {
        let told = [0.4, 61.0, 700.0, 7265.0].map(duration);
        assert_eq!(told, ["0 s", "1 min 1 s", "11 min", "2 h 1 min"]);
        assert_eq!(times(80.0, Some(185.0)), "1 min 20 s elapsed, 3 min 5 s left");
        assert_eq!(times(3.0, None), "3 s elapsed");
    }
}
