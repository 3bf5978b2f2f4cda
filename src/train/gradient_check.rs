//! Before training: a check that the gradient reaches every trainable parameter.
//!
//! A parameter that no gradient reaches would never learn, and nothing else would say so: some of candle's ops drop the gradient silently.

use super::freeze::has_image;
use super::gradient_accumulation::{MicroBatch, accumulate_gradients};
use super::job::{ExampleId, TrainJob};
use super::objective::Nll;
use super::optimizer::{grad_squares, name_some};
use crate::model::Sequence;
use crate::tasks::encode_example;
use crate::{Error, Result};

/// Examples of the first attempt: gradients that flow at all show in few.
const FEW: usize = 2;

/// Whether the gradients of `examples` show if every trainable parameter learns. They do not if the vision tower trains and none of
/// the examples has an image.
pub fn reaches_all_parameters(job: &TrainJob<'_>, examples: &[ExampleId]) -> bool {
    let trains = job.model.parameters().iter().any(|p| p.trainable() && job.model.part(&p.name).is_vision());
    !trains || examples.iter().any(|&id| has_image(job, id))
}

/// Run one backward pass of the mean negative log-probability of the reference responses of a few of `examples` (an empty response
/// where a record has none), and [check][check_gradients] the gradients; if they do not pass, those of all of `examples`. Leaves no
/// gradient behind. If the vision tower trains and none of `examples` has an image, an example with one is added.
///
/// # Errors
/// See [`check_gradients`].
pub fn probe_gradients(job: &TrainJob<'_>, examples: &[ExampleId]) -> Result<()> {
    let mut examples = examples.to_vec();
    if !reaches_all_parameters(job, &examples) {
        examples.extend(job.examples().find(|&id| has_image(job, id)));
    }
    // An example with an image goes first, so that it is among the few.
    if let Some(at) = examples.iter().position(|&id| has_image(job, id)) {
        examples.swap(0, at);
    }
    let few = &examples[..examples.len().min(FEW)];
    match probe(job, few) {
        Err(_) if few.len() < examples.len() => probe(job, &examples),
        checked => checked,
    }
}

fn probe(job: &TrainJob<'_>, examples: &[ExampleId]) -> Result<()> {
    let mut batch = Vec::with_capacity(examples.len());
    for &id in examples {
        let response = job.encoder.encode_response(job.record(id)?.response().unwrap_or_default())?;
        let (task, i) = job.locate(id)?;
        batch.push(Sequence { prompt: encode_example(task, job.encoder, i)?, response });
    }
    let trainable: Vec<_> = job.model.parameters().iter().filter(|p| p.trainable()).collect();
    trainable.iter().for_each(|p| p.clear_grad());
    accumulate_gradients(job.comm, job.model, None, &Nll::default(), &[MicroBatch::new(&batch)], 1.0)?;
    let grads = trainable.iter().map(|p| {
        let grad = p.grad();
        p.clear_grad();
        (p.name.as_str(), grad)
    });
    check_gradients(&grad_squares(grads, &[])?.0)
}

/// Check the sum of squares of every trainable parameter's gradient in the first batch.
///
/// # Errors
/// A parameter whose gradient is missing, all zero or not finite: it would never learn, or ruin the run.
pub fn check_gradients(squares: &[(&str, Option<f64>)]) -> Result<()> {
    let names = |found: fn(f64) -> bool| -> Vec<&str> {
        squares.iter().filter(|(_, s)| found(s.unwrap_or(0.0))).map(|(name, _)| *name).collect()
    };
    let (bad, mut none) = (names(|s| !s.is_finite()), names(|s| s == 0.0));
    if !bad.is_empty() {
        return Err(Error::failed(format!(
            "the first batch gives a gradient that is not finite in {}; the weights or the data are broken",
            name_some(&bad)
        )));
    }
    if none.len() == squares.len() {
        return Err(Error::failed(
            "the first batch gives no gradient at all: the model is already certain of every response, there is nothing to \
             learn from",
        ));
    }
    // A fresh adapter's B is zero, and so is the gradient of its A.
    none.retain(|name| !name.contains(".lora_A."));
    if !none.is_empty() {
        return Err(Error::failed(format!(
            "no gradient reaches {} of {} trainable parameters: {}; freeze them (train.freeze) if they are not meant to train",
            none.len(),
            squares.len(),
            name_some(&none)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_that_are_missing_zero_or_not_finite_are_named() {
        assert!(check_gradients(&[("a", Some(1.0)), ("b", Some(1e-30))]).is_ok());
        let said = |squares: &[(&str, Option<f64>)]| check_gradients(squares).unwrap_err().to_string();
        let text = said(&[("a", Some(1.0)), ("b", None), ("c", Some(0.0))]);
        assert!(text.contains("2 of 3 trainable parameters: b, c;"), "{text}");
        let text = said(&[("a", Some(1.0)), ("b", Some(f64::NAN)), ("c", None)]);
        assert!(text.contains("not finite in b;"), "{text}");
        assert!(said(&[("a", None), ("b", Some(0.0))]).contains("no gradient at all"));
    }
}
