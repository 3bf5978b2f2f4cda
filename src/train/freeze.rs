//! Which parameters do not train.

use crate::nn::Parameter;
use crate::{Error, Result};
use std::sync::Arc;

/// Freeze the parts that `train.freeze` names: `vision`, `merger`, `embeddings`, `text`, or the beginning of parameter names.
///
/// # Errors
/// See [`check_parts`].
pub fn freeze(parameters: &[Arc<Parameter>], parts: &[String]) -> Result<()> {
    let names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    check_parts(&names, parts)?;
    // Beside an adapter the weights stay as they are.
    let adapted = names.iter().any(|name| is_adapter(name));
    parameters.iter().for_each(|p| p.set_trainable(!is_frozen(&p.name, parts) && (!adapted || is_adapter(&p.name))));
    Ok(())
}

/// Is it a matrix of a LoRA adapter?
pub(super) fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// Whether a model with parameters of these names can be frozen so.
///
/// # Errors
/// A name that freezes nothing, or everything being frozen.
pub fn check_parts(names: &[&str], parts: &[String]) -> Result<()> {
    if let Some(part) = parts.iter().find(|part| !names.iter().any(|name| matches_part(name, part))) {
        let example = names.first().copied().unwrap_or_default();
        return Err(Error::input(format!(
            "train.freeze: {part:?} names no parameter; give vision, merger, embeddings, text, or the beginning of names such as {example}"
        )));
    }
    let adapted = names.iter().any(|name| is_adapter(name));
    if names.iter().all(|name| is_frozen(name, parts) || (adapted && !is_adapter(name))) {
        return Err(Error::input("train.freeze: every parameter is frozen, nothing is left to train"));
    }
    Ok(())
}

/// Whether `train.freeze` names the parameter.
pub(super) fn is_frozen(name: &str, parts: &[String]) -> bool {
    parts.iter().any(|part| matches_part(name, part))
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
