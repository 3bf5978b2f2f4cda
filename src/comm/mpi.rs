//! Ranks that are processes of one MPI job, started by `mpirun` or `srun`.
//!
//! Every collective is made of one exchange: non-blocking messages between every two ranks, in pieces, which a rank tests and sleeps in
//! between. MPI's own collectives would wait for ever for a rank that is gone, and do not say for which; here it is known by its number. It is
//! also what keeps sums in the order of ranks, which `MPI_Allreduce` does not promise.
//!
//! While it waits, a rank looks for ranks that report a failure, for processes of its own host that have ended, and at the clock.

use super::process::Process;
use super::{Communicator, Failure, PIECE, Traffic, add, check_length, decode, encode, f32_values, share};
use crate::io::running_time::RunningTime;
use crate::{Error, Result};
use half::bf16;
use mpi_sys as ffi;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

/// Environment variable: seconds after which a rank that does not answer is given up.
const TIMEOUT_VARIABLE: &str = "JIGSAW_COMM_TIMEOUT";
const TIMEOUT_SECONDS: f64 = 600.0;
/// Bytes of one message. Larger ones are cut: immediate sends of gigabytes are known to hang.
const MESSAGE: usize = 4 << 20;
/// Tags: of the messages of an exchange, of those that say why a rank has failed, and of those from one rank to another, to which their number is
/// added.
const EXCHANGE: c_int = 1;
const FAILURE: c_int = 2;
const NUMBERED: c_int = 3;
/// Bytes on the way to other ranks, above which a rank waits until they are received.
const MOST_SENT: usize = 32 << 20;
/// How long a rank that has failed waits for the others to hear of it, before it ends them.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks for what has gone wrong.
const LOOK: Duration = Duration::from_millis(100);

/// The ranks of an MPI job.
pub(super) struct MpiRanks {
    world: ffi::MPI_Comm,
    rank: usize,
    /// By rank.
    processes: Vec<Process>,
    timeout: Duration,
    state: Mutex<State>,
    /// Joined by the first exchange between GPUs.
    #[cfg(feature = "nccl")]
    nccl: std::sync::OnceLock<super::nccl::NcclRanks>,
}

// SAFETY: MPI is initialised for calls of any thread, one at a time, and `state` is locked around every call.
unsafe impl Send for MpiRanks {}
// SAFETY: as above.
unsafe impl Sync for MpiRanks {}

#[derive(Default)]
struct State {
    traffic: Traffic,
    /// What each rank has failed with.
    failures: Vec<Option<Failure>>,
    /// Ranks that are gone or do not answer.
    missing: Vec<usize>,
    /// This rank has told the others that it has failed.
    told: bool,
    /// The ranks cannot end together any more: MPI is to end them, with this exit code.
    kill: Option<u8>,
    /// What is on the way to other ranks.
    sent: Vec<(Message, Vec<u8>)>,
    /// Gradients travel as bf16.
    rounds: bool,
    /// For numbers.
    buffers: Buffers,
}

/// What an exchange sends and receives.
#[derive(Default)]
struct Buffers {
    own: Vec<u8>,
    received: Vec<u8>,
}

impl Buffers {
    fn of(own: &[u8]) -> Buffers {
        Buffers { own: own.to_vec(), received: Vec::new() }
    }
}

/// A message under way.
struct Message {
    request: ffi::MPI_Request,
    peer: usize,
    /// Bytes that are to arrive, if it is received.
    expected: Option<usize>,
}

impl MpiRanks {
    /// Join the job.
    ///
    /// # Errors
    /// MPI cannot be initialised or is too old for calls from more than one thread; an input error for a time limit that is none.
    pub(super) fn connect() -> Result<MpiRanks> {
        let timeout = timeout(std::env::var(TIMEOUT_VARIABLE).ok())?;
        let (mut provided, mut rank, mut size) = (0, 0, 0);
        // SAFETY: called once, by `launcher::connect`; null stands for no arguments.
        let (world, serialized) = unsafe {
            let serialized = ffi::RSMPI_THREAD_SERIALIZED;
            check(ffi::MPI_Init_thread(std::ptr::null_mut(), std::ptr::null_mut(), serialized, &mut provided))?;
            let world = ffi::RSMPI_COMM_WORLD;
            check(ffi::MPI_Comm_set_errhandler(world, ffi::RSMPI_ERRORS_RETURN))?;
            check(ffi::MPI_Comm_rank(world, &mut rank))?;
            check(ffi::MPI_Comm_size(world, &mut size))?;
            (world, serialized)
        };
        if provided < serialized {
            return Err(Error::failed(
                "this MPI library lets one thread alone call it (MPI_THREAD_SERIALIZED is missing)",
            ));
        }
        let (rank, size) = (rank as usize, size as usize);
        let state = State { failures: vec![None; size], ..State::default() };
        let processes = vec![Process::default(); size];
        let mut ranks = MpiRanks {
            world,
            rank,
            processes,
            timeout,
            state: Mutex::new(state),
            #[cfg(feature = "nccl")]
            nccl: std::sync::OnceLock::new(),
        };
        let processes = ranks.all_gather(&encode(&Process::own(host()?))?)?;
        ranks.processes = processes.iter().map(|process| decode(process)).collect::<Result<_>>()?;
        Ok(ranks)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.rank;
        (0..self.processes.len()).filter(move |rank| *rank != own)
    }

