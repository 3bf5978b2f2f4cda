//! `adapter_config.json`: what an adapter is, what its matrices are multiplied by, and where its base is.

use super::settings::LoraSettings;
use super::targets::{ALL_LINEAR, LoraModule, Targets, whole};
use crate::model::architecture::Architecture;
use crate::model::file_names::{ADAPTER_CONFIG, is_adapter, missing_files};
use crate::model::json_fields::{self, Fields};
use crate::{Error, Result, hub};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Fields that are read.
const READ: [&str; 11] = [
    "peft_type",
    "base_model_name_or_path",
    "revision",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "init_lora_weights",
    "bias",
];
/// Fields that do not change what the stored matrices do to the base, whatever they hold: where and how PEFT makes and trains an adapter.
const HARMLESS: [&str; 17] = [
    "task_type",
    "inference_mode",
    "auto_mapping",
    "peft_version",
    "runtime_config",
    "megatron_core",
    // Which modules have matrices is seen from the matrices.
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    // Of the embeddings and the output head, which cannot have matrices here.
    "ensure_weight_tying",
    // Settings of ways to begin; which one it was is said by `init_lora_weights`.
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    // Of a switch that is refused where it is on.
    "qalora_group_size",
    // Another backward pass.
    "velora_config",
];
/// Ways to begin that leave the base as it is.
const PLAIN_INITS: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];
/// Ways to begin that change the base, and that PEFT can turn into a plain LoRA.
const CONVERTED_INITS: [&str; 4] = ["pissa", "olora", "corda", "lora_ga"];

/// Does a name match?
type Matches = Box<dyn Fn(&str) -> bool>;

/// What `adapter_config.json` says.
pub(super) struct AdapterConfig {
    /// The file.
    pub path: PathBuf,
    /// Everything in it.
    pub said: Map<String, Value>,
    /// Name or path of the base.
    pub base: Option<String>,
    /// Revision of the base, if it has a name.
    pub revision: Option<String>,
    /// `r`.
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `lora_dropout`.
    pub dropout: f64,
    /// `use_rslora`.
    pub rslora: bool,
    /// Ranks of single modules.
    pub ranks: Patterns<usize>,
    /// Alphas of single modules.
    pub alphas: Patterns<f64>,
}

impl AdapterConfig {
    /// Read the file in `dir`.
    ///
    /// # Errors
    /// An input error that names the file and the field: another kind of adapter, a value out of range, or a field that is set and changes
    /// the model in a way that is not supported or not known.
    pub fn read(dir: &Path) -> Result<AdapterConfig> {
        let path = dir.join(ADAPTER_CONFIG);
        let value = json_fields::read_json(&path)?;
        Self::from_json(&path, value).map_err(|e| e.context(path.display()))
    }

    fn from_json(path: &Path, value: Value) -> Result<AdapterConfig> {
        let f = Fields::root(&value)?;
        match f.string("peft_type")?.as_deref() {
            Some("LORA") => {}
            Some(other) => return Err(f.error("peft_type", format!("is {other}; only LORA adapters can be read"))),
            None => return Err(f.error("peft_type", "is missing; a LoRA adapter has `LORA`")),
        }
        let Value::Object(said) = &value else { return Err(Error::input("must be a JSON object")) };
        check_init(&f, said.get("init_lora_weights"))?;
        let known = |field: &str| READ.contains(&field) || HARMLESS.contains(&field);
        let unknown = said.iter().find(|(field, value)| !known(field) && !is_empty(value)).map(|(field, _)| field);
        let biased = f.string("bias")?.is_some_and(|bias| bias != "none");
        if let Some(field) = unknown.map(String::as_str).or(biased.then_some("bias")) {
            return Err(f.error(
                field,
                "is set, and this program does not compute what it asks for; merge the adapter with peft \
                 (merge_and_unload) and give the merged model",
            ));
        }
        let config = AdapterConfig {
            path: path.to_path_buf(),
            base: f.string("base_model_name_or_path")?.filter(|base| !base.is_empty()),
            revision: f.string("revision")?.filter(|revision| !revision.is_empty()),
            // What is left out has PEFT's default.
            rank: given(&f, "r", f.positive("r")?, 8)?,
            alpha: given(&f, "lora_alpha", f.positive_number("lora_alpha")?, 8.0)?,
            dropout: given(&f, "lora_dropout", f.fraction("lora_dropout")?, 0.0)?,
            rslora: f.boolean("use_rslora")?.unwrap_or(false),
            ranks: Patterns::read(&f, "rank_pattern", |f, key| f.positive(key))?,
            alphas: Patterns::read(&f, "alpha_pattern", |f, key| f.positive_number(key))?,
            said: said.clone(),
        };
        if !(config.alpha as f32).is_finite() {
            return Err(f.error("lora_alpha", format!("{} is too large", config.alpha)));
        }
        Ok(config)
    }
}

