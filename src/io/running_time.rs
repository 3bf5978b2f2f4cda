//! Time limits for what runs beside this process, which a process that was suspended does not exceed.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Of the time between two looks, so much counts at most.
const MOST: Duration = Duration::from_secs(1);
/// How often [`receive`] looks.
const LOOK: Duration = Duration::from_millis(200);

/// The time since its start in which the process ran. A pause (Ctrl-Z, SIGSTOP, a scheduler that suspends the job) counts as one second, so
/// the time must be asked for at least once a second.
#[derive(Debug)]
pub struct RunningTime {
    last: Instant,
    total: Duration,
}

impl RunningTime {
    /// From now on.
    pub fn start() -> RunningTime {
        RunningTime { last: Instant::now(), total: Duration::ZERO }
    }

    /// The time so far.
    pub fn elapsed(&mut self) -> Duration {
        let now = Instant::now();
        self.total += (now - self.last).min(MOST);
        self.last = now;
        self.total
    }
}

/// The next message; an error if none comes while this process runs for `limit`.
///
/// # Errors
/// No message came in time, or there is no sender any more.
pub fn receive<T>(receiver: &Receiver<T>, limit: Duration) -> Result<T, RecvTimeoutError> {
    let mut waited = RunningTime::start();
    loop {
        let left = limit.saturating_sub(waited.elapsed());
        match receiver.recv_timeout(left.min(LOOK)) {
            Err(RecvTimeoutError::Timeout) if waited.elapsed() < limit => {}
            received => return received,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_pause_counts_as_one_second() {
        let mut time = RunningTime { last: Instant::now() - Duration::from_secs(30), total: Duration::from_millis(5) };
        assert_eq!(time.elapsed(), MOST + Duration::from_millis(5));
        assert!(time.elapsed() < MOST * 2);
    }

    #[test]
    fn a_message_in_time_comes_and_none_is_waited_for_too_long() {
        let (sender, receiver) = channel();
        sender.send(7).unwrap();
        assert_eq!(receive(&receiver, Duration::ZERO), Ok(7));
        let began = Instant::now();
        assert_eq!(receive(&receiver, Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
        assert!(began.elapsed() >= Duration::from_millis(300));
        drop(sender);
        assert_eq!(receive(&receiver, Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
    }
}
