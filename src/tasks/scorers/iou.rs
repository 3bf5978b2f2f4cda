//! `iou`: a box around what a phrase refers to, as RefCOCO, RefCOCO+ (arXiv 1608.00272) and RefCOCOg (arXiv 1511.02283) ask.
//!
//! Right if intersection over union with the gold box is at least 0.5. The box is the first that the answer has, however it is written; the exact
//! form is one box as JSON and nothing else. Which coordinates the model answers in is a property of
//! the prompt and the model that the record declares ([`CoordinateSpace`]); it is never guessed from the numbers. Boxes are compared in
//! pixels of the original image, as they are: not clipped to it, negative coordinates included.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::forms::{ascii_digits, fold};
use super::gold::gold;
use super::text::{decimal, numbers, unfenced};
use crate::data::Record;
use crate::tasks::meta::meta;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Name of the scorer.
pub const NAME: &str = "iou";
/// Version of the scorer.
pub const VERSION: u32 = 2;

/// The least IoU of a right answer (inclusive).
const THRESHOLD: f64 = 0.5;

/// What the coordinates of an answer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoordinateSpace {
    /// Pixels of the image as the model saw it, after its resize (Qwen2.5-VL).
    AbsoluteResized,
    /// Pixels of the original image.
    Absolute,
    /// Thousandths of width and height (Qwen2-VL, Qwen3-VL).
    PerMille,
    /// Shares of width and height, 0 to 1.
    Unit,
}

/// x1, y1 (left, top), x2, y2 (right, bottom).
type Corners = [f64; 4];

/// The gold box of one question, and what answers have to be multiplied with to be compared with it.
#[derive(Debug, Clone)]
pub struct Iou {
    gold: Corners,
    scale: [f64; 2],
}

impl Iou {
    /// A scorer for a gold box `[x1, y1, x2, y2]` in pixels of an original image of this `size` (width, height), with answers in this
    /// space; `resized` is what the model saw and is needed for [`CoordinateSpace::AbsoluteResized`] only. An input error if the gold box has
    /// no area or a size is missing or zero.
    pub fn new(
        gold: Corners,
        space: CoordinateSpace,
        size: Option<[u32; 2]>,
        resized: Option<[u32; 2]>,
    ) -> Result<Self> {
        if !(gold.iter().all(|x| x.is_finite()) && has_area(gold)) {
            return Err(Error::input(format!(
                "field `answer`: the gold box {gold:?} has no area (x1 < x2 and y1 < y2)"
            )));
        }
        let need = |name: &str, size: Option<[u32; 2]>| match size {
            Some([w, h]) if w > 0 && h > 0 => Ok([f64::from(w), f64::from(h)]),
            Some(_) => Err(Error::input(format!("field `meta.{name}`: width and height must be at least 1"))),
            None => {
                Err(Error::input(format!("field `meta.{name}` is missing; boxes in this space cannot be rescaled")))
            }
        };
        let scale = match space {
            CoordinateSpace::Absolute => [1.0, 1.0],
            CoordinateSpace::PerMille => need("size", size)?.map(|side| side / 1000.0),
            CoordinateSpace::Unit => need("size", size)?,
            CoordinateSpace::AbsoluteResized => {
                let ([w, h], [seen_w, seen_h]) = (need("size", size)?, need("resized", resized)?);
                [w / seen_w, h / seen_h]
            }
        };
        Ok(Iou { gold, scale })
    }

    /// From a record's `answer` (`x1 y1 x2 y2`, or a JSON list of them), `meta.space`, `meta.size` and `meta.resized`.
    pub fn from_record(record: &Record) -> Result<Self> {
        let text = gold(record)?;
        let corners = gold_box(text).ok_or_else(|| {
            Error::input(format!(
                "field `answer`: `{text}` is no box; expected `x1 y1 x2 y2` in pixels of the original image"
            ))
        })?;
        let size = |field| record.meta.contains_key(field).then(|| meta(record, field)).transpose();
        Iou::new(corners, meta(record, "space")?, size("size")?, size("resized")?)
    }

