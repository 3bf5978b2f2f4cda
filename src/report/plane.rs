//! Points in a plane of two numbers, or a histogram's outline over one, as inline SVG like the line charts.

use super::chart::{Axis, Point, Series, escape, frame, nice_step, number, percent_tick, range, significant};
use std::fmt::Write;

/// Points of one series that are drawn; of more, so many evenly spread ones.
const MOST_POINTS: usize = 400;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;

/// What is drawn of the points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// A dot each, and the diagonal on which x and y are equal.
    Equal,
    /// A dot each.
    Dots,
    /// Steps from each to the next, the last one's y being the end: the outline of a histogram.
    Steps,
    /// A line through the points in their order, thin unless the series is among the strong ones, with a small dot each.
    Ways,
}

/// A single point with its name beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Name.
    pub name: String,
    /// Position on the x axis.
    pub x: f64,
    /// Position on the y axis.
    pub y: f64,
}

/// A chart of two numeric axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// ExampleLabel of the x axis, with unit.
    pub x_label: String,
    /// ExampleLabel of the y axis, with unit.
    pub y_label: String,
    /// What is drawn.
    pub marks: Marks,
    /// The points. Their intervals are not drawn.
    pub series: Vec<Series>,
    /// For [`Marks::Ways`]: series drawn over the others, with strong lines.
    pub strong: Vec<Series>,
    /// Points with a name, drawn last.
    pub named: Vec<Mark>,
    /// The x axis has shares, written as percentages.
    pub x_percent: bool,
}

impl Plane {
    /// A chart of these series.
    pub fn new(x_label: &str, y_label: &str, marks: Marks, series: Vec<Series>) -> Plane {
        Plane {
            x_label: x_label.into(),
            y_label: y_label.into(),
            marks,
            series,
            strong: Vec::new(),
            named: Vec::new(),
            x_percent: false,
        }
    }

    /// The chart as an `<svg>` element; `None` if there is no finite point.
    pub fn svg(&self) -> Option<String> {
        let all = self.series.iter().chain(&self.strong).flat_map(|s| &s.points).map(|p| (p.x, p.y));
        let all = all.chain(self.named.iter().map(|mark| (mark.x, mark.y)));
        let points: Vec<(f64, f64)> = all.filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        points.first()?;
        let x = axis(points.iter().map(|p| p.0), self.marks == Marks::Steps, (LEFT, WIDTH - RIGHT));
        let y = axis(points.iter().map(|p| p.1), self.marks == Marks::Steps, (HEIGHT - BOTTOM, TOP));
        let mut out = String::new();
        let _ = write!(
            out,
            r#"<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{} over {}">"#,
            escape(&self.y_label),
            escape(&self.x_label)
        );
        self.frame(&mut out, &x, &y);
        if self.marks == Marks::Equal {
            let (low, high) = (x.low.max(y.low), x.high.min(y.high));
            if high > low {
                let _ = write!(
                    out,
                    r#"<line class="reference" x1="{:.1}" x2="{:.1}" y1="{:.1}" y2="{:.1}"/>"#,
                    x.at(low),
                    x.at(high),
                    y.at(low),
                    y.at(high)
                );
            }
        }
        self.series.iter().for_each(|series| self.draw(&mut out, series, false, &x, &y));
        self.strong.iter().for_each(|series| self.draw(&mut out, series, true, &x, &y));
        self.names(&mut out, &x, &y);
        out.push_str("</svg>");
        Some(out)
    }

    fn frame(&self, out: &mut String, x: &Axis, y: &Axis) {
        let x_tick = |tick| if self.x_percent { percent_tick(tick, x.step) } else { number(tick, x.step) };
        frame(out, (x, &self.x_label, &x_tick), (y, &self.y_label, &|tick| number(tick, y.step)));
    }

