//! `jigsaw rollout`: sampled responses to a training dataset.

use super::device::ComputeArgs;
use super::hub;
use super::output::{note, print, status};
use super::progress::{bar, begin, times};
use super::ranks::{one_process, undo_if_refused};
use crate::Result;
use crate::comm::Communicator;
use crate::io::files;
use crate::sampling::SampleProgress;
use crate::sampling::chat_api::REQUEST_TIMEOUT;
use crate::sampling::rollout::{FinalAnswer, Keep, RolloutOptions, RolloutReport, RolloutRequest, TRAIN, rollout};
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Sample responses, score them, keep the good ones, and write them as a training dataset.
///
/// The responses come from a model (--model) or from a teacher with another style (--teacher). The task scores them, as in training and
/// evaluation. OUT becomes a dataset like those of `jigsaw gen`: its train split holds the kept responses with their prompts; the other
/// splits are copied from --data. All samples with their scores stay in OUT/samples.jsonl. The same command resumes an interrupted
/// rollout; with another --keep, --max-per-prompt or --answer it rebuilds the dataset from the samples. docs/rollouts.md lists the commands for
/// common kinds of data.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("who").required(true).args(["model", "teacher"])), after_help = EXAMPLES)]
pub struct RolloutArgs {
    /// Checkpoint directory to sample from, or a name on the Hub (OWNER/NAME[@REVISION])
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Teacher that answers instead of a checkpoint. scripted: a built-in reasoner that is given the right answer; http://HOST:PORT/v1: a
    /// model behind an OpenAI-compatible chat API (vLLM, SGLang, llama.cpp, Ollama), with the key in OPENAI_API_KEY
    #[arg(long, value_name = "WHO", conflicts_with = "dtype")]
    teacher: Option<String>,
    /// Name of the model on the server of --teacher
    #[arg(long, value_name = "NAME", requires = "teacher")]
    teacher_model: Option<String>,
    /// Requests in flight at once
    #[arg(long, value_name = "N", default_value_t = 4, requires = "teacher_model")]
    concurrency: usize,
    /// Most requests started per minute [default: no limit]
    #[arg(long, value_name = "N", requires = "teacher_model", value_parser = clap::value_parser!(u32).range(1..))]
    per_minute: Option<u32>,
    /// Retries of a request that failed for a temporary reason; the pause doubles each time
    #[arg(long, value_name = "N", default_value_t = 6, requires = "teacher_model")]
    retries: usize,
    /// Seconds to wait for a response
    #[arg(long, value_name = "SECONDS", default_value_t = REQUEST_TIMEOUT.as_secs(), requires = "teacher_model")]
    timeout: u64,
    /// Dataset directory with the prompts, or FILE.jsonl or FILE.json from another tool (docs/other-tools.md)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Split of the dataset to take prompts from; the kept responses become the train split of OUT
    #[arg(long, value_name = "NAME", default_value = TRAIN)]
    split: String,
    /// Only the first N prompts [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Responses per prompt [default: 8; 1 with --teacher scripted]
    #[arg(long, value_name = "N")]
    num_generations: Option<usize>,
    /// Sampling temperature; 0 always takes the most likely token [default: 1]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Nucleus sampling: sample from the smallest set of tokens whose probabilities add up to P; 1 is off [default: 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Sample from the N most likely tokens; 0 is off [default: 0]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// End a response at this text, which stays its end (a server leaves it out); may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Longest response in tokens; a response that is cut off is never kept [default: 512]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Random seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Prompts per batch. Changes speed, memory and which random numbers are drawn
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    /// Which responses to keep [default: correct; all with --answer gold]
    #[arg(long, value_enum)]
    keep: Option<Keep>,
    /// Most responses to keep per prompt, after duplicates are removed [default: all]
    #[arg(long, value_name = "N")]
    max_per_prompt: Option<usize>,
    /// Answer that the kept responses end with: the sampled one, or the right one after the sampled reasoning
    #[arg(long, value_enum, default_value_t = FinalAnswer::Sampled)]
    answer: FinalAnswer,
    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Delete the results of an earlier rollout in the output directory first, including samples and API responses that were paid for
    #[arg(long)]
    fresh: bool,
}

