//! `jigsaw dynamics`: why some training data costs more prior knowledge than other.

use super::device::DeviceArgs;
use super::hub;
use super::output::{print, status};
use super::progress::{NamedProgress, bar};
use super::ranks::undo_if_refused;
use crate::Result;
use crate::comm::Communicator;
use crate::dynamics::{
    DYNAMICS_CSV, DYNAMICS_JSON, DYNAMICS_MD, DynamicsObserver, DynamicsRequest, DynamicsResult, InfluenceConfig,
    PAIRS, ResponseLoss, checkpoint_tables, divergence, influence_over_checkpoints, likelihood, notes, on_policy_table,
    run,
};
use crate::eval::bench::BenchmarkSpec;
use std::path::PathBuf;

/// Measure how one step on training data moves prior knowledge: magnitude, direction, and distance to the base.
///
/// Each training sample u (of --train) is paired with a sample v of prior knowledge (of --prior) under each --model. How fast v's token
/// distributions over the whole vocabulary change by plain SGD steps on u gives a lower bound of the norm of their kernel (LBK). Also
/// measured: that change without any division, the change of v's log-likelihood, the cosine of both gradients, and what one step of Adam at
/// --learning-rate does to v, as the divergence of its distributions. The weights are restored exactly after each step. The perplexity of
/// all responses under the base is reported too, for reasoning and answer apart, with a regression of the changes on it, and with --forgetting
/// how well KL to the base predicts forgetting (docs/dynamics.md).
///
/// Writes pairs.jsonl (one line per pair, as measured), dynamics.csv, dynamics.md, and finally dynamics.json. The same command resumes
/// an interrupted measurement, and more checkpoints may be appended to --model.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DynamicsArgs {
    /// Checkpoint directories in the order of training, such as BASE RUN/checkpoints/*, or names on the Hub (OWNER/NAME[@REVISION])
    #[arg(long, value_name = "MODEL", num_args = 1.., required = true)]
    model: Vec<PathBuf>,
    /// Base model of the checkpoints. It measures the perplexities and answers the prior questions
    #[arg(long, value_name = "MODEL")]
    base: PathBuf,
    /// Training data of a regime: NAME=DIR, a dataset directory; one or several
    #[arg(long, value_name = "NAME=DIR", num_args = 1.., required = true)]
    train: Vec<String>,
    /// Prior knowledge: NAME=FILE.tsv[:SCORER] (docs/benchmarks.md; v is the question with the base's own greedy answer), or NAME=DIR, a
    /// dataset (with the responses of its records); several may be given
    #[arg(long, value_name = "NAME=FILE", num_args = 1.., required = true)]
    prior: Vec<String>,
    /// Most pairs of each --train with each --prior; every training sample is used once before any is used twice
    #[arg(long, value_name = "N", default_value_t = InfluenceConfig::default().pairs)]
    pairs: usize,
    /// Size of the SGD steps [default: chosen for each pair, so that neither rounding to f32 nor curvature shows]
    #[arg(long, value_name = "X")]
    eta: Option<f64>,
    /// Learning rate of the step of Adam
    #[arg(long, value_name = "X", default_value_t = InfluenceConfig::default().learning_rate)]
    learning_rate: f64,
    /// Let each --model respond to the prompts of this set of --train, and measure how likely the base finds that
    #[arg(long, value_name = "NAME")]
    on_policy: Option<String>,
    /// Loss of a response: mean or sum of the negative log-probabilities of its tokens
    #[arg(long, value_enum, default_value_t = ResponseLoss::Mean)]
    loss: ResponseLoss,
    /// Parts that the step does not change, as in training: vision, merger, embeddings, text, or a prefix of parameter names
    #[arg(long, value_name = "PART", num_args = 1..)]
    freeze: Vec<String>,
    /// Comparisons with the base (--out of `jigsaw eval --baseline`), to relate KL to forgetting
    #[arg(long, value_name = "DIR", num_args = 1..)]
    forgetting: Vec<PathBuf>,
    /// Split of the datasets of --train
    #[arg(long, value_name = "NAME", default_value = "train")]
    split: String,
    /// Split of the datasets of --prior
    #[arg(long, value_name = "NAME", default_value = "test")]
    prior_split: String,
    /// Longest answer of the base in tokens [default: each benchmark's own]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Random seed of the choice of samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    /// Delete the results of an earlier measurement in the output directory first
    #[arg(long)]
    fresh: bool,
}

