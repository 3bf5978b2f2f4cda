//! One process alone: every collective returns at once.

use super::{Communicator, add};
use crate::{Error, Result};

fn no_other(rank: usize) -> Error {
    Error::failed(format!("a process alone has no rank {rank} beside it"))
}

/// The communicator of a program that runs as one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Communicator for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }

    fn send(&self, to: usize, _number: usize, _bytes: Vec<u8>) -> Result<()> {
        Err(no_other(to))
    }

    fn receive(&self, from: usize, _number: usize, _length: usize) -> Result<Vec<u8>> {
        Err(no_other(from))
    }

    fn abort(&self, _error: &Error) -> bool {
        true
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _root: usize, _bytes: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn broadcast_f32(&self, _root: usize, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn all_reduce_sum(&self, sum: &mut [f32], filled: bool, own: &[&[f32]], _counts: &[usize]) -> Result<()> {
        for (i, term) in own.iter().enumerate() {
            add(sum, filled || i > 0, term.iter().copied());
        }
        Ok(())
    }
}