const EXAMPLES: &str = "\
Examples:
  jigsaw rollout --model runs/rft/model --data runs/puzzles --num-generations 8 --max-per-prompt 2 --out runs/rft-rollouts
  jigsaw rollout --model runs/rft-1-epoch/model --data runs/puzzles --answer gold --num-generations 1 --out runs/self-generated
  jigsaw rollout --teacher scripted --data runs/thought --out runs/foreign      puzzles of gen --style think
  jigsaw rollout --teacher http://localhost:8000/v1 --teacher-model NAME --data runs/puzzles --out runs/teacher
  jigsaw train --method sft --model BASE --data runs/rft-rollouts --out runs/sft-rollouts";

impl RolloutArgs {
    /// Sample, keep, write; print the table.
    pub fn run(mut self, comm: &dyn Communicator) -> Result<()> {
        self.clone().request()?;
        if self.teacher.is_some() {
            one_process(comm, "rollout --teacher")?;
        }
        if !self.data.is_file() {
            files::require_dir(&self.data, "dataset")?;
        }
        self.model = comm.on_root(|| self.model.as_deref().map(hub::model).transpose())?;
        let loader = self.compute.open()?;
        let request = self.request()?;
        let bar = bar(0, "{pos}/{len} prompts{msg}");
        let mut lines = PlainProgress::new();
        let progress = |p: SampleProgress| {
            begin(&bar, p);
            bar.set_position(p.done as u64);
            bar.set_message(format!(", {:.1} % right", percent(p)));
            lines.update(p);
        };
        let note = |text: &str| bar.suspend(|| note(text));
        let report = undo_if_refused(comm, &request.out, || rollout(&request, &loader, comm, &note, progress));
        bar.finish_and_clear();
        let report = report?;
        print(&format!("{}{}\n", table(&report), request.out.display()))
    }

    fn request(self) -> Result<RolloutRequest> {
        let options = RolloutOptions {
            teacher: self.teacher,
            teacher_model: self.teacher_model,
            concurrency: self.concurrency,
            per_minute: self.per_minute,
            retries: self.retries,
            timeout: self.timeout,
            split: self.split,
            limit: self.limit,
            num_generations: self.num_generations,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            stop: self.stop,
            max_new_tokens: self.max_new_tokens,
            batch_size: self.batch_size,
            keep: self.keep,
            max_per_prompt: self.max_per_prompt,
            answer: self.answer,
            seed: self.seed,
        };
        options.request(self.model, self.data, self.out, self.fresh)
    }
}

fn percent(p: SampleProgress) -> f64 {
    100.0 * p.correct as f64 / p.responses.max(1) as f64
}

/// A line now and then where there is no terminal to draw a bar on.
struct PlainProgress {
    quiet: bool,
    /// When this process began, and what was done then.
    began: Option<(Instant, usize)>,
    last: Option<Instant>,
}

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(10);

impl PlainProgress {
    fn new() -> PlainProgress {
        PlainProgress { quiet: std::io::stderr().is_terminal(), began: None, last: None }
    }

    fn update(&mut self, p: SampleProgress) {
        let (began, before) = *self.began.get_or_insert((Instant::now(), p.done));
        if self.quiet || p.done == before || self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        let elapsed = began.elapsed().as_secs_f64();
        let left = elapsed / (p.done - before) as f64 * (p.total - p.done) as f64;
        let times = times(elapsed, (p.done < p.total).then_some(left));
        status(&format!("{}/{} prompts, {:.1} % right, {times}", p.done, p.total, percent(p)));
    }
}

