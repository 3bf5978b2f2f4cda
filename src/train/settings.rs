//! The settings of a training run, with their defaults and where those come from.

use crate::io::toml::to_toml;
use crate::sampling::sampling_flags::MAX_RESPONSES;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

pub use super::prior_kl_settings::PriorKlSettings;
pub use super::rollout_settings::RolloutSettings;
pub use super::sft_settings::{LossReduction, SftLossType, SftSettings};

/// Most optimizer steps of a run: names of checkpoints have eight digits.
pub const MAX_STEPS: usize = 99_999_999;
/// Most examples that a round takes from the dataset.
pub const MAX_EXAMPLES: usize = 1 << 16;
/// Most sets of gradients that a batch is summed in.
pub const MAX_GRADIENT_BUFFERS: usize = 64;

/// How the model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Supervised fine-tuning on the responses of the dataset.
    Sft,
    /// Reinforcement fine-tuning (GRPO) on the model's own responses, scored by the task.
    Rft,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Method::Sft => "sft",
            Method::Rft => "rft",
        })
    }
}

/// How the learning rate changes after the warm-up. Names of transformers' `lr_scheduler_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to zero at the last step.
    Linear,
    /// Falls to zero at the last step along half a cosine.
    Cosine,
}

/// The type in which ranks send each other gradients (`docs/scaling.md`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CommDtype {
    /// f32: a run ends with the same bytes on any number of ranks.
    #[default]
    F32,
    /// bf16: half the bytes. Each rank's gradients are rounded before they are sent, and so are the sums: the result depends on the number of
    /// ranks. On a CPU with more than 32 MiB of trainable weights, gradients stay f32.
    Bf16,
}

impl CommDtype {
    fn is_f32(&self) -> bool {
        *self == CommDtype::F32
    }
}

/// How GRPO's token losses become one number (see `train::objective::GrpoLoss`). TRL's `loss_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over sequences of the mean over tokens.
    Grpo,
    /// Mean over the tokens of each micro-batch.
    Bnpo,
    /// Sum over tokens divided by the largest possible number of tokens.
    DrGrpo,
    /// Mean over the tokens of the whole accumulated batch.
    Dapo,
    /// Clipped importance weight times log-probability, over the tokens of the whole accumulated batch.
    Cispo,
}

/// What an importance ratio belongs to. TRL's `importance_sampling_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportanceLevel {
    /// One ratio a token.
    Token,
    /// One ratio a response: exp of the mean log-ratio (GSPO).
    Sequence,
}

/// What the centred rewards of a group are divided by. TRL's `scale_rewards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleRewards {
    /// The group's standard deviation.
    Group,
    /// The standard deviation over all rewards of the rollout batch.
    Batch,
    /// Nothing.
    None,
}

/// All settings of a training run, resolved: `config.toml` of a run directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The loop and the optimizer.
    pub train: TrainSettings,
    /// Evaluation during training.
    pub eval: EvalSettings,
    /// The adapter that trains instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<crate::model::lora::LoraSettings>,
    /// A KL penalty on prompts of other knowledge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior_kl: Option<PriorKlSettings>,
    /// The supervised loss; SFT only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftSettings>,
    /// How responses are sampled; RFT, and SFT with `sft.resample_every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSettings>,
    /// The policy-gradient loss; RFT only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpo: Option<GrpoSettings>,
    /// Weights of the parts of the reward; RFT only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<crate::tasks::RewardSettings>,
    /// When to warn that learning has stalled; RFT only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallSettings>,
}

