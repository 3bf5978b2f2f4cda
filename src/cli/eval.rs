//! `jigsaw eval`: how often a model is right, with intervals.

use super::device::ComputeArgs;
use super::eval_table::{dataset_table, usage_line};
use super::output::{note, print};
use super::progress::{bar, begin};
use super::ranks::{one_process, undo_if_refused};
use super::{bench, eval_compare, hub};
use crate::comm::Communicator;
use crate::eval::bench::{BenchmarkSettings, BenchmarkSpec};
use crate::eval::{
    EvalRequest, ServerEvalRequest, SolverEvalRequest, evaluate_checkpoint, evaluate_server, evaluate_solver,
};
use crate::forgetting::{CompareRequest, GateRule, NEW_TASK, PROMPTS};
use crate::io::files;
use crate::model::{ModelLoader, SamplingParams};
use crate::sampling::chat_api::{self, Endpoint, INITIAL_BACKOFF, Note, REQUEST_TIMEOUT};
use crate::sampling::{BATCH_SIZE, SamplePlan, SampleProgress, sampling_flags};
use crate::tasks::SolverKind;
use crate::tasks::benchmarks::DEFAULT_NEW_TOKENS;
use crate::{Error, Result};
use std::path::PathBuf;

/// Evaluate a model on a dataset, or on benchmarks; with --baseline, what its fine-tuning cost.
///
/// With --data, writes responses.jsonl (each response with its score, as it is sampled) and result.json at the end. With --bench, does
/// the same for each benchmark in a subdirectory of its name, and writes results.json and results.csv over all of them. The same
/// command resumes an interrupted evaluation. An output directory with the evaluation of another model, other data, another prompt
/// template or other settings is refused; the message names what differs.
///
/// With --api, evaluates a model behind an OpenAI-compatible chat API (vLLM, SGLang, llama.cpp, Ollama); --model is its name there.
/// Prompts, scorers and files are the same (docs/other-tools.md). The key is read from OPENAI_API_KEY.
///
/// With --solver, no model answers: jigsaws are solved by a rule, as a line to measure models against. Prompts, scorers and files are the same.
///
/// With --baseline, evaluates the base into OUT/base and each --model into OUT/tuned, on every --bench and on --data, the task that the
/// models were trained for. Compares them response by response: change with interval and test, retention, format separately from
/// content, transitions beyond guessing, the divergence of the distributions, gold answers, and the change of the weights
/// (docs/forgetting.md). Writes forgetting.json, .csv and .md; `jigsaw report OUT`
/// shows it.
#[derive(Debug, Clone, clap::Args)]
#[command(
    group(clap::ArgGroup::new("what").required(true).multiple(true).args(["data", "bench", "rescore"])),
    group(clap::ArgGroup::new("base").multiple(true).args(["baseline", "baseline_results"])),
    after_help = EXAMPLES
)]
pub struct EvalArgs {
    /// Checkpoint directory, or a name on the Hub (OWNER/NAME[@REVISION]). With --baseline, one or several, such as RUN/checkpoints/*. With
    /// --api, the name of the model on the server
    #[arg(
        long,
        value_name = "MODEL",
        num_args = 1..,
        required_unless_present_any = ["rescore", "solver"],
        conflicts_with = "rescore"
    )]
    model: Vec<PathBuf>,
    /// Solve the puzzles of --data without a model, by the borders of the tiles or by their colours
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        requires = "data",
        conflicts_with_all = ["model", "api", "bench", "base", "rescore", "max_new_tokens", "temperature", "top_p", "top_k", "stop", "num_generations", "seed", "batch_size", "device", "dtype"]
    )]
    solver: Option<SolverKind>,
    /// With --solver colour: dataset whose train split it learns from [default: that of --data]
    #[arg(long, value_name = "DIR", requires = "solver", conflicts_with = "model")]
    solver_train: Option<PathBuf>,
    /// Evaluate the model behind this chat API: http://HOST:PORT/v1 or https://HOST/v1
    #[arg(long, value_name = "URL", conflicts_with_all = ["rescore", "batch_size", "device", "dtype"])]
    api: Option<String>,
    /// Requests in flight at once
    #[arg(long, value_name = "N", default_value_t = 4, requires = "api")]
    concurrency: usize,
    /// Most requests started per minute [default: no limit]
    #[arg(long, value_name = "N", requires = "api", value_parser = clap::value_parser!(u32).range(1..))]
    per_minute: Option<u32>,
    /// Retries of a request that failed for a temporary reason; the pause doubles each time
    #[arg(long, value_name = "N", default_value_t = 6, requires = "api")]
    retries: usize,
    /// Seconds to wait for a response
    #[arg(long, value_name = "SECONDS", default_value_t = REQUEST_TIMEOUT.as_secs(), requires = "api")]
    timeout: u64,
    /// Compare with this base model, from which --model was fine-tuned
    #[arg(long, value_name = "MODEL", conflicts_with = "rescore")]
    baseline: Option<PathBuf>,
    /// Read the base's results from this directory instead of evaluating it: OUT/base of another comparison, or the --out of an evaluation
    /// with --bench
    #[arg(long, value_name = "DIR", conflicts_with = "rescore")]
    baseline_results: Option<PathBuf>,
    /// Measure KL divergence, perplexity and the log-probability of gold answers on N prompts of each benchmark (of each --prior instead, if
    /// given) and of --data; 0 is off. Holds both models in memory [default: 64]
    #[arg(long, value_name = "N", requires = "base")]
    kl_prompts: Option<usize>,
    /// With --baseline: prior prompts in none of the benchmarks, as --bench names them; KL, and the log-probability of gold answers, are measured on
    /// them and not on the benchmarks' prompts. They are not scored. May be repeated
    #[arg(long, value_name = "NAME=FILE|DIR", requires = "base")]
    prior: Vec<String>,
    /// Split of a --prior dataset directory
    #[arg(long, value_name = "NAME", default_value = "validation", requires = "prior")]
    prior_split: String,
    /// With --baseline: end with exit code 3 if a loss beyond this is shown, such as 'mean < -1' or 'pope < -2' (in points; a mean, a family or a
    /// benchmark). May be repeated; the verdicts are printed, and written to OUT/gate.md
    #[arg(long, value_name = "RULE")]
    fail_if: Vec<String>,
    /// Dataset directory, or FILE.jsonl or FILE.json from another tool (docs/other-tools.md). With --baseline, the task that the models were trained for
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "rescore")]
    data: Option<PathBuf>,
    /// Benchmark: NAME=FILE.tsv for a known one or a file with a `scorer` column, NAME=FILE.tsv:SCORER for your own file, NAME=DIR for a
    /// dataset. May be repeated (docs/benchmarks.md)
    #[arg(long, value_name = "NAME=FILE[:SCORER]", conflicts_with = "rescore")]
    bench: Vec<String>,
    /// Score the stored responses in --out again, with the current scorers and gold answers; needs no model
    #[arg(long)]
    rescore: bool,
    /// Split of a dataset directory to evaluate
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Only the first N examples [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Longest response in tokens [default: each benchmark's own; 512 for a dataset]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// With --bench: fewest pixels of a resized image [default: each benchmark's own]
    #[arg(long, value_name = "N")]
    min_pixels: Option<usize>,
    /// With --bench: most pixels of a resized image [default: each benchmark's own]
    #[arg(long, value_name = "N")]
    max_pixels: Option<usize>,
    /// Sampling temperature; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Nucleus sampling: sample from the smallest set of tokens whose probabilities add up to P; 1 is off
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Sample from the N most likely tokens; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// End a response at this text, which stays its end (a server leaves it out); may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Responses per example; more than one needs a temperature above 0
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_generations: usize,
    /// Random seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Examples per batch. Changes speed and memory; with a temperature above 0 also which random numbers are drawn
    #[arg(long, value_name = "N", default_value_t = BATCH_SIZE)]
    batch_size: usize,
    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Delete the results of an earlier evaluation in the output directory first
    #[arg(long, conflicts_with = "rescore")]
    fresh: bool,
}

