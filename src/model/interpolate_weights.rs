//! A checkpoint between two others: WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
//!
//! Each weight is `(1 - alpha) * A + alpha * B`, computed in f64 and rounded once to f32: alpha 0 gives A's weights exactly and
//! alpha 1 those of B. Both models must be of one architecture and share a tokenizer, or the mean of two weights means nothing.

use crate::io::files;
use crate::model::architecture::Architecture;
use crate::model::checkpoint_config::read_architecture;
use crate::model::convert_dtype::write_like;
use crate::model::new_checkpoint::{Written, check_output};
use crate::model::weight_dtype::WeightDtype;
use crate::model::weights::{CheckpointFiles, StoredTensor};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Write the checkpoint `(1 - alpha) * a + alpha * b` to `out`, which must be new or empty, or with `overwrite` a checkpoint, in f32. The other
/// files are those of `a`; `config.json`, without which no reader accepts the directory, is written last.
///
/// # Errors
/// An input error if alpha is not in [0, 1], one of the directories is no checkpoint, their tensors differ in name or shape (it names
/// the tensor and both shapes), their other settings or tokenizers differ, a weight is not finite, or `out` holds something else.
pub fn interpolate(a: &Path, b: &Path, alpha: f64, out: &Path, overwrite: bool) -> Result<Written> {
    if !(0.0..=1.0).contains(&alpha) {
        return Err(Error::input(format!("alpha {alpha}: must be in [0, 1]")));
    }
    if files::is_inside(b, out) {
        return Err(Error::input(format!(
            "{} is read here, and cannot be written over; choose another --out",
            out.display()
        )));
    }
    check_output(out)?;
    let (config_a, config_b) = (read_architecture(a)?, read_architecture(b)?);
    let (stored_a, stored_b) =
        (CheckpointFiles::open(a, config_a.as_ref())?, CheckpointFiles::open(b, config_b.as_ref())?);
    let partners = partners(a, &stored_a, b, &stored_b)?;
    same_settings(a, config_a.as_ref(), b, config_b.as_ref())?;
    stored_b.check_head()?;
    // Checked before anything is written.
    for (tensor, partner) in &partners {
        for (dir, values) in [(a, stored_a.values(tensor)?), (b, stored_b.values(partner)?)] {
            if let Some(value) = values.iter().find(|v| !v.is_finite()) {
                return Err(Error::input(format!("{}: `{}` holds {value}", dir.display(), tensor.name)));
            }
        }
    }
    let between = |i: usize| -> Result<Vec<f32>> {
        let (tensor, partner) = partners[i];
        let (mut values, other) = (stored_a.values(tensor)?, stored_b.values(partner)?);
        for (value, other) in values.iter_mut().zip(other) {
            *value = ((1.0 - alpha) * f64::from(*value) + alpha * f64::from(other)) as f32;
        }
        Ok(values)
    };
    write_like(a, &stored_a, (out, overwrite), WeightDtype::F32, &between)
}

/// Each tensor of `a` with that of `b` of the same name and shape.
pub(super) fn partners<'s>(
    dir_a: &Path,
    a: &'s CheckpointFiles,
    dir_b: &Path,
    b: &'s CheckpointFiles,
) -> Result<Vec<(&'s StoredTensor, &'s StoredTensor)>> {
    let (here, there) = (dir_a.display(), dir_b.display());
    let mut left: HashMap<&str, &StoredTensor> = b.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut found = Vec::with_capacity(a.tensors.len());
    for tensor in &a.tensors {
        let StoredTensor { name, shape, .. } = tensor;
        match left.remove(name.as_str()) {
            Some(partner) if partner.shape == *shape => found.push((tensor, partner)),
            Some(partner) => {
                return Err(Error::input(format!(
                    "`{name}` has shape {shape:?} in {here}, but {:?} in {there}: the models have different sizes",
                    partner.shape
                )));
            }
            None => return Err(Error::input(format!("`{name}` {shape:?} of {here} is not in {there}"))),
        }
    }
    match b.tensors.iter().find(|t| left.contains_key(t.name.as_str())) {
        Some(StoredTensor { name, shape, .. }) => {
            Err(Error::input(format!("`{name}` {shape:?} of {there} is not in {here}")))
        }
        None => Ok(found),
    }
}