    /// Send the range `parts[rank]` of `buffers.own` to each other rank, and receive `lengths[rank]` bytes from each: `buffers.received` then begins
    /// with them, end to end by rank. What is said of this rank itself has no effect.
    fn exchange(&self, buffers: &mut Buffers, parts: &[Range<usize>], lengths: &[usize]) -> Result<()> {
        let mut state = self.lock();
        if let Some(error) = self.broken(&state) {
            return Err(error);
        }
        let began = Instant::now();
        let Buffers { own, received } = buffers;
        let needed = self.others().map(|rank| lengths[rank]).sum();
        if received.len() < needed {
            received.resize(needed, 0);
        }
        let mut end = 0;
        let places: Vec<(usize, Range<usize>)> = self
            .others()
            .map(|rank| {
                end += lengths[rank];
                (rank, end - lengths[rank]..end)
            })
            .collect();
        let longest = self.others().map(|rank| parts[rank].len().max(lengths[rank])).max().unwrap_or(0);
        for start in (0..longest).step_by(MESSAGE) {
            let piece = |whole: &Range<usize>| {
                (whole.start + start).min(whole.end)..(whole.start + start + MESSAGE).min(whole.end)
            };
            let mut messages = Vec::new();
            let mut begun = Ok(());
            for (rank, place) in &places {
                let (from, to) = (piece(place), piece(&parts[*rank]));
                // SAFETY: both buffers live until all messages are complete, or for ever.
                begun = begun.and_then(|()| unsafe {
                    self.begin_receive(*rank, EXCHANGE, &mut received[from], &mut messages)?;
                    self.begin_send(*rank, EXCHANGE, &own[to.clone()], &mut messages)
                });
                state.traffic.bytes += to.len() as u64;
            }
            if let Err(error) = begun.and_then(|()| self.complete(&mut state, messages)) {
                // MPI may still read and write them.
                std::mem::forget(std::mem::take(buffers));
                return Err(error);
            }
        }
        state.traffic.seconds += began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Let `work` use the buffers for numbers, which are kept from one call to the next: new ones would cost more than the messages.
    fn with_buffers<T>(&self, work: impl FnOnce(&mut Buffers) -> Result<T>) -> Result<T> {
        let mut buffers = std::mem::take(&mut self.lock().buffers);
        let result = work(&mut buffers);
        self.lock().buffers = buffers;
        result
    }

    /// Wait until other ranks have received what this one has sent.
    fn complete_sent(&self, state: &mut State) -> Result<()> {
        let (messages, bytes): (Vec<_>, Vec<_>) = std::mem::take(&mut state.sent).into_iter().unzip();
        let began = Instant::now();
        let completed = self.complete(state, messages);
        state.traffic.seconds += began.elapsed().as_secs_f64();
        if completed.is_err() {
            // MPI may still read them.
            std::mem::forget(bytes);
        }
        completed
    }

    /// Begin to receive from a rank, unless it is nothing.
    ///
    /// # Safety
    /// `to` must live until the message is complete.
    unsafe fn begin_receive(&self, rank: usize, tag: c_int, to: &mut [u8], messages: &mut Vec<Message>) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: null requests are overwritten; `to` lives as long as the message, and has a length that fits.
        unsafe {
            let mut request = ffi::RSMPI_REQUEST_NULL;
            let (length, peer) = (to.len() as c_int, rank as c_int);
            let place = to.as_mut_ptr().cast::<c_void>();
            check(ffi::MPI_Irecv(place, length, ffi::RSMPI_UINT8_T, peer, tag, self.world, &mut request))?;
            messages.push(Message { request, peer: rank, expected: Some(to.len()) });
        }
        Ok(())
    }

