//! Charts as inline SVG: lines, dots and histogram outlines over two axes, and forest plots, all with intervals.
//!
//! Colours are CSS variables of the page (`--s0`, `--s1`, ... for the series), so that a chart follows light and dark mode. Each mark has its
//! values as its title. The page's script shows the title of the nearest mark under a pointer or a finger, and by arrow keys.

mod axis;
mod series;

pub use axis::{Axis, significant};
pub use series::{Mark, NamedPoint, Point, Series};

use axis::Scale;
use serde::Serialize;
use series::{finite, reduced, smooth};
use std::fmt::Write;

/// Colours that the page has; further series begin again with the first.
pub const COLOURS: usize = 8;

/// A chart with its words, for the page's template.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Title.
    pub title: String,
    /// What is drawn, and over what.
    pub caption: String,
    /// The chart as an `<svg>` element.
    pub svg: String,
}

impl Figure {
    /// `None` for a chart without a finite value.
    pub fn new(title: &str, caption: &str, chart: &Chart) -> Option<Figure> {
        Some(Figure { title: title.into(), caption: caption.into(), svg: chart.svg()? })
    }
}

/// A dashed line to compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference {
    /// A horizontal line at this value, with its name.
    Level(f64, String),
    /// A vertical line at this value of x, with its name at the top.
    At(f64, String),
}

/// A chart of several series over two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis; without a label where it shows categories.
    pub y: Axis,
    /// Names of the categories of a forest plot, from top to bottom; empty for a chart of two numeric axes.
    pub categories: Vec<String>,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// What to compare with.
    pub references: Vec<Reference>,
    /// Single points with their names beside them, drawn over the series.
    pub named: Vec<NamedPoint>,
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 320.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;
/// Margin on the right without names at the ends of lines.
const RIGHT: f64 = 16.0;
/// Rough width of a letter and height of a line of text.
const LETTER: f64 = 7.2;
const LINE_HEIGHT: f64 = 15.0;
/// Names at the ends of lines and of categories are broken into lines of so many letters.
const NAME_WIDTH: usize = 16;
/// Distance of the marks of a category of a forest plot, at least and at most, and space between categories.
const FOREST_ROW: [f64; 2] = [5.0, 14.0];
const FOREST_GAP: f64 = 8.0;
/// Points of a line that have visible dots.
const MAX_LINE_DOTS: usize = 60;
/// Lines of text that names at the ends of lines may take; more would not fit.
const MAX_END_LINES: usize = 14;

/// The scales of a chart being drawn.
struct Frame {
    x: Scale,
    y: Scale,
}

impl Frame {
    fn at(&self, point: &Point) -> (f64, f64) {
        (self.x.at(point.x), self.y.clamped(point.y))
    }
}

impl Chart {
    /// A chart of series over two numeric axes.
    pub fn new(x: Axis, y: Axis, series: Vec<Series>) -> Chart {
        Chart { x, y, categories: Vec::new(), series, references: Vec::new(), named: Vec::new() }
    }

    /// A forest plot, `series` having a mark in each category.
    pub fn forest(x: Axis, categories: Vec<String>, series: Vec<Series>) -> Chart {
        Chart { categories, ..Chart::new(x, Axis::new(""), series) }
    }

    /// The chart as an `<svg>` element; `None` if no point is finite.
    pub fn svg(&self) -> Option<String> {
        let series = reduced(&self.series);
        let all: Vec<Point> =
            series.iter().flat_map(|s| &s.points).chain(self.named.iter().map(|one| &one.point)).copied().collect();
        let all: Vec<Point> = all.into_iter().filter(|p| p.x.is_finite() && p.y.is_finite()).collect();
        all.first()?;
        let lines: Vec<&Series> = series.iter().filter(|s| s.mark.is_named_line()).collect();
        let many = lines.iter().map(|s| wrapped(&s.name).len()).sum::<usize>() > MAX_END_LINES;
        let class = if many { "chart many" } else { "chart" };
        let named: &[&Series] = if many { &[] } else { &lines };
        let forest = !self.categories.is_empty();
        let height = if forest { TOP + BOTTOM + self.categories.len() as f64 * self.row() } else { HEIGHT };
        let frame = self.frame(&all, height, named);
        let label = if forest { self.x.label.clone() } else { format!("{} over {}", self.y.label, self.x.label) };
        let mut out = format!(
            r#"<svg class="{class}" viewBox="0 0 {WIDTH} {height:.0}" role="img" tabindex="0" aria-label="{}">"#,
            escape(&label)
        );
        // Writing to a string cannot fail.
        if forest {
            self.draw_categories(&mut out, &frame)
        } else {
            self.draw_axes(&mut out, &frame)
        }
        self.draw_references(&mut out, &frame);
        for (i, one) in series.iter().enumerate() {
            match one.mark {
                Mark::Forest => self.draw_forest(&mut out, one, i, &frame),
                Mark::Steps => draw_steps(&mut out, one, &frame),
                _ => self.draw_line(&mut out, one, &frame),
            }
        }
        self.draw_named(&mut out, &frame);
        self.draw_end_labels(&mut out, named, &frame);
        out.push_str("</svg>");
        Some(out)
    }