/// Refuse models that differ in more than their weights: in settings such as the rotary base, or in the token that a row of the
/// embeddings stands for.
fn same_settings(dir_a: &Path, a: &dyn Architecture, dir_b: &Path, b: &dyn Architecture) -> Result<()> {
    let (here, there) = (dir_a.display(), dir_b.display());
    if a.to_json() != b.to_json() {
        return Err(Error::input(format!(
            "{here} and {there} have the same tensors, but the settings in their config.json differ; the models do not compute alike"
        )));
    }
    let tokenizer = |dir: &Path| files::read(&dir.join("tokenizer.json")).ok();
    match (tokenizer(dir_a), tokenizer(dir_b)) {
        (Some(a), Some(b)) if a != b => Err(Error::input(format!(
            "{here} and {there} have different tokenizers (tokenizer.json); a row of their embeddings is not of the same token"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::output_dir;
    use crate::model::convert_dtype::copy_model_files;
    use crate::model::init::{Preset, write_checkpoint};
    use crate::model::weights;
    use candle_core::Device;

    fn weights_of(dir: &Path) -> Vec<(String, Vec<f32>)> {
        let stored = CheckpointFiles::open(dir, read_architecture(dir).unwrap().as_ref()).unwrap();
        stored.tensors.iter().map(|t| (t.name.clone(), stored.values(t).unwrap())).collect()
    }

    /// The same model with one more token.
    fn wider(from: &Path, to: &Path) {
        files::create_dir(to).unwrap();
        copy_model_files(from, to).unwrap();
        let mut json: serde_json::Value = files::read_json(&from.join("config.json")).unwrap();
        let vocab = json["vocab_size"].as_u64().unwrap() as usize + 1;
        json["vocab_size"] = vocab.into();
        files::write_json(&to.join("config.json"), &json).unwrap();
        let stored = CheckpointFiles::open(from, read_architecture(from).unwrap().as_ref()).unwrap();
        let mut shapes = stored.shapes();
        let embeddings = shapes.iter().position(|(name, _)| name == "model.embed_tokens.weight").unwrap();
        shapes[embeddings].1[0] = vocab;
        let make = |i: usize| {
            let mut values = stored.values(&stored.tensors[i])?;
            values.resize(shapes[i].1.iter().product(), 0.0);
            Ok(values)
        };
        weights::write_with(to, &shapes, candle_core::DType::F32, &make).unwrap();
    }

    #[test]
    fn each_weight_lies_between_the_two_and_the_ends_are_the_models_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write_checkpoint(&at("a"), Preset::Tiny, 1).unwrap();
        write_checkpoint(&at("b"), Preset::Tiny, 2).unwrap();
        for (name, alpha) in [("zero", 0.0), ("quarter", 0.25), ("one", 1.0)] {
            interpolate(&at("a"), &at("b"), alpha, &at(name), false).unwrap();
        }
        let (a, b) = (weights_of(&at("a")), weights_of(&at("b")));
        assert_eq!(weights_of(&at("zero")), a);
        assert_eq!(weights_of(&at("one")), b);
        let mut differing = 0;
        for (((name, a), (_, b)), (_, mixed)) in a.iter().zip(&b).zip(&weights_of(&at("quarter"))) {
            for ((a, b), mixed) in a.iter().zip(b).zip(mixed) {
                assert!((0.75 * a + 0.25 * b - mixed).abs() <= 1e-6 * (a.abs() + b.abs()), "{name}: {a} {b} {mixed}");
                differing += usize::from(a != b && mixed != a && mixed != b);
            }
        }
        assert!(differing > 1000);
        for file in ["tokenizer.json", "preprocessor_config.json", "config.json"] {
            assert!(at("quarter").join(file).is_file(), "{file}");
        }
        crate::model::load(&at("quarter"), &Device::Cpu).unwrap();
    }

    #[test]
    fn models_that_do_not_fit_together_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write_checkpoint(&at("a"), Preset::Tiny, 1).unwrap();
        write_checkpoint(&at("b"), Preset::Tiny, 2).unwrap();
        wider(&at("a"), &at("wider"));
        let refused = |a: &str, b: &str, alpha: f64| {
            let error = interpolate(&at(a), &at(b), alpha, &at("out"), false).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(!at("out").exists());
            error.to_string()
        };
        let message = refused("a", "wider", 0.5);
        assert!(message.contains("`model.embed_tokens.weight` has shape [") && message.contains("but ["), "{message}");
        for alpha in [-0.1, 1.5, f64::NAN] {
            assert!(refused("a", "b", alpha).contains("alpha"));
        }
        let said = |out: &str, overwrite: bool| {
            let error = interpolate(&at("a"), &at("b"), 0.5, &at(out), overwrite).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        for out in ["a", "b"] {
            assert!(said(out, true).contains("cannot be written over"), "{}", said(out, true));
        }
        // What lies there is replaced when that is asked for, and is left alone otherwise; so is what is no model, always.
        interpolate(&at("a"), &at("b"), 0.25, &at("there"), false).unwrap();
        let before = std::fs::read(at("there").join("model.safetensors")).unwrap();
        assert!(said("there", false).contains("--overwrite"));
        assert_eq!(interpolate(&at("a"), &at("b"), 0.25, &at("there"), false).unwrap(), Written::Found);
        interpolate(&at("a"), &at("b"), 0.5, &at("there"), true).unwrap();
        assert_ne!(std::fs::read(at("there").join("model.safetensors")).unwrap(), before);
        std::fs::create_dir(at("there").join("more")).unwrap();
        assert!(said("there", true).contains("directory more"));
        std::fs::create_dir(at("else")).unwrap();
        std::fs::write(at("else").join("notes.txt"), "x").unwrap();
        assert!(said("else", true).contains("not empty") && at("else").join("notes.txt").exists());
        // A call replaces what an interrupted one left behind, unless another process is still writing there.
        std::fs::create_dir(at("cut")).unwrap();
        std::fs::write(at("cut").join(output_dir::UNFINISHED), "").unwrap();
        std::fs::write(at("cut").join(".model.safetensors.123.tmp"), "half").unwrap();
        let writing = output_dir::lock(&at("cut"), "writing").unwrap();
        assert!(said("cut", false).contains("another process is writing"));
        drop(writing);
        interpolate(&at("a"), &at("b"), 0.5, &at("cut"), false).unwrap();
        let names = |dir: &str| {
            let entries = std::fs::read_dir(at(dir)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("cut"), names("a"));
        let path = at("b").join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
        assert!(refused("a", "b", 0.5).contains("tokenizer"));
    }
}
