//! PEFT's directory: `adapter_config.json` and `adapter_model.safetensors`.

use super::targets::{Module, modules, whole};
use super::{Adapter, LoraSettings, pair};
use crate::files::Written;
use crate::model::qwen2_5_vl::Config;
use crate::model::qwen2_5_vl::names::published_name;
use crate::tensors::{self, Source, TensorFile, Values};
use crate::{Error, Result, files, hub};
use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What an adapter is.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Its matrices.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Before the name of every module in PEFT's files.
const PREFIX: &str = "base_model.model.";

/// What is read of `adapter_config.json`.
#[derive(Deserialize)]
struct File {
    peft_type: String,
    base_model_name_or_path: Option<String>,
    #[serde(default = "eight")]
    r: usize,
    #[serde(default = "eight_f64")]
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    bias: Option<String>,
    modules_to_save: Option<Vec<String>>,
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
}

// PEFT's defaults.
fn eight() -> usize {
    8
}

fn eight_f64() -> f64 {
    8.0
}

/// `adapter_config.json` of a fresh adapter.
pub(super) fn describe(settings: &LoraSettings, base: &str) -> Value {
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "target_modules": settings.target.for_peft(),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_to_transform": null,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "revision": null,
    })
}

/// Whether a directory holds an adapter.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG).is_file()
}

/// The directory of an adapter's base.
///
/// # Errors
/// An input error that names the file and the field, if the base is not there.
pub fn base_of(dir: &Path) -> Result<PathBuf> {
    let (path, file) = read_config(dir)?;
    let Some(base) = file.base_model_name_or_path.filter(|base| !base.is_empty()) else {
        return Err(Error::input(format!(
            "{}: base_model_name_or_path is missing; write the base model's directory there",
            path.display()
        )));
    };
    let here = PathBuf::from(&base);
    let cached = || hub::cached(&here, &hub::Settings::from_env().ok()?);
    if let Some(found) = local_base(dir, &here).or_else(cached) {
        if is_adapter(&found) {
            return Err(Error::input(format!(
                "{}: base_model_name_or_path is {base}, which is an adapter itself; merge that one first (jigsaw model merge-lora)",
                path.display()
            )));
        }
        return Ok(found);
    }
    Err(Error::input(format!(
        "{}: the base model {base} (base_model_name_or_path) is not there, nor in the cache of the Hub; write there where it is, or \
         download it: jigsaw model inspect OWNER/NAME",
        path.display()
    )))
}

/// The base's directory on this machine, given as from here or as from the adapter's directory.
fn local_base(dir: &Path, given: &Path) -> Option<PathBuf> {
    [given.to_path_buf(), dir.join(given)].into_iter().find(|place| place.is_dir())
}

/// Where `config.json`, the tokenizer and the image settings of a model directory are: in itself, or, if it is an adapter without them,
/// in its base.
///
/// # Errors
/// See [`base_of`].
pub fn model_files(dir: &Path) -> Result<PathBuf> {
    if is_adapter(dir) && !dir.join("config.json").is_file() { base_of(dir) } else { Ok(dir.to_path_buf()) }
}

/// What of `adapter_config.json` changes what the model computes, as text: for hashes.
///
/// # Errors
/// The file cannot be read or asks for what is not supported.
pub fn scaling_of(dir: &Path) -> Result<String> {
    let (_, f) = read_config(dir)?;
    let patterns = json!([f.rank_pattern, f.alpha_pattern]);
    Ok(format!("r {} alpha {} rslora {} patterns {patterns}", f.r, f.lora_alpha, f.use_rslora))
}

fn read_config(dir: &Path) -> Result<(PathBuf, File)> {
    let path = dir.join(ADAPTER_CONFIG);
    let file: File = files::read_json(&path)?;
    let bad = |what: String| Err(Error::input(format!("{}: {what}", path.display())));
    if file.peft_type != "LORA" {
        return bad(format!("peft_type is {}; only LORA adapters can be read", file.peft_type));
    }
    let refused = [
        ("use_dora", file.use_dora),
        ("lora_bias", file.lora_bias),
        ("fan_in_fan_out", file.fan_in_fan_out),
        ("modules_to_save", file.modules_to_save.as_ref().is_some_and(|m| !m.is_empty())),
        ("bias", file.bias.as_deref().is_some_and(|bias| bias != "none")),
    ];
    match refused.into_iter().find(|(_, set)| *set) {
        Some((field, _)) => bad(format!("{field} is set, which is not supported; merge the adapter with peft")),
        None => Ok((path, file)),
    }
}