    /// Distance of the marks of a category: as much as fits.
    fn forest_row(&self) -> f64 {
        let marks = (self.series.len() * self.categories.len()).max(1) as f64;
        let room = HEIGHT - TOP - BOTTOM - FOREST_GAP * self.categories.len() as f64;
        (room / marks).clamp(FOREST_ROW[0], FOREST_ROW[1])
    }

    /// Height of a category: its marks, and at least its name.
    fn row(&self) -> f64 {
        let name = self.categories.iter().map(|name| wrapped(name).len()).max().unwrap_or(1) as f64;
        (self.forest_row() * self.series.len() as f64 + FOREST_GAP).max(LINE_HEIGHT * name + 4.0)
    }

    fn frame(&self, all: &[Point], height: f64, end_labels: &[&Series]) -> Frame {
        let pair = |ends: Option<(f64, f64)>| ends.map_or([f64::NAN; 2], |(low, high)| [low, high]);
        let ends = |p: &Point| pair(p.ends());
        let levels = self.references.iter().filter_map(|one| match one {
            Reference::Level(_, name) => Some(name.as_str()),
            Reference::At(..) => None,
        });
        let names = end_labels.iter().map(|one| one.name.as_str()).chain(levels);
        let widest = names.flat_map(wrapped).map(|line| line.chars().count()).max();
        let right = WIDTH - widest.map_or(RIGHT, |letters| 14.0 + LETTER * letters as f64);
        let values = all.iter().map(|p| p.x).chain(all.iter().flat_map(|p| pair(finite(p.x_interval))));
        if !self.categories.is_empty() {
            let mut values: Vec<f64> = values.chain(all.iter().flat_map(ends)).collect();
            if values.iter().all(|value| *value == 0.0 || value.is_nan()) {
                // Nothing has changed anywhere.
                values = vec![-1.0, 1.0];
            }
            let letters = self.categories.iter().flat_map(|name| wrapped(name)).map(|line| line.chars().count()).max();
            let left = 20.0 + LETTER * letters.unwrap_or(0) as f64;
            let y = Scale { low: 0.0, high: 1.0, step: 1.0, log: false, from: height - BOTTOM, to: TOP };
            return Frame { x: self.x.scale(values.into_iter(), left, right), y };
        }
        let levels = self.references.iter().map(|one| if let Reference::Level(y, _) = one { *y } else { f64::NAN });
        let places = self.references.iter().map(|one| if let Reference::At(x, _) = one { *x } else { f64::NAN });
        let of_y = all.iter().map(|p| p.y).chain(all.iter().flat_map(ends)).chain(levels);
        let y = self.y.scale(of_y, height - BOTTOM, TOP);
        let widest = y.ticks().into_iter().map(|tick| self.y.tick(tick, y.step).chars().count()).max().unwrap_or(0);
        let left = (34.0 + LETTER * widest as f64).max(50.0);
        Frame { x: self.x.scale(values.chain(places), left, right), y }
    }

    /// Grid lines, the axis below, ticks and labels of two numeric axes.
    fn draw_axes(&self, out: &mut String, Frame { x, y }: &Frame) {
        let (left, right, base) = (x.from, x.to, y.from);
        for tick in y.ticks() {
            let at = y.at(tick);
            line(out, "grid", (left, right), (at, at));
            text(out, "tick", (left - 9.0, at + 4.5), "end", &self.y.tick(tick, y.step));
        }
        line(out, "axis", (left, right), (base, base));
        for tick in x.ticks() {
            let at = x.at(tick);
            line(out, "axis", (at, at), (base, base + 5.0));
            text(out, "tick", (at, base + 20.0), "middle", &self.x.tick(tick, x.step));
        }
        text(out, "label", ((left + right) / 2.0, base + 41.0), "middle", &self.x.label);
        let _ = write!(
            out,
            r#"<text class="label" transform="translate(15 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            (y.to + base) / 2.0,
            escape(&self.y.label)
        );
    }