/// `[train]`: the loop and the optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSettings {
    /// How the model is trained.
    pub method: Method,
    /// Optimizer steps. Either this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "max_steps"))]
    pub steps: Option<usize>,
    /// Passes over the training examples (fractions allowed). Either this or `steps`; 1 when neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "num_train_epochs"))]
    pub epochs: Option<f64>,
    /// Examples in one forward and backward: sequences for SFT, prompts (each with `rollout.num_generations` responses, which TRL
    /// counts) for RFT.
    #[schemars(extend("trl" = "per_device_train_batch_size"))]
    pub batch_size: usize,
    /// Micro-batches (forward and backward passes) in one optimizer step.
    #[schemars(extend("trl" = "gradient_accumulation_steps"))]
    pub gradient_accumulation_steps: usize,
    /// Keep only each layer's input for the backward pass, and compute the layer again there: less memory, more time, the same result.
    #[schemars(extend("trl" = "gradient_checkpointing"))]
    pub gradient_checkpointing: bool,
    /// Sets that the gradients of a batch are summed in, at least, on a CPU: several processes (`mpirun`) compute one each, a single one holds
    /// them all. More make large models faster over processes and larger in one (docs/scaling.md); another number gives other last digits.
    #[serde(default = "one")]
    pub gradient_buffers: usize,
    /// Type of the factors of matrix products.
    #[serde(default)]
    #[schemars(extend("trl" = "bf16"))]
    pub dtype: crate::model::ComputeDtype,
    /// Type in which several processes (`mpirun`) send each other gradients; `f32` when not given. Without effect in one process.
    #[serde(default, skip_serializing_if = "CommDtype::is_f32")]
    pub comm_dtype: CommDtype,
    /// Peak learning rate.
    #[schemars(extend("trl" = "learning_rate"))]
    pub learning_rate: f64,
    /// Shape of the learning rate after the warm-up.
    #[schemars(extend("trl" = "lr_scheduler_type"))]
    pub lr_scheduler_type: LrSchedule,
    /// Linear warm-up: below 1 a share of all steps, from 1 on a number of steps. One that is longer than the run is cut to a tenth of it.
    #[schemars(extend("trl" = "warmup_steps"))]
    pub warmup_steps: f64,
    /// Decoupled weight decay, on matrices only (no biases, no norms).
    #[schemars(extend("trl" = "weight_decay"))]
    pub weight_decay: f64,
    /// L2-SP (arXiv 1802.01483): adds `l2_sp / 2 * ||w - w0||^2` to the loss, w0 being the weights that the run started from; 0 for off.
    #[serde(default)]
    pub l2_sp: f64,
    /// AdamW's decay rates of the running averages of the gradient and of its square.
    #[schemars(extend("trl" = "adam_beta1, adam_beta2"))]
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(extend("trl" = "adam_epsilon"))]
    pub eps: f64,
    /// The gradient is scaled down to this global norm; 0 for no clipping.
    #[schemars(extend("trl" = "max_grad_norm"))]
    pub max_grad_norm: f64,
    /// End the run when evaluations meet this, such as `accuracy >= 0.5`; empty for never. `steps` or `epochs` stay the limit.
    pub stop_when: String,
    /// Consecutive evaluations that must meet `stop_when`.
    pub stop_patience: usize,
    /// Keep the checkpoint that was best at an evaluation, by the measure of `stop_when`, else by accuracy.
    #[serde(default)]
    #[schemars(extend("trl" = "load_best_model_at_end"))]
    pub save_best: bool,
    /// End the run when the whole 95 % interval of the change of the score on `eval.prior` lies below minus this share: 0.02 for two points
    /// lost, 0 for any loss that is shown. Never when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when_forgotten: Option<f64>,
    /// Train only on the examples of which this dataset of `jigsaw rollout` holds a response; empty for all.
    #[serde(default)]
    pub prompts_of: String,
    /// Seed of everything random in the run.
    #[schemars(extend("trl" = "seed"))]
    pub seed: u64,
    /// Frozen parts: `vision` (the whole tower with its merger), `merger`, `embeddings`, `text`, or the beginning of parameter names.
    pub freeze: Vec<String>,
    /// Further datasets that are trained on beside the one of `--data`: directories or files, each with `:WEIGHT` after it, its share of the
    /// examples relative to that of `--data`, which is 1. Without a weight, 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<String>,
    /// Train on only so many examples of the dataset, drawn at random by the seed; a smaller number's are among those of a larger one. 0 for
    /// all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_examples: usize,
    /// Longest prompt + response in tokens; a longer example is refused by id before training (TRL cuts it). 0 for no check.
    #[schemars(extend("trl" = "max_length"))]
    pub max_length: usize,
    /// Steps between checkpoints; 0 for only the last.
    #[schemars(extend("trl" = "save_steps"))]
    pub save_steps: usize,
    /// Checkpoints kept; the oldest are removed first.
    #[schemars(extend("trl" = "save_total_limit"))]
    pub save_total_limit: usize,
}

