//! PEFT's directory: `adapter_config.json` and `adapter_model.safetensors`.

use super::adapter::{Adapter, pair};
use super::config::{AdapterConfig, local_base};
use super::settings::scale;
use super::targets::{LoraModule, modules};
use crate::io::files;
use crate::io::files::FileChecksum;
use crate::model::architecture::Architecture;
use crate::model::file_names::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::model::safetensors_file::{self, Source, TensorFile, Values};
use crate::{Error, Result};
use candle_core::{Device, Var};
use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The same as older versions of PEFT write them, pickled.
const PICKLED_WEIGHTS: &str = "adapter_model.bin";
/// Before the name of every module in PEFT's files.
const PREFIX: &str = "base_model.model.";

impl Adapter {
    /// Read the adapter in `dir` for a model of this architecture.
    ///
    /// # Errors
    /// An input error that names the file and the field or tensor: another kind of adapter, a setting that is not supported, a tensor for
    /// a module that there is not, without its partner, or of another shape than the module asks for.
    pub fn read(dir: &Path, architecture: &dyn Architecture, device: &Device) -> Result<Adapter> {
        let settings = AdapterConfig::read(dir)?;
        let mut about = Value::Object(settings.said.clone());
        // A path may be relative to this directory, and the adapter may be written to another. A name on the Hub stays a name.
        if let Some(given) = settings.base.as_deref()
            && let Some(place) = local_base(dir, Path::new(given)).and_then(|place| place.canonicalize().ok())
        {
            about["base_model_name_or_path"] = json!(place);
        }
        let file = TensorFile::open(&weights(dir)?)?;
        let bad = |what: String| Error::input(format!("{}: {what}", file.path().display()));
        let mut found: HashMap<String, [Option<(String, &TensorInfo)>; 2]> = HashMap::new();
        for (name, info) in file.tensors() {
            let (module, which) = split(architecture, &name).ok_or_else(|| {
                bad(format!("`{name}` is no matrix of a LoRA adapter; names end with .lora_A.weight or .lora_B.weight"))
            })?;
            if let Some((first, _)) = &found.entry(module.clone()).or_default()[which] {
                return Err(bad(format!(
                    "`{first}` and `{name}` are the same matrix of `{module}`; take out the one that is not meant"
                )));
            }
            found.entry(module).or_default()[which] = Some((name, info));
        }
        // The names that the writer's transformers has for modules, which its targets are meant for.
        let all = modules(architecture);
        let newer = file.tensors().any(|(name, _)| {
            let name = name.strip_prefix(PREFIX).and_then(|name| name.rsplit_once(".lora_")).map(|(module, _)| module);
            all.iter().any(|module| {
                name == Some(module.transformers_name.as_str()) && module.transformers_name != module.name
            })
        });
        let targets = settings.target_pattern();
        let adapted: Vec<&LoraModule> = all.iter().filter(|module| found.contains_key(&module.name)).collect();
        let unused =
            [("rank_pattern", settings.ranks.unused(&adapted)), ("alpha_pattern", settings.alphas.unused(&adapted))];
        if let Some(first) = adapted.first()
            && let Some((field, pattern)) = unused.into_iter().find_map(|(field, pattern)| Some((field, pattern?)))
        {
            return Err(Error::input(format!(
                "{}: {field}: `{pattern}` matches no module of the adapter, whose names are such as {}; correct it or take it out",
                settings.path.display(),
                first.transformers_name
            )));
        }
        let (mut parts, mut lacking) = (Vec::new(), Vec::new());
        for module in all {
            let (current, older) = (module.transformers_name.clone(), module.name.clone());
            let stored = found.contains_key(&module.name);
            if let Some(targets) = &targets {
                if stored && !targets.matches(&current) && !targets.matches(&older) {
                    return Err(bad(format!(
                        "the adapter has matrices for `{older}`, which target_modules, exclude_modules and layers_to_transform of {} do \
                         not mean; PEFT would leave them out",
                        settings.path.display()
                    )));
                }
                if !stored && targets.matches(if newer { &current } else { &older }) {
                    lacking.push(older);
                }
            }
            let Some(pair_of) = found.remove(&module.name) else { continue };
            let [Some((_, a)), Some((_, b))] = pair_of else {
                return Err(bad(format!("`{}` has only one of lora_A and lora_B", module.name)));
            };
            let rank = settings.ranks.of(&module).unwrap_or(settings.rank);
            for (kind, info, want) in [("A", a, [rank, module.width]), ("B", b, [module.out, rank])] {
                if info.shape != want {
                    return Err(bad(format!(
                        "`{}.lora_{kind}.weight` has shape {:?}, but rank {rank} and the module ask for {want:?}",
                        module.name, info.shape
                    )));
                }
            }
            let load = |info: &TensorInfo| -> Result<Var> {
                let mut values = vec![0.0; info.shape.iter().product()];
                file.read(info, &mut values)?;
                Ok(Var::from_vec(values, info.shape.as_slice(), device)?)
            };
            let alpha = settings.alphas.of(&module).unwrap_or(settings.alpha);
            let scale = scale(alpha, rank, settings.rslora);
            let lora = pair(&module, load(a)?, load(b)?, scale, settings.dropout as f32);
            parts.push((module, lora));
        }
        if let Some(name) = found.keys().min() {
            return Err(bad(format!(
                "the adapter has matrices for `{name}`, which is no linear map of the base model"
            )));
        }
        if parts.is_empty() {
            return Err(bad("the adapter is empty".into()));
        }
        let warning = lacking.first().map(|first| {
            format!(
                "{}: no matrices for {} of the {} modules that target_modules means, such as `{first}`; they stay as in the base",
                file.path().display(),
                lacking.len(),
                lacking.len() + parts.len()
            )
        });
        Ok(Adapter { about, parts, warning })
    }

