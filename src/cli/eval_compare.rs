//! The side of `jigsaw eval` that compares tuned models with their base.

use super::output::{print, status};
use super::progress::{EvalProgress, NamedProgress, bar};
use crate::comm::Communicator;
use crate::forgetting::{
    CompareObserver, CompareRequest, FORGETTING_CSV, FORGETTING_JSON, FORGETTING_MD, ForgettingResult, GATE_MD,
    GateRule, Verdict, aggregates, divergences, gate_table, judge, run, summary, table,
};
use crate::io::files;
use crate::model::ModelLoader;
use crate::sampling::SampleProgress;
use crate::{Error, Result};

/// Evaluate, compare, print the tables.
pub(super) fn compare(
    request: &CompareRequest,
    rules: &[GateRule],
    loader: &ModelLoader,
    comm: &dyn Communicator,
) -> Result<()> {
    let mut lines = CompareProgress::default();
    let found = run(request, (loader, comm), &mut lines);
    lines.clear();
    let files = [FORGETTING_JSON, FORGETTING_CSV, FORGETTING_MD];
    let files = files.map(|name| format!("{}\n", request.out.join(name).display())).concat();
    let found = found?;
    print(&format!("{}{files}", describe(&found)))?;
    if rules.is_empty() {
        return Ok(());
    }
    let judgements = judge(&found, rules)?;
    let table = gate_table(&judgements);
    let path = request.out.join(GATE_MD);
    comm.on_root(|| files::write_atomic(&path, table.as_bytes()))?;
    print(&format!("\n{table}{}\n", path.display()))?;
    match judgements.iter().filter(|judgement| judgement.verdict == Verdict::Lost).count() {
        0 => Ok(()),
        lost => Err(Error::Rejected(format!(
            "{lost} of {} rules of --fail-if broken: the loss is beyond the limit with its whole 95 % interval",
            judgements.len()
        ))),
    }
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
        let new = || bar(total, "{prefix} {pos}/{len} prompts");
        self.prompts.show(&format!("divergence on {set}"), done as u64, new);
    }
}
