//! Names that people know from other programs (TRL, LLaMA-Factory, transformers, verl), and what they are here.

use super::settings::TrainConfig;
use crate::io::plain::one_of;
use crate::io::schema::{Setting, settings_of};
use std::sync::LazyLock;

/// All settings of training.
pub fn settings() -> &'static [Setting] {
    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(settings_of::<TrainConfig>);
    &SETTINGS
}

/// Names that are no key here and not TRL's name of one, with the key that does the same, or with what to do.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("lr peak_lr", "train.learning_rate"),
    ("num_epochs n_epochs total_epochs max_epochs", "train.epochs"),
    ("num_steps n_steps total_steps total_training_steps train_steps max_iters", "train.steps"),
    ("train_batch_size micro_batch_size per_gpu_train_batch_size bs", "train.batch_size"),
    ("grad_accum gradient_accumulation accumulate_grad_batches", "train.gradient_accumulation_steps"),
    ("warmup_ratio", "write train.warmup_steps = 0.1; below 1 it is a share of the steps"),
    ("warmup num_warmup_steps", "train.warmup_steps"),
    ("lr_scheduler scheduler schedule scheduler_type", "train.lr_scheduler_type"),
    ("clip_grad grad_clip max_norm", "train.max_grad_norm"),
    ("adam_eps", "train.eps"),
    ("data_seed random_seed", "train.seed"),
    ("bf16 fp16 torch_dtype pure_bf16 mixed_precision precision", "write train.dtype = \"bf16\" or \"f32\""),
    (
        "optim optimizer",
        "AdamW is the only optimizer: remove it, and set train.betas, train.eps and train.weight_decay",
    ),
    ("cutoff_len max_seq_length max_seq_len model_max_length max_prompt_length", "train.max_length"),
    ("max_samples max_train_samples", "train.max_examples"),
    ("max_eval_samples", "eval.limit"),
    ("save_strategy", "write train.save_steps = N, 0 for only the last checkpoint"),
    ("eval_strategy evaluation_strategy", "write eval.steps = N, 0 for none"),
    ("early_stopping_patience", "train.stop_patience"),
    ("metric_for_best_model", "train.stop_when"),
    ("num_completions_to_print", "eval.log_responses"),
    ("r lora_rank", "lora.rank"),
    ("lora_target target_modules", "lora.target"),
    ("use_peft", "write a section [lora], such as lora.rank = 8"),
    (
        "finetuning_type",
        "write a section [lora] for LoRA, train.freeze to freeze parts; without them all weights train",
    ),
    (
        "use_dora quantization_bit load_in_4bit load_in_8bit",
        "adapters are LoRA over weights in f32 or bf16: remove it, and set lora.rank",
    ),
    ("freeze_vision_tower freeze_vision", "write train.freeze = [\"vision\"]"),
    ("freeze_multi_modal_projector", "write train.freeze = [\"merger\"]"),
    ("freeze_language_model", "write train.freeze = [\"text\"]"),
    ("group_size num_samples num_rollouts n_samples num_return_sequences n", "rollout.num_generations"),
    ("max_tokens response_length max_response_length", "rollout.max_new_tokens"),
    ("steps_per_generation", "write grpo.minibatches = steps_per_generation / gradient_accumulation_steps"),
    ("generation_batch_size rollout_batch_size", "rollout.batch_size"),
    ("epsilon_low clip_range cliprange clip_ratio clip_ratio_low clip_eps", "grpo.epsilon"),
    ("clip_ratio_high clip_higher", "grpo.epsilon_high"),
    ("clip_ratio_c dual_clip", "grpo.delta"),
    (
        "kl_coef kl_coeff init_kl_coef kl_loss_coef kl_penalty",
        "write grpo.beta with method rft, sft.kl_coef with method sft",
    ),
    ("ppo_epochs mu", "grpo.num_iterations"),
    ("num_mini_batches mini_batch_size ppo_mini_batch_size", "grpo.minibatches"),
    ("entropy_coeff entropy_bonus", "grpo.entropy_coef"),
    ("gspo", "GSPO is grpo.importance_sampling_level = \"sequence\""),
    ("dapo dr_grpo cispo bnpo", "it is a value: grpo.loss_type = \"dapo\", \"dr_grpo\", \"cispo\" or \"bnpo\""),
    (
        "reward_weights reward_weight",
        "each part of the reward has a weight: reward.partial_credit, reward.accuracy, reward.format",
    ),
    (
        "reward_funcs reward_func reward_functions",
        "the scorer that the dataset names gives the reward; [reward] has its weights",
    ),
    ("output_dir", "use the flag --out DIR"),
    ("model_name_or_path model_name model_path", "use the flag --model MODEL"),
    ("dataset dataset_name dataset_dir train_file", "use the flag --data DIR"),
    ("resume_from_checkpoint", "use the flag --resume DIR, or give the same command again"),
    ("report_to run_name", "use the flag --metrics-command COMMAND; TensorBoard events are written always"),
    ("logging_steps logging_strategy", "every step is logged; remove it"),
    ("stage", "use the flag --method sft or --method rft"),
    ("use_vllm vllm_mode", "the model that trains samples, or a server that rollout.server names; remove it"),
    ("vllm_server_host vllm_server_port", "rollout.server"),
    ("vllm_importance_sampling_cap", "rollout.max_sampler_ratio"),
    ("deepspeed fsdp fsdp_config", "one process trains; remove it"),
    (
        "packing assistant_only_loss completion_only_loss train_on_inputs",
        "the loss is over the tokens of responses alone, and nothing is padded; remove it",
    ),
];

