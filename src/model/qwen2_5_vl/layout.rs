//! A batch as one ragged run of rows: prompts (each once, however many responses it has) and the tokens of their responses.

use super::config::Config;
use super::rope::get_rope_index;
use crate::model::{ImageInput, Prompt, Sequence};
use crate::nn::Span;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Where each row of the decoder's input comes from, stands, and what it may see.
pub struct Layout {
    /// The batch's images, each once.
    pub images: Vec<Arc<ImageInput>>,
    /// Token id of each row, or its image (index into `images`) and place in it.
    pub rows: Vec<Row>,
    /// M-RoPE positions.
    pub positions: [Vec<u32>; 3],
    /// What sees what.
    pub trees: Vec<Vec<Span>>,
    /// Rows whose hidden state predicts a response token, sequence after sequence.
    pub predictors: Vec<u32>,
    /// The response tokens.
    pub targets: Vec<u32>,
    /// Last row of each prompt, and the position after it.
    pub ends: Vec<(usize, u32)>,
}

/// Source of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Row {
    /// A text token.
    Token(u32),
    /// Merged patch `unit` (reading order) of image `image`.
    Image {
        /// Index into the layout's images.
        image: usize,
        /// Merged patch in reading order.
        unit: usize,
    },
}

impl Layout {
    /// Lay out sequences. Neighbours that share a prompt share its rows.
    pub fn of_sequences(batch: &[Sequence], config: &Config) -> Result<Self> {
        let mut layout = Layout::empty();
        let mut known = HashMap::new();
        for group in batch.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt)) {
            let prompt = layout.push_prompt(&group[0].prompt, config, &mut known)?;
            let (last, next) = (prompt.end - 1, layout.positions_after());
            for sequence in group {
                check_ids(&sequence.response, config)?;
                let Some((_, inner)) = sequence.response.split_last() else { continue };
                let start = layout.rows.len();
                layout.rows.extend(inner.iter().map(|&id| Row::Token(id)));
                for axis in &mut layout.positions {
                    axis.extend(next..next + inner.len() as u32);
                }
                if !inner.is_empty() {
                    let span = Span { rows: start..layout.rows.len(), prefix: prompt.clone(), causal: true };
                    layout.trees.last_mut().into_iter().for_each(|tree| tree.push(span.clone()));
                }
                layout.predictors.push(last as u32);
                layout.predictors.extend(start as u32..layout.rows.len() as u32);
                layout.targets.extend(&sequence.response);
            }
        }
        Ok(layout)
    }

    /// Lay out prompts alone.
    pub fn of_prompts(prompts: &[Arc<Prompt>], config: &Config) -> Result<Self> {
        let mut layout = Layout::empty();
        let mut known = HashMap::new();
        for prompt in prompts {
            layout.push_prompt(prompt, config, &mut known)?;
        }
        Ok(layout)
    }

    fn empty() -> Self {
        Layout {
            images: Vec::new(),
            rows: Vec::new(),
            positions: [Vec::new(), Vec::new(), Vec::new()],
            trees: Vec::new(),
            predictors: Vec::new(),
            targets: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Position after the prompt laid out last.
    fn positions_after(&self) -> u32 {
        self.ends.last().map_or(0, |end| end.1)
    }

    fn push_prompt(
        &mut self,
        prompt: &Prompt,
        config: &Config,
        known: &mut HashMap<*const ImageInput, usize>,
    ) -> Result<std::ops::Range<usize>> {
        if prompt.ids.is_empty() {
            return Err(Error::input("a prompt has no tokens"));
        }
        check_ids(&prompt.ids, config)?;
        let vision = &config.vision;
        for image in &prompt.images {
            let [t, h, w] = image.grid;
            let merge = vision.spatial_merge_size;
            if t * h * w == 0
                || h % merge != 0
                || w % merge != 0
                || image.patches.len() != t * h * w * vision.patch_len()
            {
                return Err(Error::input(format!(
                    "an image of grid {:?} with {} values does not fit patches of {} values merged {merge} x {merge}",
                    image.grid,
                    image.patches.len(),
                    vision.patch_len()
                )));
            }
        }
        let grids: Vec<[usize; 3]> = prompt.images.iter().map(|image| image.grid).collect();
        let index = get_rope_index(&prompt.ids, &grids, config.image_token_id, vision.spatial_merge_size)?;
        let start = self.rows.len();
        let mut places = prompt.images.iter().flat_map(|image| {
            let number = *known.entry(Arc::as_ptr(image)).or_insert_with(|| {
                self.images.push(Arc::clone(image));
                self.images.len() - 1
            });
            let units = image.grid.iter().product::<usize>() / (vision.spatial_merge_size * vision.spatial_merge_size);
            (0..units).map(move |unit| Row::Image { image: number, unit })
        });
        self.rows.extend(prompt.ids.iter().map(|&id| match id == config.image_token_id {
            true => places.next().unwrap_or(Row::Token(id)),
            false => Row::Token(id),
        }));
        for (axis, positions) in self.positions.iter_mut().zip(&index.positions) {
            axis.extend(positions);
        }
        let rows = start..self.rows.len();
        self.trees.push(vec![Span { rows: rows.clone(), prefix: start..start, causal: true }]);
        self.ends.push((rows.end - 1, index.next));
        Ok(rows)
    }
}

fn check_ids(ids: &[u32], config: &Config) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= config.text.vocab_size) {
        Some(id) => Err(Error::input(format!(
            "token id {id} is beyond the model's vocabulary of {}; do tokenizer and weights belong together?",
            config.text.vocab_size
        ))),
        None => Ok(()),
    }
}