    /// Vertical grid lines, the names of the categories, and the label of the axis of a forest plot.
    fn draw_categories(&self, out: &mut String, Frame { x, y }: &Frame) {
        for tick in x.ticks() {
            let at = x.at(tick);
            line(out, if tick.abs() < x.step * 1e-6 { "axis" } else { "grid" }, (at, at), (TOP, y.from));
            text(out, "tick", (at, y.from + 18.0), "middle", &self.x.tick(tick, x.step));
        }
        text(out, "label", ((x.from + x.to) / 2.0, y.from + 41.0), "middle", &self.x.label);
        for (i, name) in self.categories.iter().enumerate() {
            let middle = TOP + (i as f64 + 0.5) * self.row();
            if i > 0 {
                let above = TOP + i as f64 * self.row();
                line(out, "grid", (x.from, x.to), (above, above));
            }
            lines_of_text(out, r#"class="label" text-anchor="end""#, (x.from - 10.0, middle), &wrapped(name), "");
        }
    }

    fn draw_references(&self, out: &mut String, Frame { x, y }: &Frame) {
        for (i, reference) in self.references.iter().enumerate() {
            match reference {
                Reference::Level(level, _) if y.contains(*level) => {
                    line(out, "reference", (x.from, x.to), (y.at(*level), y.at(*level)));
                }
                Reference::At(value, name) if x.contains(*value) => {
                    line(out, "reference", (x.at(*value), x.at(*value)), (y.from, y.to));
                    // On the side with more room, each on a line of its own.
                    let (by, anchor) =
                        if x.at(*value) > (x.from + x.to) / 2.0 { (-5.0, "end") } else { (5.0, "start") };
                    text(out, "tick", (x.at(*value) + by, y.to + 10.0 + LINE_HEIGHT * i as f64), anchor, name);
                }
                _ => {}
            }
        }
    }

    /// A line, its intervals and its dots; or dots alone.
    fn draw_line(&self, out: &mut String, series: &Series, frame: &Frame) {
        let colour = format!("var(--s{})", series.colour);
        let shift = if let Mark::Shifted(pixels) = series.mark { f64::from(pixels) } else { 0.0 };
        let at = |point: &Point| {
            let (x, y) = frame.at(point);
            (x + shift, y)
        };
        let mut path = |class: &str, points: &mut dyn Iterator<Item = Point>| {
            let (mut d, mut drawing) = (String::new(), false);
            for point in points {
                let known = point.y.is_finite();
                if known {
                    let (x, y) = at(&point);
                    let _ = write!(d, "{}{x:.1} {y:.1}", if drawing { "L" } else { "M" });
                }
                drawing = known;
            }
            let _ = write!(out, r#"<path class="{class}" d="{d}" stroke="{colour}"/>"#);
        };
        let mut points = series.points.iter().copied();
        match series.mark {
            Mark::Smoothed if series.points.len() > 2 => {
                path("raw", &mut points);
                path("line", &mut smooth(&series.points));
            }
            Mark::Line | Mark::Shifted(_) | Mark::Smoothed => path("line", &mut points),
            Mark::Thin => path("raw", &mut points),
            Mark::Dots | Mark::Steps | Mark::Forest => {}
        }
        let (radius, opacity, class) = match series.mark {
            Mark::Smoothed => (3.2, 1.0, "dot hidden"),
            Mark::Line if series.points.len() > MAX_LINE_DOTS => (3.2, 1.0, "dot hidden"),
            Mark::Line | Mark::Shifted(_) => (3.2, 1.0, "dot"),
            Mark::Thin => (2.0, 0.45, "dot"),
            _ => (2.8, 0.6, "dot"),
        };
        for point in series.points.iter().filter(|p| p.y.is_finite()) {
            let (cx, cy) = at(point);
            draw_interval(out, "y", cx, point.ends(), &frame.y, &colour);
            let title = self.title(&series.name, point);
            let _ = write!(
                out,
                r#"<circle class="{class}" cx="{cx:.1}" cy="{cy:.1}" r="{radius}" fill="{colour}" fill-opacity="{opacity}"><title>{title}</title></circle>"#
            );
        }
    }

    /// The values of a point, in words.
    fn title(&self, name: &str, point: &Point) -> String {
        let (x, y) = (self.x.value(point.x), self.y.value(point.y));
        let (of_x, of_y) = (interval(finite(point.x_interval), &self.x), interval(point.ends(), &self.y));
        escape(&format!("{name}\n{}: {x}{of_x}\n{}: {y}{of_y}", self.x.label, self.y.label))
    }

    /// The marks of series number `i` in each category.
    fn draw_forest(&self, out: &mut String, series: &Series, i: usize, Frame { x, .. }: &Frame) {
        let (row, own) = (self.row(), self.forest_row());
        let colour = format!("var(--s{})", series.colour);
        for point in series.points.iter().filter(|p| p.x.is_finite()) {
            let category = point.y as usize;
            let middle = TOP + (category as f64 + 0.5) * row + own * (i as f64 + 0.5 - self.series.len() as f64 / 2.0);
            draw_interval(out, "x", middle, point.ends(), x, &colour);
            let name = self.categories.get(category).map_or("", String::as_str);
            let values = interval(point.ends(), &self.x);
            let title = format!("{}\n{name}\n{}: {}{values}", series.name, self.x.label, self.x.value(point.x));
            let _ = write!(
                out,
                r#"<circle class="dot" cx="{:.1}" cy="{middle:.1}" r="{:.1}" fill="{colour}"><title>{}</title></circle>"#,
                x.at(point.x),
                (own / 2.0).clamp(2.4, 4.0),
                escape(&title)
            );
        }
    }

    /// Single points with their names and intervals. Names are moved apart where they would overlap.
    fn draw_named(&self, out: &mut String, frame: &Frame) {
        let known = || self.named.iter().filter(|one| one.point.x.is_finite() && one.point.y.is_finite());
        // Left, right and baseline of what no name may cover: the points, and the names drawn so far.
        let points = known().map(|one| frame.at(&one.point));
        let mut taken: Vec<(f64, f64, f64)> = points.map(|(x, y)| (x - 6.0, x + 6.0, y + 4.5)).collect();
        for one in known() {
            let (cx, cy) = frame.at(&one.point);
            let width = LETTER * one.name.chars().count() as f64;
            let free = |(left, at): &(f64, f64)| {
                let covers =
                    |(l, r, y): &(f64, f64, f64)| *left < *r && *l < left + width && (at - y).abs() < LINE_HEIGHT - 2.0;
                *left >= frame.x.from && left + width <= WIDTH && !taken.iter().any(covers)
            };
            // On the right or the left, above the point or below it, or further away.
            let places = (0..12).flat_map(|n| {
                let (above, below) = (cy - 7.0 - LINE_HEIGHT * f64::from(n), cy + LINE_HEIGHT * f64::from(n + 1));
                let (right, left) = (cx + 9.0, cx - 9.0 - width);
                [(right, above), (right, below), (left, above), (left, below)]
            });
            let (left, at) = places.into_iter().find(free).unwrap_or((cx + 9.0, cy));
            taken.push((left, left + width, at));
            let colour = one.colour.map(|colour| format!("var(--s{colour})"));
            let stroke = colour.as_deref().unwrap_or("var(--ink)");
            draw_interval(out, "x", cy, finite(one.point.x_interval), &frame.x, stroke);
            draw_interval(out, "y", cx, one.point.ends(), &frame.y, stroke);
            let (class, fill) = if colour.is_some() { ("dot", stroke) } else { ("base", "var(--card)") };
            let title = self.title(&one.name, &one.point);
            let _ = write!(
                out,
                r#"<circle class="{class}" cx="{cx:.1}" cy="{cy:.1}" r="5" fill="{fill}"><title>{title}</title></circle>"#
            );
            // Towards its point, whatever its true width.
            let (x, anchor) = if left > cx { (left, "start") } else { (left + width, "end") };
            let _ = write!(
                out,
                r#"<text class="end" x="{x:.1}" y="{at:.1}" text-anchor="{anchor}" fill="{stroke}">{}</text>"#,
                escape(&one.name)
            );
        }
    }

    /// The names of lines and of the reference at the right end, moved apart where they would overlap.
    fn draw_end_labels(&self, out: &mut String, series: &[&Series], frame: &Frame) {
        // Middle, lines, colour.
        let mut labels: Vec<(f64, Vec<String>, String)> = Vec::new();
        for one in series {
            let mean = smooth(&one.points).filter(|p| one.mark == Mark::Smoothed && p.y.is_finite()).last();
            if let Some(last) = mean.or_else(|| one.points.iter().rfind(|p| p.y.is_finite()).copied()) {
                labels.push((frame.y.clamped(last.y), wrapped(&one.name), format!("var(--s{})", one.colour)));
            }
        }
        for reference in &self.references {
            match reference {
                Reference::Level(level, name) if frame.y.contains(*level) => {
                    labels.push((frame.y.at(*level), wrapped(name), "var(--muted)".into()));
                }
                _ => {}
            }
        }
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let half = |lines: &[String]| LINE_HEIGHT * lines.len() as f64 / 2.0;
        for i in 1..labels.len() {
            labels[i].0 = labels[i].0.max(labels[i - 1].0 + half(&labels[i - 1].1) + half(&labels[i].1));
        }
        let mut limit = frame.y.from + LINE_HEIGHT / 2.0;
        for (at, lines, _) in labels.iter_mut().rev() {
            *at = at.min(limit - half(lines));
            limit = *at - half(lines);
        }
        for (at, lines, colour) in labels {
            let fill = format!(r#"fill="{colour}""#);
            lines_of_text(out, r#"class="end""#, (frame.x.to + 9.0, at), &lines, &fill);
        }
    }
}

/// A line from one end of an interval to the other, along the axis of this letter, at `across` on the other.
fn draw_interval(out: &mut String, axis: &str, across: f64, ends: Option<(f64, f64)>, scale: &Scale, colour: &str) {
    let Some((low, high)) = ends else { return };
    let other = if axis == "x" { "y" } else { "x" };
    let (low, high) = (scale.clamped(low), scale.clamped(high));
    let _ = write!(
        out,
        r#"<line class="interval" {other}1="{across:.1}" {other}2="{across:.1}" {axis}1="{low:.1}" {axis}2="{high:.1}" stroke="{colour}"/>"#
    );
}

/// Text in lines about the middle `y`, an element for each line.
fn lines_of_text(out: &mut String, attributes: &str, (x, y): (f64, f64), lines: &[String], fill: &str) {
    let first = y - LINE_HEIGHT * (lines.len() as f64 - 1.0) / 2.0 + 4.5;
    for (i, line) in lines.iter().enumerate() {
        let at = first + LINE_HEIGHT * i as f64;
        let _ = write!(out, r#"<text {attributes} x="{x:.1}" y="{at:.1}" {fill}>{}</text>"#, escape(line));
    }
}

/// A name in lines of at most [`NAME_WIDTH`] letters, broken after a mark where there is one.
fn wrapped(name: &str) -> Vec<String> {
    let mut rest: Vec<char> = name.chars().collect();
    let mut lines = Vec::new();
    while rest.len() > NAME_WIDTH {
        let marks = |c: &char| !c.is_alphanumeric();
        let end = rest[..NAME_WIDTH].iter().rposition(marks).filter(|at| *at >= NAME_WIDTH / 3);
        let tail = rest.split_off(end.map_or(NAME_WIDTH, |at| at + 1));
        lines.push(rest.iter().collect::<String>().trim_end().to_string());
        rest = tail;
    }
    lines.push(rest.into_iter().collect());
    lines
}

fn line(out: &mut String, class: &str, (x1, x2): (f64, f64), (y1, y2): (f64, f64)) {
    let _ = write!(out, r#"<line class="{class}" x1="{x1:.1}" x2="{x2:.1}" y1="{y1:.1}" y2="{y2:.1}"/>"#);
}

fn text(out: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, content: &str) {
    let content = escape(content);
    let _ = write!(out, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{content}</text>"#);
}

fn draw_steps(out: &mut String, series: &Series, frame: &Frame) {
    let mut d = String::new();
    for (i, pair) in series.points.windows(2).enumerate() {
        let ((from, at), (to, _)) = (frame.at(&pair[0]), frame.at(&pair[1]));
        let _ = write!(d, "{}{from:.1} {at:.1}L{to:.1} {at:.1}", if i == 0 { "M" } else { "L" });
    }
    let (colour, name) = (series.colour, escape(&series.name));
    let _ = write!(out, r#"<path class="line" d="{d}" stroke="var(--s{colour})"><title>{name}</title></path>"#);
}

/// An interval behind its value.
fn interval(ends: Option<(f64, f64)>, axis: &Axis) -> String {
    let words = |(low, high)| format!(" (95 % interval {} to {})", axis.value(low), axis.value(high));
    ends.map(words).unwrap_or_default()
}

/// Text for use in SVG.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // HTML and XML allow no other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
