//! Qwen2 and Qwen2.5: text alone. Qwen2.5-VL has the same decoder.

pub mod config;
mod decoder;

pub use config::{Config, TextConfig};
pub use decoder::decoder;

use super::architecture::{Architecture, Network};
use super::decoder::Rotary;
use super::parts::Part;
use super::positions::Positions;
use super::shapes::DecoderShape;
use super::weights::NamedWeights;
use crate::{Error, Result};
use serde_json::Value;

impl Architecture for Config {
    fn model_type(&self) -> &'static str {
        config::MODEL_TYPE
    }

    fn title(&self) -> &'static str {
        "Qwen2.5"
    }

    fn to_json(&self) -> Value {
        Config::to_json(self)
    }

    fn decoder(&self) -> DecoderShape {
        self.text.shape(self.tie_word_embeddings)
    }

    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        parameter_shapes(&self.text, self.tie_word_embeddings)
    }

    fn published_name(&self, stored: &str) -> String {
        // The decoder saved without its head has no prefix.
        match ["layers.", "embed_tokens.", "norm."].iter().any(|start| stored.starts_with(start)) {
            true => format!("model.{stored}"),
            false => stored.to_string(),
        }
    }

    fn decoder_module_pattern(&self) -> &'static str {
        r"(.*\.)?model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    }

    fn part(&self, parameter: &str) -> Part {
        part(parameter)
    }

    fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    fn positions(&self, ids: &[u32], grids: &[[usize; 3]]) -> Result<Positions> {
        match grids {
            [] => Ok(Positions::of_text(ids.len())),
            _ => {
                Err(Error::input(format!("the prompt has {} image(s); {} reads text alone", grids.len(), self.title())))
            }
        }
    }

    fn build(&self, weights: &mut NamedWeights) -> Result<Network> {
        let rotary = Rotary { theta: self.text.rope_theta, sections: vec![self.text.head_dim / 2] };
        Ok(Network { vision: None, decoder: decoder(&self.text, self.tie_word_embeddings, rotary, weights)? })
    }
}

/// Every weight of the decoder with its shape, in the order of the computation, under its published name.
pub fn parameter_shapes(text: &TextConfig, tied: bool) -> Vec<(String, Vec<usize>)> {
    let mut out: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| out.push((name, shape.to_vec()));
    let (hidden, inner) = (text.hidden_size, text.intermediate_size);
    let queries = text.num_attention_heads * text.head_dim;
    let keys = text.num_key_value_heads * text.head_dim;
    add("model.embed_tokens.weight".into(), &[text.vocab_size, hidden]);
    for i in 0..text.num_hidden_layers {
        let layer = format!("model.layers.{i}");
        add(format!("{layer}.input_layernorm.weight"), &[hidden]);
        for (name, rows) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
            add(format!("{layer}.self_attn.{name}.weight"), &[rows, hidden]);
            add(format!("{layer}.self_attn.{name}.bias"), &[rows]);
        }
        add(format!("{layer}.self_attn.o_proj.weight"), &[hidden, queries]);
        add(format!("{layer}.post_attention_layernorm.weight"), &[hidden]);
        add(format!("{layer}.mlp.gate_proj.weight"), &[inner, hidden]);
        add(format!("{layer}.mlp.up_proj.weight"), &[inner, hidden]);
        add(format!("{layer}.mlp.down_proj.weight"), &[hidden, inner]);
    }
    add("model.norm.weight".into(), &[hidden]);
    if !tied {
        add("lm_head.weight".into(), &[text.vocab_size, hidden]);
    }
    out
}

/// The part of the model that a weight of the decoder belongs to.
pub fn part(parameter: &str) -> Part {
    if parameter.starts_with("model.embed_tokens.") {
        Part::Embeddings
    } else if parameter.starts_with("lm_head.") {
        Part::Head
    } else {
        Part::Decoder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_published_checkpoints_have_their_number_of_tensors_and_parameters() {
        // The config.json of Qwen/Qwen2.5-0.5B-Instruct and -7B-Instruct; parameters and tensors as the Hub counts them.
        for (config, tensors, parameters) in [
            (
                json!({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
                    "num_hidden_layers": 24, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true}),
                290,
                494_032_768,
            ),
            (
                json!({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
                    "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064}),
                339,
                7_615_616_512,
            ),
        ] {
            let shapes = Config::from_json(&config).unwrap().parameter_shapes();
            let count: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!((shapes.len(), count), (tensors, parameters));
        }
    }

    #[test]
    fn the_language_modules_are_those_of_the_layers() {
        let pattern = fancy_regex::Regex::new(&format!(
            "^(?:{})$",
            Config::from_json(&json!({"model_type": "qwen2"})).unwrap().decoder_module_pattern()
        ));
        let pattern = pattern.unwrap();
        assert!(pattern.is_match("model.layers.11.self_attn.q_proj").unwrap());
        assert!(!pattern.is_match("lm_head").unwrap());
    }
}