/// The result for a person.
fn table(report: &RolloutReport) -> String {
    let (about, s, t) = (&report.about, &report.summary, &report.tally);
    let mut text = String::new();
    let split = if about.split.is_empty() { String::new() } else { format!(" ({})", about.split) };
    let _ = writeln!(text, "{} on {}{split}", about.teacher, about.data.display());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<34} {value:>9}");
    };
    line("prompts", t.prompts.to_string());
    line("responses", t.samples.to_string());
    for (name, i) in [("whole answer right", s.accuracy), ("format kept", s.well_formed)] {
        let (value, low, high) = (100.0 * i.value, 100.0 * i.low, 100.0 * i.high);
        line(name, format!("{value:7.1} %   95 % interval {low:.1} to {high:.1} %"));
    }
    for (name, n) in [
        ("dropped: refused by the server", t.refused),
        ("dropped: cut off by length", t.truncated),
        ("dropped: no text", t.empty),
        ("dropped: not wanted by --keep", t.filtered),
        ("dropped: no readable thought", t.no_reasoning),
        ("dropped: special token in the text", t.special),
        ("dropped: same text again", t.duplicates),
        ("dropped: beyond --max-per-prompt", t.over_cap),
    ] {
        if n > 0 {
            line(name, n.to_string());
        }
    }
    line("kept", t.kept.to_string());
    line("prompts without a kept response", t.prompts_without_kept.to_string());
    if let Some(usage) = report.usage {
        line("tokens used", usage.to_string());
    } else if s.mean_tokens > 0.0 {
        let speed = s.tokens_per_second.map(|t| format!(", {t:.0} tokens/s")).unwrap_or_default();
        line("mean response", format!("{:.1} tokens{speed}", s.mean_tokens));
    }
    let splits: Vec<String> = report.manifest.splits.iter().map(|(name, s)| format!("{name} {}", s.records)).collect();
    let _ = writeln!(text, "dataset: {}", splits.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::sampling::chat_api::Endpoint;
    use crate::sampling::rollout::{RolloutSelection, Teacher};
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        args: RolloutArgs,
    }

    fn request(flags: &str) -> Result<RolloutRequest> {
        let line = format!("jigsaw --data d --out o {flags}");
        Parsed::try_parse_from(line.split_whitespace()).map_err(|e| Error::input(e.to_string()))?.args.request()
    }

    #[test]
    fn the_defaults_are_eight_samples_at_temperature_1_of_which_the_correct_stay() {
        let r = request("--model m").unwrap();
        assert_eq!((r.plan.num_generations, r.sampling.temperature, r.split.as_str()), (8, 1.0, "train"));
        assert_eq!(
            r.selection,
            RolloutSelection { keep: Keep::Correct, max_per_prompt: None, answer: FinalAnswer::Sampled }
        );
        assert_eq!(request("--model m --answer gold").unwrap().selection.keep, Keep::All);
        let r = request("--teacher scripted").unwrap();
        assert_eq!((r.teacher, r.plan.num_generations), (Teacher::Scripted, 1));
        let r =
            request("--teacher http://localhost:1/v1 --teacher-model n --temperature 0.7 --num-generations 2").unwrap();
        let endpoint = |r: RolloutRequest| match r.teacher {
            Teacher::Endpoint(endpoint) => endpoint,
            other => panic!("{other:?}"),
        };
        let Endpoint { concurrency, per_minute, timeout, .. } = endpoint(r);
        assert_eq!((concurrency, per_minute, timeout), (4, None, REQUEST_TIMEOUT));
        let r = request("--teacher http://localhost:1/v1 --teacher-model n --timeout 5").unwrap();
        assert_eq!(endpoint(r).timeout, Duration::from_secs(5));
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused_before_any_work() {
        for (flags, named) in [
            ("", "--model"),
            ("--model m --teacher scripted", "--teacher"),
            ("--teacher script", "--teacher script"),
            ("--teacher scripted --dtype bf16", "--dtype"),
            ("--teacher http://localhost:1/v1", "--teacher-model"),
            ("--teacher ftp://localhost:1/v1 --teacher-model n", "no address of a chat API"),
            ("--teacher scripted --teacher-model n", "--teacher-model"),
            ("--model m --teacher-model n", "--teacher"),
            ("--teacher http://localhost:1/v1 --teacher-model n --per-minute 0", "--per-minute"),
            ("--teacher http://localhost:1/v1 --teacher-model n --per-minute 4294967296", "--per-minute"),
            ("--teacher http://localhost:1/v1 --teacher-model n --timeout 0", "--timeout"),
            ("--teacher http://localhost:1/v1 --teacher-model n --timeout 86401", "--timeout"),
            ("--model m --timeout 5", "--timeout"),
            ("--teacher scripted --temperature 1", "--temperature"),
            ("--teacher scripted --answer gold", "--answer"),
            ("--model m --num-generations 0", "--num-generations"),
            ("--model m --max-per-prompt 0", "--max-per-prompt"),
            ("--model m --limit 0", "--limit"),
            ("--model m --batch-size 0", "--batch-size"),
            ("--model m --temperature 0", "--temperature"),
            ("--model m --temperature 0 --num-generations 1 --top-k 3", "--top-k"),
            ("--model m --temperature NaN", "--temperature"),
            ("--model m --top-p 0", "--top-p"),
            ("--model m --answer gold --keep correct", "--keep"),
        ] {
            let error = request(flags).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{flags}: {error}");
        }
    }
}
