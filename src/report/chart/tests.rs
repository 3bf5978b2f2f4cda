//! Charts of a few values: what is drawn, and where.

use super::series::{LINE_POINTS, MAX_DOTS};
use super::*;

fn series(mark: Mark, points: &[(f64, f64)]) -> Series {
    Series { name: "a<b".into(), colour: 2, mark, points: points.iter().map(|&(x, y)| Point::new(x, y)).collect() }
}

fn chart(mark: Mark, points: &[(f64, f64)]) -> Chart {
    Chart::new(Axis::new("x"), Axis::new("loss (nats)"), vec![series(mark, points)])
}

fn over_steps(mark: Mark, values: &[f64]) -> Chart {
    let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(i, &y)| (i as f64, y)).collect();
    Chart { x: Axis::steps(), ..chart(mark, &points) }
}

fn forest(name: &str, values: &[(f64, f64, f64)]) -> Series {
    let point = |(i, &(x, low, high)): (usize, &(f64, f64, f64))| Point::new(x, i as f64).with(Some((low, high)));
    Series { name: name.into(), colour: 1, mark: Mark::Forest, points: values.iter().enumerate().map(point).collect() }
}

/// The attribute of this name in the first element of `text`.
fn number(text: &str, name: &str) -> f64 {
    text.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
}

fn elements<'s>(svg: &'s str, begin: &'s str) -> impl Iterator<Item = &'s str> {
    svg.split(begin).skip(1)
}

#[test]
fn values_that_are_not_finite_leave_gaps_and_never_reach_the_page() {
    let svg = over_steps(Mark::Line, &[1.0, f64::NAN, 2.0, f64::INFINITY, 3.0, 4.0]).svg().unwrap();
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    let line = elements(&svg, r#"class="line" d=""#).next().unwrap().split('"').next().unwrap();
    assert_eq!((line.matches('M').count(), line.matches('L').count()), (3, 1), "{line}");
    for mark in [Mark::Line, Mark::Smoothed, Mark::Thin, Mark::Dots, Mark::Steps, Mark::Forest] {
        assert_eq!(over_steps(mark, &[f64::NAN]).svg(), None);
        assert_eq!(over_steps(mark, &[]).svg(), None);
    }
    let noisy = over_steps(Mark::Smoothed, &[f64::NAN, f64::NAN, f64::NAN, 1.0, 1.0]);
    assert!(!noisy.svg().unwrap().contains("NaN"));
}

#[test]
fn names_are_escaped() {
    for mark in [Mark::Line, Mark::Thin, Mark::Dots, Mark::Steps] {
        let svg = chart(mark, &[(0.0, 1.0), (1.0, 2.0)]).svg().unwrap();
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"), "{mark:?}: {svg}");
    }
}

#[test]
fn one_value_and_equal_values_have_a_chart() {
    for values in [&[0.0][..], &[3.0], &[2.0, 2.0, 2.0], &[-1.0, -1.0]] {
        for y in [Axis::new("y"), Axis::from_zero("y"), Axis { from_zero: true, ..Axis::percent("y") }] {
            let svg = Chart { y, ..over_steps(Mark::Line, values) }.svg().unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?} {svg}");
        }
    }
}

#[test]
fn many_points_of_a_line_are_averaged_and_many_dots_are_thinned() {
    let values: Vec<f64> = (0..10_000).map(|i| f64::from(i % 2)).collect();
    let mut lines = over_steps(Mark::Line, &values);
    let line = reduced(&lines.series).remove(0);
    assert!(line.points.len() <= LINE_POINTS[1]);
    assert!(line.points.iter().all(|p| (p.y - 0.5).abs() < 0.02));
    assert_eq!(line.points.last().unwrap().x, 9999.0);
    let svg = over_steps(Mark::Dots, &values).svg().unwrap();
    assert_eq!(svg.matches("<circle").count(), MAX_DOTS);
    lines.series = vec![lines.series[0].clone(); 60];
    assert!(lines.svg().unwrap().matches("<circle").count() <= 60 * LINE_POINTS[0], "of many lines each has fewer");
}

