//! A batch as one ragged run of rows: prompts (each once, however many responses it has) and the tokens of their responses.
//!
//! What a prompt says before its first image (the system turn, or a question that comes before the picture) is laid out once
//! for all prompts that begin with the same words. A prompt is always cut there, shared or not, so that its results do not
//! depend on the batch.

use super::config::Config;
use super::rope::get_rope_index;
use crate::model::{ImageInput, Prompt, Sequence};
use crate::nn::{Span, SpanGroup};
use crate::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
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
    pub span_groups: Vec<SpanGroup>,
    /// Rows whose hidden state predicts a response token, sequence after sequence.
    pub predictors: Vec<u32>,
    /// The response tokens.
    pub targets: Vec<u32>,
    /// The prompts, in order.
    pub prompts: Vec<PromptRows>,
}

/// Where a prompt lies.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRows {
    /// What it begins with, before its first image; other prompts may begin with the same rows. May be empty.
    pub opening: Range<usize>,
    /// The rest; never empty.
    pub rest: Range<usize>,
    /// Position after the prompt.
    pub next: u32,
}

impl PromptRows {
    /// All rows of the prompt, in order.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        self.opening.clone().chain(self.rest.clone())
    }

    /// The row that predicts the first token after the prompt.
    pub fn last(&self) -> usize {
        self.rest.end - 1
    }
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
        Self::laid(batch, Builder::new(config))
    }

    /// The same of images that may be grids without pixels, for plans of memory.
    pub fn outline(batch: &[Sequence], config: &Config) -> Result<Self> {
        Self::laid(batch, Builder { outline: true, ..Builder::new(config) })
    }

    fn laid(batch: &[Sequence], mut builder: Builder<'_>) -> Result<Self> {
        for group in batch.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt)) {
            builder.push_prompt(&group[0].prompt)?;
            for sequence in group {
                builder.push_response(&sequence.response)?;
            }
        }
        Ok(builder.layout)
    }

    /// Lay out prompts alone.
    pub fn of_prompts(prompts: &[Arc<Prompt>], config: &Config) -> Result<Self> {
        let mut builder = Builder::new(config);
        for prompt in prompts {
            builder.push_prompt(prompt)?;
        }
        Ok(builder.layout)
    }
}

struct Builder<'a> {
    config: &'a Config,
    /// Whether images may be without their pixels.
    outline: bool,
    layout: Layout,
    /// Index of each image that has been met.
    images: HashMap<*const ImageInput, usize>,
    /// Rows of each opening that has been met.
    openings: HashMap<Vec<u32>, Range<usize>>,
}

impl<'a> Builder<'a> {
    fn new(config: &'a Config) -> Self {
        let layout = Layout {
            images: Vec::new(),
            rows: Vec::new(),
            positions: [Vec::new(), Vec::new(), Vec::new()],
            span_groups: Vec::new(),
            predictors: Vec::new(),
            targets: Vec::new(),
            prompts: Vec::new(),
        };
        Builder { config, outline: false, layout, images: HashMap::new(), openings: HashMap::new() }
    }

    fn push_prompt(&mut self, prompt: &Prompt) -> Result<()> {
        if prompt.ids.is_empty() {
            return Err(Error::input("a prompt has no tokens"));
        }
        check_ids(&prompt.ids, self.config)?;
        let vision = &self.config.vision;
        for image in &prompt.images {
            let [t, h, w] = image.grid;
            let merge = vision.spatial_merge_size;
            if t * h * w == 0
                || h % merge != 0
                || w % merge != 0
                || !(self.outline && image.patches.is_empty() || image.patches.len() == t * h * w * vision.patch_len())
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
        let index = get_rope_index(&prompt.ids, &grids, self.config.image_token_id, vision.spatial_merge_size)?;
        let cut = prompt.ids.iter().position(|&id| id == self.config.image_token_id).unwrap_or(0);
        let (opening, rest) = prompt.ids.split_at(cut);
        let positions = |range: Range<usize>| index.positions.each_ref().map(|axis| axis[range.clone()].to_vec());
        let opening = match self.openings.get(opening) {
            Some(rows) => rows.clone(),
            None => {
                let rows = self.push_rows(opening.iter().map(|&id| Row::Token(id)).collect(), positions(0..cut));
                if !rows.is_empty() {
                    self.layout.span_groups.push(SpanGroup::single(rows.clone(), true));
                }
                self.openings.insert(opening.to_vec(), rows.clone());
                rows
            }
        };
        let mut places = self.places(prompt).into_iter();
        let row = |&id: &u32| match id == self.config.image_token_id {
            true => places.next().unwrap_or(Row::Token(id)),
            false => Row::Token(id),
        };
        let rows = rest.iter().map(row).collect();
        let rest = self.push_rows(rows, positions(cut..prompt.ids.len()));
        self.layout.span_groups.push(SpanGroup { shared: opening.clone(), ..SpanGroup::single(rest.clone(), true) });
        self.layout.prompts.push(PromptRows { opening, rest, next: index.next });
        Ok(())
    }

    /// The merged patches of a prompt's images, in order.
    fn places(&mut self, prompt: &Prompt) -> Vec<Row> {
        let unit = self.config.vision.spatial_merge_size * self.config.vision.spatial_merge_size;
        let mut places = Vec::new();
        for image in &prompt.images {
            let number = *self.images.entry(Arc::as_ptr(image)).or_insert_with(|| {
                self.layout.images.push(Arc::clone(image));
                self.layout.images.len() - 1
            });
            let units = image.grid.iter().product::<usize>() / unit;
            places.extend((0..units).map(|unit| Row::Image { image: number, unit }));
        }
        places
    }

    /// A response to the prompt pushed last. Its last token is only predicted: nothing comes after it.
    fn push_response(&mut self, response: &[u32]) -> Result<()> {
        check_ids(response, self.config)?;
        let Some((_, inner)) = response.split_last() else { return Ok(()) };
        let Some(prompt) = self.layout.prompts.last().cloned() else { return Ok(()) };
        let positions = std::array::from_fn(|_| (prompt.next..prompt.next + inner.len() as u32).collect());
        let rows = self.push_rows(inner.iter().map(|&id| Row::Token(id)).collect(), positions);
        self.layout.predictors.push(prompt.last() as u32);
        self.layout.predictors.extend(rows.start as u32..rows.end as u32);
        self.layout.targets.extend(response);
        if let Some(span_group) = self.layout.span_groups.last_mut().filter(|_| !rows.is_empty()) {
            span_group.spans.push(Span { rows, prefix: prompt.rest, causal: true });
        }
        Ok(())
    }

    fn push_rows(&mut self, rows: Vec<Row>, positions: [Vec<u32>; 3]) -> Range<usize> {
        let start = self.layout.rows.len();
        self.layout.rows.extend(rows);
        for (axis, positions) in self.layout.positions.iter_mut().zip(positions) {
            axis.extend(positions);
        }
        start..self.layout.rows.len()
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
