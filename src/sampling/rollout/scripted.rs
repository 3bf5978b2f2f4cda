//! The scripted teacher as a responder.

use crate::Result;
use crate::sampling::{Prompts, Responder, Response, SampleOptions};
use crate::tasks::ScriptedTeacher;

impl Responder for ScriptedTeacher {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>> {
        let one = |&i: &usize| {
            let texts = ScriptedTeacher::respond(self, prompts.task, i, options.num_generations)?;
            Ok(texts.into_iter().map(Response::text).collect())
        };
        prompts.examples.iter().map(one).collect()
    }
}
