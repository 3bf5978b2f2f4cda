//! Gold boxes as files hold them, in pixels of the image.

use crate::data::tsv::list;
use serde::{Deserialize, Serialize};

/// What the four numbers of a gold box are. Numbers that all lie in 0 to 1 are shares of width and height; no box that means
/// anything is that small in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Corners {
    /// Left, top, right, bottom.
    Xyxy,
    /// Left, top, width, height, as COCO has them.
    Xywh,
}

/// A gold box of an image of `width` x `height` as `x1 y1 x2 y2` in its pixels; or why the text is none.
pub fn gold_box(text: &str, corners: Corners, (width, height): (u32, u32)) -> Result<String, String> {
    let form = match corners {
        Corners::Xyxy => "[x1, y1, x2, y2]",
        Corners::Xywh => "[x, y, width, height]",
    };
    let bad = || format!("`{text}` is no box; four numbers {form} are needed");
    let words = || text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_string).collect::<Vec<_>>();
    let numbers = list(text)?.unwrap_or_else(words);
    let numbers: Vec<f64> = numbers.iter().map(|n| n.trim().parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
    let [x, y, third, fourth]: [f64; 4] = numbers.try_into().map_err(|_| bad())?;
    let (right, bottom) = match corners {
        Corners::Xyxy => (third, fourth),
        Corners::Xywh => (x + third, y + fourth),
    };
    let (w, h) = (f64::from(width), f64::from(height));
    let shares = [x, y, third, fourth].iter().all(|n| (0.0..=1.0).contains(n));
    let [x, y, right, bottom] = if shares { [x * w, y * h, right * w, bottom * h] } else { [x, y, right, bottom] };
    if !(x < right && y < bottom) {
        return Err(format!("the box `{text}` has no area as {form}"));
    }
    if !(right > 0.0 && bottom > 0.0 && x < w && y < h) {
        return Err(format!("the box `{text}` lies outside of its image of {width} x {height} pixels as {form}"));
    }
    Ok(format!("{x} {y} {right} {bottom}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_every_form_come_to_corners_in_pixels() {
        let of = |text: &str, corners| gold_box(text, corners, (200, 100)).unwrap();
        assert_eq!(of("[10, 20, 110, 60.5]", Corners::Xyxy), "10 20 110 60.5");
        assert_eq!(of("10 20 110 60.5", Corners::Xyxy), "10 20 110 60.5");
        assert_eq!(of("10,20,100,40.5", Corners::Xywh), "10 20 110 60.5");
        assert_eq!(of("['0.25', '0.5', '0.75', '1']", Corners::Xyxy), "50 50 150 100");
        assert_eq!(of("[0.25, 0.5, 0.5, 0.5]", Corners::Xywh), "50 50 150 100");
    }

    #[test]
    fn what_is_no_box_is_refused() {
        for (text, corners, why) in [
            ("[1, 2, 3]", Corners::Xyxy, "four numbers [x1, y1, x2, y2]"),
            ("a cat", Corners::Xywh, "four numbers [x, y, width, height]"),
            ("[10, 20, 5, 60]", Corners::Xyxy, "has no area"),
            ("[300, 20, 310, 60]", Corners::Xyxy, "outside of its image of 200 x 100"),
            ("[nan, 2, 3, 4]", Corners::Xyxy, "is no box"),
        ] {
            let error = gold_box(text, corners, (200, 100)).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