    /// Write it into an existing directory, in f32. Returns what the weight file should hold.
    pub fn write(&self, dir: &Path) -> Result<FileChecksum> {
        let matrices = self.parts.iter().flat_map(|(module, lora)| {
            [("A", &lora.a), ("B", &lora.b)].map(|(kind, parameter)| Source {
                name: format!("{PREFIX}{}.lora_{kind}.weight", module.transformers_name),
                shape: parameter.var.dims().to_vec(),
                values: Values::Tensor(parameter.var.as_tensor()),
            })
        });
        let about = [("format", "pt".to_string())];
        let written = safetensors_file::write(&dir.join(ADAPTER_WEIGHTS), matrices.collect(), Dtype::F32, &about)?;
        files::write_json(&dir.join(ADAPTER_CONFIG), &self.about)?;
        Ok(written)
    }
}

/// The file of the matrices in `dir`.
fn weights(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(ADAPTER_WEIGHTS);
    if !path.exists() && dir.join(PICKLED_WEIGHTS).is_file() {
        return Err(Error::input(format!(
            "{} has {PICKLED_WEIGHTS}, but no {ADAPTER_WEIGHTS}: only safetensors is read; load the adapter with PEFT and save it \
             with save_pretrained(..., safe_serialization=True)",
            dir.display()
        )));
    }
    Ok(path)
}

/// The published name of a matrix's module, and 0 for A, 1 for B.
fn split(architecture: &dyn Architecture, name: &str) -> Option<(String, usize)> {
    let name = name.strip_prefix(PREFIX)?;
    let ends =
        [(".lora_A.weight", 0), (".lora_B.weight", 1), (".lora_A.default.weight", 0), (".lora_B.default.weight", 1)];
    let (module, which) = ends.into_iter().find_map(|(end, which)| Some((name.strip_suffix(end)?, which)))?;
    let published = architecture.published_name(&format!("{module}.weight"));
    Some((published.strip_suffix(".weight")?.to_string(), which))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickled_matrices_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(weights(dir.path()).unwrap(), dir.path().join(ADAPTER_WEIGHTS));
        std::fs::write(dir.path().join(PICKLED_WEIGHTS), "x").unwrap();
        let error = weights(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let said = error.to_string();
        assert!(said.contains("has adapter_model.bin") && said.contains("only safetensors is read"), "{said}");
        // Beside a file that is read it does no harm.
        std::fs::write(dir.path().join(ADAPTER_WEIGHTS), "x").unwrap();
        assert_eq!(weights(dir.path()).unwrap(), dir.path().join(ADAPTER_WEIGHTS));
    }
}
