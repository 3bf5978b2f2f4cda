//! A checkpoint directory written again with weights of another type.

use crate::io::files;
use crate::model::checkpoint_config::read_architecture;
use crate::model::lora;
use crate::model::new_checkpoint::{NewCheckpoint, Written, check_output};
use crate::model::weight_dtype::WeightDtype;
use crate::model::weights::CheckpointFiles;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Write the checkpoint of `from` to `to`, which must be new or empty, or with `overwrite` a checkpoint, with its weights in `dtype`,
/// rounded to nearest. The other files are copied; `config.json`, which names the type, is written last. One tensor is held at a time.
///
/// # Errors
/// An input error if `from` is no checkpoint, `to` holds something else, or a weight is too large for the type.
pub fn convert(from: &Path, to: &Path, dtype: WeightDtype, overwrite: bool) -> Result<Written> {
    check_output(to)?;
    let stored = CheckpointFiles::open(from, read_architecture(from)?.as_ref())?;
    write_like(from, &stored, (to, overwrite), dtype, &|i| stored.values(&stored.tensors[i]))
}

/// Write a checkpoint with the files of `from` and the shapes of its weights, `stored`, to the directory `to` (see [`NewCheckpoint::write`]):
/// `make(i)` gives the numbers of the `i`-th weight.
///
/// # Errors
/// An input error if `to` is `from` itself, and those of [`NewCheckpoint::write`].
pub(crate) fn write_like(
    from: &Path,
    stored: &CheckpointFiles,
    (to, overwrite): (&Path, bool),
    dtype: WeightDtype,
    make: &dyn Fn(usize) -> Result<Vec<f32>>,
) -> Result<Written> {
    stored.check_head()?;
    let mut config: Value = files::read_json(&from.join("config.json"))?;
    if files::is_inside(from, to) {
        return Err(Error::input(format!(
            "{} is read here, and cannot be written over; choose another --out",
            to.display()
        )));
    }
    declare(&mut config, dtype.name());
    let mut beside = sidecars(from)?;
    beside.retain(|(name, _)| name != "config.json");
    let from = from.display().to_string();
    let or = "give --overwrite to replace it";
    NewCheckpoint { from: &from, beside, config, shapes: &stored.shapes(), dtype, or, make }.write(to, overwrite)
}

/// Say in the `config.json` of `dir`, if it has one, that its weights are stored in f32.
pub(crate) fn declare_f32(dir: &Path) -> Result<()> {
    let path = dir.join("config.json");
    if !path.exists() {
        return Ok(());
    }
    let before: Value = files::read_json(&path)?;
    let mut after = before.clone();
    declare(&mut after, "float32");
    if after == before { Ok(()) } else { files::write_json(&path, &after) }
}

/// Older configurations say `torch_dtype`, newer ones `dtype`.
pub(crate) fn declare(config: &mut Value, dtype: &str) {
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = json!(dtype);
}

/// All plain files of a model directory (of an adapter without them, of its base) except weights, their index, what describes an
/// adapter, and the manifest of a checkpoint.
pub(crate) fn copy_model_files(base: &Path, to: &Path) -> Result<()> {
    sidecars(&lora::model_files(base)?)?.iter().try_for_each(|(name, bytes)| files::write_atomic(&to.join(name), bytes))
}

