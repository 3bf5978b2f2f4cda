//! Ranks that are threads of one process. They show that a run does not depend on the number of ranks; they are not a way to go faster, as
//! one process uses all processors of a machine already.

use super::{Communicator, Failure, check_length};
use crate::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Stack of a rank's thread: records of a forward pass are walked and dropped recursively.
const STACK: usize = 64 << 20;

/// Run `work` on `world_size` ranks, each in a thread of its own. Returns their results, by rank. A rank that returns an error or panics
/// ends the others.
pub fn run<T: Send>(world_size: usize, work: impl Fn(&dyn Communicator) -> Result<T> + Sync) -> Vec<Result<T>> {
    let group = Arc::new(Group::new(world_size));
    std::thread::scope(|scope| {
        let start = |rank: usize| {
            let (group, work) = (Arc::clone(&group), &work);
            let thread = std::thread::Builder::new().name(format!("rank {rank}")).stack_size(STACK);
            thread.spawn_scoped(scope, move || {
                let rank = ThreadRank { rank, group };
                let result = work(&rank);
                if let Err(error) = &result {
                    rank.abort(error);
                }
                result
            })
        };
        let ranks: Vec<_> = (0..world_size).map(start).collect();
        let failed = |why: &str| Err(Error::failed(why));
        ranks
            .into_iter()
            .map(|rank| rank.map(|thread| thread.join().unwrap_or_else(|_| failed("a rank panicked; see above"))))
            .map(|rank| rank.unwrap_or_else(|e| failed(&format!("cannot start the thread of a rank: {e}"))))
            .collect()
    })
}

/// One of the ranks of a group of threads.
struct ThreadRank {
    rank: usize,
    group: Arc<Group>,
}

/// What the threads share.
struct Group {
    exchange: Mutex<Exchange>,
    changed: Condvar,
}

/// One exchange after the other: each rank brings its bytes, and the last one to arrive completes it.
struct Exchange {
    brought: Vec<Option<Vec<u8>>>,
    /// Completed exchanges.
    completed: u64,
    /// Bytes of the last completed exchange, by rank. No rank can complete the next one before all have read these.
    gathered: Arc<Vec<Vec<u8>>>,
    /// Set once a rank has failed or ended early: its number and its error.
    failure: Option<(usize, Failure)>,
    ended: usize,
    /// What is sent from one rank to another, by both and its number.
    sent: HashMap<[usize; 3], VecDeque<Vec<u8>>>,
}

impl Group {
    fn new(world_size: usize) -> Group {
        let exchange = Exchange {
            brought: vec![None; world_size],
            completed: 0,
            gathered: Arc::default(),
            failure: None,
            ended: 0,
            sent: HashMap::new(),
        };
        Group { exchange: Mutex::new(exchange), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Exchange {
    /// Why no further exchange can be completed, if that is so.
    fn broken(&self) -> Option<Error> {
        match &self.failure {
            Some((rank, failure)) => Some(failure.clone().error().context(format!("rank {rank} has failed"))),
            None => (self.ended > 0).then(|| Error::failed("another rank has ended early")),
        }
    }
}

impl Communicator for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.group.lock().brought.len()
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut exchange = self.group.lock();
        if let Some(error) = exchange.broken() {
            return Err(error);
        }
        let before = exchange.completed;
        exchange.brought[self.rank] = Some(own.to_vec());
        if exchange.brought.iter().all(Option::is_some) {
            exchange.gathered = Arc::new(exchange.brought.iter_mut().filter_map(Option::take).collect());
            exchange.completed += 1;
            self.group.changed.notify_all();
        }
        while exchange.completed == before {
            if let Some(error) = exchange.broken() {
                return Err(error);
            }
            exchange = self.group.changed.wait(exchange).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let gathered = Arc::clone(&exchange.gathered);
        drop(exchange);
        Ok(gathered.to_vec())
    }

    fn send(&self, to: usize, number: usize, bytes: Vec<u8>) -> Result<()> {
        self.group.lock().sent.entry([self.rank, to, number]).or_default().push_back(bytes);
        self.group.changed.notify_all();
        Ok(())
    }

    fn receive(&self, from: usize, number: usize, length: usize) -> Result<Vec<u8>> {
        let mut exchange = self.group.lock();
        loop {
            if let Some(bytes) = exchange.sent.get_mut(&[from, self.rank, number]).and_then(VecDeque::pop_front) {
                return check_length(bytes.len(), length).map(|()| bytes);
            }
            if let Some(error) = exchange.broken() {
                return Err(error);
            }
            exchange = self.group.changed.wait(exchange).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn abort(&self, error: &Error) -> bool {
        self.group.lock().failure.get_or_insert((self.rank, Failure::of(error)));
        self.group.changed.notify_all();
        true
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        self.group.lock().ended += 1;
        self.group.changed.notify_all();
    }
}