/// `[eval]`: evaluation on the validation split during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalSettings {
    /// Steps between evaluations, also before the first step and after the last; 0 for none.
    #[schemars(extend("trl" = "eval_steps"))]
    pub steps: usize,
    /// Questions of prior knowledge that are asked at each evaluation: a dataset (its validation split, else its test split) or a benchmark
    /// file. Empty for none.
    #[serde(default)]
    pub prior: String,
    /// Validation examples used (the first ones); 0 for all.
    pub limit: usize,
    /// Prompts generated for at a time.
    #[schemars(extend("trl" = "per_device_eval_batch_size"))]
    pub batch_size: usize,
    /// Longest response in tokens.
    pub max_new_tokens: usize,
    /// Responses logged in `samples.jsonl` at each evaluation.
    pub log_responses: usize,
}

/// `[grpo]`: the policy-gradient loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpoSettings {
    /// How token losses become one number.
    #[schemars(extend("trl" = "loss_type"))]
    pub loss_type: LossType,
    /// What an importance ratio belongs to; `sequence` is GSPO.
    #[schemars(extend("trl" = "importance_sampling_level"))]
    pub importance_sampling_level: ImportanceLevel,
    /// The ratio is clipped below at 1 - epsilon.
    #[schemars(extend("trl" = "epsilon"))]
    pub epsilon: f64,
    /// The ratio is clipped above at 1 + epsilon_high (clip-higher); epsilon when not given. For `cispo` the bound itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "epsilon_high"))]
    pub epsilon_high: Option<f64>,
    /// Upper bound of the unclipped ratio (two-sided clipping); none when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "delta"))]
    pub delta: Option<f64>,
    /// Weight of the KL to the model the run started from; 0 loads no reference copy.
    #[schemars(extend("trl" = "beta"))]
    pub beta: f64,
    /// Passes over each rollout batch.
    #[schemars(extend("trl" = "num_iterations"))]
    pub num_iterations: usize,
    /// Optimizer steps that each pass over a rollout batch is cut into.
    pub minibatches: usize,
    /// What the centred rewards of a group are divided by.
    #[schemars(extend("trl" = "scale_rewards"))]
    pub scale_rewards: ScaleRewards,
    /// Weight of the entropy bonus; 0 for none.
    #[schemars(extend("trl" = "entropy_coef"))]
    pub entropy_coef: f64,
    /// Learn from the responses above the mean of their group only: negative advantages become 0.
    #[serde(default)]
    pub positive_advantages_only: bool,
    /// Leave responses that the length limit cut off out of the loss (DAPO's overlong filtering). Their rewards still count in the advantages of
    /// their group.
    #[schemars(extend("trl" = "mask_truncated_completions"))]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mask_truncated_completions: bool,
    /// Replace prompts whose responses all earn the same: at most this many further draws of a batch of prompts; 0 for off.
    pub dynamic_sampling: usize,
}

/// `[stall]`: warn, naming the cause, when learning has stalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StallSettings {
    /// Consecutive steps below a threshold before the warning; 0 for never.
    pub window: usize,
    /// Mean standard deviation of the rewards within a group.
    pub reward_std: f64,
    /// Mean token entropy in nats.
    pub entropy: f64,
}

