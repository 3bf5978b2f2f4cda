//! When requests begin, and that all of them end when one fails for good.

use crate::Error;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// The failure that ends all requests, once there is one.
#[derive(Default)]
pub(super) struct Cancel {
    error: Mutex<Option<Error>>,
    changed: Condvar,
}

impl Cancel {
    /// End all requests because of this error. The first one counts.
    pub fn cancel(&self, e: Error) {
        lock(&self.error).get_or_insert(e);
        self.changed.notify_all();
    }

    /// Whether all requests are to end.
    pub fn is_cancelled(&self) -> bool {
        lock(&self.error).is_some()
    }

    /// Sleep, but not beyond the end. Returns whether the end has not come.
    pub fn sleep(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(lock(&self.error), pause, |error| error.is_none());
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.is_none()
    }

    /// The error, if there was one.
    pub fn into_error(self) -> Option<Error> {
        self.error.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// At most so many requests begin in a minute, evenly spaced.
pub(super) struct RateLimit {
    interval: Duration,
    next_slot: Mutex<Instant>,
}

impl RateLimit {
    /// `per_minute` requests; `None` for no limit.
    pub fn new(per_minute: Option<u32>) -> RateLimit {
        let interval = per_minute.map_or(Duration::ZERO, |n| Duration::from_secs(60) / n.max(1));
        RateLimit { interval, next_slot: Mutex::new(Instant::now()) }
    }

    /// Wait until the next request may begin. Returns whether it still is to.
    pub fn wait(&self, cancel: &Cancel) -> bool {
        if self.interval.is_zero() {
            return true;
        }
        let mine = {
            let mut next_slot = lock(&self.next_slot);
            let mine = (*next_slot).max(Instant::now());
            *next_slot = mine + self.interval;
            mine
        };
        cancel.sleep(mine.saturating_duration_since(Instant::now()))
    }
}

/// Lock a mutex, also after a panic of another thread.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
