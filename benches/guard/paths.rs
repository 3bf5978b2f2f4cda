//! Whole paths: training step, rollouts, scoring, pictures, puzzles, optimizer.

use super::arithmetic::forward;
use super::measure::{Check, Reference};
use candle_core::{DType, Device, Tensor, Var};
use jigsaw::data::source;
use jigsaw::io::files;
use jigsaw::model::init::{Preset, fresh_parameters, write_checkpoint};
use jigsaw::model::{LanguageModel as _, Model, read_architecture, weights};
use jigsaw::model::{Processor, Prompt, SamplingParams, Sequence, TokenGrads};
use jigsaw::nn::Parameter;
use jigsaw::tasks::jigsaw::generate::{JigsawSettings, generate};
use jigsaw::tasks::reference_sequence;
use jigsaw::tasks::split::SplitRatios;
use jigsaw::train::optimizer::AdamW;
use jigsaw::train::settings::{Method, TrainConfig};
use jigsaw::{Error, Result, tasks};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A name and what makes its check.
pub type Named = (&'static str, fn() -> Result<Check>);

/// Every path.
pub fn all() -> Vec<Named> {
    vec![
        ("sft step, tiny", sft_tiny),
        ("sft step, small widths", sft_small),
        ("rollouts, tiny", rollouts),
        ("scoring, tiny", scoring),
        ("preprocessing of a picture", preprocessing),
        ("making puzzles", puzzles),
        ("adamw step", adamw),
    ]
}

fn photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos")
}

fn temporary() -> Result<TempDir> {
    tempfile::tempdir().map_err(|e| Error::failed(format!("cannot make a temporary directory: {e}")))
}

fn settings(grid: &str, tile: u32, count: usize) -> Result<JigsawSettings> {
    Ok(JigsawSettings {
        images: photos(),
        grid: grid.parse().map_err(|e| Error::failed(format!("grid {grid}: {e}")))?,
        tile,
        count,
        split: SplitRatios::new([1.0, 0.0, 0.0])?,
        limit: Some(8),
        ..JigsawSettings::default()
    })
}

/// Puzzles with their reference responses, and the model of `dir` to learn them.
fn examples(dir: &Path, grid: &str, tile: u32, count: usize) -> Result<(Model, Vec<Sequence>)> {
    let data = temporary()?;
    generate(&settings(grid, tile, count)?, data.path(), true, &|| ())?;
    let task = tasks::load(data.path(), "train")?;
    let processor = Processor::from_dir(dir)?;
    let sequences = (0..count).map(|i| reference_sequence(task.as_ref(), &processor, i)).collect::<Result<_>>()?;
    Ok((jigsaw::model::load(dir, &Device::Cpu)?, sequences))
}

fn tiny(count: usize) -> Result<(Model, Vec<Sequence>)> {
    let dir = temporary()?;
    write_checkpoint(dir.path(), Preset::Tiny, 0)?;
    examples(dir.path(), "3x3", 28, count)
}

fn sft(model: Model, batch: Vec<Sequence>, reference: Reference) -> Check {
    let operations = 3.0 * forward(model.architecture(), &batch);
    let work = move || {
        model.backward(&batch, 1.0, None, &|_, stats| {
            Ok(TokenGrads { logprobs: vec![-0.01; stats.logprobs.len()], entropies: None, kl: None })
        })?;
        model.parameters().iter().for_each(|p| p.clear_grad());
        Ok(())
    };
    Check { reference, operations, work: Box::new(work) }
}

fn sft_tiny() -> Result<Check> {
    let (model, batch) = tiny(64)?;
    Ok(sft(model, batch, Reference::Lanes))
}

/// The small preset with two of its eight layers: too many bytes for lanes still.
fn sft_small() -> Result<Check> {
    let dir = temporary()?;
    write_checkpoint(dir.path(), Preset::Small, 0)?;
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = files::read_json(&path)?;
    config["num_hidden_layers"] = 2.into();
    config["vision_config"]["depth"] = 2.into();
    config["vision_config"]["fullatt_block_indexes"] = vec![1].into();
    files::write_json(&path, &config)?;
    let architecture = read_architecture(dir.path())?;
    weights::write(dir.path(), &fresh_parameters(architecture.as_ref(), 0)?, DType::F32)?;
    let (model, batch) = examples(dir.path(), "2x2", 112, 4)?;
    Ok(sft(model, batch, Reference::All))
}

