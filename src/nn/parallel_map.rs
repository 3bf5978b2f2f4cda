//! Independent items in parallel, each on a single thread.
//!
//! The kernels of a small model are too short to spread over threads: most of the time would go into starting and joining parallel
//! sections, and every activation would pass through main memory. So its batch is cut into shards and each thread takes whole shards
//! through the model. Inside [`parallel_map`] every kernel runs on one thread.

use rayon::ThreadPool;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// One pool of a single thread for each thread that this process may use: in it, parallel iterators do not split.
fn pools() -> &'static [ThreadPool] {
    static POOLS: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    POOLS.get_or_init(|| {
        let single =
            |i| rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| format!("worker {i}")).build();
        // If the system refuses threads, fewer items run at once; with no pool at all the caller does the work.
        (0..rayon::current_num_threads()).map_while(|i| single(i).ok()).collect()
    })
}

/// `[work(0), ..., work(count - 1)]`, as many at once as there are threads. A single item runs on the caller, which may use all
/// threads.
pub fn parallel_map<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if count < 2 || rayon::current_num_threads() < 2 || pools().len() < 2 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let run = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            let result = work(i);
            done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((i, result));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = pools().iter().take(count).map(|pool| scope.spawn(|| pool.install(run))).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_kernels_inside_do_not_split() {
        let threads = rayon::current_num_threads();
        let results = parallel_map(9, |i| (i, rayon::current_num_threads()));
        for (i, (item, inner)) in results.into_iter().enumerate() {
            assert_eq!((item, inner), (i, 1.min(threads)));
        }
        assert_eq!(parallel_map(1, |_| rayon::current_num_threads()), [threads]);
        assert!(parallel_map(0, |i| i).is_empty());
    }

    #[test]
    fn nested_calls_run_one_after_the_other() {
        assert_eq!(parallel_map(3, |i| parallel_map(2, |j| 10 * i + j)).concat(), [0, 1, 10, 11, 20, 21]);
    }
}
