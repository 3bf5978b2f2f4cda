//! The settings of an adapter, under PEFT's names where it has one.

use super::targets::{LANGUAGE, Targets};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// `[lora]`: train a low-rank adapter beside the frozen weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// Rank of the adapters (PEFT's `r`).
    #[schemars(extend("trl" = "lora_r"))]
    pub rank: usize,
    /// What is learnt is scaled by `alpha / rank` (PEFT's `lora_alpha`).
    #[schemars(extend("trl" = "lora_alpha"))]
    pub alpha: f64,
    /// Probability that an element of an adapter's input is dropped in training (PEFT's `lora_dropout`); SFT only.
    #[schemars(extend("trl" = "lora_dropout"))]
    pub dropout: f64,
    /// Scale by `alpha / sqrt(rank)` instead (PEFT's `use_rslora`).
    #[schemars(extend("trl" = "use_rslora"))]
    pub rslora: bool,
    /// Which linear maps are adapted (PEFT's `target_modules`): `language` for all of the decoder, `all-linear` for those and the vision
    /// tower's, a list of ends of names, or a regular expression for whole names.
    #[schemars(extend("trl" = "lora_target_modules"))]
    pub target: Targets,
}

impl Default for LoraSettings {
    /// LLaMA-Factory's rank and alpha, and its targets for a model with a vision tower.
    fn default() -> Self {
        LoraSettings { rank: 8, alpha: 16.0, dropout: 0.0, rslora: false, target: Targets::Pattern(LANGUAGE.into()) }
    }
}

impl LoraSettings {
    /// What the product of the two matrices is multiplied by.
    pub fn scale(&self, rank: usize) -> f64 {
        scale(self.alpha, rank, self.rslora)
    }

    /// # Errors
    /// An input error that names the key whose value is out of range.
    pub fn check(&self) -> Result<()> {
        let bad =
            |key: &str, value: String, must: &str| Err(Error::input(format!("lora.{key} = {value}: must be {must}")));
        if self.rank == 0 {
            return bad("rank", self.rank.to_string(), "at least 1 (leave [lora] out to train all weights)");
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return bad("alpha", self.alpha.to_string(), "above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad("dropout", self.dropout.to_string(), "in [0, 1)");
        }
        Ok(())
    }
}

/// `alpha / rank`, or `alpha / sqrt(rank)` (rsLoRA).
pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f64 {
    if rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
}