/// A key that is left out of the resolved settings where it has no effect, so that older runs can be resumed.
fn one() -> usize {
    1
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl TrainConfig {
    /// The defaults of a method. Sources: TRL's `SFTConfig` and `GRPOConfig` (learning rate, clipping, advantages,
    /// loss type, 8 generations), torch's `AdamW` (betas, eps).
    pub fn defaults(method: Method) -> TrainConfig {
        let rft = method == Method::Rft;
        TrainConfig {
            train: TrainSettings {
                method,
                steps: None,
                epochs: None,
                batch_size: 8,
                gradient_accumulation_steps: 1,
                learning_rate: if rft { 1e-6 } else { 2e-5 },
                lr_scheduler_type: if rft { LrSchedule::Constant } else { LrSchedule::Cosine },
                warmup_steps: 0.0,
                weight_decay: 0.0,
                l2_sp: 0.0,
                betas: [0.9, 0.999],
                eps: 1e-8,
                max_grad_norm: 1.0,
                stop_when: String::new(),
                stop_patience: 1,
                save_best: false,
                stop_when_forgotten: None,
                prompts_of: String::new(),
                seed: 0,
                freeze: Vec::new(),
                mix: Vec::new(),
                max_examples: 0,
                max_length: 0,
                gradient_checkpointing: false,
                gradient_buffers: 1,
                dtype: Default::default(),
                comm_dtype: CommDtype::F32,
                save_steps: 100,
                save_total_limit: 2,
            },
            eval: EvalSettings {
                steps: 100,
                prior: String::new(),
                limit: 64,
                batch_size: 16,
                max_new_tokens: 512,
                log_responses: 4,
            },
            lora: None,
            prior_kl: None,
            sft: (!rft).then(SftSettings::default),
            rollout: rft.then(RolloutSettings::default),
            grpo: rft.then_some(GrpoSettings {
                loss_type: LossType::Dapo,
                importance_sampling_level: ImportanceLevel::Token,
                epsilon: 0.2,
                epsilon_high: None,
                delta: None,
                beta: 0.0,
                num_iterations: 1,
                minibatches: 1,
                scale_rewards: ScaleRewards::Group,
                entropy_coef: 0.0,
                positive_advantages_only: false,
                mask_truncated_completions: false,
                dynamic_sampling: 0,
            }),
            reward: rft.then(crate::tasks::RewardSettings::default),
            stall: rft.then_some(StallSettings { window: 25, reward_std: 0.01, entropy: 0.01 }),
        }
    }

    /// Settings in which every optional key is present: the list of keys that exist.
    pub(crate) fn every_key() -> TrainConfig {
        let mut all = TrainConfig::defaults(Method::Rft);
        all.sft = Some(SftSettings::default());
        all.lora = Some(Default::default());
        all.prior_kl = Some(PriorKlSettings::default());
        all.train.steps = Some(1);
        all.train.epochs = Some(1.0);
        all.train.max_examples = 1;
        all.train.comm_dtype = CommDtype::Bf16;
        all.train.mix = vec![String::new()];
        if let Some(rollout) = &mut all.rollout {
            rollout.stop = vec![String::new()];
            rollout.server = Some(crate::sampling::chat_api::ServerUrls::One(String::new()));
            (rollout.adapter_dir, rollout.adapter_dir_on_server) = (Some(String::new()), Some(String::new()));
            rollout.complete();
        }
        if let Some(reward) = &mut all.reward {
            reward.command = "-".into();
            (reward.command_weight, reward.command_timeout, reward.overlong_penalty) = (0.0, 0.0, 0.0);
            reward.overlong_buffer = 1;
        }
        all.train.stop_when_forgotten = Some(0.0);
        if let Some(grpo) = &mut all.grpo {
            grpo.epsilon_high = Some(0.2);
            grpo.delta = Some(2.0);
            grpo.mask_truncated_completions = true;
        }
        all
    }

    /// Fill in what follows from other settings.
    pub(crate) fn complete(&mut self) {
        if self.train.steps.is_none() && self.train.epochs.is_none() {
            self.train.epochs = Some(1.0);
        }
        if let Some(grpo) = &mut self.grpo {
            grpo.epsilon_high.get_or_insert(grpo.epsilon);
        }
        if let Some(rollout) = &mut self.rollout {
            rollout.complete();
        }
    }

    /// All settings as TOML, with every key that the method has.
    pub fn to_toml(&self) -> Result<String> {
        to_toml(self)
    }

    /// Whether SFT trains on responses that it samples itself.
    pub fn resamples(&self) -> bool {
        self.sft.as_ref().is_some_and(|sft| sft.resample_every > 0)
    }

    /// Optimizer steps that each pass over the examples of a round is cut into.
    fn minibatches(&self) -> usize {
        self.grpo.as_ref().map(|grpo| grpo.minibatches).or(self.sft.as_ref().map(|sft| sft.minibatches)).unwrap_or(1)
    }

    /// Optimizer steps made from one batch of examples: the unit after which the run can be stopped and resumed.
    pub fn steps_per_round(&self) -> usize {
        self.minibatches() * self.grpo.as_ref().map_or(1, |grpo| grpo.num_iterations)
    }

    /// Examples (SFT) or prompts (RFT) of one optimizer step.
    pub fn examples_per_step(&self) -> usize {
        self.train.batch_size * self.train.gradient_accumulation_steps
    }

    /// Examples (SFT) or prompts (RFT) that one round takes from the dataset.
    pub fn examples_per_round(&self) -> usize {
        self.examples_per_step() * self.minibatches()
    }

    /// Examples of a step that are replayed from another dataset.
    pub fn replayed_per_step(&self) -> usize {
        let sft = self.sft.as_ref().filter(|sft| !sft.replay.is_empty());
        sft.map_or(0, |sft| (sft.replay_share * self.examples_per_step() as f64).round() as usize)
    }

    /// Those of a round.
    pub fn replayed_per_round(&self) -> usize {
        self.replayed_per_step() * self.minibatches()
    }

    /// Refuse a run over `examples` training examples that is longer than steps can be counted, or that samples more responses at a time
    /// than there is state for.
    ///
    /// # Errors
    /// An input error that names the settings.
    pub(crate) fn check_size(&self, examples: usize) -> Result<()> {
        let total = self.total_steps(examples);
        if total > MAX_STEPS {
            return Err(Error::input(format!(
                "train.epochs = {} are {total} optimizer steps over {examples} examples: must be at most {MAX_STEPS}",
                self.train.epochs.unwrap_or(1.0)
            )));
        }
        let (Some(sft), Some(rollout)) = (&self.sft, &self.rollout) else { return Ok(()) };
        let prompts = self.examples_per_round().saturating_mul(sft.resample_every.min(total));
        if prompts.saturating_mul(rollout.num_generations) > MAX_RESPONSES {
            return Err(Error::input(format!(
                "sft.resample_every = {}: a sampling for so many steps has {} responses to each of {prompts} prompts; at most {MAX_RESPONSES} \
                 responses are sampled together",
                sft.resample_every, rollout.num_generations
            )));
        }
        Ok(())
    }

    /// Optimizer steps of the whole run over `examples` training examples of its own, a whole number of rounds, at least one.
    pub fn total_steps(&self, examples: usize) -> usize {
        if let Some(steps) = self.train.steps {
            return steps;
        }
        let own = self.examples_per_round() - self.replayed_per_round();
        let rounds = self.train.epochs.unwrap_or(1.0) * examples as f64 / own as f64;
        (rounds.ceil() as usize).max(1).saturating_mul(self.steps_per_round())
    }
}