#[test]
fn an_axis_of_shares_begins_where_its_values_do() {
    let mut chart = chart(Mark::Line, &[(0.42, 1.0), (0.55, 2.0), (0.51, 3.0)]);
    chart.x = Axis::percent("accuracy");
    let svg = chart.svg().unwrap();
    assert!(svg.contains(">42 %</text>") || svg.contains(">45 %</text>"), "{svg}");
    assert!(!svg.contains(">0 %</text>") && svg.contains("accuracy: 55.0 %"), "{svg}");
}

#[test]
fn many_lines_are_not_named_at_their_ends() {
    let mut chart = over_steps(Mark::Line, &[1.0, 1.0]);
    chart.series = vec![chart.series[0].clone(); MAX_END_LINES + 1];
    chart.references = vec![Reference::Level(1.0, "guessing".into())];
    let svg = chart.svg().unwrap();
    assert_eq!(svg.matches(r#"class="end""#).count(), 1, "the reference");
    assert!(svg.contains(r#"class="chart many""#));
}

#[test]
fn names_at_the_ends_of_lines_do_not_overlap() {
    let mut chart = over_steps(Mark::Line, &[1.0, 1.0]);
    chart.series = (0..5).map(|i| Series { name: format!("run{i}"), ..chart.series[0].clone() }).collect();
    let svg = chart.svg().unwrap();
    let mut at: Vec<f64> = elements(&svg, r#"class="end""#).map(|label| number(label, "y")).collect();
    at.sort_by(f64::total_cmp);
    assert_eq!(at.len(), 5);
    assert!(at.windows(2).all(|w| w[1] - w[0] >= LINE_HEIGHT - 0.11), "{at:?}");
    assert!(*at.last().unwrap() <= HEIGHT - BOTTOM + 5.0);
}

#[test]
fn a_vertical_line_is_on_the_axis_and_named_at_the_top() {
    let mut chart = chart(Mark::Dots, &[(0.2, 0.0), (0.4, -1.0)]);
    chart.references = vec![Reference::At(0.9, "edges".into())];
    let svg = chart.svg().unwrap();
    let at = elements(&svg, r#"<line class="reference""#).next().unwrap();
    assert_eq!(number(at, "x1"), number(at, "x2"));
    assert!(number(at, "x1") <= WIDTH && svg.contains(">edges</text>"), "{svg}");
}

#[test]
fn shifted_lines_stand_beside_each_other() {
    let first = |mark| number(elements(&over_steps(mark, &[1.0, 2.0]).svg().unwrap(), "<circle").next().unwrap(), "cx");
    assert!((first(Mark::Shifted(7)) - first(Mark::Line) - 7.0).abs() < 1e-9);
}

#[test]
fn a_histogram_outline_keeps_the_height_of_each_bin_over_its_width() {
    let svg = chart(Mark::Steps, &[(0.0, 0.25), (1.0, 0.75), (2.0, 0.75)]).svg().unwrap();
    let d = elements(&svg, " d=\"").next().unwrap().split('"').next().unwrap();
    let numbers: Vec<f64> = d.replace(['M', 'L'], " ").split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 8);
    assert!(numbers[1] == numbers[3] && numbers[5] == numbers[7] && numbers[5] < numbers[1], "{d}");
    assert!(numbers[2] == numbers[4] && numbers[0] < numbers[2] && numbers[4] < numbers[6], "{d}");
}

#[test]
fn named_points_lie_over_the_lines_and_their_names_do_not_overlap() {
    let mut chart = chart(Mark::Thin, &[(0.0, 0.0), (1.0, -5.0)]);
    chart.series.push(series(Mark::Line, &[(0.0, 0.0), (0.5, -5.0)]));
    let named = |name: &str, x| NamedPoint { name: name.into(), point: Point::new(x, 0.0), colour: None };
    chart.named = ["first", "second", "third"].map(|name| named(name, 0.01)).to_vec();
    chart.named.push(named("far", 0.7));
    // A name that has no room on the right stands on the left.
    let point = Point { x_interval: Some((0.6, 1.0)), ..Point::new(1.0, -3.0).with(Some((-5.0, -2.0))) };
    chart.named.push(NamedPoint { name: "a regime with a long name".into(), point, colour: Some(3) });
    let svg = chart.svg().unwrap();
    let position = |text: &str| svg.find(text).unwrap();
    assert!(position(r#"class="raw""#) < position(r#"class="line""#));
    assert!(position(r#"class="line""#) < position(">first</text>"));
    let at = |name: &str| {
        let before = svg.split(&format!(">{name}</text>")).next().unwrap();
        number(before.rsplit("<text").next().unwrap(), "y")
    };
    let (a, b, c) = (at("first"), at("second"), at("third"));
    assert!(
        (a - b).abs() >= LINE_HEIGHT && (b - c).abs() >= LINE_HEIGHT && (a - c).abs() >= LINE_HEIGHT,
        "{a} {b} {c}"
    );
    assert_eq!(at("far"), a);
    let last = &svg[svg.rfind("<circle").unwrap()..];
    assert!(last.contains("x: 1.000 (95 % interval 0.6000 to 1.000)\nloss (nats): -3.000 (95 % interval"), "{last}");
    assert!(last.contains(r#"text-anchor="end" fill="var(--s3)""#), "{last}");
    assert_eq!(svg.matches(r#"class="interval""#).count(), 2, "in both directions");
}

#[test]
fn names_are_drawn_in_full_in_lines_that_fit() {
    assert_eq!(wrapped("sft-bare-same-puzzles"), ["sft-bare-same-", "puzzles"]);
    assert_eq!(wrapped("sixteen-letters."), ["sixteen-letters."]);
    assert_eq!(wrapped(&"x".repeat(20)), ["x".repeat(16), "x".repeat(4)]);
    let mut chart = over_steps(Mark::Line, &[1.0, 2.0]);
    chart.series[0].name = "sft-rea-grpo-rollout".into();
    let svg = chart.svg().unwrap();
    let at: Vec<f64> = elements(&svg, r#"class="end""#).map(|label| number(label, "x")).collect();
    assert!(svg.contains(">sft-rea-grpo-</text>") && svg.contains(">rollout</text>") && at[0] == at[1], "{svg}");
    assert!(at[0] + LETTER * 13.0 <= WIDTH, "within the chart");
}

#[test]
fn a_forest_plot_has_a_mark_with_its_interval_in_each_category() {
    let first = forest("a<b", &[(-20.0, -25.0, -15.0), (5.0, 1.0, 9.0)]);
    let second = forest("c", &[(-10.0, -12.0, -8.0), (f64::NAN, 0.0, 0.0)]);
    let categories = vec!["grounding".into(), "OCR".into()];
    let svg = Chart::forest(Axis::from_zero("lost (points)"), categories, vec![first, second]).svg().unwrap();
    let dots: Vec<(f64, f64)> = elements(&svg, "<circle").map(|r| (number(r, "cx"), number(r, "cy"))).collect();
    assert_eq!(dots.len(), 3, "none for an unknown value");
    assert!(dots[0].0 < dots[2].0 && dots[2].0 < dots[1].0, "{dots:?}");
    assert!(dots[0].1 < dots[2].1 && dots[2].1 < dots[1].1, "by category, then by series: {dots:?}");
    let ends: Vec<(f64, f64)> =
        elements(&svg, r#"class="interval""#).map(|one| (number(one, "x1"), number(one, "x2"))).collect();
    assert_eq!(ends.len(), 3);
    assert!(
        ends.iter().zip([dots[0], dots[1], dots[2]]).all(|((low, high), (x, _))| *low < x && x < *high),
        "{ends:?}"
    );
    assert!(svg.contains("a&lt;b\ngrounding\nlost (points): -20.00 (95 % interval -25.00 to -15.00)"), "{svg}");
    assert!(!svg.contains("a<b") && !svg.contains("NaN"));
}

#[test]
fn a_forest_plot_without_any_change_is_a_chart() {
    let still = forest("x", &[(0.0, 0.0, 0.0), (0.0, f64::NAN, f64::INFINITY)]);
    let svg = Chart::forest(Axis::from_zero("change"), vec!["a".into(), "b".into()], vec![still]).svg().unwrap();
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}
