//! The names that weights go by.

use crate::model::causal_lm;
use crate::model::parts::Part;

/// The name of a weight in the published checkpoints of Qwen2-VL and Qwen2.5-VL, by which the parts of all families ask for it. Accepts
/// these names, those of transformers >= 4.52
/// (`model.visual.*`, `model.language_model.*`), and those of the base model saved without its head
/// (`language_model.*`) or of the decoder alone (`layers.*`). A name of none of these forms comes back as it is.
pub fn flat_name(name: &str) -> String {
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
    if parameter.starts_with("visual.merger.") || parameter.starts_with("visual.deepstack_merger_list.") {
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
            assert_eq!(flat_name(given), published);
        }
    }
}