    /// Begin to send to a rank, unless it is nothing.
    ///
    /// # Safety
    /// `bytes` must live until the message is complete.
    unsafe fn begin_send(&self, rank: usize, tag: c_int, bytes: &[u8], messages: &mut Vec<Message>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: null requests are overwritten; `bytes` live as long as the message, and have a length that fits.
        unsafe {
            let mut request = ffi::RSMPI_REQUEST_NULL;
            let (length, peer) = (bytes.len() as c_int, rank as c_int);
            let place = bytes.as_ptr().cast::<c_void>();
            check(ffi::MPI_Isend(place, length, ffi::RSMPI_UINT8_T, peer, tag, self.world, &mut request))?;
            messages.push(Message { request, peer: rank, expected: None });
        }
        Ok(())
    }

    /// Wait until all messages are complete.
    fn complete(&self, state: &mut State, mut messages: Vec<Message>) -> Result<()> {
        let (mut waited, mut looked) = (RunningTime::start(), Instant::now());
        while !messages.is_empty() {
            let before = messages.len();
            let mut i = 0;
            while let Some(message) = messages.get_mut(i) {
                match is_complete(message)? {
                    true => drop(messages.swap_remove(i)),
                    false => i += 1,
                }
            }
            if messages.len() < before {
                waited = RunningTime::start();
                continue;
            }
            // Another rank on this machine may need the processor.
            match waited.elapsed() {
                short if short < Duration::from_micros(200) => yield_now(),
                short if short < Duration::from_millis(50) => sleep(Duration::from_micros(50)),
                _ => sleep(Duration::from_micros(500)),
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.look(state, &messages, waited.elapsed())?;
            }
        }
        Ok(())
    }

    /// See whether what this rank waits for can still come.
    ///
    /// # Errors
    /// A rank has reported a failure, has ended, or has not answered within the time limit.
    fn look(&self, state: &mut State, messages: &[Message], waited: Duration) -> Result<()> {
        self.hear(state)?;
        if let Some(error) = self.broken(state) {
            return Err(error);
        }
        let own = &self.processes[self.rank];
        state.missing = self.others().filter(|&rank| self.processes[rank].has_ended(own)).collect();
        if !state.missing.is_empty() {
            // It may have said why with its last words.
            self.hear(state)?;
        } else if waited > self.timeout {
            let waiting: Vec<usize> = messages.iter().map(|message| message.peer).collect();
            state.missing = self.others().filter(|rank| waiting.contains(rank)).collect();
        }
        self.broken(state).map_or(Ok(()), Err)
    }

    /// Receive the failures that other ranks have reported.
    fn hear(&self, state: &mut State) -> Result<()> {
        for rank in self.others() {
            let (peer, mut found, mut length) = (rank as c_int, 0, 0);
            // SAFETY: zeros are a status; the buffer is as long as the message that was found.
            let bytes = unsafe {
                let mut status = std::mem::zeroed::<ffi::MPI_Status>();
                check(ffi::MPI_Iprobe(peer, FAILURE, self.world, &mut found, &mut status))?;
                if found == 0 {
                    continue;
                }
                check(ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut length))?;
                let mut bytes = vec![0u8; length as usize];
                let place = bytes.as_mut_ptr().cast::<c_void>();
                check(ffi::MPI_Recv(place, length, ffi::RSMPI_UINT8_T, peer, FAILURE, self.world, &mut status))?;
                bytes
            };
            state.failures[rank] = Some(decode(&bytes)?);
        }
        Ok(())
    }

    /// Why no further exchange can be made, if that is so.
    fn broken(&self, state: &State) -> Option<Error> {
        let failed = |(rank, failure): (usize, &Option<Failure>)| Some((rank, failure.clone()?));
        if let Some((rank, failure)) = state.failures.iter().enumerate().find_map(failed) {
            return Some(failure.error().context(format!("{} has failed", self.name(rank))));
        }
        let names: Vec<String> = state.missing.iter().map(|&rank| self.name(rank)).collect();
        let names = names.join(", ");
        let own = &self.processes[self.rank];
        match state.missing.first() {
            None => None,
            Some(&rank) if self.processes[rank].has_ended(own) => Some(Error::failed(format!(
                "{names}: its process has ended without a word, as one that is killed; the same command resumes the run"
            ))),
            Some(_) => Some(Error::failed(format!(
                "{names}: no answer for {} s ({TIMEOUT_VARIABLE}); its process hangs, or works longer than that; the same command resumes \
                 the run",
                self.timeout.as_secs_f64()
            ))),
        }
    }

    /// Tell every rank of the failure and hear of theirs, for a while; whether all have been heard.
    fn fail_together(&self, state: &mut State, failure: &Failure) -> Result<bool> {
        let bytes = encode(failure)?;
        let mut messages = Vec::new();
        for rank in self.others() {
            // SAFETY: the bytes are never freed.
            unsafe { self.begin_send(rank, FAILURE, &bytes, &mut messages)? };
        }
        std::mem::forget(bytes);
        let began = Instant::now();
        loop {
            self.hear(state)?;
            messages.retain_mut(|message| !is_complete(message).unwrap_or(false));
            if messages.is_empty() && self.others().all(|rank| state.failures[rank].is_some()) {
                return Ok(true);
            }
            if began.elapsed() > GRACE {
                return Ok(false);
            }
            sleep(Duration::from_millis(1));
        }
    }
}

