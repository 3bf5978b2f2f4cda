//! Hashes of what an evaluation asks and of what it scores by.

use crate::io::hex;
use crate::tasks::Task;
use crate::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Over the first examples: SHA-256 of what the model is shown (ids, prompts, images), and of what its responses are scored by.
/// Images are taken by their pixels, unless the task has digests of them.
///
/// # Errors
/// An example or image that cannot be read.
pub fn hash_examples(task: &dyn Task, examples: usize) -> Result<(String, String)> {
    let parts: Vec<_> = (0..examples).into_par_iter().map(|i| hash_example(task, i)).collect();
    let (mut shown, mut gold) = (Sha256::new(), Sha256::new());
    for part in parts {
        let (seen, scored) = part?;
        shown.update(seen);
        gold.update(scored);
    }
    Ok((hex(&shown.finalize()), hex(&gold.finalize())))
}

/// SHA-256 of what the model is shown of example `i`, whatever its id: prompt and images.
///
/// # Errors
/// As [`hash_examples`].
pub fn hash_prompt(task: &dyn Task, i: usize) -> Result<[u8; 32]> {
    hash_shown(task, i, &task.example(i)?.prompt())
}

fn hash_example(task: &dyn Task, i: usize) -> Result<([u8; 32], [u8; 32])> {
    let record = task.example(i)?;
    let failed = |e: serde_json::Error| Error::failed(format!("record {}: {e}", record.id));
    let scored = serde_json::to_vec(&(&record.task, &record.answer, &record.meta)).map_err(failed)?;
    Ok((hash_shown(task, i, &(&record.id, record.prompt()))?, Sha256::digest(&scored).into()))
}

/// SHA-256 of `text` and of the images of example `i`.
fn hash_shown(task: &dyn Task, i: usize, text: &impl Serialize) -> Result<[u8; 32]> {
    let failed = |e: serde_json::Error| Error::failed(format!("example {i}: {e}"));
    let seen = serde_json::to_vec(text).map_err(failed)?;
    let mut shown = Sha256::new();
    shown.update((seen.len() as u64).to_le_bytes());
    shown.update(&seen);
    match task.image_digests(i)? {
        Some(digests) => digests.iter().for_each(|digest| shown.update(digest)),
        None => {
            for image in task.images(i)? {
                shown.update(image.width().to_le_bytes());
                shown.update(image.height().to_le_bytes());
                shown.update(image.as_raw());
            }
        }
    }
    Ok(shown.finalize().into())
}
