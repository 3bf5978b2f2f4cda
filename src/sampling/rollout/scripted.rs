//! The scripted teacher as a responder.

use crate::Result;
use crate::sampling::teacher::Scripted;
use crate::sampling::{Generated, Prompts, Responder, SampleOptions};

impl Responder for Scripted {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Generated>>> {
        let one = |&i: &usize| {
            let texts = Scripted::respond(self, prompts.task, i, options.samples)?;
            Ok(texts.into_iter().map(Generated::text).collect())
        };
        prompts.examples.iter().map(one).collect()
    }
}
