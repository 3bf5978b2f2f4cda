//! Multimodal rotary positions: where each token stands in time, height and width.
//!
//! A text token stands at the same number on all three axes. An image's tokens share one temporal position and are
//! numbered by row and column, all counted from where the text before it ended; the text after it continues from the
//! larger of its sides. Source: transformers 5, `Qwen2_5_VLModel.get_rope_index`, for text and still images.

use crate::model::positions::Positions;
use crate::{Error, Result};

/// Positions of a sequence without padding.
///
/// `grids` are the patch grids `[t, h, w]` of its images in order; each stands for `t * h * w / merge^2` consecutive
/// `image_token` ids, where `merge` is the vision tower's `spatial_merge_size`.
///
/// # Errors
/// An input error if the image tokens of `ids` are not exactly those of `grids`.
pub fn get_rope_index(ids: &[u32], grids: &[[usize; 3]], image_token: u32, merge: usize) -> Result<Positions> {
    let mut index = Positions { axes: std::array::from_fn(|_| Vec::with_capacity(ids.len())), next: 0 };
    // Where the next token stands; for t = 1 always the same as the largest position + 1.
    let mut current = 0u32;
    let mut images = grids.iter().enumerate();
    let mut at = 0;
    while at < ids.len() {
        if ids[at] != image_token {
            for axis in &mut index.axes {
                axis.push(current);
            }
            current += 1;
            at += 1;
            continue;
        }
        let Some((number, &[t, h, w])) = images.next() else {
            return Err(Error::input(format!(
                "token {at} is an image token, but the {} image(s) of the prompt were all placed before it",
                grids.len()
            )));
        };
        let (h, w) = (h / merge, w / merge);
        let run = ids[at..].iter().take(t * h * w).take_while(|&&id| id == image_token).count();
        if run != t * h * w || run == 0 {
            return Err(Error::input(format!(
                "image {} of the prompt needs {} image tokens ({t} x {h} x {w}) from token {at}, but {run} are there",
                number + 1,
                t * h * w
            )));
        }
        for (frame, row, column) in (0..t).flat_map(|f| (0..h).flat_map(move |r| (0..w).map(move |c| (f, r, c)))) {
            for (axis, step) in index.axes.iter_mut().zip([frame, row, column]) {
                axis.push(current + step as u32);
            }
        }
        index.next = index.next.max(current + t.max(h).max(w) as u32);
        current += h.max(w) as u32;
        at += run;
    }
    if let Some((number, _)) = images.next() {
        return Err(Error::input(format!(
            "the prompt has {} image(s) but image tokens for only {number} of them",
            grids.len()
        )));
    }
    index.next = index.next.max(current);
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: u32 = 9;

    #[test]
    fn text_counts_up_on_all_three_axes() {
        let index = get_rope_index(&[1, 2, 3], &[], IMAGE, 2).unwrap();
        assert_eq!(index.axes, [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]]);
        assert_eq!((index.next, index.delta()), (3, 0));
    }

    #[test]
    fn text_after_an_image_goes_on_from_its_larger_side() {
        // Two text tokens, a 2 x 3 image after merging, two text tokens.
        let ids = [1, 2, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, 3, 4];
        let index = get_rope_index(&ids, &[[1, 4, 6]], IMAGE, 2).unwrap();
        assert_eq!(index.axes[0], [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]);
        assert_eq!(index.axes[1], [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]);
        assert_eq!(index.axes[2], [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]);
        assert_eq!((index.next, index.delta()), (7, -3));
    }

    #[test]
    fn several_images_each_start_where_the_text_before_them_ended() {
        let ids = [IMAGE, 1, IMAGE, IMAGE];
        let index = get_rope_index(&ids, &[[1, 2, 2], [1, 4, 2]], IMAGE, 2).unwrap();
        assert_eq!(index.axes, [vec![0, 1, 2, 2], vec![0, 1, 2, 3], vec![0, 1, 2, 2]]);
        assert_eq!(index.next, 4);
    }

    #[test]
    fn a_response_continues_after_the_prompt() {
        let ids = [1, IMAGE, IMAGE, IMAGE, IMAGE, 2];
        let mut index = get_rope_index(&ids, &[[1, 4, 4]], IMAGE, 2).unwrap();
        let delta = index.delta();
        index.extend_text(2);
        let whole = get_rope_index(&[1, IMAGE, IMAGE, IMAGE, IMAGE, 2, 7, 8], &[[1, 4, 4]], IMAGE, 2).unwrap();
        assert_eq!(index, whole);
        assert_eq!(whole.axes[0][7] as i64, 7 + delta);
    }

    #[test]
    fn image_tokens_and_grids_must_agree() {
        let too_few = get_rope_index(&[IMAGE, IMAGE, IMAGE, 1], &[[1, 4, 4]], IMAGE, 2).unwrap_err().to_string();
        assert!(too_few.contains("needs 4 image tokens") && too_few.contains("but 3 are there"), "{too_few}");
        let extra = get_rope_index(&[1, IMAGE], &[], IMAGE, 2).unwrap_err().to_string();
        assert!(extra.contains("token 1 is an image token"), "{extra}");
        let unused = get_rope_index(&[1], &[[1, 2, 2]], IMAGE, 2).unwrap_err().to_string();
        assert!(unused.contains("1 image(s) but image tokens for only 0"), "{unused}");
    }
}
