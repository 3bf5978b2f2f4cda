//! The weights of the architecture under their published names, and the other names they go by.

use super::config::Config;
use crate::model::causal_lm;
use crate::model::parts::Part;

/// Every weight of the architecture with its shape, in the order of the computation, under the published name
/// (`visual.*`, `model.*`, `lm_head.weight`). Matrices are `[out, in]`. `lm_head.weight` only where it is not tied.
pub fn parameter_shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (text, vision) = (&config.text, &config.vision);
    let mut out: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| out.push((name, shape.to_vec()));

    let (width, inner) = (vision.hidden_size, vision.intermediate_size);
    add(
        "visual.patch_embed.proj.weight".into(),
        &[width, vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size],
    );
    for i in 0..vision.depth {
        let block = format!("visual.blocks.{i}");
        add(format!("{block}.norm1.weight"), &[width]);
        add(format!("{block}.attn.qkv.weight"), &[3 * width, width]);
        add(format!("{block}.attn.qkv.bias"), &[3 * width]);
        add(format!("{block}.attn.proj.weight"), &[width, width]);
        add(format!("{block}.attn.proj.bias"), &[width]);
        add(format!("{block}.norm2.weight"), &[width]);
        for (name, rows, columns) in
            [("gate_proj", inner, width), ("up_proj", inner, width), ("down_proj", width, inner)]
        {
            add(format!("{block}.mlp.{name}.weight"), &[rows, columns]);
            add(format!("{block}.mlp.{name}.bias"), &[rows]);
        }
    }
    let merged = width * vision.spatial_merge_size * vision.spatial_merge_size;
    add("visual.merger.ln_q.weight".into(), &[width]);
    add("visual.merger.mlp.0.weight".into(), &[merged, merged]);
    add("visual.merger.mlp.0.bias".into(), &[merged]);
    add("visual.merger.mlp.2.weight".into(), &[vision.out_hidden_size, merged]);
    add("visual.merger.mlp.2.bias".into(), &[vision.out_hidden_size]);

    out.extend(causal_lm::parameter_shapes(text, config.tie_word_embeddings));
    out
}

/// The published form of a weight's name. Accepts the published names, those of transformers >= 4.52
/// (`model.visual.*`, `model.language_model.*`), and those of the base model saved without its head
/// (`language_model.*`) or of the decoder alone (`layers.*`). A name of none of these forms comes back as it is.
pub fn published_name(name: &str) -> String {
    const PREFIXES: [(&str, &str); 9] = [
        ("model.language_model.", "model."),
        ("model.visual.", "visual."),
        ("model.lm_head.", "lm_head."),
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model."),
        ("language_model.", "model."),
        ("layers.", "model.layers."),
        ("embed_tokens.", "model.embed_tokens."),
        ("norm.", "model.norm."),
    ];
    for (from, to) in PREFIXES {
        if let Some(rest) = name.strip_prefix(from) {
            return format!("{to}{rest}");
        }
    }
    name.to_string()
}

/// The name that transformers from 4.52 on has for a module or weight of a published name.
pub fn transformers_name(published: &str) -> String {
    match (published.strip_prefix("model."), published.strip_prefix("visual.")) {
        (Some(rest), _) => format!("model.language_model.{rest}"),
        (_, Some(rest)) => format!("model.visual.{rest}"),
        _ => published.to_string(),
    }
}

/// The part of the model that a weight belongs to.
pub fn part(parameter: &str) -> Part {
    if parameter.starts_with("visual.merger.") {
        Part::Merger
    } else if parameter.starts_with("visual.") {
        Part::Vision
    } else {
        causal_lm::part(parameter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_accepted_prefix_maps_to_the_published_name() {
        for (given, published) in [
            ("visual.blocks.0.norm1.weight", "visual.blocks.0.norm1.weight"),
            ("model.visual.blocks.0.norm1.weight", "visual.blocks.0.norm1.weight"),
            ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("model.language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("language_model.model.norm.weight", "model.norm.weight"),
            ("layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("lm_head.weight", "lm_head.weight"),
            ("something.else", "something.else"),
        ] {
            assert_eq!(published_name(given), published);
        }
    }

    #[test]
    fn the_3b_checkpoint_has_its_published_number_of_tensors_and_parameters() {
        let mut value = Config::from_json(&serde_json::json!({
            "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16,
            "num_hidden_layers": 36, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true,
            "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048},
        }))
        .unwrap();
        let shapes = parameter_shapes(&value);
        let count: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        // `Qwen/Qwen2.5-VL-3B-Instruct` on the Hub: 3,754,622,976 parameters in 824 tensors.
        assert_eq!((shapes.len(), count), (824, 3_754_622_976));
        assert_eq!(shapes.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), shapes.len());
        assert!(shapes.iter().all(|(name, _)| published_name(name) == *name));
        value.tie_word_embeddings = false;
        assert_eq!(parameter_shapes(&value).len(), 825);
    }
}
