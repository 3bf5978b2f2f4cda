//! `jigsaw score`: how likely a model finds given responses.

use super::device::ComputeArgs;
use super::hub;
use super::output::print;
use super::progress::bar;
use crate::comm::Communicator;
use crate::eval::{ResponseScore, check_ranks, missing_responses, score_responses};
use crate::io::text::counted;
use crate::io::{files, output_dir};
use crate::model::Processor;
use crate::sampling::sampling_flags::MAX_RESPONSES;
use crate::{Error, Result, tasks};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Ids listed in a message.
const NAMED: usize = 5;

/// Log-probability and perplexity of the dataset's own responses under a model.
///
/// Teacher-forced, at temperature 1. Writes one line for each record: {"id", "token_ids", "logprobs", "ppl"}, over
/// the tokens of its assistant response and the closing <|im_end|>, given its prompt.
#[derive(Debug, Clone, clap::Args)]
pub struct ScoreArgs {
    /// Checkpoint directory, or a name on the Hub (OWNER/NAME[@REVISION])
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Dataset directory, or FILE.jsonl or FILE.json from another tool (docs/other-tools.md)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Split of the dataset
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Records per batch; changes only speed and memory
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch_size: usize,
    /// File to write; it appears only when all records are scored
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl ScoreArgs {
    /// Score, write the file, print the mean.
    pub fn run(self, comm: &dyn Communicator) -> Result<()> {
        if !(1..=MAX_RESPONSES).contains(&self.batch_size) {
            return Err(Error::input(format!("--batch-size {}: must be from 1 to {MAX_RESPONSES}", self.batch_size)));
        }
        if self.out.is_dir() {
            return Err(Error::input(format!("--out {} is a directory; name the file to write", self.out.display())));
        }
        for (flag, input) in [("--model", &self.model), ("--data", &self.data)] {
            if files::is_inside(&self.out, input) {
                return Err(Error::input(format!(
                    "--out {} lies in the directory of {flag}, which is left as it is; choose another place",
                    self.out.display()
                )));
            }
        }
        let task = tasks::load(&self.data, &self.split)?;
        let missing = missing_responses(task.as_ref())?;
        if !missing.is_empty() {
            let more = if missing.len() > NAMED { ", ..." } else { "" };
            return Err(Error::input(format!(
                "{} of {} records of {} ({}) have no assistant response to score: {}{more}; give them one or leave them out",
                missing.len(),
                task.len(),
                self.data.display(),
                self.split,
                missing[..missing.len().min(NAMED)].join(", ")
            )));
        }
        let dir = comm.on_root(|| hub::model(&self.model))?;
        let loader = self.compute.open()?;
        check_ranks(comm, &dir, &loader, task.as_ref(), self.batch_size)?;
        let processor = Processor::from_dir(&dir)?;
        let model = loader.frozen(&dir)?;
        let _lock = comm.root_alone(|| output_dir::lock_file(&self.out))?;
        let bar = bar(task.len(), "{pos}/{len} records");
        let (mut nats, mut tokens) = (0.0, 0);
        let starts: Vec<usize> = (0..task.len()).step_by(self.batch_size).collect();
        let score = |&start: &usize| {
            let examples = start..(start + self.batch_size).min(task.len());
            score_responses(&model, &processor, task.as_ref(), examples)
        };
        let mut score_all = |out: &mut dyn Write| {
            let mut write = |score: ResponseScore| -> io::Result<()> {
                nats -= score.logprobs.iter().map(|&p| f64::from(p)).sum::<f64>();
                tokens += score.token_ids.len();
                bar.inc(1);
                serde_json::to_writer(&mut *out, &score)?;
                out.write_all(b"\n")
            };
            let unwritten = |e| Error::failed(format!("cannot write {}: {e}", self.out.display()));
            comm.in_rounds(&starts, score, |scores| scores.into_iter().try_for_each(&mut write).map_err(unwritten))
        };
        let scored = match comm.is_root() {
            false => score_all(&mut io::sink()),
            true => {
                let mut scored = Ok(());
                let written = files::write_atomic_with(&self.out, |file| {
                    let mut out = BufWriter::new(file);
                    scored = score_all(&mut out);
                    if scored.is_err() {
                        return Err(io::Error::other("scoring failed"));
                    }
                    out.flush()
                });
                scored.and(written)
            }
        };
        bar.finish_and_clear();
        scored?;
        let per_token = nats / tokens.max(1) as f64;
        print(&format!(
            "{}, {}, {per_token:.4} nats a token, perplexity {:.4}\n{}\n",
            counted(task.len(), "record"),
            counted(tokens, "response token"),
            per_token.exp(),
            self.out.display()
        ))
    }
}
