//! A batch as one ragged run of rows: prompts (each once, however many responses it has) and the tokens of their responses.
//!
//! What a prompt says before its first image (the system turn, or a question that comes before the picture) is laid out once
//! for all prompts that begin with the same words. A prompt is always cut there, shared or not, so that its results do not
//! depend on the batch.

use super::architecture::Architecture;
use super::sequence::{ImageInput, Prompt, Sequence};
use super::shapes::VisionShape;
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
    pub fn of_sequences(batch: &[Sequence], architecture: &dyn Architecture) -> Result<Self> {
        let mut builder = Builder::new(architecture);
        for group in batch.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt)) {
            builder.push_prompt(&group[0].prompt)?;
            for sequence in group {
                builder.push_response(&sequence.response)?;
            }
        }
        Ok(builder.layout)
    }

    /// Lay out prompts alone.
    pub fn of_prompts(prompts: &[Arc<Prompt>], architecture: &dyn Architecture) -> Result<Self> {
        let mut builder = Builder::new(architecture);
        for prompt in prompts {
            builder.push_prompt(prompt)?;
        }
        Ok(builder.layout)
    }
}

struct Builder<'a> {
    architecture: &'a dyn Architecture,
    layout: Layout,
    /// Index of each image that has been met.
    images: HashMap<*const ImageInput, usize>,
    /// Rows of each opening that has been met.
    openings: HashMap<Vec<u32>, Range<usize>>,
}

impl<'a> Builder<'a> {
    fn new(architecture: &'a dyn Architecture) -> Self {
        let layout = Layout {
            images: Vec::new(),
            rows: Vec::new(),
            positions: [Vec::new(), Vec::new(), Vec::new()],
            span_groups: Vec::new(),
            predictors: Vec::new(),
            targets: Vec::new(),
            prompts: Vec::new(),
        };
        Builder { architecture, layout, images: HashMap::new(), openings: HashMap::new() }
    }

    fn push_prompt(&mut self, prompt: &Prompt) -> Result<()> {
        if prompt.ids.is_empty() {
            return Err(Error::input("a prompt has no tokens"));
        }
        check_ids(&prompt.ids, self.architecture)?;
        match self.architecture.vision() {
            Some(vision) => prompt.images.iter().try_for_each(|image| self.check_image(image, &vision))?,
            None if !prompt.images.is_empty() => {
                return Err(Error::input(format!(
                    "the prompt has {} image(s); {} reads text alone",
                    prompt.images.len(),
                    self.architecture.title()
                )));
            }
            None => {}
        }
        let grids: Vec<[usize; 3]> = prompt.images.iter().map(|image| image.grid).collect();
        let index = self.architecture.positions(&prompt.ids, &grids)?;
        let image_token = self.architecture.image_tokens().map(|tokens| tokens.image);
        let is_image = |id: u32| image_token == Some(id);
        let cut = prompt.ids.iter().position(|&id| is_image(id)).unwrap_or(0);
        let (opening, rest) = prompt.ids.split_at(cut);
        let positions = |range: Range<usize>| index.axes.each_ref().map(|axis| axis[range.clone()].to_vec());
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
        let row = |&id: &u32| match is_image(id) {
            true => places.next().unwrap_or(Row::Token(id)),
            false => Row::Token(id),
        };
        let rows = rest.iter().map(row).collect();
        let rest = self.push_rows(rows, positions(cut..prompt.ids.len()));
        self.layout
            .span_groups
            .push(SpanGroup { shared_prefix: opening.clone(), ..SpanGroup::single(rest.clone(), true) });
        self.layout.prompts.push(PromptRows { opening, rest, next: index.next });
        Ok(())
    }

    /// Refuse an image whose grid does not fit the vision tower, or whose pixels do not fit the grid.
    fn check_image(&self, image: &ImageInput, vision: &VisionShape) -> Result<()> {
        let ([t, h, w], merge, width) = (image.grid, vision.merge_size, vision.patch_len);
        let fits = t * h * w > 0 && h % merge == 0 && w % merge == 0;
        let complete = image.patches.len() == t * h * w * width;
        if fits && complete {
            return Ok(());
        }
        Err(Error::input(format!(
            "an image of grid {:?} with {} values does not fit patches of {width} values merged {merge} x {merge}",
            image.grid,
            image.patches.len()
        )))
    }

    /// The merged patches of a prompt's images, in order.
    fn places(&mut self, prompt: &Prompt) -> Vec<Row> {
        let unit = self.architecture.vision().map_or(1, |vision| vision.merge_size * vision.merge_size);
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
        check_ids(response, self.architecture)?;
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

fn check_ids(ids: &[u32], architecture: &dyn Architecture) -> Result<()> {
    let vocab = architecture.decoder().vocab_size;
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(Error::input(format!(
            "token id {id} is beyond the model's vocabulary of {vocab}; do tokenizer and weights belong together?"
        ))),
        None => Ok(()),
    }
}