    /// IoU with the gold box of a box in the answer's space; `None` if that has no area.
    fn iou(&self, [x1, y1, x2, y2]: Corners) -> Option<f64> {
        let [sx, sy] = self.scale;
        let said = [x1 * sx, y1 * sy, x2 * sx, y2 * sy];
        has_area(said).then(|| iou(said, self.gold))
    }
}

fn gold_box(text: &str) -> Option<Corners> {
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    let sides: Option<Vec<f64>> =
        text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty()).map(decimal).collect();
    sides?.try_into().ok()
}

/// Not inverted, not a line or a point, nothing that is no number.
fn has_area([x1, y1, x2, y2]: Corners) -> bool {
    x1 < x2 && y1 < y2
}

/// Intersection over union of two boxes with areas.
fn iou(a: Corners, b: Corners) -> f64 {
    let area = |[x1, y1, x2, y2]: Corners| (x2 - x1) * (y2 - y1);
    let shared = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
    if !has_area(shared) {
        return 0.0;
    }
    let iou = area(shared) / (area(a) + area(b) - area(shared));
    if iou.is_finite() { iou.clamp(0.0, 1.0) } else { 0.0 } // an area beyond what a number holds
}

/// Is the answer one box as JSON and nothing else: `{"bbox_2d": [x1, y1, x2, y2]}` or `[x1, y1, x2, y2]`, alone or alone in a list, and maybe
/// in a code fence?
fn is_exact(answer: &str) -> bool {
    let corners = |value: &serde_json::Value| serde_json::from_value::<Corners>(value.clone()).is_ok_and(has_area);
    let one = |value: &serde_json::Value| value.get("bbox_2d").is_some_and(corners) || corners(value);
    let Ok(value) = serde_json::from_str::<serde_json::Value>(unfenced(answer.trim())) else { return false };
    match value.as_array().map(Vec::as_slice) {
        Some([only]) => one(only),
        _ => one(&value),
    }
}

/// The first four numbers in brackets, else the first four numbers; corners in any order.
fn first_box(answer: &str) -> Option<Corners> {
    let mut seen: Vec<(usize, usize, f64)> = Vec::with_capacity(4);
    let mut first: Option<Corners> = None;
    for found in numbers(answer, false) {
        let percent = answer[found.end..].starts_with('%'); // a share of the side, whatever the space
        let Some(value) = found.value.filter(|_| !percent) else {
            seen.clear();
            continue;
        };
        if seen.len() == 4 {
            seen.remove(0);
        }
        seen.push((found.start, found.end, value));
        let [(start, a, x1), (b, c, y1), (d, e, x2), (f, end, y2)] = seen[..] else { continue };
        let corners = [x1, y1, x2, y2];
        let between = [&answer[a..b], &answer[c..d], &answer[e..f]];
        let parted = between.iter().all(|gap| gap.chars().all(|c| c.is_whitespace() || ",;()[]".contains(c)));
        let opened = answer[..start].trim_end().ends_with(['[', '(']);
        let closed = answer[end..].trim_start().starts_with([']', ')']);
        if parted && opened && closed {
            return Some(in_order(corners));
        }
        first.get_or_insert(corners);
    }
    first.map(in_order)
}

fn in_order([x1, y1, x2, y2]: Corners) -> Corners {
    [x1.min(x2), y1.min(y2), x1.max(x2), y1.max(y2)]
}

