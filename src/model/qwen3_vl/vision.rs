//! The vision tower: patches with learned positions -> ViT blocks -> one merged feature per 2 x 2 patches, from the last block and from
//! those of DeepStack.

use super::vision_config::VisionConfig;
use crate::Result;
use crate::model::architecture::{Features, VisionEncoder};
use crate::model::qwen_vl::vit::{Block, Merger, MlpNames, Shapes};
use crate::model::qwen_vl::window_order::{WHOLE_IMAGES, WindowOrder, spans};
use crate::model::sequence::ImageInput;
use crate::model::weights::named::NamedWeights;
use crate::nn::{Gelu, Heads, Linear, Parameter, RopeTable, Tape, Taps, Value, interpolate_rows, linear};
use candle_core::Device;
use std::sync::Arc;

const MLP: MlpNames = ["linear_fc1", "linear_fc2"];

/// The tower's weights.
pub struct VisionTower {
    config: VisionConfig,
    patch_embed: Linear,
    positions: Arc<Parameter>,
    blocks: Vec<Arc<Block>>,
    merger: Merger,
    /// After which block each is, in order.
    deep_mergers: Vec<(usize, Merger)>,
}

fn merger_names(name: &str) -> [String; 3] {
    ["norm", "linear_fc1", "linear_fc2"].map(|part| format!("visual.{name}.{part}"))
}

fn deep_merger_name(i: usize) -> String {
    format!("deepstack_merger_list.{i}")
}

/// Every weight with its shape, in the order of the computation.
pub fn parameter_shapes(config: &VisionConfig) -> Shapes {
    let (width, patches) = (config.hidden_size, &config.patches);
    let mut out = vec![
        ("visual.patch_embed.proj.weight".to_string(), patches.embedding_shape(width).to_vec()),
        ("visual.patch_embed.proj.bias".to_string(), vec![width]),
        ("visual.pos_embed.weight".to_string(), vec![config.num_position_embeddings, width]),
    ];
    for i in 0..config.depth {
        Block::shapes(&format!("visual.blocks.{i}"), MLP, [width, config.intermediate_size], &mut out);
    }
    let mut merger = |name: &str, norm_merged: bool| {
        let names = merger_names(name);
        let sizes = [width, patches.merged(), config.out_hidden_size];
        Merger::shapes(names.each_ref().map(String::as_str), sizes, norm_merged, &mut out);
    };
    merger("merger", false);
    for i in 0..config.deepstack_visual_indexes.len() {
        merger(&deep_merger_name(i), true);
    }
    out
}

impl VisionTower {
    /// Take the tower's weights.
    pub fn new(config: &VisionConfig, weights: &mut NamedWeights) -> Result<Self> {
        let heads = Heads { query: config.num_heads, key_value: config.num_heads, dim: config.head_dim };
        let block = |i| Block::new(&format!("visual.blocks.{i}"), MLP, Gelu::Tanh, heads, weights).map(Arc::new);
        let blocks = (0..config.depth).map(block).collect::<Result<_>>()?;
        let mut merger = |name: &str, norm_merged: bool| {
            let names = merger_names(name);
            Merger::new(names.each_ref().map(String::as_str), config.patches.merged(), norm_merged, weights)
        };
        let last = merger("merger", false)?;
        let deep = config.deepstack_visual_indexes.iter().enumerate();
        let deep = deep.map(|(i, &block)| Ok((block, merger(&deep_merger_name(i), true)?)));
        Ok(VisionTower {
            config: config.clone(),
            deep_mergers: deep.collect::<Result<_>>()?,
            patch_embed: weights.linear("visual.patch_embed.proj", true)?,
            positions: weights.take("visual.pos_embed.weight")?,
            blocks,
            merger: last,
        })
    }

    /// For each patch of images of these grids, in the order of the tower, the learned positions that it lies between.
    fn taps(&self, images: &[Arc<ImageInput>], order: &WindowOrder) -> Vec<Taps> {
        let side = self.config.grid_side();
        let mut rows = order.positions.iter();
        let mut taps = Vec::with_capacity(order.positions.len());
        for [frames, height, width] in images.iter().map(|image| image.grid) {
            for &[row, column] in rows.by_ref().take(frames * height * width) {
                let ([r0, r1], [c0, c1]) = (axis_taps(row, height, side), axis_taps(column, width, side));
                let tap = |(r, wr): (usize, f32), (c, wc): (usize, f32)| ((r * side + c) as u32, wr * wc);
                taps.push([tap(r0, c0), tap(r0, c1), tap(r1, c0), tap(r1, c1)]);
            }
        }
        taps
    }
}

/// Place `index` of `size` on an axis of `side` learned positions, whose ends meet: the positions on both sides of it and their weights
/// (transformers' `_interpolation_axis_taps_weights`, bilinear with aligned corners, in f32).
fn axis_taps(index: u32, size: usize, side: usize) -> [(usize, f32); 2] {
    let at = index as f32 * (side - 1) as f32 / size.saturating_sub(1).max(1) as f32;
    let floor = at.floor();
    let tap = |step: f32| ((floor + step).min((side - 1) as f32) as usize, (1.0 - (at - floor - step).abs()).max(0.0));
    [tap(0.0), tap(1.0)]
}

impl VisionEncoder for VisionTower {
    fn forward(&self, tape: &Tape, images: &[Arc<ImageInput>], device: &Device, recompute: bool) -> Result<Features> {
        let config = &self.config;
        let order = WindowOrder::new(images, config.patches.spatial_merge_size, WHOLE_IMAGES);
        let pixels = order.pixels(images, config.patches.patch_len(), device)?;
        let table = Arc::new(RopeTable::spatial(&order.positions, config.head_dim, config.rope_theta));
        let frames = spans(&order.frames);
        let learned = interpolate_rows(tape, &self.positions, self.taps(images, &order))?;
        let mut x = linear(tape, &Value::constant(pixels), &[&self.patch_embed], Some(&learned))?;
        let mut deep = Vec::with_capacity(self.deep_mergers.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(tape, x, &table, &frames, recompute)?;
            if let Some((_, merger)) = self.deep_mergers.iter().find(|(after, _)| *after == i) {
                deep.push(merger.forward(tape, &x)?);
            }
        }
        Ok(Features { rows: self.merger.forward(tape, &x)?, deep, places: order.places })
    }
}