/// Bytes of the files that [`copy_model_files`] copies; what cannot be read counts nothing.
pub(crate) fn model_file_bytes(base: &Path) -> u64 {
    let entries = lora::model_files(base)
        .and_then(|dir| fs::read_dir(&dir).map_err(|e| Error::input(format!("cannot read {}: {e}", dir.display()))));
    let entries = entries.into_iter().flatten().flatten();
    let copied = entries.filter(|entry| is_sidecar(&entry.file_name().to_string_lossy()));
    copied.filter_map(|entry| entry.path().metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// The files of a model directory that go with its weights, by name.
fn sidecars(base: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let fail = |e: std::io::Error| Error::failed(format!("cannot copy the model files of {}: {e}", base.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(base).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && is_sidecar(&name) {
            found.push((name, files::read(&entry.path())?));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file of this name goes with the weights: configuration, tokenizer, template, image settings.
fn is_sidecar(name: &str) -> bool {
    let weights = name.ends_with(".safetensors.index.json");
    let copied = [".json", ".txt", ".jinja", ".model"].iter().any(|end| name.ends_with(end));
    let own = name == "manifest.json" || name == lora::ADAPTER_CONFIG;
    copied && !weights && !own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::output_dir;
    use crate::model::init::{Preset, write_checkpoint};
    use crate::model::weights;
    use candle_core::Device;

    #[test]
    fn weights_are_rounded_once_and_the_config_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second, third) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        write_checkpoint(&first, Preset::Tiny, 3).unwrap();
        convert(&first, &second, WeightDtype::Bf16, false).unwrap();
        convert(&second, &third, WeightDtype::F32, false).unwrap();
        let architecture = read_architecture(&first).unwrap();
        let read = |dir: &Path, name: &str| -> Vec<f32> {
            let all = weights::read(dir, architecture.as_ref(), &Device::Cpu).unwrap();
            let p = all.iter().find(|p| p.name == name).unwrap();
            p.var.flatten_all().unwrap().to_vec1().unwrap()
        };
        let name = &CheckpointFiles::open(&first, architecture.as_ref()).unwrap().tensors[0].name;
        let rounded: Vec<f32> = read(&first, name).into_iter().map(|v| half::bf16::from_f32(v).to_f32()).collect();
        assert_eq!(read(&second, name), rounded);
        assert_eq!(read(&third, name), rounded);
        let said: Value = files::read_json(&second.join("config.json")).unwrap();
        assert_eq!(said["torch_dtype"], "bfloat16");
        let size = |d: &Path| fs::metadata(d.join("model.safetensors")).unwrap().len();
        assert!(size(&second) * 2 < size(&first) + 100_000);
        assert_eq!(convert(&first, &second, WeightDtype::F16, false).unwrap_err().exit_code(), 2);
        convert(&first, &second, WeightDtype::F16, true).unwrap();
        let said: Value = files::read_json(&second.join("config.json")).unwrap();
        assert_eq!(said["torch_dtype"], "float16");
    }

    #[test]
    fn what_is_counted_is_what_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (base, to) = (dir.path().join("base"), dir.path().join("to"));
        fs::create_dir_all(base.join("global_step10")).unwrap();
        fs::create_dir(&to).unwrap();
        // A checkpoint of transformers' Trainer.
        let copied = ["config.json", "merges.txt", "chat_template.jinja", "trainer_state.json"];
        let others = [
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
            "training_args.bin",
            "model.safetensors",
            "manifest.json",
        ];
        for (i, name) in copied.iter().chain(&others).enumerate() {
            fs::write(base.join(name), vec![b'x'; 1 << i]).unwrap();
        }
        copy_model_files(&base, &to).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["chat_template.jinja", "config.json", "merges.txt", "trainer_state.json"]);
        assert_eq!(model_file_bytes(&base), 0b1111);
        assert_eq!(model_file_bytes(&dir.path().join("nowhere")), 0);
    }

    #[test]
    fn weights_that_cannot_be_stored_are_refused_by_name_and_the_same_call_goes_on_later() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        write_checkpoint(&first, Preset::Tiny, 3).unwrap();
        let stored = CheckpointFiles::open(&first, read_architecture(&first).unwrap().as_ref()).unwrap();
        let last = stored.tensors.len() - 1;
        for (value, dtype, said) in [
            (f32::NAN, WeightDtype::F32, "holds NaN"),
            (f32::INFINITY, WeightDtype::Bf16, "holds inf"),
            (70_000.0, WeightDtype::F16, "holds 70000, more than float16 can"),
            (f32::MAX, WeightDtype::Bf16, "more than bfloat16 can"),
        ] {
            let spoilt = |i: usize| -> Result<Vec<f32>> {
                let mut values = stored.values(&stored.tensors[i])?;
                if i == last {
                    values[0] = value;
                }
                Ok(values)
            };
            let error = write_like(&first, &stored, (&second, false), dtype, &spoilt).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
            assert!(error.to_string().contains(&stored.tensors[last].name), "{error}");
            assert!(!second.join("config.json").exists());
        }
        convert(&first, &second, WeightDtype::F32, false).unwrap();
        assert!(read_architecture(&second).is_ok() && !second.join(output_dir::UNFINISHED).exists());
    }
}