impl Communicator for MpiRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.processes.len()
    }

    fn name(&self, rank: usize) -> String {
        let Process { host, id, .. } = &self.processes[rank];
        format!("rank {rank} on {host} (process {id})")
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(std::mem::take(&mut self.lock().traffic))
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let ranks = self.world_size();
        let mut lengths = Buffers::of(&(own.len() as u64).to_le_bytes());
        self.exchange(&mut lengths, &vec![0..8; ranks], &vec![8; ranks])?;
        let mut lengths: Vec<usize> =
            lengths.received.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as usize).collect();
        lengths.insert(self.rank, own.len());
        let mut buffers = Buffers::of(own);
        self.exchange(&mut buffers, &vec![0..own.len(); ranks], &lengths)?;
        let Buffers { own, received } = buffers;
        let mut rest = &received[..];
        let mut all: Vec<Vec<u8>> =
            self.others().map(|rank| rest.split_off(..lengths[rank]).unwrap_or_default().to_vec()).collect();
        all.insert(self.rank, own);
        Ok(all)
    }

    fn send(&self, to: usize, number: usize, bytes: Vec<u8>) -> Result<()> {
        let mut state = self.lock();
        if let Some(error) = self.broken(&state) {
            return Err(error);
        }
        state.sent.retain_mut(|(message, _)| !is_complete(message).unwrap_or(false));
        let mut messages = Vec::new();
        // SAFETY: the bytes are kept until the message is complete, or for ever.
        unsafe { self.begin_send(to, NUMBERED + number as c_int, &bytes, &mut messages)? };
        state.traffic.bytes += bytes.len() as u64;
        state.sent.extend(messages.pop().map(|message| (message, bytes)));
        match state.sent.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > MOST_SENT {
            true => self.complete_sent(&mut state),
            false => Ok(()),
        }
    }

    fn receive(&self, from: usize, number: usize, length: usize) -> Result<Vec<u8>> {
        let mut state = self.lock();
        if let Some(error) = self.broken(&state) {
            return Err(error);
        }
        let (mut received, mut messages, began) = (vec![0; length], Vec::new(), Instant::now());
        // SAFETY: the buffer lives until the message is complete, or for ever.
        let begun = unsafe { self.begin_receive(from, NUMBERED + number as c_int, &mut received, &mut messages) };
        if let Err(error) = begun.and_then(|()| self.complete(&mut state, messages)) {
            // MPI may still write into it.
            std::mem::forget(received);
            return Err(error);
        }
        state.traffic.seconds += began.elapsed().as_secs_f64();
        Ok(received)
    }

    fn wait_for_sent(&self) -> Result<()> {
        self.complete_sent(&mut self.lock())
    }

    fn abort(&self, error: &Error) -> bool {
        let mut state = self.lock();
        if state.told {
            return state.kill.is_none();
        }
        state.told = true;
        let failure = Failure::of(error);
        if state.missing.is_empty() && self.fail_together(&mut state, &failure).unwrap_or(false) {
            return true;
        }
        state.kill = Some(failure.exit_code);
        // Every rank that is left comes here. The first of them speaks and ends the others.
        if (0..self.rank).any(|rank| !state.missing.contains(&rank)) && !state.missing.is_empty() {
            sleep(GRACE);
        }
        false
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let (ranks, is_root) = (self.world_size(), self.rank == root);
        // From the root to all, others nothing to anyone.
        let from_root = |buffers: &mut Buffers, length: usize| {
            let part = if is_root { 0..length } else { 0..0 };
            let mut lengths = vec![0; ranks];
            lengths[root] = length;
            self.exchange(buffers, &vec![part; ranks], &lengths)
        };
        let mut length = Buffers::of(&(bytes.len() as u64).to_le_bytes());
        from_root(&mut length, 8)?;
        let length = match is_root {
            true => bytes.len(),
            false => length.received.as_chunks().0.first().map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize),
        };
        let mut buffers = Buffers { own: std::mem::take(bytes), received: Vec::new() };
        from_root(&mut buffers, length)?;
        *bytes = if is_root { buffers.own } else { buffers.received };
        Ok(())
    }

    fn broadcast_f32(&self, root: usize, values: &mut [f32]) -> Result<()> {
        // The root gives each rank a part, which the rank passes on: no rank sends more than twice what it holds.
        let ranks = self.world_size();
        self.with_buffers(|buffers| {
            for values in values.chunks_mut(PIECE * ranks) {
                let count = values.len();
                let part = |rank: usize| share(count, rank, ranks);
                let bytes = |rank: usize| 4 * part(rank).len();
                buffers.own.clear();
                let mut parts = vec![0..0; ranks];
                if self.rank == root {
                    push_f32(&mut buffers.own, values);
                    parts = (0..ranks).map(|rank| 4 * part(rank).start..4 * part(rank).end).collect();
                }
                let mut lengths = vec![0; ranks];
                lengths[root] = bytes(self.rank);
                self.exchange(buffers, &parts, &lengths)?;
                if self.rank == root {
                    buffers.own.truncate(parts[root].end);
                    buffers.own.drain(..parts[root].start);
                } else {
                    std::mem::swap(&mut buffers.own, &mut buffers.received);
                }
                write_f32(&mut values[part(self.rank)], &buffers.own);
                let lengths: Vec<usize> = (0..ranks).map(bytes).collect();
                self.exchange(buffers, &vec![0..lengths[self.rank]; ranks], &lengths)?;
                let mut rest = &buffers.received[..];
                for rank in self.others() {
                    write_f32(&mut values[part(rank)], rest.split_off(..lengths[rank]).unwrap_or_default());
                }
            }
            Ok(())
        })
    }

    fn exchange_f32(
        &self,
        own: &[f32],
        lengths: &[usize],
        receive: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.with_buffers(|buffers| {
            buffers.own.clear();
            push_f32(&mut buffers.own, own);
            let lengths: Vec<usize> = lengths.iter().map(|length| 4 * length).collect();
            self.exchange(buffers, &vec![0..4 * own.len(); lengths.len()], &lengths)?;
            let mut rest = &buffers.received[..];
            self.others().try_for_each(|rank| receive(rank, rest.split_off(..lengths[rank]).unwrap_or_default()))
        })
    }

    #[cfg(feature = "nccl")]
    fn exchange_on_device(&self, tensor: &candle_core::Tensor, root: Option<usize>) -> Result<bool> {
        let candle_core::Device::Cuda(device) = tensor.device() else { return Ok(false) };
        let nccl = match self.nccl.get() {
            Some(nccl) => nccl,
            None => {
                let joined = super::nccl::NcclRanks::join(self, device)?;
                self.nccl.get_or_init(|| joined)
            }
        };
        nccl.exchange(tensor, root).map(|()| true)
    }

    fn round_gradients(&self, on: bool) {
        self.lock().rounds = on;
    }

    fn all_reduce_sum(&self, sum: &mut [f32], filled: bool, own: &[&[f32]], counts: &[usize]) -> Result<()> {
        // Each rank adds up a part of the numbers, in the order of ranks, and gives the sums to all.
        let (ranks, rounds) = (self.world_size(), self.lock().rounds);
        check_length(own.len(), counts[self.rank])?;
        let width = if rounds { 2 } else { 4 };
        let push = if rounds { push_bf16 } else { push_f32 };
        let write = if rounds { write_bf16 } else { write_f32 };
        self.with_buffers(|buffers| {
            for (index, sum) in sum.chunks_mut(PIECE).enumerate() {
                let (at, count) = (index * PIECE, sum.len());
                let of = |rank: usize| share(count, rank, ranks);
                let part = of(self.rank);
                buffers.own.clear();
                let mut parts = vec![0..0; ranks];
                for rank in self.others() {
                    let start = buffers.own.len();
                    own.iter().for_each(|term| push(&mut buffers.own, &term[at + of(rank).start..at + of(rank).end]));
                    parts[rank] = start..buffers.own.len();
                }
                let lengths: Vec<usize> = counts.iter().map(|count| width * count * part.len()).collect();
                self.exchange(buffers, &parts, &lengths)?;
                let (mut filled, mut rest) = (filled, &buffers.received[..]);
                for (rank, &length) in lengths.iter().enumerate() {
                    let sum = &mut sum[part.clone()];
                    if rank == self.rank {
                        for term in own {
                            let term = term[at + part.start..at + part.end].iter();
                            match rounds {
                                true => add(sum, filled, term.map(|&value| bf16::from_f32(value).to_f32())),
                                false => add(sum, filled, term.copied()),
                            }
                            filled = true;
                        }
                        continue;
                    }
                    for term in rest.split_off(..length).unwrap_or_default().chunks_exact((width * part.len()).max(1)) {
                        match rounds {
                            true => add(sum, filled, bf16_values(term)),
                            false => add(sum, filled, f32_values(term)),
                        }
                        filled = true;
                    }
                }
                buffers.own.clear();
                push(&mut buffers.own, &sum[part.clone()]);
                // What others get of this part.
                write(&mut sum[part.clone()], &buffers.own);
                let lengths: Vec<usize> = (0..ranks).map(|rank| width * of(rank).len()).collect();
                self.exchange(buffers, &vec![0..lengths[self.rank]; ranks], &lengths)?;
                let mut rest = &buffers.received[..];
                for rank in self.others() {
                    write(&mut sum[of(rank)], rest.split_off(..lengths[rank]).unwrap_or_default());
                }
            }
            Ok(())
        })
    }
}

