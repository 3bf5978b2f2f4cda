//! Charts as inline SVG: lines, dots, histogram outlines and bars, with intervals, over two axes.
//!
//! Colours are CSS variables of the page (`--s0`, `--s1`, ... for the series), so that a chart follows light and dark mode. Hovering over a
//! mark shows its values.

mod axis;

pub use axis::{Axis, significant};

use axis::Scale;
use serde::Serialize;
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

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Position on the x axis.
    pub x: f64,
    /// Position on the y axis; of a bar, the number of its category.
    pub y: f64,
    /// Ends of the interval of the value: y, or x of a bar.
    pub interval: Option<(f64, f64)>,
}

impl Point {
    /// A point without an interval.
    pub fn new(x: f64, y: f64) -> Point {
        Point { x, y, interval: None }
    }

    fn ends(&self) -> Option<(f64, f64)> {
        self.interval.filter(|(low, high)| low.is_finite() && high.is_finite())
    }
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line with a dot at each point and its name at the end. A value that is not finite leaves a gap.
    Line,
    /// The same, moved to the right by so many pixels, so that intervals of several lines at the same x stand beside each other.
    Shifted(i16),
    /// The moving mean of noisy values with its name at the end; the values themselves lie faintly below it.
    Smoothed,
    /// A thin line with small dots, without a name.
    Thin,
    /// A thick line with dots, without a name.
    Thick,
    /// A dot for each point.
    Dots,
    /// The outline of a histogram: each point's y up to the next point's x. The last point is only an end.
    Steps,
    /// A horizontal bar from zero to each point's x, in the category that its y numbers.
    Bars,
}

impl Mark {
    /// A line with its name at the end.
    fn is_named_line(self) -> bool {
        matches!(self, Mark::Line | Mark::Shifted(_) | Mark::Smoothed)
    }
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name, for labels and titles.
    pub name: String,
    /// Number of the CSS colour.
    pub colour: usize,
    /// How it is drawn.
    pub mark: Mark,
    /// Lines are drawn in this order.
    pub points: Vec<Point>,
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
    /// Names of the categories of bars, from top to bottom; empty for a chart of two numeric axes.
    pub categories: Vec<String>,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// What to compare with.
    pub references: Vec<Reference>,
    /// Single points with their names beside them, drawn over the series.
    pub named: Vec<(String, Point)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 330.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;
/// Margin on the right, and with names at the ends of lines.
const RIGHT: [f64; 2] = [24.0, 108.0];
/// Margin on the left of a chart of categories.
const CATEGORIES: f64 = 152.0;
/// Rough width of a letter and height of a line of text.
const LETTER: f64 = 7.2;
const LINE_HEIGHT: f64 = 16.0;
/// Height of a bar, of a bar with the space around it, and space between categories.
const BAR: f64 = 16.0;
const BAR_ROW: f64 = 20.0;
const GAP: f64 = 12.0;
/// Points of a line that are drawn; more are averaged in bins.
const MAX_LINE_POINTS: usize = 240;
/// Points of a line that have visible dots.
const MAX_LINE_DOTS: usize = 60;
/// Dots of a series that are drawn: of more, so many evenly spread ones.
const MAX_DOTS: usize = 400;
/// A moving mean goes over this share of the points.
const SMOOTHING: usize = 20;
/// Lines that are named at their ends; the names of more would not fit.
const MAX_END_LABELS: usize = 8;

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

    /// A chart of bars, `series` having a bar in each category.
    pub fn bars(x_label: &str, categories: Vec<String>, series: Vec<Series>) -> Chart {
        Chart { categories, ..Chart::new(Axis::from_zero(x_label), Axis::new(""), series) }
    }

