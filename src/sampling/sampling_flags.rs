//! The flags that say how tokens are chosen, where they say what cannot be done.

use super::sample_task::SamplePlan;
use crate::model::{MAX_NEW_TOKENS, SamplingParams};
use crate::{Error, Result};
use std::time::Duration;

/// Most requests to a server at once: each has a thread.
const MOST_REQUESTS: usize = 1024;
/// Most seconds to wait for a response.
pub const LONGEST_TIMEOUT: u64 = 86_400;

/// Most responses that are sampled together: each has state of its own, whatever its length.
pub const MAX_RESPONSES: usize = 1 << 20;

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

/// Refuse longer responses than any model gives.
///
/// # Errors
/// An input error that names the flag.
pub fn check_new_tokens(tokens: usize) -> Result<()> {
    match tokens {
        1..=MAX_NEW_TOKENS => Ok(()),
        _ => Err(Error::input(format!("--max-new-tokens {tokens}: must be from 1 to {MAX_NEW_TOKENS}"))),
    }
}

/// Refuse, by its flag, what is out of range or would have no effect.
///
/// # Errors
/// An input error that names the flag.
pub fn check(sampling: &SamplingParams, plan: &SamplePlan) -> Result<()> {
    let bad = |text: String| Err(Error::input(text));
    if sampling.stop.iter().any(String::is_empty) {
        return bad("--stop is empty: give the text that ends a response, such as --stop '</answer>'".into());
    }
    let &SamplingParams { temperature, top_p, top_k, max_new_tokens, .. } = sampling;
    let &SamplePlan { num_generations, batch_size, limit } = plan;
    for (flag, value) in [("--num-generations", num_generations), ("--batch-size", batch_size)] {
        if value == 0 {
            return bad(format!("{flag} 0: must be at least 1"));
        }
    }
    if num_generations.saturating_mul(batch_size.min(limit.unwrap_or(usize::MAX))) > MAX_RESPONSES {
        return bad(format!(
            "--num-generations {num_generations} with --batch-size {batch_size}: at most {MAX_RESPONSES} responses are sampled together"
        ));
    }
    check_new_tokens(max_new_tokens)?;
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return bad(format!("--temperature {temperature}: must be 0 or more"));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return bad(format!("--top-p {top_p}: must be above 0 and at most 1"));
    }
    if temperature == 0.0 && num_generations > 1 {
        return bad("--num-generations above 1 needs --temperature above 0: greedy responses are all the same".into());
    }
    if temperature == 0.0 && (top_p < 1.0 || top_k > 0) {
        return bad("--top-p and --top-k have no effect without --temperature above 0".into());
    }
    Ok(())
}