    fn draw(&self, out: &mut String, series: &Series, strong: bool, x: &Axis, y: &Axis) {
        let colour = format!("var(--s{})", series.colour);
        let points: Vec<_> = series.points.iter().filter(|p| p.x.is_finite() && p.y.is_finite()).collect();
        if self.marks == Marks::Steps {
            let mut d = String::new();
            for (i, pair) in points.windows(2).enumerate() {
                let (from, to, at) = (x.at(pair[0].x), x.at(pair[1].x), y.at(pair[0].y));
                let _ = write!(d, "{}{from:.1} {at:.1}L{to:.1} {at:.1}", if i == 0 { "M" } else { "L" });
            }
            let _ = write!(
                out,
                r#"<path class="line" d="{d}" stroke="{colour}"><title>{}</title></path>"#,
                escape(&series.name)
            );
            return;
        }
        if self.marks == Marks::Ways {
            let place = |(i, p): (usize, &&Point)| {
                format!("{}{:.1} {:.1}", if i == 0 { "M" } else { "L" }, x.at(p.x), y.at(p.y))
            };
            let d: String = points.iter().enumerate().map(place).collect();
            let class = if strong { "line" } else { "raw" };
            let _ = write!(out, r#"<path class="{class}" d="{d}" stroke="{colour}"/>"#);
        }
        let (radius, opacity) = match (self.marks, strong) {
            (Marks::Ways, true) => ("3.4", ".9"),
            (Marks::Ways, false) => ("2", ".45"),
            _ => ("2.8", ".6"),
        };
        let drawn = points.len().min(MOST_POINTS);
        for point in (0..drawn).map(|i| points[i * points.len() / drawn]) {
            let across = if self.x_percent { format!("{:.1} %", 100.0 * point.x) } else { significant(point.x) };
            let title = format!("{}\n{across}, {}", series.name, significant(point.y));
            let _ = write!(
                out,
                r#"<circle cx="{:.1}" cy="{:.1}" r="{radius}" fill="{colour}" fill-opacity="{opacity}"><title>{}</title></circle>"#,
                x.at(point.x),
                y.at(point.y),
                escape(&title)
            );
        }
    }

    fn names(&self, out: &mut String, x: &Axis, y: &Axis) {
        // Where names stand already: left, right, baseline.
        let mut taken: Vec<(f64, f64, f64)> = Vec::new();
        for mark in self.named.iter().filter(|mark| mark.x.is_finite() && mark.y.is_finite()) {
            let (cx, cy) = (x.at(mark.x), y.at(mark.y));
            let name = escape(&mark.name);
            let (left, right) = (cx + 9.0, cx + 9.0 + LETTER * mark.name.chars().count() as f64);
            let free = |at: &f64| !taken.iter().any(|(l, r, y)| left < *r && *l < right && (at - y).abs() < LINE);
            // Above the mark, or below it, or further below.
            let at = (0..).map(|line| if line == 0 { cy - 7.0 } else { cy + LINE * f64::from(line) }).find(free);
            let at = at.unwrap_or(cy);
            taken.push((left, right, at));
            let _ = write!(
                out,
                r#"<circle class="base" cx="{cx:.1}" cy="{cy:.1}" r="5"><title>{name}</title></circle><text class="label" x="{left:.1}" y="{at:.1}">{name}</text>"#,
            );
        }
    }
}

/// Width of a letter and height of a line of a name, in the chart's units, roughly.
const LETTER: f64 = 7.0;
const LINE: f64 = 15.0;

/// Over all values, between whole ticks; from 0 on, or with room where all values are the same.
fn axis(values: impl Iterator<Item = f64>, from_zero: bool, (from, to): (f64, f64)) -> Axis {
    let (mut low, mut high) = range(values);
    if from_zero {
        low = low.min(0.0);
    }
    if high - low <= 1e-12 * high.abs().max(low.abs()) {
        let room = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
        (low, high) = (low - if from_zero { 0.0 } else { room }, high + room);
    }
    let step = nice_step((high - low) / 5.0);
    Axis { low: (low / step + 1e-9).floor() * step, high: (high / step - 1e-9).ceil() * step, from, to, step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(marks: Marks, points: &[(f64, f64)]) -> Plane {
        let point = |&(x, y): &(f64, f64)| Point { x, y, interval: None };
        let series = Series { name: "a<b".into(), colour: 2, points: points.iter().map(point).collect() };
        Plane::new("x", "y", marks, vec![series])
    }

    #[test]
    fn equal_numbers_lie_on_the_diagonal() {
        let svg = plane(Marks::Equal, &[(-1.0, -1.0), (2.0, 2.0), (0.5, f64::NAN)]).svg().unwrap();
        let number = |text: &str, name: &str| -> f64 {
            text.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        let diagonal = svg.split(r#"<line class="reference""#).nth(1).unwrap();
        let (x1, x2, y1, y2) =
            (number(diagonal, "x1"), number(diagonal, "x2"), number(diagonal, "y1"), number(diagonal, "y2"));
        let dots: Vec<_> = svg.split("<circle").skip(1).map(|c| (number(c, "cx"), number(c, "cy"))).collect();
        assert_eq!(dots.len(), 2, "what is not finite is left out");
        for (x, y) in dots {
            assert!(((y - y1) / (y2 - y1) - (x - x1) / (x2 - x1)).abs() < 1e-2, "{svg}");
        }
        assert!(y2 < y1 && svg.contains("a&lt;b") && !svg.contains("NaN"));
    }

    #[test]
    fn an_outline_keeps_each_bins_height_over_its_width() {
        let svg = plane(Marks::Steps, &[(0.0, 0.25), (1.0, 0.75), (2.0, 0.75)]).svg().unwrap();
        let d = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        let numbers: Vec<f64> = d.replace(['M', 'L'], " ").split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 8);
        assert!(numbers[1] == numbers[3] && numbers[5] == numbers[7] && numbers[5] < numbers[1], "{d}");
        assert!(numbers[2] == numbers[4] && numbers[0] < numbers[2] && numbers[4] < numbers[6], "{d}");
    }

    #[test]
    fn ways_are_lines_in_their_order_and_the_strong_ones_lie_on_top() {
        let way = |name: &str, x: f64| Series {
            name: name.into(),
            colour: 0,
            points: [(0.1, 0.0), (x, -5.0), (0.2, -9.0)].map(|(x, y)| Point { x, y, interval: None }).to_vec(),
        };
        let mut plane = Plane::new("x", "y", Marks::Ways, vec![way("thin", 0.4)]);
        plane.strong = vec![way("strong", 0.5)];
        plane.named = vec![Mark { name: "base".into(), x: 0.1, y: 0.0 }];
        plane.x_percent = true;
        let svg = plane.svg().unwrap();
        let at = |text: &str| svg.find(text).unwrap();
        assert!(at(r#"class="raw""#) < at(r#"class="line""#) && at(r#"class="line""#) < at(">base</text>"));
        assert!(svg.contains("50.0 %, -5.000") && svg.contains(">10 %</text>"), "{svg}");
    }

    #[test]
    fn names_of_marks_that_lie_together_do_not_lie_on_each_other() {
        let mut plane = plane(Marks::Dots, &[(0.0, 0.0), (1.0, -5.0)]);
        plane.named = ["first", "second", "third"].map(|name| Mark { name: name.into(), x: 0.01, y: 0.0 }).to_vec();
        plane.named.push(Mark { name: "far".into(), x: 0.9, y: 0.0 });
        let svg = plane.svg().unwrap();
        let at = |name: &str| -> f64 {
            let before = svg.split(&format!(">{name}</text>")).next().unwrap();
            before.rsplit("y=\"").next().unwrap().trim_end_matches('"').parse().unwrap()
        };
        let (a, b, c) = (at("first"), at("second"), at("third"));
        assert!((a - b).abs() >= LINE && (b - c).abs() >= LINE && (a - c).abs() >= LINE, "{a} {b} {c}");
        assert_eq!(at("far"), a);
    }

    #[test]
    fn many_points_are_thinned_and_none_is_no_chart() {
        let many: Vec<(f64, f64)> = (0..5000).map(|i| (f64::from(i), 1.0)).collect();
        let svg = plane(Marks::Dots, &many).svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), MOST_POINTS);
        assert!(!svg.contains("NaN") && !svg.contains("reference"));
        assert_eq!(plane(Marks::Dots, &[(f64::NAN, 1.0)]).svg(), None);
    }
}
