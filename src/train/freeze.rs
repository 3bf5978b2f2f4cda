//! Which parameters do not train.

use crate::nn::Parameter;
use crate::{Error, Result};
use std::sync::Arc;

/// Freeze the parts that `train.freeze` names: `vision`, `merger`, `embeddings`, `text`, or the beginning of parameter names.
///
/// # Errors
/// A name that freezes nothing, or everything being frozen.
pub fn freeze(parameters: &[Arc<Parameter>], parts: &[String]) -> Result<()> {
    let mut used = vec![false; parts.len()];
    for parameter in parameters {
        let mut frozen = false;
        for (part, used) in parts.iter().zip(&mut used) {
            if matches_part(&parameter.name, part) {
                (*used, frozen) = (true, true);
            }
        }
        parameter.set_trainable(!frozen);
    }
    if let Some((part, _)) = parts.iter().zip(&used).find(|(_, used)| !**used) {
        let example = parameters.first().map_or("", |p| p.name.as_str());
        return Err(Error::input(format!(
            "train.freeze: {part:?} names no parameter; give vision, merger, embeddings, text, or the beginning of names such as {example}"
        )));
    }
    if !parameters.iter().any(|p| p.trainable()) {
        return Err(Error::input("train.freeze: every parameter is frozen, nothing is left to train"));
    }
    Ok(())
}

fn matches_part(name: &str, part: &str) -> bool {
    let vision = name.starts_with("visual.");
    match part {
        "vision" => vision,
        "merger" => name.starts_with("visual.merger."),
        "embeddings" => name.contains("embed_tokens.") || name.starts_with("lm_head."),
        "text" => !vision,
        prefix => !prefix.is_empty() && name.starts_with(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor, Var};

    fn parameters() -> Vec<Arc<Parameter>> {
        let names = [
            "visual.blocks.0.norm1.weight",
            "visual.merger.mlp.0.weight",
            "model.embed_tokens.weight",
            "model.norm.weight",
        ];
        let value = || Var::from_tensor(&Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        names.iter().map(|n| Arc::new(Parameter::new(*n, value()))).collect()
    }

    fn frozen(parts: &[&str]) -> Result<Vec<bool>> {
        let ps = parameters();
        freeze(&ps, &parts.iter().map(|p| p.to_string()).collect::<Vec<_>>())?;
        Ok(ps.iter().map(|p| !p.trainable()).collect())
    }

    #[test]
    fn parts_and_prefixes_freeze_what_they_name() {
        assert_eq!(frozen(&[]).unwrap(), [false; 4]);
        assert_eq!(frozen(&["vision"]).unwrap(), [true, true, false, false]);
        assert_eq!(frozen(&["merger", "model.norm"]).unwrap(), [false, true, false, true]);
        assert_eq!(frozen(&["embeddings"]).unwrap(), [false, false, true, false]);
    }

    #[test]
    fn a_name_that_freezes_nothing_and_freezing_everything_are_refused() {
        assert!(frozen(&["visoin"]).unwrap_err().to_string().contains("visoin"));
        assert!(frozen(&["vision", "text"]).unwrap_err().to_string().contains("nothing is left"));
    }
}
