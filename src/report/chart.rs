//! Line charts as inline SVG. Colours are CSS variables of the page (`--s0`, `--s1`, ... for the series), so that a chart
//! follows light and dark with it; every point has a title to hover over.

use std::fmt::Write;

/// One observation; `interval` is drawn as a bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Position, in the unit of the x axis.
    pub x: f64,
    /// Value; a gap in the line if it is not finite.
    pub y: f64,
    /// Lower and upper end of the value's interval.
    pub interval: Option<(f64, f64)>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name at the end of the line and in titles.
    pub name: String,
    /// Number of the CSS colour.
    pub colour: usize,
    /// In order of x.
    pub points: Vec<Point>,
}

/// A chart of several lines over one x axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// ExampleLabel of the x axis, with unit.
    pub x_label: String,
    /// ExampleLabel of the y axis, with unit.
    pub y_label: String,
    /// The x axis has shares, written as percentages, rather than whole numbers from 0.
    pub x_percent: bool,
    /// The values are shares: written as percentages, the axis within 0 to 100 %.
    pub percent: bool,
    /// The axis begins at zero.
    pub from_zero: bool,
    /// Values of single steps are noisy: they are drawn faintly below their moving mean.
    pub noisy: bool,
    /// A horizontal dashed line and its name.
    pub reference: Option<(f64, String)>,
    /// The lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 108.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;
/// Points drawn of one line; more are averaged in bins.
const MOST_POINTS: usize = 240;
/// The moving mean of a noisy line goes over this share of its points.
const SMOOTHING: usize = 20;
/// Lines that are named at their ends; of more, the names would not fit and the lines are thinner.
const NAMED_LINES: usize = 8;
/// Height of an end label.
const LINE_HEIGHT: f64 = 17.0;

/// A range of values and the pixels they go to.
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
    pub step: f64,
}

impl Axis {
    pub fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    pub fn ticks(&self) -> impl Iterator<Item = f64> {
        let (first, last) = ((self.low / self.step - 1e-9).ceil(), (self.high / self.step + 1e-9).floor());
        let step = self.step;
        (0..=(last - first).clamp(0.0, 50.0) as usize).map(move |i| (first + i as f64) * step)
    }
}

impl Chart {
    /// The chart as an `<svg>` element; `None` if no series has a finite value.
    pub fn svg(&self) -> Option<String> {
        let series: Vec<Series> = self.series.iter().map(binned).filter(|s| !s.points.is_empty()).collect();
        let finite = |s: &Series| s.points.iter().filter(|p| p.y.is_finite()).copied().collect::<Vec<_>>();
        let all: Vec<Point> = series.iter().flat_map(finite).collect();
        if all.is_empty() {
            return None;
        }
        let (x, y) = (self.x_axis(&all), self.y_axis(&all));
        let mut out = String::new();
        let _ = write!(
            out,
            r#"<svg class="{}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{} over {}">"#,
            if series.len() > NAMED_LINES { "chart many" } else { "chart" },
            escape(&self.y_label),
            escape(&self.x_label)
        );
        self.frame(&mut out, &x, &y);
        if let Some((value, name)) =
            self.reference.as_ref().filter(|(v, _)| v.is_finite() && *v >= y.low && *v <= y.high)
        {
            let at = y.at(*value);
            let _ = write!(
                out,
                r#"<line class="reference" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"><title>{}: {}</title></line>"#,
                WIDTH - RIGHT,
                escape(name),
                self.value(*value)
            );
        }
        for one in &series {
            self.line(&mut out, one, &x, &y);
        }
        self.labels(&mut out, &series, &y);
        out.push_str("</svg>");
        Some(out)
    }