const EXAMPLES: &str = "\
Examples:
  jigsaw eval --model runs/sft/model --data runs/puzzles --out runs/eval-sft
  jigsaw eval --model BASE --bench mmstar=MMStar.tsv --bench pope=POPE.tsv --out runs/eval-base
  jigsaw eval --model runs/sft/model --baseline BASE --data runs/puzzles --bench mmstar=MMStar.tsv --out runs/compare-sft
  jigsaw eval --solver edges --data runs/puzzles --out runs/eval-edges
  jigsaw eval --api http://localhost:8000/v1 --model NAME --bench pope=POPE.tsv --out runs/eval-server
  jigsaw eval --model runs/sft/checkpoints/* --baseline BASE --baseline-results runs/compare-sft/base \\
      --data runs/puzzles --bench mmstar=MMStar.tsv --out runs/compare-sft-checkpoints";

/// What is to be done, everything checked that can be checked before any work.
#[derive(Debug)]
enum Work {
    Dataset(EvalRequest),
    Comparison(CompareRequest, Vec<GateRule>),
    Benchmarks {
        specs: Vec<BenchmarkSpec>,
        settings: BenchmarkSettings,
        model: PathBuf,
        out: PathBuf,
        fresh: bool,
    },
    ServerDataset(ServerEvalRequest),
    Solver(SolverEvalRequest),
    ServerBenchmarks {
        specs: Vec<BenchmarkSpec>,
        settings: BenchmarkSettings,
        endpoint: Endpoint,
        out: PathBuf,
        fresh: bool,
    },
    Rescore(PathBuf),
}

impl EvalArgs {
    /// Evaluate and print the table.
    pub fn run(mut self, comm: &dyn Communicator) -> Result<()> {
        match self.clone().work()? {
            Work::Dataset(_) | Work::Benchmarks { .. } | Work::Comparison(..) => {}
            Work::ServerDataset(_) | Work::ServerBenchmarks { .. } => one_process(comm, "eval --api")?,
            Work::Solver(_) => one_process(comm, "eval --solver")?,
            Work::Rescore(_) => one_process(comm, "eval --rescore")?,
        }
        if let Some(data) = self.data.as_ref().filter(|data| !data.is_file()) {
            files::require_dir(data, "dataset")?;
        }
        // With --api it is the model's name at the server.
        if self.api.is_none() {
            self.model = comm.on_root(|| hub::models(&self.model))?;
        }
        self.baseline = comm.on_root(|| self.baseline.as_deref().map(hub::model).transpose())?;
        let (out, loader) = (self.out.clone(), self.compute.open()?);
        undo_if_refused(comm, &out, || self.evaluate(&loader, comm))
    }

    /// Do what is to be done.
    fn evaluate(self, loader: &ModelLoader, comm: &dyn Communicator) -> Result<()> {
        match self.work()? {
            Work::Rescore(out) => bench::rescore(&out),
            Work::Comparison(request, rules) => eval_compare::compare(&request, &rules, loader, comm),
            Work::Benchmarks { specs, settings, model, out, fresh } => {
                bench::evaluate(&specs, &settings, &model, (loader, comm), &out, fresh)
            }
            Work::ServerBenchmarks { specs, settings, endpoint, out, fresh } => {
                bench::evaluate_server(&specs, &settings, &endpoint, &out, fresh)
            }
            Work::Dataset(request) => {
                let result = with_bar(|_, progress| evaluate_checkpoint(&request, loader, comm, progress))?;
                print(&format!("{}{}\n", dataset_table(&result), request.out.join("result.json").display()))
            }
            Work::Solver(request) => {
                let result = with_bar(|_, progress| evaluate_solver(&request, progress))?;
                print(&format!("{}{}\n", dataset_table(&result), request.out.join("result.json").display()))
            }
            Work::ServerDataset(request) => {
                let key = chat_api::api_key_from_env();
                let (result, usage) = with_bar(|note, progress| evaluate_server(&request, key, note, progress))?;
                let file = request.out.join("result.json");
                print(&format!("{}{}{}\n", dataset_table(&result), usage_line(usage), file.display()))
            }
        }
    }

    fn work(self) -> Result<Work> {
        let bad = |flag: &str, why: &str| Err(Error::input(format!("{flag} {why}")));
        if self.rescore {
            return Ok(Work::Rescore(self.out));
        }
        if self.concurrency == 0 {
            return bad("--concurrency", "0: must be at least 1");
        }
        sampling_flags::check_requests(self.concurrency)?;
        let timeout = sampling_flags::check_timeout(self.timeout)?;
        let plan = SamplePlan { limit: self.limit, num_generations: self.num_generations, batch_size: self.batch_size };
        let sampling = SamplingParams {
            max_new_tokens: self.max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS),
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            stop: self.stop.clone(),
            seed: self.seed,
        };
        let specs: Vec<BenchmarkSpec> =
            self.bench.iter().map(|text| BenchmarkSpec::parse(text, &self.split)).collect::<Result<_>>()?;
        let settings = BenchmarkSettings {
            plan,
            sampling,
            max_new_tokens: self.max_new_tokens,
            min_pixels: self.min_pixels,
            max_pixels: self.max_pixels,
        };
        settings.check()?;
        let (out, fresh, split) = (self.out, self.fresh, self.split);
        if let Some(solver) = self.solver {
            if solver == SolverKind::Edges && self.solver_train.is_some() {
                return bad("--solver-train", "is for --solver colour; edges learns nothing");
            }
            let data = self.data.ok_or_else(|| Error::input("--solver: give the puzzles to solve, --data DIR"))?;
            let train = self.solver_train.unwrap_or_else(|| data.clone());
            return Ok(Work::Solver(SolverEvalRequest { solver, train, data, split, limit: self.limit, out, fresh }));
        }
        if self.baseline.is_some() || self.baseline_results.is_some() {
            if self.api.is_some() {
                return bad(
                    "--baseline",
                    "compares weights, which --api does not give; evaluate each model by itself, and `jigsaw report` shows them \
                     side by side with their paired differences",
                );
            }
            let prior = |text: &String| BenchmarkSpec::of_flag("--prior", text, &self.prior_split);
            let prior = self.prior.iter().map(prior).collect::<Result<Vec<_>>>()?;
            let task = |path| BenchmarkSpec { name: NEW_TASK.into(), path, kind: None, split };
            let request = CompareRequest {
                base: self.baseline,
                base_results: self.baseline_results,
                tuned: self.model,
                benchmarks: specs,
                new_task: self.data.map(task),
                settings,
                prior,
                prompts: self.kl_prompts.unwrap_or(PROMPTS),
                out,
                fresh,
            };
            let rules = self.fail_if.iter().map(|rule| GateRule::parse(rule)).collect::<Result<Vec<_>>>()?;
            return Ok(Work::Comparison(request, rules));
        }
        if !self.fail_if.is_empty() {
            return bad("--fail-if", "judges a comparison with a base model; give --baseline, too");
        }
        let mut models = self.model.into_iter();
        let (Some(model), None) = (models.next(), models.next()) else {
            return bad("--model", "names several models; compare them with their base (--baseline), or give one");
        };
        let endpoint = match self.api {
            Some(_) if settings.min_pixels.or(settings.max_pixels).is_some() => {
                return bad(
                    "--min-pixels and --max-pixels",
                    "have no effect with --api: images are sent in the size they have, and the server resizes them",
                );
            }
            Some(url) => {
                let endpoint = Endpoint {
                    url: url.trim_end_matches('/').to_string(),
                    model: model.to_string_lossy().into_owned(),
                    concurrency: self.concurrency,
                    per_minute: self.per_minute,
                    retries: self.retries,
                    backoff: INITIAL_BACKOFF,
                    timeout,
                };
                endpoint.check("--api")?;
                Some(endpoint)
            }
            None => None,
        };
        match self.data {
            Some(_) if !specs.is_empty() => {
                bad("--data", "and --bench go together with --baseline only; a dataset may also be a --bench NAME=DIR")
            }
            Some(_) if settings.min_pixels.or(settings.max_pixels).is_some() => {
                bad("--min-pixels and --max-pixels", "are for --bench; give the dataset as --bench NAME=DIR")
            }
            Some(data) => {
                let BenchmarkSettings { plan, sampling, .. } = settings;
                Ok(match endpoint {
                    Some(endpoint) => {
                        Work::ServerDataset(ServerEvalRequest { endpoint, data, split, plan, sampling, out, fresh })
                    }
                    None => Work::Dataset(EvalRequest { model, data, split, plan, sampling, out, fresh }),
                })
            }
            None => Ok(match endpoint {
                Some(endpoint) => Work::ServerBenchmarks { specs, settings, endpoint, out, fresh },
                None => Work::Benchmarks { specs, settings, model, out, fresh },
            }),
        }
    }
}

/// Work with a bar for its progress.
fn with_bar<T>(work: impl FnOnce(Note<'_>, &mut dyn FnMut(SampleProgress)) -> Result<T>) -> Result<T> {
    let bar = bar(0, "{pos}/{len} examples{msg}");
    let result = work(&|text| bar.suspend(|| note(text)), &mut |p| {
        begin(&bar, p);
        bar.set_position(p.done as u64);
        bar.set_message(format!(", {:.1} % right", 100.0 * p.correct as f64 / p.responses.max(1) as f64));
    });
    bar.finish_and_clear();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        args: EvalArgs,
    }

    fn parse(flags: &[&str]) -> std::result::Result<EvalArgs, clap::Error> {
        Parsed::try_parse_from(["jigsaw"].iter().chain(flags)).map(|parsed| parsed.args)
    }

    fn work(flags: &[&str]) -> Result<Work> {
        parse(&[&["--model", "m", "--data", "d", "--out", "o"], flags].concat()).unwrap().work()
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused_before_any_work() {
        assert!(work(&[]).is_ok());
        assert!(work(&["--temperature", "1", "--num-generations", "4", "--top-p", "0.9"]).is_ok());
        for (flags, named) in [
            (&["--num-generations", "2"][..], "--num-generations"),
            (&["--num-generations", "0"], "--num-generations"),
            (&["--batch-size", "0"], "--batch-size"),
            (&["--min-pixels", "784"], "are for --bench"),
            (&["--max-new-tokens", "0"], "--max-new-tokens"),
            (&["--limit", "0"], "--limit"),
            (&["--top-k", "5"], "--top-k"),
            (&["--top-p", "0", "--temperature", "1"], "--top-p"),
            (&["--temperature=-1"], "--temperature"),
            (&["--temperature", "NaN"], "--temperature"),
        ] {
            let error = work(flags).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{flags:?}: {error}");
        }
    }

    #[test]
    fn with_api_the_model_is_its_name_on_the_server() {
        let of = |flags: &str| {
            let line = format!("--api http://localhost:1/v1/ --model org/name --out o {flags}");
            let words: Vec<&str> = line.split_whitespace().collect();
            parse(&words).map_err(|e| Error::input(e.to_string()))?.work()
        };
        match of("--data d --concurrency 9 --timeout 5").unwrap() {
            Work::ServerDataset(request) => {
                assert_eq!(request.endpoint.name(), "org/name at http://localhost:1/v1");
                assert_eq!((request.endpoint.concurrency, request.sampling.temperature), (9, 0.0));
                assert_eq!(request.endpoint.timeout, Duration::from_secs(5));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(of("--bench pope=p.tsv").unwrap(), Work::ServerBenchmarks { .. }));
        for (flags, said) in [
            ("--data d --max-pixels 784", "images are sent in the size they have"),
            ("--bench pope=p.tsv --min-pixels 784", "images are sent in the size they have"),
            ("--data d --baseline b", "compares weights"),
            ("--data d --baseline-results b --kl-prompts 0", "compares weights"),
            ("--data d --batch-size 3", "--batch-size"),
            ("--data d --device cuda", "--device"),
            ("--data d --dtype bf16", "--dtype"),
            ("--data d --concurrency 0", "--concurrency"),
            ("--data d --per-minute 0", "--per-minute"),
            ("--data d --per-minute 4294967296", "--per-minute"),
            ("--data d --timeout 0", "--timeout"),
            ("--data d --timeout 18446744073709551615", "--timeout"),
            ("--data d --concurrency 100000", "--concurrency"),
        ] {
            let error = of(flags).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{flags}: {error}");
        }
        let https = parse(&["--api", "https://x/v1", "--model", "m", "--data", "d", "--out", "o"]).unwrap();
        assert!(https.work().is_ok());
        let ftp = parse(&["--api", "ftp://x/v1", "--model", "m", "--data", "d", "--out", "o"]).unwrap();
        assert!(ftp.work().unwrap_err().to_string().starts_with("--api ftp://x/v1: no address of a chat API"));
        assert!(parse(&["--model", "m", "--data", "d", "--out", "o", "--concurrency", "2"]).is_err());
    }

    #[test]
    fn one_of_dataset_benchmarks_and_rescoring_is_named() {
        for flags in [
            &["--model", "m", "--out", "o"][..],
            &["--bench", "pope=p.tsv", "--out", "o"],
            &["--rescore", "--bench", "pope=p.tsv", "--out", "o"],
            &["--model", "m", "--data", "d", "--kl-prompts", "8", "--out", "o"],
            &["--rescore", "--model", "m", "--out", "o"],
            &["--rescore", "--fresh", "--out", "o"],
            &["--solver", "edges", "--out", "o"],
            &["--solver", "edges", "--model", "m", "--data", "d", "--out", "o"],
            &["--solver", "edges", "--bench", "pope=p.tsv", "--out", "o"],
            &["--model", "m", "--data", "d", "--solver-train", "t", "--out", "o"],
        ] {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
        let solver = parse(&["--solver", "colour", "--data", "d", "--out", "o"]).unwrap().work().unwrap();
        assert!(matches!(solver, Work::Solver(SolverEvalRequest { train, .. }) if train == std::path::Path::new("d")));
        let edges = ["--solver", "edges", "--solver-train", "t", "--data", "d", "--out", "o"];
        assert!(parse(&edges).unwrap().work().unwrap_err().to_string().contains("learns nothing"));
        assert!(matches!(parse(&["--rescore", "--out", "o"]).unwrap().work().unwrap(), Work::Rescore(_)));
        for (flags, named) in [
            (&["--model", "m", "--data", "d", "--bench", "pope=p.tsv", "--out", "o"][..], "--baseline"),
            (&["--model", "m", "n", "--data", "d", "--out", "o"], "--baseline"),
        ] {
            let error = parse(flags).unwrap().work().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(named), "{error}");
        }
        let benches =
            ["--model", "m", "--bench", "pope=p.tsv", "--bench", "x=q.tsv:vqa", "--split", "dev", "--out", "o"];
        match parse(&benches).unwrap().work().unwrap() {
            Work::Benchmarks { specs, settings, .. } => {
                let named: Vec<_> =
                    specs.iter().map(|s| (s.name.as_str(), s.kind.as_deref(), s.split.as_str())).collect();
                assert_eq!(named, [("pope", None, "dev"), ("x", Some("vqa"), "dev")]);
                assert_eq!((settings.max_new_tokens, settings.min_pixels), (None, None));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn with_a_base_the_dataset_is_the_new_task_and_models_may_be_several() {
        let flags = ["--model", "a", "b", "--baseline", "base", "--data", "d", "--bench", "pope=p.tsv", "--out", "o"];
        match parse(&flags).unwrap().work().unwrap() {
            Work::Comparison(request, _) => {
                assert_eq!(request.tuned, [PathBuf::from("a"), PathBuf::from("b")]);
                assert_eq!(request.new_task.unwrap().path, PathBuf::from("d"));
                assert_eq!((request.benchmarks.len(), request.prompts), (1, 64));
            }
            other => panic!("{other:?}"),
        }
        let flags =
            ["--model", "a", "--baseline-results", "r", "--kl-prompts", "0", "--bench", "pope=p.tsv", "--out", "o"];
        match parse(&flags).unwrap().work().unwrap() {
            Work::Comparison(request, _) => {
                assert_eq!((request.base, request.prompts, request.new_task), (None, 0, None));
                assert_eq!(request.base_results, Some(PathBuf::from("r")));
            }
            other => panic!("{other:?}"),
        }
    }
}