    /// The chart as an `<svg>` element; `None` if no point is finite.
    pub fn svg(&self) -> Option<String> {
        let series: Vec<Series> = self.series.iter().map(reduced).filter(|s| !s.points.is_empty()).collect();
        let all: Vec<Point> =
            series.iter().flat_map(|s| &s.points).chain(self.named.iter().map(|(_, p)| p)).copied().collect();
        let all: Vec<Point> = all.into_iter().filter(|p| p.x.is_finite() && p.y.is_finite()).collect();
        all.first()?;
        let lines = series.iter().filter(|s| s.mark.is_named_line()).count();
        let class = if lines > MAX_END_LABELS { "chart many" } else { "chart" };
        let bars = !self.categories.is_empty();
        let height = if bars { TOP + BOTTOM + self.categories.len() as f64 * self.row() } else { HEIGHT };
        let frame = self.frame(&all, height, lines > 0);
        let label = if bars { self.x.label.clone() } else { format!("{} over {}", self.y.label, self.x.label) };
        let mut out = format!(
            r#"<svg class="{class}" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{}">"#,
            escape(&label)
        );
        // Writing to a string cannot fail.
        if bars {
            self.draw_categories(&mut out, &frame)
        } else {
            self.draw_axes(&mut out, &frame)
        }
        self.draw_references(&mut out, &frame);
        for (i, one) in series.iter().enumerate() {
            match one.mark {
                Mark::Bars => self.draw_bars(&mut out, one, i, &frame),
                Mark::Steps => draw_steps(&mut out, one, &frame),
                _ => self.draw_line(&mut out, one, &frame),
            }
        }
        self.draw_named(&mut out, &frame);
        self.draw_end_labels(&mut out, if lines > MAX_END_LABELS { &[] } else { &series }, &frame);
        out.push_str("</svg>");
        Some(out)
    }

    /// Height of a category.
    fn row(&self) -> f64 {
        BAR_ROW * self.series.len() as f64 + GAP
    }

