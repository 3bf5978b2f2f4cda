//! `jigsaw eval`: how often a model is right, with intervals.

use super::output::{bar, print};
use crate::eval::{EvalResult, Plan, Request, Summary, evaluate_checkpoint};
use crate::model::Sampling;
use crate::stats::Interval;
use crate::{Error, Result};
use std::fmt::Write;
use std::path::PathBuf;

/// Evaluate a model on a dataset.
///
/// Writes responses.jsonl (every response with its score, as it comes), and result.json when all are there. The same
/// command again goes on where it was stopped. A directory that holds the evaluation of another model, other data,
/// another prompt template or other settings is refused; the message names what differs.
#[derive(Debug, Clone, clap::Args)]
pub struct EvalArgs {
    /// Checkpoint directory, as published for Qwen2.5-VL or as written by `jigsaw`
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Dataset directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Split of the dataset
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Only the first N examples; all when not given
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Longest response in tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_new_tokens: usize,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 for all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Keep the N likeliest tokens; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Responses to each example; more than one needs a temperature above 0
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: usize,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Examples answered at a time; changes speed and memory only, and with a temperature which random numbers are drawn
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Directory to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to compute: cpu, cuda, cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Remove what an earlier evaluation left in the output directory
    #[arg(long)]
    fresh: bool,
}

impl EvalArgs {
    /// Evaluate and print the table.
    pub fn run(self) -> Result<()> {
        let device = super::device(&self.device)?;
        let request = self.request()?;
        let bar = bar(0, "{pos}/{len} examples, {msg}, {eta} left");
        let result = evaluate_checkpoint(&request, &device, |p| {
            bar.set_length(p.total as u64);
            bar.set_position(p.done as u64);
            bar.set_message(format!("{:.1} % right", 100.0 * p.correct as f64 / p.responses.max(1) as f64));
        });
        bar.finish_and_clear();
        let result = result?;
        print(&format!("{}{}\n", table(&result), request.out.join("result.json").display()))
    }

    /// Everything checked that can be checked before any work.
    fn request(self) -> Result<Request> {
        let bad = |flag: &str, why: &str| Err(Error::input(format!("{flag} {why}")));
        if self.limit == Some(0) {
            return bad("--limit 0:", "there would be nothing to evaluate");
        }
        for (flag, value) in
            [("--samples", self.samples), ("--batch", self.batch), ("--max-new-tokens", self.max_new_tokens)]
        {
            if value == 0 {
                return bad(flag, "0: must be at least 1");
            }
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad("--temperature", &format!("{}: must be 0 or more", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad("--top-p", &format!("{}: must be above 0 and at most 1", self.top_p));
        }
        if self.temperature == 0.0 {
            if self.samples > 1 {
                return bad("--samples", "above 1 needs --temperature above 0: greedy responses are all the same");
            }
            if self.top_p < 1.0 || self.top_k > 0 {
                return bad("--top-p and --top-k", "have no effect without --temperature above 0");
            }
        }
        Ok(Request {
            model: self.model,
            data: self.data,
            split: self.split,
            plan: Plan { limit: self.limit, samples: self.samples, batch: self.batch },
            sampling: Sampling {
                max_new_tokens: self.max_new_tokens,
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
                seed: self.seed,
            },
            out: self.out,
            fresh: self.fresh,
        })
    }
}

/// The result for a person, one line a figure.
pub(super) fn table(result: &EvalResult) -> String {
    let s: &Summary = &result.summary;
    let mut text = String::new();
    let samples = if s.samples == 1 { String::new() } else { format!(", {} responses each", s.samples) };
    let _ = writeln!(
        text,
        "{} on {} ({}), {} examples{samples}",
        result.about.model.display(),
        s.task,
        result.about.split,
        s.examples
    );
    let mut share = |name: &str, i: &Interval, chance: Option<f64>| {
        let chance = chance.map(|c| format!("   guessing {:5.1} %", 100.0 * c)).unwrap_or_default();
        let (value, low, high) = (100.0 * i.value, 100.0 * i.low, 100.0 * i.high);
        let _ = writeln!(text, "  {name:<22} {value:5.1} %   95 % interval {low:5.1} to {high:5.1} %{chance}");
    };
    share("whole answer right", &s.accuracy, s.chance.map(|c| c.accuracy));
    share("parts right (tiles)", &s.hits, s.chance.map(|c| c.hits));
    share("answer readable", &s.parsed, None);
    share("format kept", &s.well_formed, None);
    for (fault, n) in &s.faults {
        let _ = writeln!(text, "    {fault}: {n}");
    }
    if s.truncated > 0 {
        let _ = writeln!(text, "    cut off by the length limit: {}", s.truncated);
    }
    let speed = s.tokens_per_second.map(|t| format!(", {t:.0} tokens/s")).unwrap_or_default();
    let _ = writeln!(text, "  {:<22} {:5.1} tokens{speed}", "mean response", s.mean_tokens);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        args: EvalArgs,
    }

    fn request(flags: &[&str]) -> Result<Request> {
        let needed = ["jigsaw", "--model", "m", "--data", "d", "--out", "o"];
        Parsed::try_parse_from(needed.iter().chain(flags)).unwrap().args.request()
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused_before_any_work() {
        assert!(request(&[]).is_ok());
        assert!(request(&["--temperature", "1", "--samples", "4", "--top-p", "0.9"]).is_ok());
        for (flags, named) in [
            (&["--samples", "2"][..], "--samples"),
            (&["--samples", "0"], "--samples"),
            (&["--batch", "0"], "--batch"),
            (&["--limit", "0"], "--limit"),
            (&["--top-k", "5"], "--top-k"),
            (&["--top-p", "0", "--temperature", "1"], "--top-p"),
            (&["--temperature=-1"], "--temperature"),
            (&["--temperature", "NaN"], "--temperature"),
        ] {
            let error = request(flags).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{flags:?}: {error}");
        }
    }
}
