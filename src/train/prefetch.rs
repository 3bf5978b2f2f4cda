//! Reads, decodes and tokenises the next examples in a thread of its own while the model works on the current ones.

use super::job::{ExampleId, TrainJob};
use crate::Result;
use crate::model::Sequence;
use rayon::prelude::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

/// Encoded examples, in the order of their ids.
type Encoded = Vec<Result<Sequence>>;

/// Encodes examples, in advance if they were requested.
pub struct Prefetcher<'a> {
    job: &'a TrainJob<'a>,
    requests: Sender<Vec<ExampleId>>,
    ready: Receiver<(Vec<ExampleId>, Encoded)>,
    /// Requests that have not been collected.
    pending: usize,
}

impl<'a> Prefetcher<'a> {
    /// Start the thread. It ends when the prefetcher is dropped.
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, job: &'a TrainJob<'a>) -> Self
    where
        'a: 'scope,
    {
        let (requests, to_do) = channel::<Vec<ExampleId>>();
        let (done, ready) = channel();
        scope.spawn(move || {
            for ids in to_do {
                let encoded = ids.iter().map(|&id| job.encode(id)).collect();
                if done.send((ids, encoded)).is_err() {
                    return;
                }
            }
        });
        Prefetcher { job, requests, ready, pending: 0 }
    }

    /// These examples, in order: as they were prefetched, or, if others were requested, encoded now.
    pub fn next(&mut self, ids: &[ExampleId]) -> Result<Vec<Sequence>> {
        while self.pending > 0 {
            self.pending -= 1;
            match self.ready.recv() {
                Ok((requested, encoded)) if requested == ids => return encoded.into_iter().collect(),
                _ => {}
            }
        }
        ids.par_iter().map(|&id| self.job.encode(id)).collect::<Encoded>().into_iter().collect()
    }

    /// Encode these examples in the background.
    pub fn request(&mut self, ids: Vec<ExampleId>) {
        if self.requests.send(ids).is_ok() {
            self.pending += 1;
        }
    }
}
