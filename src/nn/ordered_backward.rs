//! Two shards of a batch through a large model side by side, adding to the same gradients in a fixed order.
//!
//! Two threads that each work on a shard of their own stand still less than two that share every kernel. A second set of
//! gradients would cost too much memory, so both add to the parameters, the first shard always before the second: the second
//! waits at a parameter until the first is done with it, which, as both go through the layers at the same pace, it mostly is.
//! The sums are those of one shard after the other, to the last bit.

use super::parameter::Parameter;
use crate::{Error, Result};
use rayon::ThreadPool;
use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

/// What the first of two backward passes has done so far.
#[derive(Default)]
pub struct GradOrder {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Addresses of the parameters that have the first shard's gradient.
    done: HashSet<usize>,
    ended: bool,
}

impl GradOrder {
    /// The first shard's gradient of `parameter` has been added. A second time is an error: the other shard may have added
    /// its own by now.
    pub fn done(&self, parameter: &Arc<Parameter>) -> Result<()> {
        let fresh = self.lock().done.insert(Arc::as_ptr(parameter) as usize);
        self.changed.notify_all();
        if fresh {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{} takes a gradient twice in one pass, which two passes at once do not allow",
            parameter.name
        )))
    }

    /// Wait until the first shard's gradient of `parameter` has been added, or will not come.
    pub fn wait(&self, parameter: &Arc<Parameter>) {
        let address = Arc::as_ptr(parameter) as usize;
        let waiting = |s: &mut State| !s.ended && !s.done.contains(&address);
        drop(self.changed.wait_while(self.lock(), waiting).unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    /// An order in which nothing is waited for: the first pass has ended.
    pub fn finished() -> GradOrder {
        let order = GradOrder::default();
        order.end();
        order
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Ends the lead however the first pass ends, so that the second never waits for nothing.
struct Ending<'a>(&'a GradOrder);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Two pools, each with half of the threads that this process may use.
fn pools() -> Option<&'static [ThreadPool; 2]> {
    static POOLS: OnceLock<Option<[ThreadPool; 2]>> = OnceLock::new();
    let half = |i: usize| {
        let threads = (rayon::current_num_threads() + 1 - i) / 2;
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(move |t| format!("pair {i}.{t}"))
            .build()
    };
    POOLS.get_or_init(|| Some([half(0).ok()?, half(1).ok()?])).as_ref()
}

/// `first` and `second` at once, each with half of the threads; one after the other where there is only one.
pub fn join_ordered<T: Send>(
    lead: &GradOrder,
    first: impl FnOnce() -> T + Send,
    second: impl FnOnce() -> T + Send,
) -> (T, T) {
    let first = || {
        let _ending = Ending(lead);
        first()
    };
    let pools = if rayon::current_num_threads() < 2 { None } else { pools() };
    let Some([a, b]) = pools else { return (first(), second()) };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| b.install(second));
        let first = a.install(first);
        (first, second.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor, Var};
    use std::time::Duration;

    fn parameter(name: &str) -> Arc<Parameter> {
        let zero = Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap();
        Arc::new(Parameter::new(name, Var::from_tensor(&zero).unwrap()))
    }

    #[test]
    fn the_second_adds_after_the_first_at_every_parameter() {
        let parameters: Vec<_> = (0..20).map(|i| parameter(&format!("p{i}"))).collect();
        let (lead, order) = (GradOrder::default(), Mutex::new(Vec::new()));
        let note = |lane: usize, p: usize| order.lock().unwrap().push((p, lane));
        join_ordered(
            &lead,
            || {
                for (i, p) in parameters.iter().enumerate().skip(1) {
                    std::thread::sleep(Duration::from_micros(200 * (i as u64 % 3)));
                    note(0, i);
                    lead.done(p).unwrap();
                }
            },
            || {
                for (i, p) in parameters.iter().enumerate() {
                    lead.wait(p);
                    note(1, i);
                }
            },
        );
        let order = order.into_inner().unwrap();
        for p in 1..20 {
            let at = |lane| order.iter().position(|&o| o == (p, lane)).unwrap();
            assert!(at(0) < at(1), "{order:?}");
        }
        // What the first never reaches is not waited for once the first has ended.
        assert!(order.contains(&(0, 1)));
    }

    #[test]
    fn a_first_pass_that_fails_does_not_hold_up_the_second() {
        let (lead, p) = (GradOrder::default(), parameter("p"));
        let (first, second) = join_ordered(
            &lead,
            || Err(Error::failed("no")),
            || {
                lead.wait(&p);
                Ok(())
            },
        );
        assert!(first.is_err() && second.is_ok());
        assert!(lead.done(&p).is_ok());
        assert!(lead.done(&p).unwrap_err().to_string().contains("twice"));
    }
}