    fn frame(&self, all: &[Point], height: f64, end_labels: bool) -> Frame {
        let ends = |p: &Point| p.ends().map_or([f64::NAN; 2], |(low, high)| [low, high]);
        let right = WIDTH - RIGHT[usize::from(end_labels)];
        let values = all.iter().map(|p| p.x);
        if !self.categories.is_empty() {
            let mut values: Vec<f64> = values.chain(all.iter().flat_map(ends)).collect();
            if values.iter().all(|value| *value == 0.0 || value.is_nan()) {
                // Nothing has changed anywhere.
                values = vec![-1.0, 1.0];
            }
            let y = Scale { low: 0.0, high: 1.0, step: 1.0, log: false, from: height - BOTTOM, to: TOP };
            return Frame { x: self.x.scale(values.into_iter(), CATEGORIES, right), y };
        }
        let levels = self.references.iter().map(|one| if let Reference::Level(y, _) = one { *y } else { f64::NAN });
        let places = self.references.iter().map(|one| if let Reference::At(x, _) = one { *x } else { f64::NAN });
        let of_y = all.iter().map(|p| p.y).chain(all.iter().flat_map(ends)).chain(levels);
        let y = self.y.scale(of_y, height - BOTTOM, TOP);
        let widest = y.ticks().into_iter().map(|tick| self.y.tick(tick, y.step).chars().count()).max().unwrap_or(0);
        let left = (34.0 + LETTER * widest as f64).max(62.0);
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

    /// Vertical grid lines, the names of the categories, and the label of the axis of bars.
    fn draw_categories(&self, out: &mut String, Frame { x, y }: &Frame) {
        for tick in x.ticks() {
            let at = x.at(tick);
            line(out, if tick.abs() < x.step * 1e-6 { "axis" } else { "grid" }, (at, at), (TOP, y.from));
            text(out, "tick", (at, y.from + 18.0), "middle", &self.x.tick(tick, x.step));
        }
        text(out, "label", ((x.from + x.to) / 2.0, y.from + 41.0), "middle", &self.x.label);
        for (i, name) in self.categories.iter().enumerate() {
            let middle = TOP + (i as f64 + 0.5) * self.row();
            text(out, "label", (CATEGORIES - 10.0, middle + 4.5), "end", &shortened(name, 20));
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
            Mark::Line | Mark::Shifted(_) | Mark::Smoothed | Mark::Thick => path("line", &mut points),
            Mark::Thin => path("raw", &mut points),
            Mark::Dots | Mark::Steps | Mark::Bars => {}
        }
        let (radius, opacity, class) = match series.mark {
            Mark::Smoothed => (3.2, 1.0, "dot hidden"),
            Mark::Line if series.points.len() > MAX_LINE_DOTS => (3.2, 1.0, "dot hidden"),
            Mark::Line | Mark::Shifted(_) => (3.2, 1.0, "dot"),
            Mark::Thick => (3.4, 0.9, "dot"),
            Mark::Thin => (2.0, 0.45, "dot"),
            _ => (2.8, 0.6, "dot"),
        };
        for point in series.points.iter().filter(|p| p.y.is_finite()) {
            let (cx, cy) = at(point);
            if let Some((low, high)) = point.ends() {
                let (top, bottom) = (frame.y.clamped(high), frame.y.clamped(low));
                let _ = write!(
                    out,
                    r#"<line class="interval" x1="{cx:.1}" x2="{cx:.1}" y1="{top:.1}" y2="{bottom:.1}" stroke="{colour}"/>"#
                );
            }
            let (x, y) = (self.x.value(point.x), self.y.value(point.y));
            let values = format!("{}\n{}: {x}\n{}: {y}", series.name, self.x.label, self.y.label);
            let _ = write!(
                out,
                r#"<circle class="{class}" cx="{cx:.1}" cy="{cy:.1}" r="{radius}" fill="{colour}" fill-opacity="{opacity}"><title>{}</title></circle>"#,
                escape(&(values + &interval(point, &self.y)))
            );
        }
    }

    /// The bar of series number `i` in each category.
    fn draw_bars(&self, out: &mut String, series: &Series, i: usize, Frame { x, .. }: &Frame) {
        for point in series.points.iter().filter(|p| p.x.is_finite()) {
            let category = point.y as usize;
            let top = TOP + category as f64 * self.row() + GAP / 2.0 + i as f64 * BAR_ROW + (BAR_ROW - BAR) / 2.0;
            let (zero, end) = (x.at(0.0), x.at(point.x));
            let name = self.categories.get(category).map_or("", String::as_str);
            let values = format!("{name}\n{}: {}", series.name, self.x.value(point.x));
            // A bar of no length still shows whose it is.
            let _ = write!(
                out,
                r#"<rect class="bars" x="{:.1}" y="{top:.1}" width="{:.1}" height="{BAR}" rx="2" fill="var(--s{})"><title>{}</title></rect>"#,
                zero.min(end) - 0.75,
                (end - zero).abs() + 1.5,
                series.colour,
                escape(&(values + &interval(point, &self.x)))
            );
            if let Some((low, high)) = point.ends() {
                let middle = top + BAR / 2.0;
                line(out, "whisker", (x.at(low), x.at(high)), (middle, middle));
            }
        }
    }

    /// Single points with their names, which are moved apart where they would overlap.
    fn draw_named(&self, out: &mut String, frame: &Frame) {
        // Left, right and baseline of the names drawn so far.
        let mut taken: Vec<(f64, f64, f64)> = Vec::new();
        for (name, point) in self.named.iter().filter(|(_, p)| p.x.is_finite() && p.y.is_finite()) {
            let (cx, cy) = frame.at(point);
            let (left, right) = (cx + 9.0, cx + 9.0 + LETTER * name.chars().count() as f64);
            let free =
                |at: &f64| !taken.iter().any(|(l, r, y)| left < *r && *l < right && (at - y).abs() < LINE_HEIGHT);
            // Above the point, or below it, or further below.
            let lines = (0..).map(|n| if n == 0 { cy - 7.0 } else { cy + LINE_HEIGHT * f64::from(n) });
            let at = lines.into_iter().find(free).unwrap_or(cy);
            taken.push((left, right, at));
            let _ = write!(out, r#"<circle class="base" cx="{cx:.1}" cy="{cy:.1}" r="5"/>"#);
            text(out, "label", (left, at), "start", name);
        }
    }

    /// The names of lines and of the reference at the right end, moved apart where they would overlap.
    fn draw_end_labels(&self, out: &mut String, series: &[Series], frame: &Frame) {
        let mut labels: Vec<(f64, &str, String, String)> = Vec::new();
        for one in series.iter().filter(|s| s.mark.is_named_line()) {
            let mean = smooth(&one.points).filter(|p| one.mark == Mark::Smoothed && p.y.is_finite()).last();
            if let Some(last) = mean.or_else(|| one.points.iter().rfind(|p| p.y.is_finite()).copied()) {
                labels.push((frame.y.clamped(last.y), &one.name, one.name.clone(), format!("var(--s{})", one.colour)));
            }
        }
        for reference in &self.references {
            let Reference::Level(level, name) = reference else { continue };
            if !frame.y.contains(*level) {
                continue;
            }
            let title = format!("{name}: {}", self.y.value(*level));
            labels.push((frame.y.at(*level), name, title, "var(--muted)".into()));
        }
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        for i in 1..labels.len() {
            labels[i].0 = labels[i].0.max(labels[i - 1].0 + LINE_HEIGHT);
        }
        let mut limit = frame.y.from;
        for (at, ..) in labels.iter_mut().rev() {
            *at = at.min(limit);
            limit = *at - LINE_HEIGHT;
        }
        for (at, name, title, colour) in labels {
            let _ = write!(
                out,
                r#"<text class="end" x="{:.1}" y="{:.1}" fill="{colour}">{}<title>{}</title></text>"#,
                frame.x.to + 9.0,
                at + 4.5,
                escape(&shortened(name, 14)),
                escape(&title)
            );
        }
    }
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

/// The interval of a point's value as the last line of its title.
fn interval(point: &Point, axis: &Axis) -> String {
    let words = |(low, high)| format!("\n95 % interval {} to {}", axis.value(low), axis.value(high));
    point.ends().map(words).unwrap_or_default()
}

/// A series with as many points as can be told apart: means of consecutive ones for a line, some of them for dots.
fn reduced(series: &Series) -> Series {
    let known = |p: &Point| p.x.is_finite() && (p.y.is_finite() || series.mark.is_named_line());
    let points: Vec<Point> = series.points.iter().copied().filter(known).collect();
    let points = match series.mark {
        mark if mark.is_named_line() => {
            points.chunks(points.len().div_ceil(MAX_LINE_POINTS).max(1)).map(mean_point).collect()
        }
        Mark::Dots => {
            let drawn = points.len().min(MAX_DOTS);
            (0..drawn).map(|i| points[i * points.len() / drawn]).collect()
        }
        _ => points,
    };
    Series { points, ..series.clone() }
}

/// The mean of a bin, at the x of its last point.
fn mean_point(bin: &[Point]) -> Point {
    if let [only] = bin {
        return *only;
    }
    Point::new(bin[bin.len() - 1].x, finite_mean(bin))
}

/// Mean of the finite y; NaN of none.
fn finite_mean(points: &[Point]) -> f64 {
    let finite = || points.iter().map(|p| p.y).filter(|y| y.is_finite());
    finite().sum::<f64>() / finite().count() as f64
}

/// Centred moving mean over the finite values.
fn smooth(points: &[Point]) -> impl Iterator<Item = Point> {
    let half = points.len().div_ceil(SMOOTHING).max(1);
    (0..points.len()).map(move |i| {
        let window = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
        Point { y: finite_mean(window), ..points[i] }
    })
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most - 1).chain(['\u{2026}']).collect()
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
