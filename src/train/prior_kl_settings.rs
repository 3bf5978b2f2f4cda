//! `[prior_kl]`: the settings of the KL penalty on prompts of other knowledge.

use serde::{Deserialize, Serialize};

/// `[prior_kl]`: in every optimizer step, hold the model to the initial one on prompts of other knowledge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriorKlSettings {
    /// Dataset directory whose train split has the prompts, with responses of the initial model (`jigsaw rollout --keep all`).
    pub data: String,
    /// Weight of the mean KL(initial model || model) over the tokens of those responses, in nats.
    pub coef: f64,
    /// Examples of it in every optimizer step, beside those of the run's own dataset.
    pub batch_size: usize,
}

impl Default for PriorKlSettings {
    fn default() -> Self {
        PriorKlSettings { data: String::new(), coef: 1.0, batch_size: 2 }
    }
}