    fn x_axis(&self, all: &[Point]) -> Axis {
        let (low, mut high) = range(all.iter().map(|p| p.x));
        if self.x_percent {
            let step = nice_step(((high - low) / 5.0).max(0.002));
            let (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
            // Room where all points have the same x.
            let room = if high > low { 0.0 } else { step };
            let (low, high) = ((low - room).max(0.0), (high + room).min(1.0));
            return Axis { low, high, from: LEFT, to: WIDTH - RIGHT, step };
        }
        let low = low.min(0.0);
        if high <= low {
            high = low + 1.0;
        }
        // Whole numbers of steps only.
        let step = nice_step((high - low) / 6.0).max(1.0);
        Axis { low, high, from: LEFT, to: WIDTH - RIGHT, step }
    }

    fn y_axis(&self, all: &[Point]) -> Axis {
        let ends = all.iter().flat_map(|p| {
            let (low, high) = p.interval.filter(|(l, h)| l.is_finite() && h.is_finite()).unwrap_or((p.y, p.y));
            [p.y, low, high]
        });
        let reference = self.reference.iter().map(|(v, _)| *v).filter(|v| v.is_finite());
        let (mut low, mut high) = range(ends.chain(reference));
        if self.from_zero {
            low = low.min(0.0);
            high = high.max(0.0);
        }
        if high - low <= 1e-12 * high.abs().max(low.abs()) {
            let room = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
            (low, high) = if self.from_zero && low == 0.0 { (0.0, high + room) } else { (low - room, high + room) };
        }
        let step = nice_step((high - low) / 4.5);
        low = (low / step + 1e-9).floor() * step;
        high = (high / step - 1e-9).ceil() * step;
        if self.percent {
            (low, high) = (low.max(0.0), high.min(1.0));
            if high <= low {
                (low, high) = (0.0, 1.0);
            }
        }
        Axis { low, high, from: HEIGHT - BOTTOM, to: TOP, step }
    }

    fn frame(&self, out: &mut String, x: &Axis, y: &Axis) {
        let x_tick = |tick| if self.x_percent { percent_tick(tick, x.step) } else { number(tick, x.step) };
        frame(out, (x, &self.x_label, &x_tick), (y, &self.y_label, &|tick| self.tick(tick, y.step)));
    }

    fn line(&self, out: &mut String, series: &Series, x: &Axis, y: &Axis) {
        let colour = format!("var(--s{})", series.colour);
        let place = |p: &Point| (x.at(p.x), y.at(p.y.clamp(y.low, y.high)));
        if self.noisy && series.points.len() > 2 {
            let (raw, mean) = (path(series.points.iter().copied(), place), path(smooth(&series.points), place));
            let _ = write!(
                out,
                r#"<path class="raw" d="{raw}" stroke="{colour}"/><path class="line" d="{mean}" stroke="{colour}"/>"#
            );
        } else {
            let d = path(series.points.iter().copied(), place);
            let _ = write!(out, r#"<path class="line" d="{d}" stroke="{colour}"/>"#);
        }
        for point in series.points.iter().filter(|p| p.y.is_finite()) {
            let (cx, cy) = place(point);
            let mut title =
                format!("{}\n{} {}: {}", series.name, self.x_label, self.x_value(point.x), self.value(point.y));
            if let Some((low, high)) = point.interval.filter(|(l, h)| l.is_finite() && h.is_finite()) {
                let (top, bottom) = (y.at(high.clamp(y.low, y.high)), y.at(low.clamp(y.low, y.high)));
                let _ = write!(
                    out,
                    r#"<line class="interval" x1="{cx:.1}" x2="{cx:.1}" y1="{top:.1}" y2="{bottom:.1}" stroke="{colour}"/>"#
                );
                let _ = write!(title, "\n95 % interval {} to {}", self.value(low), self.value(high));
            }
            let dots = !self.noisy && series.points.len() <= 60;
            let class = if dots { "dot" } else { "dot hidden" };
            let _ = write!(
                out,
                r#"<g class="{class}"><circle cx="{cx:.1}" cy="{cy:.1}" r="3.2" fill="{colour}"/><circle class="target" cx="{cx:.1}" cy="{cy:.1}" r="9"><title>{}</title></circle></g>"#,
                escape(&title)
            );
        }
    }

    /// Names at the ends of the lines, moved apart where they would overlap.
    fn labels(&self, out: &mut String, series: &[Series], y: &Axis) {
        let mut labels: Vec<(f64, &str, String)> = Vec::new();
        for one in series.iter().filter(|_| series.len() <= NAMED_LINES) {
            let last = if self.noisy { smooth(&one.points).filter(|p| p.y.is_finite()).last() } else { None };
            if let Some(last) = last.or_else(|| one.points.iter().rfind(|p| p.y.is_finite()).copied()) {
                labels.push((y.at(last.y.clamp(y.low, y.high)), &one.name, format!("var(--s{})", one.colour)));
            }
        }
        if let Some((value, name)) =
            self.reference.as_ref().filter(|(v, _)| v.is_finite() && *v >= y.low && *v <= y.high)
        {
            labels.push((y.at(*value), name, "var(--muted)".into()));
        }
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        for i in 1..labels.len() {
            labels[i].0 = labels[i].0.max(labels[i - 1].0 + LINE_HEIGHT);
        }
        let mut limit = HEIGHT - BOTTOM;
        for label in labels.iter_mut().rev() {
            label.0 = label.0.min(limit);
            limit = label.0 - LINE_HEIGHT;
        }
        for (at, name, colour) in labels {
            let _ = write!(
                out,
                r#"<text class="end" x="{:.1}" y="{:.1}" fill="{colour}">{}</text>"#,
                WIDTH - RIGHT + 9.0,
                at + 4.5,
                escape(&shortened(name, 14))
            );
        }
    }

    fn tick(&self, value: f64, step: f64) -> String {
        if self.percent { percent_tick(value, step) } else { number(value, step) }
    }

    fn x_value(&self, x: f64) -> String {
        if self.x_percent { format!("{:.1} %", x * 100.0) } else { number(x, 1.0) }
    }

    fn value(&self, value: f64) -> String {
        if self.percent { format!("{:.1} %", value * 100.0) } else { significant(value) }
    }
}

pub(super) fn percent_tick(value: f64, step: f64) -> String {
    format!("{} %", number(value * 100.0, step * 100.0))
}

/// SVG path data; a value that is not finite lifts the pen.
fn path(points: impl Iterator<Item = Point>, place: impl Fn(&Point) -> (f64, f64)) -> String {
    let (mut d, mut drawing) = (String::new(), false);
    for point in points {
        if !point.y.is_finite() {
            drawing = false;
            continue;
        }
        let (x, y) = place(&point);
        let _ = write!(d, "{}{x:.1} {y:.1}", if drawing { "L" } else { "M" });
        drawing = true;
    }
    d
}

/// At most [`MOST_POINTS`] points: means over consecutive ones. Infinite and undefined x are dropped.
fn binned(series: &Series) -> Series {
    let points: Vec<Point> = series.points.iter().copied().filter(|p| p.x.is_finite()).collect();
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |bin: &[Point]| -> Point {
        if let [only] = bin {
            return *only;
        }
        let finite: Vec<&Point> = bin.iter().filter(|p| p.y.is_finite()).collect();
        let y = finite.iter().map(|p| p.y).sum::<f64>() / finite.len() as f64;
        Point { x: bin[bin.len() - 1].x, y, interval: None }
    };
    Series { points: points.chunks(size).map(mean).collect(), ..series.clone() }
}

/// Centred moving mean over the finite values.
fn smooth(points: &[Point]) -> impl Iterator<Item = Point> {
    let half = points.len().div_ceil(SMOOTHING).max(1);
    (0..points.len()).map(move |i| {
        let window = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
        let finite: Vec<f64> = window.iter().map(|p| p.y).filter(|y| y.is_finite()).collect();
        Point { y: finite.iter().sum::<f64>() / finite.len() as f64, ..points[i] }
    })
}

pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// The nearest of 1, 2, 5 x 10^k that is not smaller.
pub(super) fn nice_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * power >= rough * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// Grid lines, the axis below, ticks and names of both axes, each given with its name and the words of its ticks.
pub(super) fn frame(
    out: &mut String,
    (x, x_label, x_tick): (&Axis, &str, &dyn Fn(f64) -> String),
    (y, y_label, y_tick): (&Axis, &str, &dyn Fn(f64) -> String),
) {
    let (left, right, base, top) = (x.from, x.to, y.from, y.to);
    // Writing to a string cannot fail.
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{left}" x2="{right:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 9.0,
            at + 4.5,
            y_tick(tick)
        );
    }
    let _ = write!(out, r#"<line class="axis" x1="{left}" x2="{right:.1}" y1="{base:.1}" y2="{base:.1}"/>"#);
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = write!(
            out,
            r#"<line class="axis" x1="{at:.1}" x2="{at:.1}" y1="{base:.1}" y2="{:.1}"/><text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            base + 5.0,
            base + 20.0,
            x_tick(tick)
        );
    }
    let (middle, centre) = ((left + right) / 2.0, (top + base) / 2.0);
    let _ = write!(
        out,
        r#"<text class="label" x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text><text class="label" transform="translate(15 {centre:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
        base + 41.0,
        escape(x_label),
        escape(y_label)
    );
}

/// A number on an axis whose ticks are `step` apart.
pub(super) fn number(value: f64, step: f64) -> String {
    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let decimals = (-(step * 1.000_001).log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// Four significant digits.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if value.abs() < 1e-3 || value.abs() >= 1e6 {
        return format!("{value:.3e}");
    }
    let decimals = (3 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.decimals$}")
}

pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most - 1).chain(['\u{2026}']).collect()
}

