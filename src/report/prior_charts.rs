//! The charts of what runs have learnt and lost.

use super::bars::{self, Bar, Bars};
use super::chart::{Chart, Point, Series};
use super::prior_knowledge::{Line, Setting, label};
use super::trajectory::{self, step};
use crate::forgetting::{ALL, NEW_TASK, TunedResult};
use crate::stats::Interval;
use serde_json::{Value, json};

/// Number of the colour of a name.
pub type ColourOf<'a> = &'a dyn Fn(&str) -> usize;

fn figure(title: &str, caption: &str, svg: Option<String>) -> Option<Value> {
    svg.map(|svg| json!({"title": title, "caption": caption, "svg": svg}))
}

/// Change by family, the plane of learnt and kept, and what there is over the steps of training.
pub fn main(setting: &Setting<'_>, colour: ColourOf<'_>) -> Vec<Value> {
    let bars = bars::svg(&families(setting, colour), "change (percentage points)");
    let all = |tuned: &TunedResult| tuned.all.as_ref().map(|group| points(group.change));
    let kl =
        |tuned: &TunedResult| tuned.divergence.iter().find(|d| d.prompts_of == NEW_TASK).map(|d| d.forward.per_token);
    let figures = [
        figure(
            "Change by family",
            "The last model of each run against the base: mean change over a family's benchmarks, with 95 % intervals",
            bars,
        ),
        figure(
            "Learnt and kept",
            "One line a run over its checkpoints, from the base on: to the right is learnt, downwards is forgotten",
            plane(setting, colour).svg(),
        ),
        figure(
            "Prior knowledge over training",
            "Mean change over all benchmarks at each checkpoint, with 95 % intervals",
            over_steps(setting, colour, &all, "change (points)"),
        ),
        figure(
            "Distance from the base",
            "KL(base || tuned) on the new task's prompts, exact over the vocabulary, with 95 % intervals",
            over_steps(setting, colour, &kl, "nats per token"),
        ),
    ];
    figures.into_iter().flatten().collect()
}

/// The change of each family over the steps of training, if there are several families.
pub fn by_family(setting: &Setting<'_>, colour: ColourOf<'_>) -> Vec<Value> {
    let families = &setting.lines[0].last().families;
    let draw = |name: &String| {
        let value = |tuned: &TunedResult| tuned.families.iter().find(|f| f.name == *name).map(|f| points(f.change));
        let caption = format!("Mean change over the benchmarks of the family {name}, with 95 % intervals");
        figure(name, &caption, over_steps(setting, colour, &value, "change (points)"))
    };
    families.iter().filter(|_| families.len() > 1).filter_map(|family| draw(&family.name)).collect()
}

/// Shares to percentage points.
fn points(share: Interval) -> Interval {
    Interval { value: 100.0 * share.value, low: 100.0 * share.low, high: 100.0 * share.high }
}

fn families(setting: &Setting<'_>, colour: ColourOf<'_>) -> Vec<Bars> {
    let first = setting.lines[0].last();
    let names: Vec<&str> = first.families.iter().chain(&first.all).map(|g| g.name.as_str()).collect();
    let bar = |line: &Line<'_>, name: &str| {
        let last = line.last();
        let group = last.families.iter().chain(&last.all).find(|g| g.name == name)?;
        let Interval { value, low, high } = points(group.change);
        Some(Bar { name: label(line, last), colour: colour(&line.name), value, interval: (low, high) })
    };
    let group = |name: &&str| Bars {
        name: if *name == ALL { "mean of all".into() } else { name.to_string() },
        bars: setting.lines.iter().filter_map(|line| bar(line, name)).collect(),
    };
    // One family alone is the mean of all.
    names.iter().filter(|name| names.len() != 2 || **name != ALL).map(group).collect()
}

/// New-task accuracy against mean prior score, a line for each run.
fn plane(setting: &Setting<'_>, colour: ColourOf<'_>) -> Chart {
    let mut base = None;
    let mut series = Vec::new();
    let models = setting.models();
    for (i, line) in setting.lines.iter().enumerate() {
        let mut points = Vec::new();
        for tuned in &line.models {
            let (Some(new_task), Some(all)) = (&tuned.new_task, &tuned.all) else { continue };
            if points.is_empty() {
                base = Some((all.base, "base".to_string()));
                let before = trajectory::lineage(&models, i, &setting.base.hash);
                points.extend(before.iter().map(|s| Point { x: s.accuracy, y: all.base + s.value, interval: None }));
            }
            let interval = Some((all.base + all.change.low, all.base + all.change.high));
            points.push(Point { x: new_task.all.tuned.value.value, y: all.tuned, interval });
        }
        series.push(Series { name: line.name.clone(), colour: colour(&line.name), points });
    }
    Chart {
        x_label: "new task, answers right".into(),
        y_label: "mean prior score (%)".into(),
        x_percent: true,
        percent: true,
        from_zero: false,
        noisy: false,
        reference: base,
        series,
    }
}

/// A distance from the base over the steps of training, a line for each run; a run that was started from the base begins there.
/// `None` if no run has several checkpoints.
fn over_steps(
    setting: &Setting<'_>,
    colour: ColourOf<'_>,
    value: &dyn Fn(&TunedResult) -> Option<Interval>,
    y_label: &str,
) -> Option<String> {
    let of_line = |line: &Line<'_>| {
        let point = |tuned: &&TunedResult| {
            let Interval { value, low, high } = value(tuned)?;
            Some(Point { x: step(tuned)?, y: value, interval: Some((low, high)) })
        };
        let mut points: Vec<Point> = line.models.iter().filter_map(point).collect();
        if points.len() > 1 && line.starts_at(setting.base) {
            points.insert(0, Point { x: 0.0, y: 0.0, interval: None });
        }
        Series { name: line.name.clone(), colour: colour(&line.name), points }
    };
    let series: Vec<Series> = setting.lines.iter().map(of_line).collect();
    if series.iter().all(|one| one.points.len() < 2) {
        return None;
    }
    let chart = Chart {
        x_label: "optimizer step".into(),
        y_label: y_label.into(),
        x_percent: false,
        percent: false,
        from_zero: true,
        noisy: false,
        reference: Some((0.0, "base".to_string())),
        series,
    };
    chart.svg()
}
