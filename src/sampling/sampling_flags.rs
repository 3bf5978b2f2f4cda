//! The flags that say how tokens are chosen, where they say what cannot be done.

use crate::model::SamplingParams;
use crate::{Error, Result};
use std::time::Duration;

/// Most requests to a server at once: each has a thread.
const MOST_REQUESTS: usize = 1024;
/// Most seconds to wait for a response.
const LONGEST_TIMEOUT: u64 = 86_400;

/// Refuse more requests at once than there can be threads for.
///
/// # Errors
/// An input error that names the flag.
pub fn check_requests(concurrency: usize) -> Result<()> {
    match concurrency <= MOST_REQUESTS {
        true => Ok(()),
        false => Err(Error::input(format!("--concurrency {concurrency}: must be at most {MOST_REQUESTS}"))),
    }
}

/// The time to wait for a response.
///
/// # Errors
/// An input error that names the flag, for no time or more than a day.
pub fn check_timeout(seconds: u64) -> Result<Duration> {
    match seconds {
        0 => Err(Error::input("--timeout 0: must be at least 1")),
        _ if seconds > LONGEST_TIMEOUT => {
            Err(Error::input(format!("--timeout {seconds}: must be at most {LONGEST_TIMEOUT} seconds, a day")))
        }
        _ => Ok(Duration::from_secs(seconds)),
    }
}

/// Refuse, by its flag, what is out of range or would have no effect. `samples`: responses to each example.
///
/// # Errors
/// An input error that names the flag.
pub fn check(sampling: &SamplingParams, samples: usize) -> Result<()> {
    let bad = |text: String| Err(Error::input(text));
    let &SamplingParams { temperature, top_p, top_k, .. } = sampling;
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return bad(format!("--temperature {temperature}: must be 0 or more"));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return bad(format!("--top-p {top_p}: must be above 0 and at most 1"));
    }
    if temperature == 0.0 && samples > 1 {
        return bad("--num-generations above 1 needs --temperature above 0: greedy responses are all the same".into());
    }
    if temperature == 0.0 && (top_p < 1.0 || top_k > 0) {
        return bad("--top-p and --top-k have no effect without --temperature above 0".into());
    }
    Ok(())
}
