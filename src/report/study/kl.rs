//! Points lost against the distance from the base, over all measured models of a study.

use super::cells::{Cell, TableWithCaption, fixed};
use super::load::StudyResults;
use crate::forgetting::TunedResult;
use crate::report::chart::{Axis, COLOURS, Chart, Figure, Mark, Point, Series};
use crate::stats::{Interval, LinearFit};

/// A measured model.
struct Model<'a> {
    tuned: &'a TunedResult,
    /// Points of prior knowledge lost.
    lost: f64,
    regime: usize,
    /// Number of its run.
    run: usize,
    last: bool,
}

fn models<'a>(study: &StudyResults<'a>) -> Vec<Model<'a>> {
    let mut all = Vec::new();
    for (number, (regime, run)) in study.runs().enumerate() {
        for (i, tuned) in run.models.iter().copied().enumerate() {
            let Some(change) = tuned.all.as_ref().map(|all| all.change.value).filter(|change| change.is_finite())
            else {
                continue;
            };
            let last = run.done && i + 1 == run.models.len();
            all.push(Model { tuned, lost: 0.0 - 100.0 * change, regime, run: number, last });
        }
    }
    all
}

type Distance = fn(&TunedResult) -> Option<Interval>;
const DISTANCES: [(&str, Distance); 2] =
    [("prior prompts", TunedResult::prior_kl), ("new-task prompts", TunedResult::new_task_kl)];

/// A line through the models.
pub struct KlLine {
    /// Which prompts and models.
    pub name: String,
    /// With the interval of the slope clustered by run.
    pub by_run: LinearFit,
    /// The same line, clustered by regime.
    pub by_regime: LinearFit,
}

/// The lines of all models and of the final ones, for each kind of prompts that was measured.
pub fn lines(study: &StudyResults<'_>) -> Vec<KlLine> {
    let all = models(study);
    let mut lines = Vec::new();
    for (prompts, distance) in DISTANCES {
        for (which, only_last) in [("all measured models", false), ("final models", true)] {
            let own = all.iter().filter(|model| model.last || !only_last);
            let own =
                own.filter_map(|model| Some((model, distance(model.tuned)?.value))).filter(|(_, kl)| kl.is_finite());
            let own: Vec<(&Model<'_>, f64)> = own.collect();
            if own.len() < 3 {
                continue;
            }
            let points: Vec<(f64, f64)> = own.iter().map(|(model, kl)| (*kl, model.lost)).collect();
            let through = |cluster: fn(&Model<'_>) -> usize| {
                LinearFit::through(&points, &own.iter().map(|(model, _)| cluster(model)).collect::<Vec<_>>())
            };
            let name = format!("{prompts}: {which}");
            lines.push(KlLine { name, by_run: through(|model| model.run), by_regime: through(|model| model.regime) });
        }
    }
    lines
}

/// Points lost over KL on prior prompts, a dot for each measured model; `None` without such distances.
pub fn figure(study: &StudyResults<'_>) -> Option<Figure> {
    let all = models(study);
    let series = study.regimes.iter().enumerate().map(|(i, regime)| Series {
        name: regime.name.to_string(),
        colour: i % COLOURS,
        mark: Mark::Dots,
        points: all
            .iter()
            .filter(|model| model.regime == i)
            .filter_map(|model| Some(Point::new(model.tuned.prior_kl()?.value, model.lost)))
            .collect(),
    });
    let y = Axis::points("prior knowledge lost (points)");
    let chart = Chart::new(Axis::from_zero("KL(base || tuned) on prior prompts (nats per token)"), y, series.collect());
    let caption = "Every measured model of every run, coloured by regime. The distance is over held-out prior prompts where there are any; else over the \
                   benchmarks that the loss is measured on, and part of the agreement is then by construction.";
    Figure::new("Lost against the distance from the base", caption, &chart)
}

/// The lines as a table; `None` if there is none.
pub fn table(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    let lines = lines(study);
    let range = |fit: &LinearFit| match fit.slope.low.is_finite() {
        true => format!("{:.1} to {:.1}", fit.slope.low, fit.slope.high),
        false => String::new(),
    };
    let row = |line: &KlLine| {
        let fit = &line.by_run;
        vec![
            Cell::text(line.name.clone()),
            Cell::text(fit.n.to_string()),
            Cell::text(fixed(fit.r2, 2)),
            Cell::text(fixed(fit.spearman, 2)),
            Cell::text(fixed(fit.slope.value, 1)),
            Cell::with(range(fit), format!("{} runs", fit.clusters)),
            Cell::with(range(&line.by_regime), format!("{} regimes", line.by_regime.clusters)),
        ]
    };
    let header =
        ["models by prompts", "models", "R\u{b2}", "Spearman", "points per nat", "95 % by run", "95 % by regime"];
    (!lines.is_empty()).then(|| TableWithCaption {
        title: "Points lost against KL(base || tuned)",
        how: "Least-squares lines through the points lost over KL in nats per token, with Spearman\u{2019}s rank correlation. Checkpoints of one run are \
              not independent, nor are the runs of one regime: the intervals of the slope are cluster-robust (CR1, Student\u{2019}s t), once by run and once by \
              regime. The wider one is the one to quote; with fewer than about 20 clusters both are a little too narrow."
            .into(),
        header: header.map(String::from).to_vec(),
        rows: lines.iter().map(row).collect(),
    })
}