impl Drop for MpiRanks {
    fn drop(&mut self) {
        let kill = self.lock().kill.or(std::thread::panicking().then_some(101));
        // SAFETY: MPI is initialised, and nothing is called after this.
        unsafe {
            match kill {
                Some(code) => ffi::MPI_Abort(self.world, code.into()),
                None => ffi::MPI_Finalize(),
            };
        }
    }
}

/// As [`f32_bytes`].
fn push_f32(bytes: &mut Vec<u8>, values: &[f32]) {
    bytes.extend_from_slice(bytemuck::cast_slice(values));
}

fn write_f32(values: &mut [f32], bytes: &[u8]) {
    values.iter_mut().zip(f32_values(bytes)).for_each(|(to, value)| *to = value);
}

fn push_bf16(bytes: &mut Vec<u8>, values: &[f32]) {
    bytes.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
}

fn write_bf16(values: &mut [f32], bytes: &[u8]) {
    values.iter_mut().zip(bf16_values(bytes)).for_each(|(to, value)| *to = value);
}

fn bf16_values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
}

/// Whether a message is complete.
///
/// # Errors
/// MPI's; or another number of bytes has come than was expected.
fn is_complete(message: &mut Message) -> Result<bool> {
    let (mut complete, mut length) = (0, 0);
    // SAFETY: the request is one that was begun; zeros are a status.
    unsafe {
        let mut status = std::mem::zeroed::<ffi::MPI_Status>();
        check(ffi::MPI_Test(&mut message.request, &mut complete, &mut status))?;
        if complete == 0 {
            return Ok(false);
        }
        if message.expected.is_some() {
            check(ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut length))?;
        }
    }
    message.expected.map_or(Ok(()), |expected| check_length(length as usize, expected))?;
    Ok(true)
}

/// The name of this machine, as MPI knows it.
fn host() -> Result<String> {
    let mut name = [0u8; ffi::MPI_MAX_PROCESSOR_NAME as usize];
    let mut length = 0;
    // SAFETY: the buffer has the length that MPI asks for.
    check(unsafe { ffi::MPI_Get_processor_name(name.as_mut_ptr().cast(), &mut length) })?;
    Ok(String::from_utf8_lossy(&name[..length as usize]).into_owned())
}

/// The error that an MPI function returns.
fn check(code: c_int) -> Result<()> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut length = 0;
    // SAFETY: the buffer has the length that MPI asks for.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    Err(Error::failed(format!("MPI: {}", String::from_utf8_lossy(&text[..length as usize]))))
}

/// The time limit that is asked for.
fn timeout(asked: Option<String>) -> Result<Duration> {
    let Some(text) = asked else { return Ok(Duration::from_secs_f64(TIMEOUT_SECONDS)) };
    let seconds = text.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        Error::input(format!(
            "{TIMEOUT_VARIABLE}={text}: give the seconds after which a rank that does not answer is given up"
        ))
    })
}
