//! The decoder against a second, independent implementation: candle-transformers' Qwen2, which is the same network for prompts
//! without images (all three axes of M-RoPE then stand at the same position).

use crate::common;
use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::qwen2;
use jigsaw::model::Prompt;
use std::sync::Arc;

#[test]
fn the_decoder_gives_the_logits_of_candle_transformers_qwen2_for_text() {
    let dir = common::fixture("model/text_only_tied");
    let model = jigsaw::model::load(&dir, &Device::Cpu).unwrap();
    let text = model.architecture().decoder();
    let json = model.architecture().to_json();
    let config = qwen2::Config {
        vocab_size: text.vocab_size,
        hidden_size: text.hidden_size,
        intermediate_size: text.intermediate_size,
        num_hidden_layers: text.layers,
        num_attention_heads: text.heads,
        num_key_value_heads: text.key_value_heads,
        max_position_embeddings: 64,
        sliding_window: 64,
        max_window_layers: text.layers,
        tie_word_embeddings: true,
        rope_theta: json["rope_theta"].as_f64().unwrap(),
        rms_norm_eps: json["rms_norm_eps"].as_f64().unwrap(),
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    let weights = [dir.join("model.safetensors")];
    // SAFETY: nothing writes to the fixture.
    let builder = unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, &Device::Cpu) }.unwrap();
    let mut reference = qwen2::ModelForCausalLM::new(&config, builder).unwrap();
    for ids in [vec![3u32, 17, 42, 9, 9, 100, 5], vec![1], (0..40).map(|i| i * 3 % 150).collect()] {
        reference.clear_kv_cache();
        let input = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let want = reference.forward(&input, 0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let logits = model.logits(&Arc::new(Prompt { ids, images: Vec::new() })).unwrap().to_vec2::<f32>().unwrap();
        let got = logits.last().unwrap();
        let scale = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 1e-4 * scale, "{g} against {w}");
        }
    }
}
