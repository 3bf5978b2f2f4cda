//! Which linear maps get an adapter: PEFT's `target_modules`.

use crate::model::architecture::Architecture;
use crate::{Error, Result};
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};

/// Targets of an adapter, in PEFT's forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged, expecting = "must be text in quotes or a list of names")]
pub enum Targets {
    /// `language` (every linear map of the decoder's layers), `all-linear` (those and the vision tower's), or a regular expression that
    /// a module's whole name must match.
    Pattern(String),
    /// Names of modules, or their ends: `q_proj` is every module so called, in the vision tower too.
    Names(Vec<String>),
}

/// The word for every linear map of the decoder's layers.
pub const LANGUAGE: &str = "language";
/// PEFT's word for every linear map but the output head.
pub(super) const ALL_LINEAR: &str = "all-linear";

/// A linear map of the architecture that can have an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraModule {
    /// Published name of its weight without `.weight`, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// The same in today's transformers, as PEFT's files have it.
    pub transformers_name: String,
    /// Width of its result.
    pub out: usize,
    /// Width of its input.
    pub width: usize,
}

/// Every linear map that can have an adapter, in the order of the computation: all but the patch embedding, which is a convolution, and
/// the output head.
pub fn modules(architecture: &dyn Architecture) -> Vec<LoraModule> {
    let linear = |(name, shape): (String, Vec<usize>)| match (name.strip_suffix(".weight"), shape.as_slice()) {
        (Some(module), &[out, width])
            if !module.ends_with("embed_tokens") && !module.ends_with("pos_embed") && module != "lm_head" =>
        {
            Some(LoraModule {
                name: module.to_string(),
                transformers_name: architecture.transformers_name(module),
                out,
                width,
            })
        }
        _ => None,
    };
    architecture.parameter_shapes().into_iter().filter_map(linear).collect()
}

impl Targets {
    /// The modules that are meant.
    ///
    /// # Errors
    /// An input error for a pattern that is none, or one that names no module that can have an adapter.
    pub fn select(&self, architecture: &dyn Architecture) -> Result<Vec<LoraModule>> {
        let all = modules(architecture);
        let chosen: Vec<LoraModule> = match self {
            Targets::Pattern(word) if word == ALL_LINEAR => all,
            Targets::Pattern(pattern) => {
                let matches =
                    whole(pattern_for(architecture, pattern)).map_err(|e| Error::input(format!("lora.target: {e}")))?;
                all.into_iter().filter(|m| matches(&m.transformers_name) || matches(&m.name)).collect()
            }
            Targets::Names(names) => {
                let ends = |m: &LoraModule, name: &str| {
                    let end = format!(".{name}");
                    let current = &m.transformers_name;
                    m.name == name || *current == name || m.name.ends_with(&end) || current.ends_with(&end)
                };
                if let Some(unknown) = names.iter().find(|name| !all.iter().any(|m| ends(m, name))) {
                    return Err(Error::input(format!(
                        "lora.target: no linear map is called {unknown}; the ends of their names are {}",
                        ends_of(&all)
                    )));
                }
                all.into_iter().filter(|m| names.iter().any(|name| ends(m, name))).collect()
            }
        };
        if chosen.is_empty() {
            return Err(Error::input(format!(
                "lora.target = {self}: no linear map has such a name. Give {LANGUAGE}, {ALL_LINEAR}, ends of names ({}), or a regular \
                 expression for whole names such as model.language_model.layers.0.self_attn.q_proj",
                ends_of(&modules(architecture))
            )));
        }
        Ok(chosen)
    }

    /// The same in words that PEFT knows.
    pub fn for_peft(&self, architecture: &dyn Architecture) -> Targets {
        match self {
            Targets::Pattern(pattern) => Targets::Pattern(pattern_for(architecture, pattern).to_string()),
            Targets::Names(names) => Targets::Names(names.clone()),
        }
    }
}

fn pattern_for<'a>(architecture: &dyn Architecture, pattern: &'a str) -> &'a str {
    if pattern == LANGUAGE { architecture.decoder_module_pattern() } else { pattern }
}

impl std::fmt::Display for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Targets::Pattern(pattern) => write!(f, "{pattern:?}"),
            Targets::Names(names) => write!(f, "{names:?}"),
        }
    }
}

/// Does the whole of a name match? Or why the pattern is none.
pub(super) fn whole(pattern: &str) -> std::result::Result<impl Fn(&str) -> bool + use<>, String> {
    // Alone first: brackets that close what is put around it are no part of a pattern.
    let regex = Regex::new(pattern).and_then(|_| Regex::new(&format!("^(?:{pattern})$")));
    let regex = regex.map_err(|e| format!("{pattern:?} is no regular expression: {e}"))?;
    Ok(move |name: &str| regex.is_match(name).unwrap_or(false))
}

fn ends_of(modules: &[LoraModule]) -> String {
    let mut ends: Vec<&str> = modules.iter().filter_map(|m| m.name.rsplit('.').next()).collect();
    ends.sort_unstable();
    ends.dedup();
    ends.into_iter().filter(|end| end.parse::<usize>().is_err()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::init::{Preset, write_checkpoint};

    fn select(targets: Targets) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), Preset::Tiny, 0).unwrap();
        let chosen = targets.select(crate::model::read_architecture(dir.path()).unwrap().as_ref())?;
        Ok(chosen.into_iter().map(|m| m.name).collect())
    }

    fn names(list: &[&str]) -> Targets {
        Targets::Names(list.iter().map(|n| n.to_string()).collect())
    }

    #[test]
    fn targets_name_the_modules_that_peft_would_adapt() {
        let pattern = |text: &str| select(Targets::Pattern(text.into())).unwrap();
        // Four layers of seven maps; four blocks of five and the merger's two.
        assert_eq!(pattern(LANGUAGE).len(), 28);
        assert!(pattern(LANGUAGE).iter().all(|n| n.starts_with("model.layers.")));
        assert_eq!(pattern(ALL_LINEAR).len(), 28 + 22);
        assert_eq!(
            pattern(r".*layers\.[01]\..*q_proj"),
            ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
        );
        assert_eq!(pattern(r"visual\.merger\.mlp\.0"), ["visual.merger.mlp.0"]);
        // As in PEFT, the end of a name is looked for everywhere.
        assert_eq!(select(names(&["gate_proj"])).unwrap().len(), 8);
        assert_eq!(select(names(&["language_model.layers.2.mlp.up_proj"])).unwrap(), ["model.layers.2.mlp.up_proj"]);
        assert_eq!(select(names(&["proj"])).unwrap().len(), 4);
    }

    #[test]
    fn targets_that_name_nothing_are_refused_with_what_there_is() {
        let refused = |targets: Targets| {
            let e = select(targets).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            e.to_string()
        };
        assert!(
            refused(names(&["q_proj", "query"])).contains("query; the ends of their names are down_proj, gate_proj")
        );
        assert!(refused(names(&["lm_head"])).contains("lm_head"));
        assert!(refused(Targets::Pattern("q_proj".into())).contains("\"q_proj\""));
        assert!(refused(Targets::Pattern("(".into())).contains("no regular expression"));
    }
}
