//! Two concurrent backward passes that add to the same gradients in a fixed order.
//!
//! A large model runs two shards of a batch at once, each on half of the threads: threads that own a shard wait less than threads
//! that share every kernel. A second set of gradients would cost too much memory, so both passes add to the parameters, the first
//! always before the second. At each parameter the second waits until the first has added its gradient; as both pass through the
//! layers at the same pace, it rarely waits long. The sums equal those of one pass after the other, to the last bit.

use super::parallel_map::pools;
use super::parameter::Parameter;
use crate::{Error, Result};
use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What keeps the gradients of two concurrent backward passes in order.
pub trait GradOrder: Sync {
    /// Report that the first pass has added its gradient to `parameter`.
    ///
    /// # Errors
    /// If it was reported before: the second pass may already have added its own.
    fn mark_added(&self, parameter: &Arc<Parameter>) -> Result<()>;

    /// Wait until the first pass has added its gradient to `parameter`, or has finished.
    ///
    /// # Errors
    /// The first pass is in another process, which cannot be reached.
    fn wait_for(&self, parameter: &Arc<Parameter>) -> Result<()>;
}

/// The parameters to which the first of two backward passes of this process has added its gradient.
#[derive(Default)]
pub struct ThreadOrder {
    state: Mutex<FirstPass>,
    changed: Condvar,
}

#[derive(Default)]
struct FirstPass {
    /// Addresses of those parameters.
    added: HashSet<usize>,
    finished: bool,
}

impl GradOrder for ThreadOrder {
    fn mark_added(&self, parameter: &Arc<Parameter>) -> Result<()> {
        let fresh = self.lock().added.insert(Arc::as_ptr(parameter) as usize);
        self.changed.notify_all();
        if fresh {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{} takes two gradients in one pass, which two concurrent passes do not allow",
            parameter.name
        )))
    }

    fn wait_for(&self, parameter: &Arc<Parameter>) -> Result<()> {
        let address = Arc::as_ptr(parameter) as usize;
        let waiting = |s: &mut FirstPass| !s.finished && !s.added.contains(&address);
        drop(self.changed.wait_while(self.lock(), waiting).unwrap_or_else(|poisoned| poisoned.into_inner()));
        Ok(())
    }
}

impl ThreadOrder {
    /// An order whose first pass has finished already: nothing waits.
    pub fn finished() -> ThreadOrder {
        let order = ThreadOrder::default();
        order.finish();
        order
    }

    fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, FirstPass> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Finishes the first pass when dropped, also after an error or a panic, so that the second never waits for ever.
struct FinishOnDrop<'a>(&'a ThreadOrder);

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Run `first` and `second` concurrently, each on half of the threads; one after the other if there is only one thread.
pub fn join_ordered<T: Send>(
    order: &ThreadOrder,
    first: impl FnOnce() -> T + Send,
    second: impl FnOnce() -> T + Send,
) -> (T, T) {
    let first = || {
        let _finish = FinishOnDrop(order);
        first()
    };
    let pools = if rayon::current_num_threads() < 2 { &[] } else { pools(2) };
    let [a, b] = pools else { return (first(), second()) };
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
    fn the_second_pass_adds_after_the_first_at_every_parameter() {
        let parameters: Vec<_> = (0..20).map(|i| parameter(&format!("p{i}"))).collect();
        let (grad_order, log) = (ThreadOrder::default(), Mutex::new(Vec::new()));
        let note = |pass: usize, p: usize| log.lock().unwrap().push((p, pass));
        join_ordered(
            &grad_order,
            || {
                for (i, p) in parameters.iter().enumerate().skip(1) {
                    std::thread::sleep(Duration::from_micros(200 * (i as u64 % 3)));
                    note(0, i);
                    grad_order.mark_added(p).unwrap();
                }
            },
            || {
                for (i, p) in parameters.iter().enumerate() {
                    grad_order.wait_for(p).unwrap();
                    note(1, i);
                }
            },
        );
        let log = log.into_inner().unwrap();
        for p in 1..20 {
            let at = |pass| log.iter().position(|&entry| entry == (p, pass)).unwrap();
            assert!(at(0) < at(1), "{log:?}");
        }
        // The first pass never reaches parameter 0: the second waits only until the first has finished.
        assert!(log.contains(&(0, 1)));
    }

    #[test]
    fn a_first_pass_that_fails_does_not_block_the_second() {
        let (order, p) = (ThreadOrder::default(), parameter("p"));
        let (first, second) = join_ordered(&order, || Err(Error::failed("no")), || order.wait_for(&p));
        assert!(first.is_err() && second.is_ok());
        assert!(order.mark_added(&p).is_ok());
        assert!(order.mark_added(&p).unwrap_err().to_string().contains("two gradients in one pass"));
    }
}
