//! Axes of a chart: the range of the values, round ticks, and how numbers are written.

/// What an axis shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Name of the quantity, with its unit.
    pub label: String,
    /// The values are shares: written as percentages, within 0 to 100 %.
    pub percent: bool,
    /// Zero is on the axis.
    pub from_zero: bool,
    /// The values are whole numbers, such as optimizer steps.
    pub whole: bool,
    /// Equal distances are equal ratios; all values are above zero.
    pub log: bool,
    /// The values are percentage points: written with one decimal.
    pub points: bool,
}

impl Axis {
    /// An axis over the range of its values.
    pub fn new(label: &str) -> Axis {
        Axis { label: label.into(), percent: false, from_zero: false, whole: false, log: false, points: false }
    }

    /// An axis of shares.
    pub fn percent(label: &str) -> Axis {
        Axis { percent: true, ..Axis::new(label) }
    }

    /// An axis that includes zero.
    pub fn from_zero(label: &str) -> Axis {
        Axis { from_zero: true, ..Axis::new(label) }
    }

    /// An axis of percentage points that includes zero.
    pub fn points(label: &str) -> Axis {
        Axis { points: true, ..Axis::from_zero(label) }
    }

    /// A logarithmic axis.
    pub fn log(label: &str) -> Axis {
        Axis { log: true, ..Axis::new(label) }
    }

    /// Optimizer steps, from 0 on.
    pub fn steps() -> Axis {
        Axis { whole: true, ..Axis::from_zero("optimizer step") }
    }

    /// The scale that holds all finite `values`, drawn from pixel `from` to pixel `to`.
    pub(super) fn scale(&self, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        let finite = values.filter(|value| value.is_finite());
        let (mut low, mut high) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if self.log {
            // A tenth of the way more on both sides, and never less than a third.
            let room = (high / low).powf(0.1).max(1.3);
            return Scale { low: low / room, high: high * room, step: 1.0, log: true, from, to };
        }
        if self.from_zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low <= 1e-12 * high.abs().max(low.abs()) {
            let room = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
            (low, high) = (if self.from_zero && low == 0.0 { 0.0 } else { low - room }, high + room);
        }
        let mut step = round_step((high - low) / TICKS);
        if self.whole {
            step = step.max(1.0);
            return Scale { low, high, step, log: false, from, to };
        }
        (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        if self.percent {
            (low, high) = (low.max(0.0), high.min(1.0));
            if high <= low {
                (low, high) = (0.0, 1.0);
            }
        }
        Scale { low, high, step, log: false, from, to }
    }

    /// A tick's number, on a scale whose ticks are `step` apart.
    pub(super) fn tick(&self, value: f64, step: f64) -> String {
        if self.log {
            return format!("{value:e}");
        }
        if self.percent { format!("{} %", number(100.0 * value, 100.0 * step)) } else { number(value, step) }
    }

    /// A value, as precise as a reader may want it.
    pub(super) fn value(&self, value: f64) -> String {
        if self.log {
            return format!("{value:e}");
        }
        match (self.percent, self.whole) {
            (true, _) => format!("{:.1} %", 100.0 * value),
            (false, true) => number(value, 1.0),
            // What rounds to zero has no sign.
            (false, false) if self.points => number(if value.abs() < 0.05 { 0.0 } else { value }, 0.1),
            (false, false) => significant(value),
        }
    }
}

/// About so many ticks fit on an axis.
const TICKS: f64 = 5.0;

/// A range of values and the pixels that it maps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Lowest value.
    pub low: f64,
    /// Highest value.
    pub high: f64,
    /// Distance between ticks of a linear scale.
    pub step: f64,
    /// Logarithmic.
    pub log: bool,
    /// Pixel of the lowest value.
    pub from: f64,
    /// Pixel of the highest value.
    pub to: f64,
}

impl Scale {
    /// The pixel of a value.
    pub fn at(&self, value: f64) -> f64 {
        let share = match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + share * (self.to - self.from)
    }

    /// The pixel of a value, at the end of the axis if the value lies beyond it.
    pub fn clamped(&self, value: f64) -> f64 {
        self.at(value.clamp(self.low, self.high))
    }

    /// The value is on the axis.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Values of the ticks.
    pub fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            let round = decades.flat_map(|power| ["1", "2", "5"].map(|digit| format!("{digit}e{power}")));
            return round.filter_map(|text| text.parse().ok()).filter(|tick| self.contains(*tick)).collect();
        }
        let (first, last) = ((self.low / self.step - 1e-9).ceil(), (self.high / self.step + 1e-9).floor());
        let step = self.step;
        (0..=(last - first).clamp(0.0, 50.0) as usize).map(|i| (first + i as f64) * step).collect()
    }
}

/// The nearest of 1, 2, 5 x 10^k that is not smaller.
fn round_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * power >= rough * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// A number with as many decimals as ticks that are `step` apart need.
fn number(value: f64, step: f64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        for (rough, step) in [(0.9, 1.0), (1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (7.0, 10.0), (0.03, 0.05), (210.0, 500.0)]
        {
            assert!((round_step(rough) - step).abs() < 1e-12 * step, "{rough}");
        }
        assert_eq!(number(0.30000000000000004, 0.1), "0.3");
        assert_eq!(number(-1e-18, 0.1), "0.0");
        assert_eq!(number(2e-5, 1e-5), "2e-5");
        assert_eq!(number(1500.0, 500.0), "1500");
        let points = [-2.7e-18, -0.04, -12.06, 3.0].map(|value| Axis::points("lost").value(value));
        assert_eq!(points, ["0.0", "0.0", "-12.1", "3.0"]);
        let scale = Axis::new("loss").scale([0.13, 0.87].into_iter(), 0.0, 100.0);
        assert!(scale.low <= 0.13 && scale.high >= 0.87 && scale.ticks().len() >= 4, "{scale:?}");
    }

    #[test]
    fn a_logarithmic_axis_has_round_ticks_at_equal_ratios() {
        let axis = Axis::log("learning rate");
        let scale = axis.scale([1e-4, 8e-4].into_iter(), 0.0, 100.0);
        assert_eq!(
            scale.ticks().into_iter().map(|tick| axis.tick(tick, 1.0)).collect::<Vec<_>>(),
            ["1e-4", "2e-4", "5e-4", "1e-3"]
        );
        let step = scale.at(2e-4) - scale.at(1e-4);
        assert!((scale.at(8e-4) - scale.at(1e-4) - 3.0 * step).abs() < 1e-9 && scale.at(1e-4) > 5.0);
        let one = axis.scale([3e-4].into_iter(), 0.0, 100.0);
        assert!((one.at(3e-4) - 50.0).abs() < 1e-9, "{one:?}");
    }

    #[test]
    fn equal_values_and_shares_have_a_scale() {
        for axis in [Axis::new("x"), Axis::from_zero("x"), Axis::percent("x"), Axis::steps()] {
            for value in [-1.0, 0.0, 1.0, 3.0] {
                let scale = axis.scale([value].into_iter(), 0.0, 1.0);
                assert!(scale.high > scale.low && scale.step > 0.0, "{axis:?} {value}: {scale:?}");
            }
        }
        let shares = Axis::percent("x").scale([0.42, 0.55].into_iter(), 0.0, 1.0);
        assert!(shares.low > 0.3 && shares.high <= 0.6, "{shares:?}");
    }
}
