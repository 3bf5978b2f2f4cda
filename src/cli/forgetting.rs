//! The side of `jigsaw eval` that compares tuned models with their base.

use super::output::{print, status};
use super::progress::{EvalProgress, NamedProgress, bar};
use crate::Result;
use crate::forgetting::{
    CompareObserver, CompareRequest, FORGETTING_CSV, FORGETTING_JSON, FORGETTING_MD, ForgettingResult, aggregates,
    divergences, run, summary, table,
};
use crate::sampling::SampleProgress;
use candle_core::Device;

/// Evaluate, compare, print the tables.
pub(super) fn compare(request: &CompareRequest, device: &Device) -> Result<()> {
    let mut lines = CompareProgress::default();
    let found = run(request, device, &mut lines);
    lines.clear();
    let files = [FORGETTING_JSON, FORGETTING_CSV, FORGETTING_MD];
    let files = files.map(|name| format!("{}\n", request.out.join(name).display())).concat();
    print(&format!("{}{files}", describe(&found?)))
}

/// The tables of every model, for a person.
fn describe(found: &ForgettingResult) -> String {
    let mut text = String::new();
    for tuned in &found.tuned {
        let provenance = tuned.model.provenance();
        let provenance = if provenance.is_empty() { String::new() } else { format!(" ({provenance})") };
        text += &format!("{}{provenance} against {}\n\n", tuned.model.dir, found.base.dir);
        let tables = [Some(table(tuned, false)), aggregates(tuned), divergences(tuned)];
        tables.iter().flatten().for_each(|table| text += &format!("{}\n", table.text()));
        summary(tuned).iter().for_each(|line| text += &format!("{line}\n"));
        text.push('\n');
    }
    text
}

/// One line a stage on stderr, and bars while it works.
#[derive(Default)]
struct CompareProgress {
    bars: EvalProgress,
    prompts: NamedProgress,
}

impl CompareProgress {
    fn clear(&mut self) {
        self.bars.clear();
        self.prompts.clear();
    }
}

impl CompareObserver for CompareProgress {
    fn stage(&mut self, what: &str) {
        self.clear();
        status(what);
    }

    fn evaluating(&mut self, benchmark: &str, progress: SampleProgress) {
        self.prompts.clear();
        self.bars.update(benchmark, progress);
    }

    fn diverging(&mut self, set: &str, done: usize, total: usize) {
        self.bars.clear();
        let new = || bar(total, "{prefix} {pos}/{len} prompts, {eta} left");
        self.prompts.show(&format!("divergence on {set}"), done as u64, new);
    }
}