/// The value of a field that may be left out but not be `null`.
fn given<T>(f: &Fields, key: &str, value: Option<T>, default: T) -> Result<T> {
    match value {
        Some(value) => Ok(value),
        None if f.has(key) => Err(f.error(key, "must be a number, not `null`; leave it out for PEFT's default")),
        None => Ok(default),
    }
}

/// Refuse an adapter whose beginning was taken out of the base: PEFT does that to the base again whenever it loads the adapter.
fn check_init(f: &Fields, value: Option<&Value>) -> Result<()> {
    let init = match value {
        None | Some(Value::Null | Value::Bool(_)) => return Ok(()),
        Some(Value::String(init)) => init.to_lowercase(),
        Some(other) => other.to_string(),
    };
    if PLAIN_INITS.contains(&init.as_str()) {
        return Ok(());
    }
    const MERGE: &str = "merge it with peft (merge_and_unload) and give the merged model";
    let what_to_do = match CONVERTED_INITS.iter().any(|converted| init.starts_with(converted)) {
        true => format!(
            "save it with peft as a plain LoRA (save_pretrained with path_initial_model_for_weight_conversion), or {MERGE}"
        ),
        false => MERGE.to_string(),
    };
    Err(f.error(
        "init_lora_weights",
        format!(
            "is `{init}`: PEFT changes the base's weights whenever it loads such an adapter, which is not done here; {what_to_do}"
        ),
    ))
}

/// Does a value ask for nothing?
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Which modules an adapter names: `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern`.
pub(super) struct TargetPattern {
    targets: Matches,
    excluded: Matches,
    layers: Vec<u64>,
    lists: Vec<String>,
}

impl TargetPattern {
    /// Whether the adapter names this module.
    pub fn matches(&self, name: &str) -> bool {
        (self.targets)(name) && !(self.excluded)(name) && (self.layers.is_empty() || self.in_layers(name))
    }

    /// Is it in one of the layers, whose number is the first in a name that has two parts before and one after it?
    fn in_layers(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        let number = |i: usize| parts[i].parse::<u64>().ok();
        let listed = |i: usize| match self.lists.is_empty() {
            true => i >= 2,
            false => i >= 1 && self.lists.iter().any(|list| list == parts[i - 1]),
        };
        let layer = (0..parts.len().saturating_sub(1)).filter(|&i| listed(i)).find_map(number);
        layer.is_some_and(|layer| self.layers.contains(&layer))
    }
}

impl AdapterConfig {
    /// Which modules the file names; `None` where that cannot be read here.
    pub fn target_pattern(&self) -> Option<TargetPattern> {
        let of = |field: &str| self.said.get(field).filter(|value| !is_empty(value));
        let targets: Targets = serde_json::from_value(of("target_modules")?.clone()).ok()?;
        let excluded = match of("exclude_modules") {
            None => Targets::Names(Vec::new()),
            Some(value) => serde_json::from_value(value.clone()).ok()?,
        };
        // PEFT takes layers with a list of names only.
        let layers = match of("layers_to_transform").filter(|_| matches!(targets, Targets::Names(_))) {
            None => Vec::new(),
            Some(Value::Array(layers)) => layers.iter().map(Value::as_u64).collect::<Option<_>>()?,
            Some(layer) => vec![layer.as_u64()?],
        };
        let lists = match of("layers_pattern") {
            None => Vec::new(),
            Some(Value::String(list)) => vec![list.clone()],
            Some(lists) => serde_json::from_value(lists.clone()).ok()?,
        };
        Some(TargetPattern { targets: named(targets)?, excluded: named(excluded)?, layers, lists })
    }
}

