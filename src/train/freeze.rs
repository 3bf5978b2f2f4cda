//! Which parameters do not train.

use super::job::{ExampleId, TrainJob};
use crate::model::{LanguageModel, Part};
use crate::{Error, Result};

/// Freeze the parts that `train.freeze` names: `vision`, `merger`, `embeddings`, `text`, or the beginning of parameter names.
///
/// # Errors
/// See [`check_parts`].
pub fn freeze(model: &dyn LanguageModel, parts: &[String]) -> Result<()> {
    let parameters = model.parameters();
    let names: Vec<_> = parameters.iter().map(|p| (p.name.as_str(), model.part(&p.name))).collect();
    check_parts(&names, parts)?;
    // Beside an adapter the weights stay as they are.
    let adapted = names.iter().any(|(name, _)| is_adapter(name));
    parameters.iter().zip(&names).for_each(|(p, named)| {
        p.set_trainable(!is_frozen(named, parts) && (!adapted || is_adapter(&p.name)));
    });
    Ok(())
}

/// Freeze what is left of the vision tower if no training example has an image: no gradient would reach it. Returns how many parameters that
/// are.
///
/// # Errors
/// Nothing else trains.
pub fn freeze_unseen(job: &TrainJob<'_>) -> Result<usize> {
    let parameters = job.model.parameters();
    let (unseen, rest): (Vec<_>, Vec<_>) =
        parameters.iter().filter(|p| p.trainable()).partition(|p| job.model.part(&p.name).is_vision());
    if unseen.is_empty() || job.examples().any(|id| has_image(job, id)) {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(Error::input(
            "train.freeze: only the vision tower trains, and no training example has an image: nothing is left to train",
        ));
    }
    unseen.iter().for_each(|p| p.set_trainable(false));
    Ok(unseen.iter().map(|p| p.var.elem_count()).sum())
}

/// Whether an example shows an image.
pub(super) fn has_image(job: &TrainJob<'_>, id: ExampleId) -> bool {
    job.record(id).is_ok_and(|record| !record.images.is_empty())
}

/// Is it a matrix of a LoRA adapter?
pub(super) fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// Whether a model with parameters of these names can be frozen so.
///
/// # Errors
/// A name that freezes nothing, or everything being frozen.
pub fn check_parts(names: &[(&str, Part)], parts: &[String]) -> Result<()> {
    if let Some(part) = parts.iter().find(|part| !names.iter().any(|(name, of)| of.is_named_by(part, name))) {
        let example = names.first().map(|(name, _)| *name).unwrap_or_default();
        return Err(Error::input(format!(
            "train.freeze: {part:?} names no parameter; give vision, merger, embeddings, text, or the beginning of names such as {example}"
        )));
    }
    let adapted = names.iter().any(|(name, _)| is_adapter(name));
    if names.iter().all(|named| is_frozen(named, parts) || (adapted && !is_adapter(named.0))) {
        return Err(Error::input("train.freeze: every parameter is frozen, nothing is left to train"));
    }
    Ok(())
}

fn is_frozen((name, of): &(&str, Part), parts: &[String]) -> bool {
    parts.iter().any(|part| of.is_named_by(part, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    const NAMES: [(&str, Part); 4] = [
        ("visual.blocks.0.norm1.weight", Part::Vision),
        ("visual.merger.mlp.0.weight", Part::Merger),
        ("model.embed_tokens.weight", Part::Embeddings),
        ("model.norm.weight", Part::Decoder),
    ];

    fn frozen(parts: &[&str]) -> Result<Vec<bool>> {
        let parts: Vec<String> = parts.iter().map(|p| p.to_string()).collect();
        check_parts(&NAMES, &parts)?;
        Ok(NAMES.iter().map(|named| is_frozen(named, &parts)).collect())
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
