//! Communicators: how the ranks (processes) that work on one training run or one evaluation exchange data and agree on decisions.
//!
//! Every rank runs the same program on the same global batch. A rank computes its own share, and the shares are put together here, always in
//! an order that does not depend on the number of ranks, so that 1, 2 and 4 ranks end with the same bytes (on a CPU). Rank 0 alone writes
//! files, logs and messages.
//!
//! Every rank must call the same functions in the same order. A rank that fails calls [`Communicator::abort`], which ends the others: they
//! get an error from the call they wait in, and never wait forever.
//!
//! [`launcher::connect`] chooses: [`Single`], or the processes that a launcher has started, with MPI. [`threads`] runs several ranks in one process, for
//! tests.

pub mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(feature = "mpi")]
mod process;
mod root_log;
mod single;
pub mod threads;

pub use root_log::RootLog;
pub use single::Single;

use crate::io::json::named_differences;
use crate::{Error, Result};
use candle_core::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::Range;

/// Floats that go in one exchange, as in [`Communicator::all_reduce_sum`]: enough to hide the latency of a network, few enough to be held once per rank. Tests take
/// fewer, so that short sums have several messages.
pub const PIECE: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// What a rank has exchanged with others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Time in exchanges, waiting for other ranks included.
    pub seconds: f64,
    /// Bytes that this rank has sent.
    pub bytes: u64,
}

/// The ranks that work together. Of the collectives, only [`Communicator::all_gather`] must be written for a new one; the others have
/// implementations built on it, which a communicator replaces where it has faster ones.
pub trait Communicator: Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn world_size(&self) -> usize;

    /// The bytes that each rank gives, by rank. They may differ in length.
    ///
    /// # Errors
    /// Another rank has failed, or ended early.
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// End the other ranks, because this one has failed with `error`. Whether all ranks know of it and end by themselves, so that rank 0
    /// can say why; otherwise this rank must.
    fn abort(&self, error: &Error) -> bool;

    /// A rank in words, for messages.
    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    /// What this rank has exchanged since the last call; none where nothing is sent.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// Begin to send at most 4 MiB to another rank, which receives what has this number in the order in which it was sent.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    fn send(&self, to: usize, number: usize, bytes: Vec<u8>) -> Result<()>;

    /// Receive the next `length` bytes that another rank sends with this number.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`]; another number of bytes has come.
    fn receive(&self, from: usize, number: usize, length: usize) -> Result<Vec<u8>>;

    /// Wait until all that this rank has sent is on its way, so that its memory is free again.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    fn wait_for_sent(&self) -> Result<()> {
        Ok(())
    }

    /// Wait until every rank has come here.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    fn barrier(&self) -> Result<()> {
        self.all_gather(&[]).map(drop)
    }

    /// Replace `bytes` by those of rank `root`.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let own: &[u8] = if self.rank() == root { bytes } else { &[] };
        *bytes = self.all_gather(own)?.swap_remove(root);
        Ok(())
    }

    /// Replace `values` by those of rank `root`, as many on every rank.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    fn broadcast_f32(&self, root: usize, values: &mut [f32]) -> Result<()> {
        for piece in values.chunks_mut(PIECE) {
            let mut bytes = if self.rank() == root { f32_bytes(piece) } else { Vec::new() };
            self.broadcast(root, &mut bytes)?;
            check_length(bytes.len(), 4 * piece.len())?;
            piece.iter_mut().zip(f32_values(&bytes)).for_each(|(value, received)| *value = received);
        }
        Ok(())
    }

    /// Give each rank's numbers to every other rank: `receive` gets the bytes of each (see [`f32_values`]), by rank. `lengths` are those of all
    /// ranks, in numbers.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`]; those of `receive`.
    fn exchange_f32(
        &self,
        own: &[f32],
        lengths: &[usize],
        receive: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for (rank, (bytes, length)) in self.all_gather(&f32_bytes(own))?.iter().zip(lengths).enumerate() {
            check_length(bytes.len(), 4 * length)?;
            if rank != self.rank() {
                receive(rank, bytes)?;
            }
        }
        Ok(())
    }

    /// Replace a contiguous tensor of f32 on a GPU by the sum of those of all ranks, or with `root` by that of this rank, without the way through
    /// main memory. Whether that was done: a communicator that cannot leaves the tensor as it is, and so does every other rank.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`]; errors of the GPU.
    fn exchange_on_device(&self, _tensor: &Tensor, _root: Option<usize>) -> Result<bool> {
        Ok(false)
    }

    /// Whether the terms and the sums of [`Communicator::all_reduce_sum`] are rounded to bf16 and sent as that. A communicator may ignore it.
    fn round_gradients(&self, _on: bool) {}

    /// The ordered all-reduce. Adds to `sum`, which is the same on every rank before and after, the terms of rank 0 one after the other, then
    /// those of rank 1, and so on. With `filled` false, `sum` holds nothing yet and the first term replaces it. `counts` is the number of
    /// terms of each rank, the length of `own` among them; every term is as long as `sum`.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    fn all_reduce_sum(&self, sum: &mut [f32], filled: bool, own: &[&[f32]], counts: &[usize]) -> Result<()> {
        for (index, piece) in sum.chunks_mut(PIECE).enumerate() {
            let range = index * PIECE..index * PIECE + piece.len();
            let own: Vec<&[f32]> = own.iter().map(|term| &term[range.clone()]).collect();
            let mut filled = filled;
            for (bytes, count) in self.all_gather(&f32_bytes(&own.concat()))?.iter().zip(counts) {
                check_length(bytes.len(), 4 * count * piece.len())?;
                for term in bytes.chunks_exact(4 * piece.len()) {
                    add(piece, filled, f32_values(term));
                    filled = true;
                }
            }
        }
        Ok(())
    }
}

