//! Tables for people and for other programs: the same cells on a terminal, in Markdown, as CSV, and as JSON for the page.
//!
//! The functions below turn numbers into cells. A number that does not exist is [`NONE`] in every table.

use super::Interval;
use serde::Serialize;

/// What stands for a number that does not exist.
pub const NONE: &str = "-";

/// A table of text. The first column is left-aligned, the others right. As JSON: `{"header": [...], "rows": [[...], ...]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells, row by row, as many in each row as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows yet.
    pub fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
        Table { header: header.into_iter().map(String::from).collect(), rows: Vec::new() }
    }

    /// For a terminal: columns padded to equal width.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.header[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        self.lines(|cells| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
        })
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |", cells.join(" | "))
        };
        let text = self.lines(line);
        let (header, rows) = text.split_once('\n').unwrap_or((&text, ""));
        format!("{header}\n|---{}|\n{rows}", "|--:".repeat(self.header.len().saturating_sub(1)))
    }

    /// As CSV (RFC 4180) with a header.
    pub fn csv(&self) -> String {
        self.lines(|cells| cells.iter().map(|cell| csv_field(cell)).collect::<Vec<_>>().join(","))
    }

    fn lines(&self, line: impl Fn(&[String]) -> String) -> String {
        std::iter::once(&self.header).chain(&self.rows).map(|cells| line(cells) + "\n").collect()
    }
}

/// A field of CSV, quoted where it must be.
pub fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

/// A share as a percentage: `84.1 %`.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { NONE.into() }
}

/// A difference of shares in percentage points, with its sign; exactly no difference is `0.0`.
pub fn points(difference: f64) -> String {
    match difference {
        d if !d.is_finite() => NONE.into(),
        0.0 => "0.0".into(),
        d => format!("{:+.1}", 100.0 * d),
    }
}

/// The ends of an interval of differences, in percentage points.
pub fn interval(interval: &Interval) -> String {
    if !(interval.low.is_finite() && interval.high.is_finite()) {
        return NONE.into();
    }
    format!("{} to {}", points(interval.low), points(interval.high))
}

/// A p-value.
pub fn p_value(p: f64) -> String {
    match p {
        p if !p.is_finite() => NONE.into(),
        p if p < 1e-4 => "<0.0001".into(),
        p => format!("{p:.4}"),
    }
}

/// Three significant digits.
pub fn short(x: f64) -> String {
    match x {
        x if !x.is_finite() => NONE.into(),
        0.0 => "0".into(),
        x if x.abs() < 1e-3 || x.abs() >= 1e5 => format!("{x:.2e}"),
        x => {
            let decimals = (2 - x.abs().log10().floor() as i32).clamp(0, 5) as usize;
            format!("{x:.decimals$}")
        }
    }
}

/// A time for a person: `12 s`, `3 min 5 s`, `2 h 1 min`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) if m < 10 => format!("{m} min {s} s"),
        (0, m, _) => format!("{m} min"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cells_are_text_markdown_and_csv() {
        let mut table = Table::new(["run", "change", "p"]);
        table.rows.push(["a|b, c", "+1.5", NONE].map(String::from).to_vec());
        table.rows.push(["d", "-12.0", "0.0100"].map(String::from).to_vec());
        assert_eq!(table.text(), "run     change       p\na|b, c    +1.5       -\nd        -12.0  0.0100\n");
        assert_eq!(
            table.markdown(),
            "| run | change | p |\n|---|--:|--:|\n| a\\|b, c | +1.5 | - |\n| d | -12.0 | 0.0100 |\n"
        );
        assert_eq!(table.csv(), "run,change,p\n\"a|b, c\",+1.5,-\nd,-12.0,0.0100\n");
    }

    #[test]
    fn numbers_that_do_not_exist_are_dashes() {
        assert_eq!([percent(f64::NAN), points(f64::NAN), p_value(f64::NAN), short(f64::NAN)], [NONE; 4]);
        assert_eq!(
            [percent(0.841), points(-0.021), points(0.0), p_value(0.00001)],
            ["84.1 %", "-2.1", "0.0", "<0.0001"]
        );
        assert_eq!([short(0.0), short(1234.5), short(0.01234), short(1e-4)], ["0", "1234", "0.0123", "1.00e-4"]);
    }
}