/// Text for use in HTML and SVG.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are no characters of HTML or XML.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart {
        let points = values.iter().enumerate().map(|(i, &y)| Point { x: i as f64, y, interval: None }).collect();
        Chart {
            x_label: "step".into(),
            y_label: "loss (nats)".into(),
            x_percent: false,
            percent: false,
            from_zero: false,
            noisy: false,
            reference: None,
            series: vec![Series { name: "a<b".into(), colour: 0, points }],
        }
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        for (rough, step) in [(0.9, 1.0), (1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (7.0, 10.0), (0.03, 0.05), (210.0, 500.0)]
        {
            assert!((nice_step(rough) - step).abs() < 1e-12 * step, "{rough}");
        }
        assert_eq!(number(0.30000000000000004, 0.1), "0.3");
        assert_eq!(number(-1e-18, 0.1), "0.0");
        assert_eq!(number(2e-5, 1e-5), "2e-5");
        assert_eq!(number(1500.0, 500.0), "1500");
    }

    #[test]
    fn values_that_are_no_numbers_leave_gaps_and_never_reach_the_page() {
        let svg = chart(&[1.0, f64::NAN, 2.0, f64::INFINITY, 3.0, 4.0]).svg().unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let line = svg.split(r#"class="line" d=""#).nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (3, 1), "{line}");
        assert_eq!(chart(&[f64::NAN]).svg(), None);
        assert_eq!(chart(&[]).svg(), None);
        let noisy = Chart { noisy: true, ..chart(&[f64::NAN, f64::NAN, f64::NAN, 1.0, 1.0]) };
        assert!(!noisy.svg().unwrap().contains("NaN"));
    }

    #[test]
    fn names_are_escaped() {
        let svg = chart(&[1.0, 2.0]).svg().unwrap();
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
    }

    #[test]
    fn one_value_and_equal_values_have_a_chart() {
        for values in [&[0.0][..], &[3.0], &[2.0, 2.0, 2.0], &[-1.0, -1.0]] {
            for (percent, from_zero) in [(false, false), (false, true), (true, true)] {
                let svg = Chart { percent, from_zero, ..chart(values) }.svg().unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?} {svg}");
            }
        }
    }

    #[test]
    fn many_points_are_averaged_in_bins() {
        let values: Vec<f64> = (0..10_000).map(|i| f64::from(i % 2)).collect();
        let chart = chart(&values);
        let series = binned(&chart.series[0]);
        assert!(series.points.len() <= MOST_POINTS);
        assert!(series.points.iter().all(|p| (p.y - 0.5).abs() < 0.02));
        assert_eq!(series.points.last().unwrap().x, 9999.0);
    }

    #[test]
    fn a_share_on_the_x_axis_begins_where_its_values_do() {
        let mut chart = Chart { x_percent: true, ..chart(&[1.0, 2.0, 3.0]) };
        for (point, x) in chart.series[0].points.iter_mut().zip([0.42, 0.55, 0.51]) {
            point.x = x;
        }
        let svg = chart.svg().unwrap();
        assert!(svg.contains(">42 %</text>") || svg.contains(">45 %</text>"), "{svg}");
        assert!(!svg.contains(">0 %</text>") && svg.contains("step 55.0 %"), "{svg}");
        chart.series[0].points.iter_mut().for_each(|p| p.x = 1.0);
        assert!(!chart.svg().unwrap().contains("NaN"));
    }

    #[test]
    fn many_lines_are_not_named_at_their_ends() {
        let mut chart = chart(&[1.0, 1.0]);
        chart.series = vec![chart.series[0].clone(); NAMED_LINES + 1];
        chart.reference = Some((1.0, "guessing".into()));
        let svg = chart.svg().unwrap();
        assert_eq!(svg.matches(r#"class="end""#).count(), 1, "the reference");
        assert!(svg.contains(r#"class="chart many""#));
    }

    #[test]
    fn end_labels_do_not_overlap() {
        let mut chart = chart(&[1.0, 1.0]);
        chart.series =
            (0..5).map(|i| Series { colour: i, name: format!("run{i}"), ..chart.series[0].clone() }).collect();
        let svg = chart.svg().unwrap();
        let mut at: Vec<f64> = svg
            .split(r#"class="end""#)
            .skip(1)
            .map(|s| s.split(r#" y=""#).nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        at.sort_by(f64::total_cmp);
        assert_eq!(at.len(), 5);
        assert!(at.windows(2).all(|w| w[1] - w[0] >= LINE_HEIGHT - 0.11), "{at:?}");
        assert!(*at.last().unwrap() <= HEIGHT - BOTTOM + 5.0);
    }
}