/// Does PEFT take a module of a name to be one of these? `None` for a pattern that cannot be read here.
fn named(targets: Targets) -> Option<Matches> {
    Some(match targets {
        Targets::Pattern(word) if word == ALL_LINEAR => Box::new(|_| true),
        Targets::Pattern(pattern) => Box::new(whole(&pattern).ok()?),
        Targets::Names(ends) => Box::new(move |name| {
            ends.iter()
                .any(|end| name.strip_suffix(end.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        }),
    })
}

/// PEFT's `rank_pattern` or `alpha_pattern`: a module has the value of the first pattern that matches the end of its name.
pub(super) struct Patterns<T>(Vec<Pattern<T>>);

struct Pattern<T> {
    text: String,
    matches: Matches,
    value: T,
}

impl<T: Copy> Patterns<T> {
    fn read(f: &Fields, key: &str, value: impl Fn(&Fields, &str) -> Result<Option<T>>) -> Result<Patterns<T>> {
        let Some(section) = f.section(key)? else { return Ok(Patterns(Vec::new())) };
        let one = |text: &str| {
            let value = value(&section, text)?.ok_or_else(|| section.error(text, "must be a number, not `null`"))?;
            // Alone, so that an error shows what is written there.
            drop(whole(text).map_err(|e| f.error(key, e))?);
            let matches = whole(&format!(r"(?:.*\.)?(?:{text})")).map_err(|e| f.error(key, e))?;
            Ok(Pattern { text: text.to_string(), matches: Box::new(matches), value })
        };
        Ok(Patterns(section.keys().map(one).collect::<Result<_>>()?))
    }

    /// The value for a module.
    pub fn of(&self, module: &LoraModule) -> Option<T> {
        self.0.iter().find(|pattern| pattern.fits(module)).map(|pattern| pattern.value)
    }

    /// The first pattern that fits none of these modules.
    pub fn unused(&self, modules: &[&LoraModule]) -> Option<&str> {
        self.0.iter().find(|pattern| !modules.iter().any(|module| pattern.fits(module))).map(|p| p.text.as_str())
    }
}

impl<T> Pattern<T> {
    /// Does it match a name that the module has, now or before transformers 4.52?
    fn fits(&self, module: &LoraModule) -> bool {
        (self.matches)(&module.transformers_name) || (self.matches)(&module.name)
    }
}

/// `adapter_config.json` of a fresh adapter.
pub(super) fn describe(settings: &LoraSettings, architecture: &dyn Architecture, base: &str) -> Value {
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "target_modules": settings.target.for_peft(architecture),
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

/// The directory of an adapter's base.
///
/// # Errors
/// An input error that names the file and the field, if the base is not there.
pub fn base_of(dir: &Path) -> Result<PathBuf> {
    let AdapterConfig { path, base, revision, .. } = AdapterConfig::read(dir)?;
    let Some(base) = base else {
        return Err(Error::input(format!(
            "{}: base_model_name_or_path is missing; write the base model's directory there",
            path.display()
        )));
    };
    // A directory has no revisions.
    let named = match &revision {
        Some(revision) if !base.contains('@') => format!("{base}@{revision}"),
        _ => base.clone(),
    };
    let cached = || hub::cached(Path::new(&named), &hub::HubConfig::from_env().ok()?, &missing_files);
    if let Some(found) = local_base(dir, Path::new(&base)).or_else(cached) {
        if is_adapter(&found) {
            return Err(Error::input(format!(
                "{}: base_model_name_or_path is {base}, which is an adapter itself; merge that one first (jigsaw model merge-lora)",
                path.display()
            )));
        }
        return Ok(found);
    }
    Err(Error::input(match (hub::RepoId::parse(&named), hub::RepoId::parse(&base)) {
        (Some(name), _) => format!(
            "{}: the base model {name} (base_model_name_or_path, revision) is not there, nor in the cache of the Hub; download it \
             (jigsaw model inspect {name}), or write there where it is",
            path.display()
        ),
        (None, Some(_)) => format!(
            "{}: revision is {}, which is no branch, tag or commit of {base}",
            path.display(),
            revision.unwrap_or_default()
        ),
        (None, None) => format!(
            "{}: the base model {base} (base_model_name_or_path) is not there; write there where it is",
            path.display()
        ),
    }))
}

/// The base's directory on this machine, given as from here or as from the adapter's directory.
pub(super) fn local_base(dir: &Path, given: &Path) -> Option<PathBuf> {
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
    let config = AdapterConfig::read(dir)?;
    let patterns = json!([config.said.get("rank_pattern"), config.said.get("alpha_pattern")]);
    Ok(format!("r {} alpha {} rslora {} patterns {patterns}", config.rank, config.alpha, config.rslora))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture() -> std::sync::Arc<dyn Architecture> {
        crate::model::parse_architecture(
            &json!({ "model_type": "qwen2_5_vl", "vision_config": { "out_hidden_size": 8192 } }),
        )
        .unwrap()
    }

    fn linear_map(name: &str) -> LoraModule {
        LoraModule { name: name.into(), transformers_name: architecture().transformers_name(name), out: 4, width: 4 }
    }

    /// What is said about an adapter's file with these fields in it; `None` if nothing is wrong.
    fn said(fields: Value) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = describe(&LoraSettings::default(), architecture().as_ref(), "base");
        fields.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        std::fs::write(dir.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
        let error = AdapterConfig::read(dir.path()).err()?;
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        assert!(error.contains("adapter_config.json: "), "{error}");
        Some(error.split_once("adapter_config.json: ").unwrap().1.to_string())
    }

    fn refused(fields: Value, parts: &[&str]) {
        let error = said(fields.clone()).unwrap_or_else(|| panic!("{fields} was accepted"));
        assert!(parts.iter().all(|part| error.contains(part)), "{fields}: {parts:?} in: {error}");
    }

    #[test]
    fn adapters_whose_beginning_was_taken_out_of_the_base_are_refused_by_name() {
        for init in ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "lora_ga"] {
            let parts = ["init_lora_weights: is `", "path_initial_model_for_weight_conversion", "merge_and_unload"];
            refused(json!({ "init_lora_weights": init }), &parts);
        }
        for init in [json!("loftq"), json!("something_new"), json!(3)] {
            refused(json!({ "init_lora_weights": init }), &["init_lora_weights: is `", "merge_and_unload"]);
        }
        for init in [json!(true), json!(false), json!(null), json!("gaussian"), json!("orthogonal"), json!("eva")] {
            assert_eq!(said(json!({ "init_lora_weights": init })), None, "{init}");
        }
    }

    #[test]
    fn a_field_that_may_change_the_model_is_refused_by_name() {
        for (field, value) in [
            ("use_dora", json!(true)),
            ("lora_bias", json!(true)),
            ("fan_in_fan_out", json!(true)),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
            ("modules_to_save", json!("lm_head")),
            ("alora_invocation_tokens", json!([1, 2])),
            ("layer_replication", json!([[0, 2], [1, 3]])),
            ("arrow_config", json!({"top_k": 1})),
            ("use_bdlora", json!({"nblocks": 2})),
            ("kasa_config", json!({"beta": 1})),
            ("monteclora_config", json!({"num_samples": 2})),
            ("use_qalora", json!(true)),
            ("target_parameters", json!(["x"])),
            ("trainable_token_indices", json!([1, 2])),
            ("megatron_config", json!({"a": 1})),
            ("a_field_of_next_year", json!(1)),
        ] {
            refused(json!({ field: value }), &[&format!("{field}: is set"), "merge_and_unload"]);
        }
        // What PEFT 0.21.2 writes of a plain adapter, and what only concerns how it was made.
        let plain = json!({
            "alora_invocation_tokens": null, "arrow_config": null, "auto_mapping": {"base_model_class": "x"}, "corda_config": {"verbose": true},
            "ensure_weight_tying": false, "eva_config": {"rho": 2.0}, "exclude_modules": ["lm_head"], "kasa_config": null,
            "layer_replication": null, "layers_pattern": "layers", "layers_to_transform": [0], "loftq_config": {}, "lora_bias": false,
            "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": [],
            "monteclora_config": null, "peft_version": "0.21.2", "qalora_group_size": 16, "runtime_config": {"ephemeral_gpu_offload": true},
            "target_parameters": null, "task_type": "SEQ_CLS", "trainable_token_indices": null, "use_bdlora": null, "use_dora": null,
            "use_qalora": false, "velora_config": {"num_groups": 2}, "a_field_of_next_year": {},
        });
        assert_eq!(said(plain), None);
    }

    #[test]
    fn values_out_of_range_are_named_with_their_field() {
        for (field, value) in [
            ("r", json!(0)),
            ("r", json!(null)),
            ("lora_alpha", json!(0)),
            ("lora_alpha", json!(-16)),
            ("lora_alpha", json!(null)),
            ("lora_alpha", json!("16")),
            ("lora_alpha", json!(1e300)),
            ("lora_dropout", json!(1.0)),
            ("lora_dropout", json!(-1)),
            ("lora_dropout", json!(null)),
            ("base_model_name_or_path", json!(3)),
            ("alpha_pattern", json!([])),
        ] {
            refused(json!({ field: value }), &[&format!("{field}: ")]);
        }
        refused(json!({"alpha_pattern": {"(": 1}}), &["alpha_pattern: \"(\" is no regular expression"]);
        refused(
            json!({"alpha_pattern": {"q_proj": "x"}}),
            &["alpha_pattern.q_proj: must be a number above 0, not `\"x\"`"],
        );
        refused(json!({"rank_pattern": {"q_proj": 0}}), &["rank_pattern.q_proj: must be a whole number above 0"]);
        refused(json!({"rank_pattern": {"q_proj": null}}), &["rank_pattern.q_proj: must be a number"]);
        refused(json!({"peft_type": "IA3"}), &["peft_type: is IA3"]);
        refused(json!({"peft_type": null}), &["peft_type: is missing"]);
        assert_eq!(said(json!({"rank_pattern": null, "alpha_pattern": null, "use_rslora": null})), None);
    }

    #[test]
    fn a_pattern_fits_a_module_by_its_older_name_too() {
        let module = linear_map("model.layers.0.self_attn.q_proj");
        let other = linear_map("visual.blocks.1.attn.qkv");
        let patterns = |value: Value| {
            Patterns::read(&Fields::root(&json!({ "p": value })).unwrap(), "p", |f, key| f.positive(key)).unwrap()
        };
        for pattern in [
            "q_proj",
            "model.layers.0.self_attn.q_proj",
            "^model.layers.0.self_attn.q_proj",
            "layers.0.self_attn.q_proj",
            "model.language_model.layers.0.self_attn.q_proj",
            "^model.language_model.layers.0.self_attn.q_proj",
        ] {
            let found = patterns(json!({ pattern: 3 }));
            assert_eq!((found.of(&module), found.of(&other)), (Some(3), None), "{pattern}");
        }
        let found = patterns(json!({"nothing": 1, "qkv": 2, "blocks.1.attn.qkv": 5, "q_proj": 3}));
        assert_eq!((found.of(&other), found.unused(&[&module, &other])), (Some(2), Some("nothing")));
        assert_eq!(patterns(json!({"qkv": 2, "attn.qkv": 5})).unused(&[&other]), None);
    }

    #[test]
    fn the_base_of_a_revision_is_asked_for_by_both() {
        let dir = tempfile::tempdir().unwrap();
        let missing = |base: &str, revision: Value| {
            let mut config = describe(&LoraSettings::default(), architecture().as_ref(), base);
            config["revision"] = revision;
            std::fs::write(dir.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
            let error = base_of(dir.path()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        let said = missing("no-such-owner/tiny", json!("v1"));
        assert!(said.contains("revision") && said.contains("(jigsaw model inspect no-such-owner/tiny@v1)"), "{said}");
        let said = missing("no-such-owner/tiny", json!(null));
        assert!(said.contains("(jigsaw model inspect no-such-owner/tiny)"), "{said}");
        let said = missing("no-such-owner/tiny", json!("../x"));
        assert!(said.contains("revision is ../x, which is no branch, tag or commit"), "{said}");
        let said = missing("/nowhere/model", json!("main"));
        assert!(said.contains("/nowhere/model") && !said.contains("jigsaw model inspect"), "{said}");
    }

    #[test]
    fn an_adapter_names_the_modules_that_peft_would_adapt() {
        let targets = |fields: Value| {
            let mut config = describe(&LoraSettings::default(), architecture().as_ref(), "base");
            fields.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
            AdapterConfig::from_json(Path::new(ADAPTER_CONFIG), config).unwrap().target_pattern()
        };
        const QUERY: &str = "model.language_model.layers.1.self_attn.q_proj";
        for (fields, expected) in [
            (json!({"target_modules": ["q_proj"]}), true),
            (json!({"target_modules": ["proj"]}), false),
            (json!({"target_modules": [QUERY]}), true),
            (json!({"target_modules": "all-linear"}), true),
            (json!({"target_modules": r".*\.layers\.\d+\.self_attn\.q_proj"}), true),
            (json!({"target_modules": "q_proj"}), false),
            (json!({"target_modules": ["q_proj"], "exclude_modules": ["self_attn.q_proj"]}), false),
            (json!({"target_modules": ["q_proj"], "exclude_modules": ".*visual.*"}), true),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": [0, 1]}), true),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": 2}), false),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}), true),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["blocks"]}), false),
        ] {
            assert_eq!(targets(fields.clone()).unwrap().matches(QUERY), expected, "{fields}");
        }
        for fields in [json!({"target_modules": null}), json!({"target_modules": "("}), json!({"target_modules": 3})] {
            assert!(targets(fields).is_none());
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("\u{feff}{}", describe(&LoraSettings::default(), architecture().as_ref(), "base"));
        std::fs::write(dir.path().join(ADAPTER_CONFIG), text).unwrap();
        assert_eq!(AdapterConfig::read(dir.path()).unwrap().base.as_deref(), Some("base"));
    }
}