impl dyn Communicator + '_ {
    /// Whether this rank is the one that writes files, logs and messages: rank 0.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Which of `items` consecutive items are this rank's: a run of them, as long as any other rank's give or take one.
    pub fn share(&self, items: usize) -> Range<usize> {
        share(items, self.rank(), self.world_size())
    }

    /// Whether `flag` is set on any rank.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    pub fn any(&self, flag: bool) -> Result<bool> {
        match self.world_size() {
            1 => Ok(flag),
            _ => Ok(self.all_gather(&[flag.into()])?.concat().contains(&1)),
        }
    }

    /// Let rank 0 do `work`, and give its result to every rank. An error is the same error on every rank.
    ///
    /// # Errors
    /// Those of `work`; and see [`Communicator::all_gather`].
    pub fn on_root<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.world_size() == 1 {
            return work();
        }
        let mut bytes = match self.is_root() {
            true => encode(&work().map_err(|e| Failure::of(&e)))?,
            false => Vec::new(),
        };
        self.broadcast(0, &mut bytes)?;
        decode::<Result<T, Failure>>(&bytes)?.map_err(Failure::error)
    }

    /// As [`on_root`](Self::on_root), for a result that rank 0 keeps for itself, such as a lock or an open file.
    ///
    /// # Errors
    /// As [`on_root`](Self::on_root).
    pub fn root_alone<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let mut kept = None;
        self.on_root(|| work().map(|result| kept = Some(result)))?;
        Ok(kept)
    }

    /// Do `work` for each item, one item on each rank at a time, and give what comes of them to `keep` on every rank: in the order of the items,
    /// and after every round of as many items as there are ranks. See [`gather`](Self::gather) for the values.
    ///
    /// # Errors
    /// Those of `work` and `keep`; and see [`Communicator::all_gather`].
    pub fn in_rounds<I, T: Serialize + DeserializeOwned>(
        &self,
        items: &[I],
        mut work: impl FnMut(&I) -> Result<Vec<T>>,
        mut keep: impl FnMut(Vec<T>) -> Result<()>,
    ) -> Result<()> {
        for round in items.chunks(self.world_size()) {
            let own = round.get(self.rank()).map(&mut work).transpose()?;
            keep(self.gather(own.unwrap_or_default())?)?;
        }
        Ok(())
    }

    /// `result` of this rank if every rank succeeded; else the error of the first rank that failed, on every rank.
    ///
    /// # Errors
    /// Any rank's; and see [`Communicator::all_gather`].
    pub fn agree<T>(&self, result: Result<T>) -> Result<T> {
        if self.world_size() == 1 {
            return result;
        }
        let failure = result.as_ref().err().map(Failure::of);
        for (rank, bytes) in self.all_gather(&encode(&failure)?)?.into_iter().enumerate() {
            if let Some(failure) = decode::<Option<Failure>>(&bytes)? {
                return Err(failure.error().context(self.name(rank)));
            }
        }
        result
    }

    /// Check that every rank has the same `value`.
    ///
    /// # Errors
    /// An input error, the same on every rank, that names the first rank whose value is another than that of rank 0, and the fields that
    /// differ. See [`Communicator::all_gather`].
    pub fn check_same(&self, value: &impl Serialize) -> Result<()> {
        if self.world_size() == 1 {
            return Ok(());
        }
        let all = self.all_gather(&encode(value)?)?;
        let Some(rank) = all.iter().position(|bytes| *bytes != all[0]) else { return Ok(()) };
        let [first, other] = [0, rank].map(|rank| decode::<serde_json::Value>(&all[rank]));
        Err(Error::input(format!(
            "{} does not have what {} has; all ranks must run the same program on the same files: {}",
            self.name(rank),
            self.name(0),
            named_differences(&first?, &other?).join("; ")
        )))
    }

    /// The items of every rank end to end, by rank. Floats in them must be finite or stored as bits: they travel as JSON.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: Vec<T>) -> Result<Vec<T>> {
        if self.world_size() == 1 {
            return Ok(own);
        }
        let all = self.all_gather(&encode(&own)?)?;
        Ok(all.iter().map(|bytes| decode::<Vec<T>>(bytes)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Begin to send numbers, or that there are none, to another rank.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    pub fn send_f32(&self, to: usize, number: usize, values: Option<&[f32]>) -> Result<()> {
        self.send(to, number, vec![values.is_some().into()])?;
        let mut pieces = values.unwrap_or_default().chunks(PIECE);
        pieces.try_for_each(|piece| self.send(to, number, f32_bytes(piece)))
    }

    /// Whether another rank sends numbers, which [`receive_f32`](Self::receive_f32) must then receive.
    ///
    /// # Errors
    /// See [`Communicator::receive`].
    pub fn sends_f32(&self, from: usize, number: usize) -> Result<bool> {
        Ok(self.receive(from, number, 1)? == [1])
    }

    /// Replace `values` by those that another rank sends.
    ///
    /// # Errors
    /// See [`Communicator::receive`].
    pub fn receive_f32(&self, from: usize, number: usize, values: &mut [f32]) -> Result<()> {
        values.chunks_mut(PIECE).try_for_each(|piece| {
            let bytes = self.receive(from, number, 4 * piece.len())?;
            piece.iter_mut().zip(f32_values(&bytes)).for_each(|(value, received)| *value = received);
            Ok(())
        })
    }

    /// The numbers of every rank end to end, by rank.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    pub fn gather_f32(&self, own: Vec<f32>) -> Result<Vec<f32>> {
        match self.world_size() {
            1 => Ok(own),
            _ => Ok(f32_values(&self.all_gather(&f32_bytes(&own))?.concat()).collect()),
        }
    }

    /// The numbers of every rank end to end, by rank.
    ///
    /// # Errors
    /// See [`Communicator::all_gather`].
    pub fn gather_f64(&self, own: Vec<f64>) -> Result<Vec<f64>> {
        if self.world_size() == 1 {
            return Ok(own);
        }
        let own: Vec<u8> = own.into_iter().flat_map(f64::to_le_bytes).collect();
        Ok(self.all_gather(&own)?.concat().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    }
}

impl fmt::Debug for dyn Communicator + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.world_size())
    }
}