/// Values that people know, with what to write: the end of a key, the value, the advice.
const OTHER_VALUES: &[(&str, &str, &str)] = &[
    ("method", "grpo", "GRPO is \"rft\""),
    ("method", "rl", "reinforcement fine-tuning is \"rft\""),
    ("method", "lora", "LoRA is a section [lora] with either method"),
    ("method", "ppo", "reinforcement fine-tuning here is GRPO, \"rft\""),
    ("method", "dpo", "reinforcement fine-tuning here is GRPO, \"rft\""),
    ("loss_type", "gspo", "GSPO is grpo.importance_sampling_level = \"sequence\""),
    ("lr_scheduler_type", "constant_with_warmup", "\"constant\" has a warm-up with train.warmup_steps"),
    ("lr_scheduler_type", "cosine_with_min_lr", "\"cosine\" falls to zero"),
    ("dtype", "bfloat16", "write \"bf16\""),
    ("dtype", "float32", "write \"f32\""),
    ("dtype", "fp32", "write \"f32\""),
    ("dtype", "float16", "write \"bf16\", which needs no loss scaling"),
    ("dtype", "fp16", "write \"bf16\", which needs no loss scaling"),
];

/// The name that was typed: the last part of a path or of a flag, in small letters with underscores.
fn name(typed: &str) -> String {
    typed.rsplit('.').next().unwrap_or(typed).trim_start_matches('-').replace('-', "_").to_lowercase()
}

/// The keys that do what a name of another program, or of another section, says. None if it takes more than a key, or nobody knows the name.
pub fn keys(typed: &str) -> Vec<&'static str> {
    let name = name(typed);
    if let Some(says) = other(&name) {
        return if says.contains(' ') { Vec::new() } else { vec![says] };
    }
    let that = |is: &dyn Fn(&Setting) -> bool| -> Vec<&'static str> {
        let keys = settings().iter().filter(|setting| !setting.is_section() && is(setting));
        keys.map(|setting| setting.key.as_str()).collect()
    };
    let same = that(&|setting| setting.name() == name);
    if same.is_empty() { that(&|setting| setting.trl.split(", ").any(|trl| trl == name)) } else { same }
}

fn other(name: &str) -> Option<&'static str> {
    OTHER_NAMES.iter().find(|(names, _)| names.split(' ').any(|known| known == name)).map(|(_, says)| *says)
}

/// What to write in place of a name that is no key where it was typed; none if nobody knows it.
pub fn hint(typed: &str) -> Option<String> {
    match keys(typed).as_slice() {
        [] => other(&name(typed)).map(String::from),
        keys => Some(format!("did you mean {}?", one_of(keys))),
    }
}

/// What to write in place of a value that a key does not take.
pub fn value_hint(key: &str, value: &str) -> Option<&'static str> {
    let (key, value) = (name(key), value.trim_matches('"').to_lowercase());
    OTHER_VALUES.iter().find(|(of, known, _)| *of == key && *known == value).map(|(_, _, says)| *says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_a_hint_names_exists() {
        for (names, says) in OTHER_NAMES {
            for word in says.split([' ', ',', ';', ':', '?']).filter(|word| word.contains('.')) {
                let word = word.trim_end_matches('.');
                let known = settings().iter().any(|setting| setting.key == word) || word.starts_with("0.");
                assert!(known, "{names}: {word}");
            }
            for name in names.split(' ') {
                assert!(settings().iter().all(|s| s.name() != name) || name == "kl_coef", "{name} is a key");
                assert_eq!(
                    OTHER_NAMES.iter().filter(|(all, _)| all.split(' ').any(|one| one == name)).count(),
                    1,
                    "{name}"
                );
            }
        }
    }
}