const EXAMPLES: &str = "\
Example:
  jigsaw dynamics --model BASE runs/sft/checkpoints/* --base BASE --train bare=runs/puzzles --train rollouts=runs/rollouts \\
      --prior vqa=runs/prior/bench/vqa-direct.tsv --prior pope=POPE.tsv --forgetting runs/compare-sft runs/compare-rft --out runs/dynamics";

impl DynamicsArgs {
    /// Measure and print the tables.
    pub fn run(mut self, comm: &dyn Communicator) -> Result<()> {
        let device = self.device.open()?;
        self.clone().request()?;
        self.model = comm.on_root(|| hub::models(&self.model))?;
        self.base = comm.on_root(|| hub::model(&self.base))?;
        let request = self.request()?;
        let mut bars = DynamicsProgress::default();
        let found = undo_if_refused(comm, &request.out, || run(&request, &device, comm, &mut bars));
        bars.0.clear();
        let files = [PAIRS, DYNAMICS_JSON, DYNAMICS_CSV, DYNAMICS_MD];
        let files = files.map(|name| format!("{}\n", request.out.join(name).display())).concat();
        print(&format!("{}{files}", describe(&found?)))
    }

    /// The request, checked as far as that needs no file.
    fn request(self) -> Result<DynamicsRequest> {
        let specs = |flag: &str, texts: &[String], split: &str| {
            texts.iter().map(|text| BenchmarkSpec::of_flag(flag, text, split)).collect::<Result<Vec<_>>>()
        };
        let request = DynamicsRequest {
            train: specs("--train", &self.train, &self.split)?,
            prior: specs("--prior", &self.prior, &self.prior_split)?,
            config: InfluenceConfig {
                eta: self.eta,
                learning_rate: self.learning_rate,
                loss: self.loss,
                pairs: self.pairs,
                seed: self.seed,
                frozen: self.freeze,
                on_policy: self.on_policy,
            },
            models: self.model,
            base: self.base,
            max_new_tokens: self.max_new_tokens,
            forgetting: self.forgetting,
            out: self.out,
            fresh: self.fresh,
        };
        request.check()?;
        Ok(request)
    }
}

/// The tables as text.
fn describe(found: &DynamicsResult) -> String {
    let mut text = format!("{}\n", likelihood(found).text());
    for checkpoint in &found.checkpoints {
        let provenance = checkpoint.model.provenance();
        let provenance = if provenance.is_empty() { String::new() } else { format!(" ({provenance})") };
        text += &format!("{}{provenance}\n\n", checkpoint.model.dir);
        for (title, table) in checkpoint_tables(checkpoint, &found.config) {
            text += &format!("{title}:\n{}\n", table.text());
        }
    }
    for table in influence_over_checkpoints(found).iter().chain(&on_policy_table(found)) {
        text += &format!("{}\n", table.text());
    }
    if let Some(kl) = &found.kl {
        let (table, lines) = divergence(kl);
        text += &format!("{}{}\n\n", table.text(), lines.join("\n"));
    }
    notes(found).iter().for_each(|note| text += &format!("note: {note}\n"));
    text
}

/// One line a stage on stderr, and a bar while it works.
#[derive(Default)]
struct DynamicsProgress(NamedProgress);

impl DynamicsProgress {
    fn update(&mut self, what: &str, unit: &str, done: usize, total: usize) {
        let template = || format!("{{prefix}} {{pos}}/{{len}} {unit}");
        self.0.show(what, done as u64, || bar(total, &template()));
    }
}

impl DynamicsObserver for DynamicsProgress {
    fn stage(&mut self, what: &str) {
        self.0.clear();
        status(what);
    }

    fn samples(&mut self, done: usize, total: usize) {
        self.update("base", "samples", done, total);
    }

    fn pairs(&mut self, model: &str, done: usize, total: usize) {
        self.update(model, "pairs", done, total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        args: DynamicsArgs,
    }

    fn request(flags: &[&str]) -> Result<DynamicsRequest> {
        let all = [
            "jigsaw",
            "--base",
            "b",
            "--model",
            "m",
            "n",
            "--train",
            "sft=d",
            "--prior",
            "vqa=v.tsv:vqa",
            "--out",
            "o",
        ];
        Parsed::try_parse_from(all.iter().chain(flags)).unwrap().args.request()
    }

    #[test]
    fn sets_and_checkpoints_may_be_several() {
        let found = request(&["--train", "rft=e", "rollouts=f", "--prior", "pope=p.tsv", "--loss", "sum"]).unwrap();
        let names = |specs: &[BenchmarkSpec]| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found.train), ["sft", "rft", "rollouts"]);
        assert_eq!(names(&found.prior), ["vqa", "pope"]);
        assert_eq!((found.models.len(), found.config.loss, found.config.pairs), (2, ResponseLoss::Sum, 256));
        assert_eq!((found.train[0].split.as_str(), found.prior[0].split.as_str()), ("train", "test"));
        assert_eq!(found.prior[0].kind.as_deref(), Some("vqa"));
    }

    #[test]
    fn numbers_and_names_that_cannot_be_are_refused_by_their_flag() {
        for (flags, said) in [
            (&["--pairs", "0"][..], "--pairs 0"),
            (&["--eta", "0"], "--eta 0"),
            (&["--eta=-1"], "--eta -1: must be a number above 0; leave it out"),
            (&["--eta", "NaN"], "--eta NaN"),
            (&["--max-new-tokens", "0"], "--max-new-tokens"),
            (&["--train", "nameless"], "--train nameless: give NAME="),
            (&["--prior", "x=y.tsv:chioce"], "--prior x=y.tsv:chioce"),
        ] {
            let error = request(flags).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{flags:?}: {error}");
        }
    }
}
