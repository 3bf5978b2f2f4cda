//! The tables of tasks in a row.

use super::load::{MethodResults, SequenceResults};
use crate::report::study::cells::{Cell, FULL_TINT, TableWithCaption, bare};
use crate::report::study::seed_stats::SeedMean;
use crate::stats::SequenceMeasure::{AverageAccuracy, BackwardTransfer, Forgetting, ForwardTransfer};
use crate::stats::table::{percent, points};

/// A method's name with its colour; what stands below it.
fn name(sequence: &SequenceResults<'_>, method: &MethodResults<'_>, below: &str) -> Cell {
    let place = sequence.methods.iter().position(|other| other.entry.name == method.entry.name);
    Cell { colour: place, ..Cell::with(method.entry.name.clone(), below) }
}

/// What R comes to after all tasks, a row for each method.
pub fn measures(sequence: &SequenceResults<'_>) -> TableWithCaption {
    let all = sequence.tasks.len();
    let row = |method: &MethodResults<'_>| {
        let transfer = |measure| Cell::over(method.measure(measure, all), points, points);
        vec![
            name(sequence, method, ""),
            Cell::over(method.measure(AverageAccuracy, all), percent, bare),
            Cell::lost(method.measure(Forgetting, all).map(SeedMean::negated)),
            transfer(BackwardTransfer),
            transfer(ForwardTransfer),
            Cell::lost(method.prior(None, all)),
            Cell::text(method.seeds.iter().filter(|seed| seed.r.len() > all).count().to_string()),
        ]
    };
    let header = [
        "method",
        "average accuracy",
        "forgetting",
        "backward transfer",
        "forward transfer",
        "prior knowledge lost",
        "seeds",
    ];
    TableWithCaption {
        title: "After all tasks",
        how: "R is the accuracy on each task after each task (below). Average accuracy: the mean of its last row. Forgetting (Chaudhry et al. 2018): the best \
              accuracy on a task after any earlier task, the base apart, minus the last one; mean over all tasks but the last. Looking back to the \
              best of several noisy numbers makes it a little too high. Backward transfer (Lopez-Paz and Ranzato 2017): the last accuracy on a \
              task minus that when it had just been learned; forward transfer: the accuracy on a task just before it is learned minus the \
              base\u{2019}s. All but the first are in points. Prior knowledge lost: drop of the mean score over all prior sets, in points. Means over seeds; \
              95 % intervals over seeds and questions, which are paired between times."
            .into(),
        header: header.map(String::from).to_vec(),
        rows: sequence.methods.iter().map(row).collect(),
    }
}

/// The matrix R of each method, the base's row first.
pub fn heat_map(sequence: &SequenceResults<'_>) -> TableWithCaption {
    let heated = |cell: Cell, share: f64| Cell { heat: (FULL_TINT * share.clamp(0.0, 1.0)).round() as u32, ..cell };
    let entry =
        |mean: Option<SeedMean>| heated(Cell::over(mean, percent, bare), mean.map_or(0.0, |mean| mean.mean.value));
    let any = sequence.methods.iter().find(|method| !method.seeds.is_empty());
    let base = |task: usize| {
        let cell = entry(any.and_then(|method| method.accuracy(0, task)));
        match sequence.chance[task] {
            Some(chance) => Cell { range: format!("{}; chance {}", cell.range, percent(chance)), ..cell },
            None => cell,
        }
    };
    let tasks = 0..sequence.tasks.len();
    let mut first = vec![Cell::with("base", "before training")];
    first.extend(tasks.clone().map(base));
    let prior = any.and_then(|method| method.seeds.first()?.prior_base(None));
    first.push(prior.map_or(Cell::none(), |share| heated(Cell::text(percent(share)), share)));
    let mut rows = vec![first];
    for method in &sequence.methods {
        for (i, task) in sequence.tasks.iter().enumerate() {
            let time = i + 1;
            let mut row = vec![name(sequence, method, &format!("after {time}, {task}"))];
            row.extend(tasks.clone().map(|j| Cell { strong: i == j, ..entry(method.accuracy(time, j)) }));
            let share = |change: SeedMean| prior.map_or(f64::NAN, |base| base + change.mean.value);
            row.push(method.prior(None, time).map_or(Cell::none(), |change| {
                let lost = Cell::lost(Some(change));
                let range = if lost.range.is_empty() { String::new() } else { format!(" ({})", lost.range) };
                heated(Cell::with(percent(share(change)), format!("lost {}{range}", lost.text)), share(change))
            }));
            rows.push(row);
        }
    }
    let header =
        ["method, time"].into_iter().chain(sequence.tasks.iter().map(String::as_str)).chain(["prior knowledge"]);
    TableWithCaption {
        title: "Accuracy on each task after each task",
        how: "The matrix R: a row for each time, a column for each task; the stronger the tint, the higher. Bold: the task that was just learned. To the right of it are tasks \
              that are not learned yet, to the left those learned before. A base that knows a task already has little to learn there. Prior knowledge: \
              the mean score over all prior sets, with the points lost."
            .into(),
        header: header.map(String::from).collect(),
        rows,
    }
}

/// Points of prior knowledge lost after all tasks, by family; `None` if there are not several.
pub fn prior(sequence: &SequenceResults<'_>) -> Option<TableWithCaption> {
    let (families, all) = (sequence.families(), sequence.tasks.len());
    let row = |method: &MethodResults<'_>| -> Vec<Cell> {
        let of = |family: &&str| Cell::lost(method.prior(Some(family), all));
        let cells = families.iter().map(of).chain([Cell::lost(method.prior(None, all))]);
        [name(sequence, method, "")].into_iter().chain(cells).collect()
    };
    let base = |family: Option<&str>| {
        let share = sequence.any().and_then(|seed| seed.prior_base(family));
        share.map_or(Cell::none(), |share| Cell::text(percent(share)))
    };
    let first = families.iter().map(|family| base(Some(family))).chain([base(None)]);
    let rows = std::iter::once::<Vec<Cell>>([Cell::with("base", "its score")].into_iter().chain(first).collect());
    let header = ["method"].into_iter().chain(families.iter().copied()).chain(["all"]);
    (families.len() > 1).then(|| TableWithCaption {
        title: "Prior knowledge lost after all tasks, by family",
        how: format!(
            "Points of the mean score over the prior sets of each family, with 95 % intervals over seeds and questions; below 0 it is a gain. First the \
             base\u{2019}s score. After each task: report.study.csv.{}",
            if sequence.missing.is_empty() { "" } else { " Of the seeds that have learned all tasks." }
        ),
        header: header.map(String::from).collect(),
        rows: rows.chain(sequence.methods.iter().map(row)).collect(),
    })
}
