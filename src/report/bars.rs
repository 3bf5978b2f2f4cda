//! Horizontal bars with intervals, in groups: a change per family and run, as inline SVG like the line charts.

use super::chart::{Axis, escape, nice_step, number, range, shortened, significant};
use std::fmt::Write;

/// One bar, from zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Whose it is, for the title.
    pub name: String,
    /// Number of the CSS colour.
    pub colour: usize,
    /// Value; no bar if it is not finite.
    pub value: f64,
    /// Ends of the interval.
    pub interval: (f64, f64),
}

/// Bars that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// Name before the bars.
    pub name: String,
    /// The bars, from top to bottom.
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 640.0;
const LEFT: f64 = 152.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 50.0;
const BAR: f64 = 16.0;
/// Height of a bar with its share of the space between.
const LINE: f64 = 20.0;
/// Space between groups.
const GAP: f64 = 12.0;

/// The chart as an `<svg>` element; `None` if there is no finite value. `label` is that of the axis, with unit.
pub fn svg(groups: &[Bars], label: &str) -> Option<String> {
    let all: Vec<&Bar> = groups.iter().flat_map(|g| &g.bars).filter(|b| b.value.is_finite()).collect();
    if all.is_empty() {
        return None;
    }
    let axis = axis(&all);
    let lines: usize = groups.iter().map(|g| g.bars.len()).sum();
    let bottom = TOP + LINE * lines as f64 + GAP * groups.len() as f64;
    let mut out = String::new();
    let _ = write!(
        out,
        r#"<svg class="chart" viewBox="0 0 {WIDTH} {:.0}" role="img" aria-label="{}">"#,
        bottom + BOTTOM,
        escape(label)
    );
    for tick in axis.ticks() {
        let at = axis.at(tick);
        let class = if tick.abs() < axis.step * 1e-6 { "axis" } else { "grid" };
        let _ = write!(
            out,
            r#"<line class="{class}" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{bottom:.1}"/><text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 18.0,
            number(tick, axis.step)
        );
    }
    let _ = write!(
        out,
        r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        bottom + BOTTOM - 9.0,
        escape(label)
    );
    let mut y = TOP + GAP / 2.0;
    for group in groups {
        let height = LINE * group.bars.len() as f64;
        let _ = write!(
            out,
            r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 10.0,
            y + height / 2.0 + 4.5,
            escape(&shortened(&group.name, 20))
        );
        for (i, bar) in group.bars.iter().enumerate() {
            draw(&mut out, &group.name, bar, y + LINE * i as f64 + (LINE - BAR) / 2.0, &axis);
        }
        y += height + GAP;
    }
    out.push_str("</svg>");
    Some(out)
}

fn axis(all: &[&Bar]) -> Axis {
    let ends = all.iter().flat_map(|bar| [bar.value, bar.interval.0, bar.interval.1]);
    let (low, high) = range(ends.filter(|v| v.is_finite()).chain([0.0]));
    let step = nice_step(((high - low) / 5.0).max(1e-9));
    let (mut low, mut high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
    if high <= low {
        // Nothing has changed anywhere.
        return Axis { low: -1.0, high: 1.0, from: LEFT, to: WIDTH - RIGHT, step: 0.5 };
    }
    (low, high) = (low.min(0.0), high.max(0.0));
    Axis { low, high, from: LEFT, to: WIDTH - RIGHT, step }
}

fn draw(out: &mut String, group: &str, bar: &Bar, y: f64, axis: &Axis) {
    if !bar.value.is_finite() {
        return;
    }
    let colour = format!("var(--s{})", bar.colour);
    let (zero, end) = (axis.at(0.0), axis.at(bar.value));
    let mut title = format!("{group}\n{}: {}", bar.name, significant(bar.value));
    let (low, high) = bar.interval;
    let known = low.is_finite() && high.is_finite();
    if known {
        let _ = write!(title, "\n95 % interval {} to {}", significant(low), significant(high));
    }
    // A bar of no length still shows whose it is.
    let _ = write!(
        out,
        r#"<g class="dot"><rect x="{:.1}" y="{y:.1}" width="{:.1}" height="{BAR}" rx="2" fill="{colour}" fill-opacity=".75"><title>{}</title></rect></g>"#,
        zero.min(end) - 0.75,
        (end - zero).abs() + 1.5,
        escape(&title)
    );
    if known {
        let middle = y + BAR / 2.0;
        let _ = write!(
            out,
            r#"<line class="whisker" x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}"/>"#,
            axis.at(low),
            axis.at(high)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: f64, low: f64, high: f64) -> Bar {
        Bar { name: "a<b".into(), colour: 1, value, interval: (low, high) }
    }

    /// `(x, width)` of each bar.
    fn drawn(svg: &str) -> Vec<(f64, f64)> {
        let number = |text: &str, name: &str| -> f64 {
            text.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        svg.split("<rect").skip(1).map(|r| (number(r, " x"), number(r, "width"))).collect()
    }

    #[test]
    fn bars_go_from_zero_to_their_value_and_intervals_are_drawn_in() {
        let groups = [
            Bars { name: "grounding".into(), bars: vec![bar(-20.0, -25.0, -15.0), bar(-10.0, -12.0, -8.0)] },
            Bars { name: "OCR".into(), bars: vec![bar(5.0, 1.0, 9.0), bar(f64::NAN, 0.0, 0.0)] },
        ];
        let svg = svg(&groups, "change (points)").unwrap();
        let bars = drawn(&svg);
        assert_eq!(bars.len(), 3, "no bar for what is unknown");
        assert!((bars[0].1 - 1.5 - 2.0 * (bars[1].1 - 1.5)).abs() < 0.2, "twice as long: {bars:?}");
        assert!(bars[2].0 > bars[0].0 + bars[0].1 - 2.0, "gains on the other side: {bars:?}");
        assert_eq!(svg.matches("whisker").count(), 3);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b") && !svg.contains("NaN"));
    }

    #[test]
    fn no_change_at_all_is_a_chart_and_no_value_is_none() {
        let still = [Bars { name: "x".into(), bars: vec![bar(0.0, 0.0, 0.0), bar(0.0, f64::NAN, f64::INFINITY)] }];
        let drawing = svg(&still, "change").unwrap();
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
        assert_eq!(svg(&[Bars { name: "x".into(), bars: vec![bar(f64::NAN, 0.0, 0.0)] }], "change"), None);
        assert_eq!(svg(&[], "change"), None);
    }
}