const SAMPLES: usize = 8;
const NEW_TOKENS: usize = 32;

/// 16 prompts with 8 samples of 32 tokens each: a step's rollouts.
fn sampled(model: &Model, prompts: &[Arc<Prompt>]) -> Result<Vec<Sequence>> {
    let sampling = SamplingParams {
        max_new_tokens: NEW_TOKENS,
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        stop: Vec::new(),
        seed: 0,
    };
    let responses = model.generate(prompts, SAMPLES, &sampling, &[], &[])?;
    let sequence = |(prompt, ids)| Sequence { prompt, response: ids };
    let rows = prompts.iter().zip(responses);
    Ok(rows.flat_map(|(p, row)| row.into_iter().map(move |c| (p.clone(), c.ids))).map(sequence).collect())
}

fn prompts() -> Result<(Model, Vec<Arc<Prompt>>)> {
    let (model, batch) = tiny(16)?;
    Ok((model, batch.into_iter().map(|s| s.prompt).collect()))
}

fn rollouts() -> Result<Check> {
    let (model, prompts) = prompts()?;
    let operations = forward(model.architecture(), &sampled(&model, &prompts)?);
    let work = move || sampled(&model, &prompts).map(drop);
    Ok(Check { reference: Reference::Lanes, operations, work: Box::new(work) })
}

fn scoring() -> Result<Check> {
    let (model, prompts) = prompts()?;
    let batch = sampled(&model, &prompts)?;
    let operations = forward(model.architecture(), &batch);
    let work = move || model.score(&batch, 1.0).map(drop);
    Ok(Check { reference: Reference::Lanes, operations, work: Box::new(work) })
}

/// A photo resized and cut into patches. A hundred operations for each pixel of the photo.
fn preprocessing() -> Result<Check> {
    let dir = temporary()?;
    write_checkpoint(dir.path(), Preset::Tiny, 0)?;
    let processor = Processor::from_dir(dir.path())?;
    let (files, _) = source::walk(&photos())?;
    let photo = files.first().ok_or_else(|| Error::failed("data/photos is empty"))?;
    let photo = source::read(&photo.path).and_then(|bytes| source::decode(&bytes)).map_err(Error::failed)?;
    let operations = 100.0 * f64::from(photo.width() * photo.height());
    let work = move || processor.images().map(|images| images.process(&photo)).transpose().map(drop);
    Ok(Check { reference: Reference::One, operations, work: Box::new(work) })
}

/// 64 puzzles of eight photos: decoded, cropped, resized, cut, encoded, written. A thousand operations for each pixel of a puzzle.
fn puzzles() -> Result<Check> {
    let settings = settings("3x3", 28, 64)?;
    let dir = temporary()?;
    let work = move || generate(&settings, dir.path(), true, &|| ()).map(drop);
    Ok(Check { reference: Reference::Lanes, operations: 1000.0 * 64.0 * 84.0 * 84.0, work: Box::new(work) })
}

/// Four arrays read and three written, 28 bytes an element, against the bytes of a copy.
fn adamw() -> Result<Check> {
    let shape = (2048, 2048);
    let tensor = || Tensor::rand(-1f32, 1f32, shape, &Device::Cpu);
    let parameters: Vec<Arc<Parameter>> = (0..2)
        .map(|i| Ok(Arc::new(Parameter::new(format!("p{i}"), Var::from_tensor(&tensor()?)?))))
        .collect::<Result<_>>()?;
    let grads = [tensor()?, tensor()?];
    let mut optimizer = AdamW::new(&parameters, &TrainConfig::defaults(Method::Sft).train)?;
    let work = move || {
        parameters.iter().zip(&grads).for_each(|(p, grad)| p.set_grad(Some(grad.clone())));
        optimizer.update(1e-4, 1.0, 1.0)
    };
    let operations = 28.0 * (2 * shape.0 * shape.1) as f64;
    Ok(Check { reference: Reference::Copy, operations, work: Box::new(work) })
}
