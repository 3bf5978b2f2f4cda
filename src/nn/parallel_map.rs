//! Independent items in parallel, each on a thread, or on a share of the threads, of its own.
//!
//! The kernels of a small model are too short to spread over threads: most of the time would go into starting and joining parallel
//! sections, and every activation would pass through main memory. So its batch is cut into shards and each thread takes whole shards
//! through the model. Inside [`parallel_map`] every kernel runs on one thread.

use rayon::ThreadPool;
use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many pools, which share the threads that this process may use. In a pool of a single thread, parallel iterators do not split. There
/// are fewer if the system refuses threads.
pub(super) fn pools(count: usize) -> &'static [ThreadPool] {
    type Pools = HashMap<(usize, usize), &'static [ThreadPool]>;
    static POOLS: Mutex<Option<Pools>> = Mutex::new(None);
    let threads = rayon::current_num_threads();
    let mut pools = POOLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    pools.get_or_insert_default().entry((count, threads)).or_insert_with(|| {
        let share = |i: usize| {
            let size = (threads * (i + 1) / count - threads * i / count).max(1);
            let name = move |thread| format!("worker {i}.{thread}");
            rayon::ThreadPoolBuilder::new().num_threads(size).thread_name(name).build().ok()
        };
        Box::leak((0..count).map_while(share).collect())
    })
}

/// `[work(0), ..., work(count - 1)]`, as many at once as there are threads, each on one. A single item runs on the caller, which may use all
/// threads.
pub fn parallel_map<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    map_in(rayon::current_num_threads(), count, work)
}

/// As [`parallel_map`], with the threads shared out between the items if there are more of them.
pub fn share_threads<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    map_in(rayon::current_num_threads().min(count), count, work)
}

fn map_in<T: Send>(lanes: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if count < 2 || lanes < 2 || pools(lanes).len() < 2 {
        // If the system refuses threads, the caller does the work.
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
        let threads: Vec<_> = pools(lanes).iter().take(count).map(|pool| scope.spawn(|| pool.install(run))).collect();
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
    fn threads_are_shared_out() {
        for (threads, count, expected) in
            [(4, 2, vec![2, 2]), (5, 2, vec![2, 3]), (2, 3, vec![1, 1, 1]), (3, 1, vec![3])]
        {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // None ends before each pool has one.
            let all = std::sync::Barrier::new(count.min(threads));
            let mut sizes = pool.install(|| {
                share_threads(count, |i| {
                    if i < threads {
                        all.wait();
                    }
                    rayon::current_num_threads()
                })
            });
            sizes.sort_unstable();
            assert_eq!(sizes, expected);
        }
    }

    #[test]
    fn nested_calls_run_one_after_the_other() {
        assert_eq!(parallel_map(3, |i| parallel_map(2, |j| 10 * i + j)).concat(), [0, 1, 10, 11, 20, 21]);
    }
}