/// Which of `items` consecutive items are those of `rank`.
pub fn share(items: usize, rank: usize, world_size: usize) -> Range<usize> {
    items * rank / world_size..items * (rank + 1) / world_size
}

/// Add a term to a sum, or begin the sum with it.
fn add(sum: &mut [f32], filled: bool, term: impl Iterator<Item = f32>) {
    match filled {
        true => sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term),
        // Not 0 + term: that would turn -0 into 0.
        false => sum.iter_mut().zip(term).for_each(|(sum, term)| *sum = term),
    }
}

/// The bytes of numbers, as they lie in the memory of these machines: ranks are all of one kind.
fn f32_bytes(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Numbers from their bytes.
pub fn f32_values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes))
}

fn check_length(got: usize, expected: usize) -> Result<()> {
    match got == expected {
        true => Ok(()),
        false => Err(Error::failed(format!(
            "the ranks do not agree on what they exchange: {got} bytes where {expected} were expected; do they run the same program on the \
             same files?"
        ))),
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::failed(format!("cannot send a value to the other ranks: {e}")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::failed(format!("cannot read what another rank sent: {e}")))
}

/// An [`Error`] that travels between ranks.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Failure {
    exit_code: u8,
    message: String,
}

impl Failure {
    fn of(error: &Error) -> Failure {
        Failure { exit_code: error.exit_code(), message: error.to_string() }
    }

    fn error(self) -> Error {
        match self.exit_code {
            2 => Error::Input(self.message),
            3 => Error::Rejected(self.message),
            _ => Error::Failed(self.message),
        }
    }
}

#[cfg(test)]
mod tests;