impl AnswerScorer for Iou {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn score_answer(&self, answer: &str) -> AnswerScore {
        if answer.trim().is_empty() {
            return AnswerScore::unread(EMPTY, 0.0).in_form(false);
        }
        let right = |iou: f64| share(iou >= THRESHOLD);
        let lenient = first_box(&fold(answer)).and_then(|corners| self.iou(corners)).map_or(0.0, right);
        let scored = match first_box(&ascii_digits(answer)) {
            None => AnswerScore::unread("no box", lenient),
            Some(corners) => match self.iou(corners) {
                Some(iou) => AnswerScore { partial_credit: iou, ..AnswerScore::read(right(iou), lenient) },
                None => AnswerScore::unread("box without area", lenient),
            },
        };
        scored.in_form(is_exact(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_measured_in_areas() {
        let gold = [0.0, 0.0, 10.0, 10.0];
        for (other, expected) in [
            (gold, 1.0),
            ([0.0, 0.0, 10.0, 5.0], 0.5),
            ([5.0, 5.0, 15.0, 15.0], 25.0 / 175.0),
            ([10.0, 0.0, 20.0, 10.0], 0.0),
            ([-10.0, -10.0, 20.0, 20.0], 1.0 / 9.0),
            ([20.0, 20.0, 30.0, 30.0], 0.0),
            ([0.0, 0.0, 1e308, 1e308], 0.0),
        ] {
            assert_eq!(iou(gold, other), expected, "{other:?}");
            assert_eq!(iou(other, gold), expected, "{other:?}");
        }
    }

    #[test]
    fn the_space_decides_what_coordinates_mean() {
        let gold = [64.0, 48.0, 320.0, 240.0];
        let iou =
            |space, corners| Iou::new(gold, space, Some([640, 480]), Some([644, 476])).unwrap().iou(corners).unwrap();
        assert_eq!(iou(CoordinateSpace::Absolute, gold), 1.0);
        assert!((iou(CoordinateSpace::PerMille, [100.0, 100.0, 500.0, 500.0]) - 1.0).abs() < 1e-12);
        assert!((iou(CoordinateSpace::Unit, [0.1, 0.1, 0.5, 0.5]) - 1.0).abs() < 1e-12);
        assert!((iou(CoordinateSpace::AbsoluteResized, [64.4, 47.6, 322.0, 238.0]) - 1.0).abs() < 1e-12);
        assert!(iou(CoordinateSpace::PerMille, gold) < 0.5);
    }

    #[test]
    fn the_gold_box_and_the_sizes_have_to_be_there() {
        let gold = [0.0, 0.0, 1.0, 1.0];
        let message = |result: Result<Iou>| result.unwrap_err().to_string();
        assert!(message(Iou::new([1.0, 0.0, 1.0, 1.0], CoordinateSpace::Absolute, None, None)).contains("no area"));
        assert!(
            message(Iou::new([0.0, 0.0, f64::NAN, 1.0], CoordinateSpace::Absolute, None, None)).contains("no area")
        );
        assert!(message(Iou::new(gold, CoordinateSpace::Unit, None, None)).contains("`meta.size` is missing"));
        assert!(message(Iou::new(gold, CoordinateSpace::Unit, Some([0, 5]), None)).contains("at least 1"));
        assert!(
            message(Iou::new(gold, CoordinateSpace::AbsoluteResized, Some([5, 5]), None))
                .contains("`meta.resized` is missing")
        );
        assert!(Iou::new(gold, CoordinateSpace::Absolute, None, None).is_ok());
        assert_eq!(gold_box("1 2 3 4"), Some([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(gold_box("1, 2.5,3 4"), Some([1.0, 2.5, 3.0, 4.0]));
        assert_eq!(gold_box("[1, 2, 3, 4]"), Some([1.0, 2.0, 3.0, 4.0]));
        for text in ["1 2 3", "1 2 3 4 5", "[1, 2]", "a b c d", "[1, 2, 3, 4"] {
            assert_eq!(gold_box(text), None, "{text}");
        }
    }

    #[test]
    fn a_box_is_found_in_brackets_first() {
        for (text, expected) in [
            ("[1, 2, 3, 4]", Some([1.0, 2.0, 3.0, 4.0])),
            ("(1,2),(3,4)", Some([1.0, 2.0, 3.0, 4.0])),
            ("In 2019 the 3 cats: [[1, 2], [3, 4]]", Some([1.0, 2.0, 3.0, 4.0])),
            ("[1, 2, 3, 4] or [5, 6, 7, 8]", Some([1.0, 2.0, 3.0, 4.0])),
            ("x1=9 y1=2 x2=3 y2=4", Some([3.0, 2.0, 9.0, 4.0])),
            ("{\"bbox_2d\": [1, 2, 3, 4", Some([1.0, 2.0, 3.0, 4.0])),
            ("[1, 2, 3, 4, 5]", Some([1.0, 2.0, 3.0, 4.0])),
            ("[7 9, 1, 2, 3, 4]", Some([1.0, 2.0, 7.0, 9.0])),
            ("1 2 3", None),
            ("1.2.3 4 5 6", None),
            ("", None),
        ] {
            assert_eq!(first_box(text), expected, "{text}");
        }
    }
}