impl Adapter {
    /// Read the adapter in `dir` for a model of this architecture.
    ///
    /// # Errors
    /// An input error that names the file and the field or tensor: another kind of adapter, a setting that is not supported, a tensor for
    /// a module that there is not, without its partner, or of another shape than the module asks for.
    pub fn read(dir: &Path, config: &Config, device: &Device) -> Result<Adapter> {
        let (path, settings) = read_config(dir)?;
        let mut about: Value = files::read_json(&path)?;
        // A path may be relative to this directory, and the adapter may be written to another. A name on the Hub stays a name.
        if let Some(given) = settings.base_model_name_or_path.as_deref()
            && let Some(place) = local_base(dir, Path::new(given)).and_then(|place| place.canonicalize().ok())
        {
            about["base_model_name_or_path"] = json!(place);
        }
        let file = TensorFile::open(&dir.join(ADAPTER_WEIGHTS))?;
        let bad = |what: String| Error::input(format!("{}: {what}", file.path().display()));
        let mut found: HashMap<String, [Option<&TensorInfo>; 2]> = HashMap::new();
        for (name, info) in file.tensors() {
            let (module, which) = split(&name).ok_or_else(|| {
                bad(format!("`{name}` is no matrix of a LoRA adapter; names end with .lora_A.weight or .lora_B.weight"))
            })?;
            found.entry(module).or_default()[which] = Some(info);
        }
        let (ranks, alphas) = (
            patterns(settings.rank_pattern, |v| v.as_u64().map(|rank| rank as usize))?,
            patterns(settings.alpha_pattern, Value::as_f64)?,
        );
        let mut parts = Vec::new();
        for module in modules(config) {
            let Some(pair_of) = found.remove(&module.name) else { continue };
            let [Some(a), Some(b)] = pair_of else {
                return Err(bad(format!("`{}` has only one of lora_A and lora_B", module.name)));
            };
            let rank = lookup(&ranks, &module).unwrap_or(settings.r);
            for (kind, info, want) in [("A", a, [rank, module.width]), ("B", b, [module.out, rank])] {
                if info.shape != want {
                    return Err(bad(format!(
                        "`{}.lora_{kind}.weight` has shape {:?}, but rank {rank} and the module ask for {want:?}",
                        module.name, info.shape
                    )));
                }
            }
            let load = |info: &TensorInfo| -> Result<Tensor> {
                let mut values = vec![0.0; info.shape.iter().product()];
                file.read(info, &mut values)?;
                Ok(Tensor::from_vec(values, info.shape.as_slice(), device)?)
            };
            let alpha = lookup(&alphas, &module).unwrap_or(settings.lora_alpha);
            let scale = scale(alpha, rank, settings.use_rslora);
            let lora = pair(&module, load(a)?, load(b)?, scale, settings.lora_dropout as f32)?;
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
        Ok(Adapter { about, parts })
    }

    /// Write it into an existing directory, in f32. Returns what the weight file is meant to hold.
    pub fn write(&self, dir: &Path) -> Result<Written> {
        let matrices = self.parts.iter().flat_map(|(module, lora)| {
            [("A", &lora.a), ("B", &lora.b)].map(|(kind, parameter)| Source {
                name: format!("{PREFIX}{}.lora_{kind}.weight", module.current_name()),
                shape: parameter.var.dims().to_vec(),
                values: Values::Tensor(parameter.var.as_tensor()),
            })
        });
        let about = [("format", "pt".to_string())];
        let written = tensors::write(&dir.join(ADAPTER_WEIGHTS), matrices.collect(), Dtype::F32, &about)?;
        files::write_json(&dir.join(ADAPTER_CONFIG), &self.about)?;
        Ok(written)
    }
}

/// `alpha / rank`, or `alpha / sqrt(rank)` (rsLoRA).
pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f64 {
    if rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
}

/// The published name of a matrix's module, and 0 for A, 1 for B.
fn split(name: &str) -> Option<(String, usize)> {
    let name = name.strip_prefix(PREFIX)?;
    let ends =
        [(".lora_A.weight", 0), (".lora_B.weight", 1), (".lora_A.default.weight", 0), (".lora_B.default.weight", 1)];
    let (module, which) = ends.into_iter().find_map(|(end, which)| Some((name.strip_suffix(end)?, which)))?;
    let published = published_name(&format!("{module}.weight"));
    Some((published.strip_suffix(".weight")?.to_string(), which))
}

/// PEFT's `rank_pattern` and `alpha_pattern`: the value of the first pattern that matches the end of a module's name.
type Patterns<T> = Vec<(Box<dyn Fn(&str) -> bool>, T)>;

fn patterns<T>(of: Option<Map<String, Value>>, read: impl Fn(&Value) -> Option<T>) -> Result<Patterns<T>> {
    let mut found: Patterns<T> = Vec::new();
    for (pattern, value) in of.unwrap_or_default() {
        let value =
            read(&value).ok_or_else(|| Error::input(format!("{ADAPTER_CONFIG}: {pattern}: {value} is no number")))?;
        found.push((Box::new(whole(&format!(r"(?:.*\.)?(?:{pattern})"))?), value));
    }
    Ok(found)
}

fn lookup<T: Copy>(patterns: &Patterns<T>, module: &Module) -> Option<T> {
    let name = module.current_name();
    patterns.iter().find(|(matches, _)| matches(&name)).map(|(_, value)| *value)
}
