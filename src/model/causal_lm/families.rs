//! What sets each family of causal language models apart, with the defaults of transformers' configuration classes.

use super::config::Family;
use super::text_config::{DecoderRules, HeadDim, TextConfig};

/// Qwen2 and Qwen2.5: biases on queries, keys and values. Defaults of `Qwen2Config`.
pub const QWEN2: Family = Family {
    model_type: "qwen2",
    title: "Qwen2.5",
    classes: ["Qwen2ForCausalLM", "Qwen2Model"],
    bos_token_id: None,
    eos_token_id: None,
    rules: DecoderRules {
        defaults: TextConfig {
            vocab_size: 151_936,
            hidden_size: 4096,
            intermediate_size: 22_016,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            qkv_bias: true,
            qk_norm: false,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            max_position_embeddings: 32_768,
        },
        head_dim: HeadDim::Derived,
        max_window_layers: Some(28),
    },
};

/// Qwen3: norms of queries and keys, no biases, heads of their own width. Defaults of `Qwen3Config`.
pub const QWEN3: Family = Family {
    model_type: "qwen3",
    title: "Qwen3",
    classes: ["Qwen3ForCausalLM", "Qwen3Model"],
    rules: DecoderRules {
        defaults: TextConfig { qkv_bias: false, qk_norm: true, ..QWEN2.rules.defaults },
        head_dim: HeadDim::StatedOrDefault,
        ..QWEN2.rules
    },
    ..QWEN2
};

/// Llama 1 to 3 and models of its architecture, such as SmolLM2: neither biases nor norms of queries and keys. Defaults of `LlamaConfig`.
pub const LLAMA: Family = Family {
    model_type: "llama",
    title: "Llama",
    classes: ["LlamaForCausalLM", "LlamaModel"],
    bos_token_id: Some(1),
    eos_token_id: Some(2),
    rules: DecoderRules {
        defaults: TextConfig {
            vocab_size: 32_000,
            intermediate_size: 11_008,
            qkv_bias: false,
            max_position_embeddings: 2048,
            ..QWEN2.rules.defaults
        },
        head_dim: HeadDim::StatedOrDerived,
        max_window_layers: None,
    },
};
