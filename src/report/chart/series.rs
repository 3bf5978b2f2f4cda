//! What a chart draws: points, and series of them with no more points than can be seen.

/// Points of a line that are drawn, the fewest where there are many lines and the most; more are averaged in bins.
pub(super) const LINE_POINTS: [usize; 2] = [64, 240];
/// Points of all lines of a chart that are drawn, if that leaves each its fewest.
const MAX_POINTS: usize = 2400;
/// Dots of a series that are drawn: of more, so many evenly spread ones.
pub(super) const MAX_DOTS: usize = 400;
/// A moving mean goes over this share of the points.
const SMOOTHING: usize = 20;

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Position on the x axis.
    pub x: f64,
    /// Position on the y axis; in a forest plot, the number of its category.
    pub y: f64,
    /// Ends of the interval of the value: y, or x in a forest plot.
    pub interval: Option<(f64, f64)>,
    /// Ends of the interval of x, where both are values.
    pub x_interval: Option<(f64, f64)>,
}

impl Point {
    /// A point without an interval.
    pub fn new(x: f64, y: f64) -> Point {
        Point { x, y, interval: None, x_interval: None }
    }

    /// With the interval of its value.
    pub fn with(self, interval: Option<(f64, f64)>) -> Point {
        Point { interval, ..self }
    }

    pub(super) fn ends(&self) -> Option<(f64, f64)> {
        finite(self.interval)
    }
}

/// An interval whose ends are both known.
pub(super) fn finite(interval: Option<(f64, f64)>) -> Option<(f64, f64)> {
    interval.filter(|(low, high)| low.is_finite() && high.is_finite())
}

/// A point with its name beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedPoint {
    /// Name.
    pub name: String,
    /// Where it is, with intervals in both directions.
    pub point: Point,
    /// Number of the CSS colour; `None` for the base, which is hollow.
    pub colour: Option<usize>,
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
    /// A dot for each point.
    Dots,
    /// The outline of a histogram: each point's y up to the next point's x. The last point is only an end.
    Steps,
    /// A dot with its horizontal interval at each point's x, in the category that its y numbers.
    Forest,
}

impl Mark {
    /// A line with its name at the end.
    pub(super) fn is_named_line(self) -> bool {
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

/// The series that have points, each with no more points than a reader can see: means of consecutive ones for a line, some of them for dots. The
/// lines of a chart share its points.
pub(super) fn reduced(all: &[Series]) -> Vec<Series> {
    let lines = all.iter().filter(|series| series.mark.is_named_line()).count().max(1);
    let most = (MAX_POINTS / lines).clamp(LINE_POINTS[0], LINE_POINTS[1]);
    all.iter().map(|series| with_at_most(series, most)).filter(|series| !series.points.is_empty()).collect()
}

fn with_at_most(series: &Series, most: usize) -> Series {
    let known = |p: &Point| p.x.is_finite() && (p.y.is_finite() || series.mark.is_named_line());
    let points: Vec<Point> = series.points.iter().copied().filter(known).collect();
    let points = match series.mark {
        mark if mark.is_named_line() => points.chunks(points.len().div_ceil(most).max(1)).map(mean_point).collect(),
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
pub(super) fn smooth(points: &[Point]) -> impl Iterator<Item = Point> {
    let half = points.len().div_ceil(SMOOTHING).max(1);
    (0..points.len()).map(move |i| {
        let window = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
        Point { y: finite_mean(window), ..points[i] }
    })
}
