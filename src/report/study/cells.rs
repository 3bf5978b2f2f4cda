//! A table with its words, and its cells: values with their intervals, the same on the page and in Markdown.

use super::seed_stats::{IntervalSource, SeedMean};
use crate::stats::Interval;
use crate::stats::table::{Table, percent};
use serde::Serialize;

/// Stands for a number that does not exist.
pub const NONE: &str = "\u{2013}";
/// Marks an interval over test examples alone, and one over seeds alone.
pub const DAGGER: &str = "\u{a0}\u{2020}";
const DOUBLE_DAGGER: &str = "\u{a0}\u{2021}";
/// A loss of so much (a share) has the full tint.
const FULL_TINT_LOSS: f64 = 0.5;
/// The full tint, in percent: text on it can be read in light and dark.
pub const FULL_TINT: f64 = 40.0;

/// A cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cell {
    /// The value.
    pub text: String,
    /// Below it, smaller: the interval, or a remark.
    pub range: String,
    /// Strength of the tint of a loss, in percent.
    pub loss_tint: u32,
    /// Strength of the tint of a share in a heat map, in percent.
    pub heat: u32,
    /// The best of its kind.
    pub strong: bool,
    /// Colour of a swatch before the text.
    pub colour: Option<usize>,
}

/// A table with its words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableWithCaption {
    /// Title.
    pub title: &'static str,
    /// How to read it.
    pub how: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells, row by row; the first column names the row.
    pub rows: Vec<Vec<Cell>>,
}

impl TableWithCaption {
    /// As a table of text.
    pub fn table(&self) -> Table {
        let cell = |cell: &Cell| match cell.range.as_str() {
            "" => cell.text.clone(),
            range => format!("{} ({range})", cell.text),
        };
        Table {
            header: self.header.clone(),
            rows: self.rows.iter().map(|row| row.iter().map(cell).collect()).collect(),
        }
    }

    /// Without the columns from number `from` on that tell nothing apart: no row has a value, or all that have one have the same.
    /// The common values are said in words.
    pub fn without_uniform(mut self, from: usize) -> TableWithCaption {
        let mut same: Vec<String> = Vec::new();
        for column in (from..self.header.len()).rev() {
            let known: Vec<&Cell> = self
                .rows
                .iter()
                .map(|row| &row[column])
                .filter(|cell| !cell.text.is_empty() && **cell != Cell::none())
                .collect();
            let [first, rest @ ..] = known.as_slice() else {
                self.drop_column(column);
                continue;
            };
            if rest.is_empty() || rest.iter().any(|other| other != first) {
                continue;
            }
            let range = if first.range.is_empty() { String::new() } else { format!(" ({})", first.range) };
            same.insert(0, format!("{} {}{range}", self.header[column], first.text));
            self.drop_column(column);
        }
        if !same.is_empty() {
            self.how += &format!(" The same in all rows: {}.", same.join("; "));
        }
        self
    }

    /// Without this column.
    pub fn drop_column(&mut self, column: usize) {
        self.header.remove(column);
        self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
    }

    /// With what its intervals account for in words: once for all where it is the same for all, else by a mark at each that is an exception.
    pub fn explained(mut self) -> TableWithCaption {
        let cells = || self.rows.iter().flatten().filter(|cell| cell.range.contains(" to "));
        let with = |mark: &str| cells().filter(|cell| cell.range.contains(mark)).count();
        let (all, examples, seeds) = (cells().count(), with(DAGGER), with(DOUBLE_DAGGER));
        if all > 0 && examples == all {
            self.how +=
                " Intervals (95 %) are over test examples alone: there is one seed, or all seeds have the same value.";
            let cells = self.rows.iter_mut().flatten();
            cells.for_each(|cell| cell.range = cell.range.replace(DAGGER, ""));
            return self;
        }
        if examples > 0 {
            self.how += " \u{2020}: over test examples alone (one seed, or all seeds at the same value).";
        }
        if seeds > 0 {
            self.how += " \u{2021}: over seeds alone.";
        }
        self
    }
}

impl Cell {
    /// A value alone.
    pub fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// No value.
    pub fn none() -> Cell {
        Cell::text(NONE)
    }

    /// A value with what stands below it.
    pub fn with(text: impl Into<String>, range: impl Into<String>) -> Cell {
        Cell { range: range.into(), ..Cell::text(text) }
    }

    /// A mean over seeds.
    pub fn over(over: Option<SeedMean>, value: fn(f64) -> String, end: fn(f64) -> String) -> Cell {
        let Some(over) = over else { return Cell::none() };
        Cell::with(value(over.mean.value), range(&over, end))
    }

    /// The points lost over seeds, tinted where they are a loss.
    pub fn lost(change: Option<SeedMean>) -> Cell {
        let tint = change.map_or(0, |over| tint(over.mean.value));
        Cell { loss_tint: tint, ..Cell::over(change.map(|over| over.negated()), lost_points, lost_points) }
    }
}

/// A loss of a share in points. What rounds to zero has no sign.
pub fn lost_points(share: f64) -> String {
    let text = fixed(100.0 * share, 1);
    if text == "-0.0" { "0.0".into() } else { text }
}

/// A number with so many decimals.
pub fn fixed(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { NONE.into() }
}

/// Nats, as in a table.
pub fn nats(value: f64) -> String {
    fixed(value, 4)
}

/// The interval of a mean over seeds; marked where it accounts for less than seeds and test examples. Empty if it is not known.
pub fn range(over: &SeedMean, end: fn(f64) -> String) -> String {
    let Interval { low, high, .. } = over.mean;
    if !(low.is_finite() && high.is_finite()) {
        return String::new();
    }
    let mark = match over.basis {
        IntervalSource::SeedsAndExamples => "",
        IntervalSource::Seeds => DOUBLE_DAGGER,
        IntervalSource::Examples => DAGGER,
    };
    format!("{} to {}{mark}", end(low), end(high))
}

/// Strength of the tint: the root, so that small losses are visible.
pub fn tint(change: f64) -> u32 {
    (FULL_TINT * (-change / FULL_TINT_LOSS).clamp(0.0, 1.0).sqrt()).round() as u32
}

/// A share in percent, without its sign.
pub fn bare(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A share with its interval over test examples.
pub fn share(interval: Interval) -> Cell {
    Cell::with(percent(interval.value), format!("{} to {}{DAGGER}", bare(interval.low), bare(interval.high)))
}
