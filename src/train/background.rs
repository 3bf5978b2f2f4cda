//! Work beside the training loop, in threads of its own: rounds that servers sample ahead.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

type Work<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Threads that work on rounds to come.
pub struct Background<'a> {
    work: Sender<(Work<'a>, Sender<()>)>,
    /// By round, what hears of the end.
    begun: BTreeMap<u64, Receiver<()>>,
}

impl<'a> Background<'a> {
    /// Start the threads. They end when this is dropped, each after the work that it has begun.
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, threads: usize) -> Self
    where
        'a: 'scope,
    {
        let (work, to_do) = channel::<(Work<'a>, Sender<()>)>();
        let to_do = Arc::new(Mutex::new(to_do));
        for _ in 0..threads {
            let to_do = Arc::clone(&to_do);
            scope.spawn(move || {
                loop {
                    // The lock is free again before the work begins.
                    let next = to_do.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((work, _ended)) = next else { return };
                    work();
                }
            });
        }
        Background { work, begun: BTreeMap::new() }
    }

    /// Begin the work for a round, unless it was begun before.
    pub fn begin(&mut self, round: u64, work: impl FnOnce() + Send + 'a) {
        self.begun.entry(round).or_insert_with(|| {
            let (ended, hears) = channel();
            // Without threads nothing is begun, and nothing is waited for.
            let _ = self.work.send((Box::new(work), ended));
            hears
        });
    }

    /// Whether the work for a round was begun.
    pub fn has_begun(&self, round: u64) -> bool {
        self.begun.contains_key(&round)
    }

    /// Wait for the end of the work for a round, if it was begun. The rounds before it are forgotten.
    pub fn wait_for(&mut self, round: u64) {
        self.begun = self.begun.split_off(&round);
        if let Some(hears) = self.begun.get(&round) {
            // The sender is dropped when the work is done.
            let _ = hears.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn rounds_are_worked_on_at_once_and_each_is_waited_for() {
        let (done, both) = ([AtomicUsize::new(0), AtomicUsize::new(0)], std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            let mut background = Background::start(scope, 2);
            for (round, delay) in [(4, 0), (5, 30)] {
                let (done, both) = (&done[round as usize - 4], &both);
                background.begin(round, move || {
                    // They meet: neither waits for the other to end.
                    both.wait();
                    std::thread::sleep(Duration::from_millis(delay));
                    done.fetch_add(1, Ordering::SeqCst);
                });
                background.begin(round, || panic!("it was begun"));
            }
            background.wait_for(3);
            for round in [4, 5] {
                assert!(background.has_begun(round));
                background.wait_for(round);
                assert_eq!(done[round as usize - 4].load(Ordering::SeqCst), 1);
            }
            assert!(!background.has_begun(4) && !background.has_begun(6));
            // Asked again, as by a round that is repeated.
            background.wait_for(5);
        });
    }
}
