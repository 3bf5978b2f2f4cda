//! What is held in memory at the highest. Alone in its process, and one test at a time, so that only its memory is counted.

mod cpu_plan;
mod device_plan;
mod tsv;

use jigsaw::alloc;
use std::sync::{Mutex, MutexGuard};

#[global_allocator]
static ALLOCATOR: alloc::Caching = alloc::Caching::new();

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Bytes that `work` holds at its highest, beyond what is held before; and what it leaves behind.
fn highest<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = alloc::live_bytes();
    alloc::reset_peak();
    let made = work();
    (alloc::peak_bytes().saturating_sub(before), made)
}
