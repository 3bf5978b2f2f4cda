//! The scripted teacher as a responder.

use crate::Result;
use crate::sampling::{Generated, Prompts, Responder, SampleOptions};
use crate::tasks::ScriptedTeacher;

impl Responder for ScriptedTeacher {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Generated>>> {
        let one = |&i: &usize| {
            let texts = ScriptedTeacher::respond(self, prompts.task, i, options.samples)?;
            Ok(texts.into_iter().map(Generated::text).collect())
        };
        prompts.examples.iter().map(one).collect()
    }
}
