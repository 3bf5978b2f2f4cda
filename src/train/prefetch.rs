//! The next examples, read, decoded and tokenised by a thread of its own while the model works on the current ones.

use super::trainer::TrainJob;
use crate::Result;
use crate::model::PromptEncoder;
use crate::model::Sequence;
use crate::tasks::Task;
use crate::tasks::encode_example;
use crate::tasks::reference_sequence;
use rayon::prelude::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

/// What is prepared of an example: its prompt, and its reference response (an empty one where the model itself is to answer).
type Prepared = Result<Sequence>;

/// Prepares examples, in advance if it was told which.
pub struct Prefetcher<'a> {
    source: Source<'a>,
    requests: Sender<Vec<usize>>,
    ready: Receiver<(Vec<usize>, Vec<Prepared>)>,
    /// Requests that have not been collected.
    open: usize,
}

#[derive(Clone, Copy)]
struct Source<'a> {
    /// See [`TrainJob::sampled`].
    sampled: usize,
    codec: &'a dyn PromptEncoder,
    task: &'a dyn Task,
}

impl Source<'_> {
    fn prepare(&self, i: usize) -> Prepared {
        match i < self.sampled {
            true => Ok(Sequence { prompt: encode_example(self.task, self.codec, i)?, response: Vec::new() }),
            false => reference_sequence(self.task, self.codec, i),
        }
    }
}

impl<'a> Prefetcher<'a> {
    /// A feed whose thread ends with it.
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, job: &TrainJob<'a>) -> Self
    where
        'a: 'scope,
    {
        let source = Source { sampled: job.sampled(), codec: job.codec, task: job.train };
        let (requests, to_do) = channel::<Vec<usize>>();
        let (done, ready) = channel();
        scope.spawn(move || {
            for indices in to_do {
                let prepared = indices.iter().map(|&i| source.prepare(i)).collect();
                if done.send((indices, prepared)).is_err() {
                    return;
                }
            }
        });
        Prefetcher { source, requests, ready, open: 0 }
    }

    /// These examples, in order: those prepared in advance, if they are the same, or else made now.
    pub fn next(&mut self, indices: &[usize]) -> Result<Vec<Sequence>> {
        while self.open > 0 {
            self.open -= 1;
            match self.ready.recv() {
                Ok((requested, prepared)) if requested == indices => return prepared.into_iter().collect(),
                _ => {}
            }
        }
        indices.par_iter().map(|&i| self.source.prepare(i)).collect::<Vec<_>>().into_iter().collect()
    }

    /// Have these examples ready soon.
    pub fn request(&mut self, indices: Vec<usize>) {
        if self.requests.send(indices).is_ok() {
            self.open += 1;
        }
    }
}
