//! The plan's reading, and a whole study of a handful of steps.

use super::*;

const TINY: &str = r#"
[study]
title = "A study of a handful of steps"
[gen]
grid = "1x2"
count = 40
seed = 3
split = "6,2,2"
[start.train]
steps = 2
batch_size = 4
lr = 1e-3
[start.eval]
every = 0
[sft.train]
steps = 2
batch_size = 4
[sft.eval]
every = 1
samples = 4
max_new_tokens = 8
[rft.train]
steps = 1
batch_size = 2
[rft.rollout]
samples = 2
max_new_tokens = 8
[rft.eval]
every = 0
[eval]
max_new_tokens = 8
"#;

fn plan(sets: &[&str]) -> Result<Plan> {
    Plan::from_text("study.toml", TINY, &sets.iter().map(|s| s.to_string()).collect::<Vec<_>>())
}

#[test]
fn a_resolved_plan_holds_every_stage_and_reads_back_the_same() {
    let plan = plan(&["rft.train.lr=2e-5", "gen.count=50"]).unwrap();
    assert_eq!((plan.rft.train.lr, plan.gen_.count), (2e-5, 50));
    assert!(plan.sft.grpo.is_none() && plan.rft.grpo.is_some());
    let text = plan.to_toml().unwrap();
    assert_eq!(Plan::from_text("again", &text, &[]).unwrap(), plan, "{text}");
}

#[test]
fn keys_that_do_not_exist_or_do_not_fit_are_refused_by_name() {
    for (set, named) in [
        ("sft.train.lrr=1", "sft.train.lr"),
        ("gen.gird=2x2", "gen.grid"),
        ("stduy.title=x", "study"),
        ("sft.rollout.samples=4", "rollout.samples"),
        ("sft.train.method=rft", "method"),
        ("model.preset=huge", "tiny"),
        ("eval.batch=0", "eval.batch"),
        ("gen.split=1,0,0", "gen.split"),
        ("gen.grid=1x1", "grid"),
    ] {
        let error = plan(&[set]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{set}");
        assert!(error.to_string().contains(named), "{set}: {error}");
    }
}

#[test]
fn the_quickstart_is_a_plan() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.toml");
    Plan::resolve(&file, &[]).unwrap();
}

#[derive(Default)]
struct Counting {
    stages: Vec<String>,
    puzzles: std::sync::atomic::AtomicUsize,
    steps: usize,
    evaluated: Vec<String>,
}

struct Steps<'a>(&'a mut usize);

impl train::Progress for Steps<'_> {
    fn start(&mut self, _step: usize, _total: usize) {}
    fn step(&mut self, _step: usize, _metrics: &train::metrics::Metrics) {
        *self.0 += 1;
    }
    fn evaluation(&mut self, _step: usize, _metrics: &train::metrics::Metrics) {}
    fn note(&mut self, _text: &str) {}
}

impl Progress for Counting {
    fn stage(&mut self, number: usize, of: usize, what: &str) {
        self.stages.push(format!("{number}/{of} {what}"));
    }
    fn puzzles(&mut self, _total: usize) -> Box<dyn Fn() + Sync + '_> {
        Box::new(|| {
            self.puzzles.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })
    }
    fn training(&mut self) -> Box<dyn train::Progress + Send + '_> {
        Box::new(Steps(&mut self.steps))
    }
    fn evaluating(&mut self, _progress: eval::Progress) {}
    fn result(&mut self, name: &str, result: &EvalResult) {
        self.evaluated.push(format!("{name} {}", result.summary.examples));
    }
}

#[test]
fn a_study_runs_through_and_a_second_call_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    let mut plan = plan(&[]).unwrap();
    plan.gen_.images = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    let call = |plan: &Plan, stopped: bool| {
        let mut counting = Counting::default();
        let outcome = run(plan, &out, &Device::Cpu, &[], &AtomicBool::new(stopped), &mut counting);
        (outcome, counting)
    };
    let (outcome, first) = call(&plan, true);
    assert_eq!(outcome.unwrap(), Outcome::Stopped("start".into()));
    assert_eq!((first.puzzles.into_inner(), first.steps), (40, 0));

    let (outcome, second) = call(&plan, false);
    assert_eq!(outcome.unwrap(), Outcome::Finished(out.join("report.html")));
    assert_eq!(second.puzzles.into_inner(), 0, "the puzzles were there");
    assert_eq!(second.steps, 2 + 2 + 1);
    assert_eq!(second.evaluated, ["start 8", "sft 8", "rft 8"]);
    assert_eq!(second.stages.first().unwrap(), "1/9 puzzles");
    assert_eq!(second.stages.last().unwrap(), "9/9 report");
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("A study of a handful of steps") && html.contains("3 training runs and 3 evaluations"));

    let (outcome, third) = call(&plan, false);
    assert!(outcome.is_ok());
    assert_eq!((third.steps, third.evaluated.len()), (0, 3));
    let (outcome, fourth) = call(&plan, true);
    assert_eq!((outcome.unwrap(), fourth.evaluated.len()), (Outcome::Stopped("evaluation: start".into()), 0));

    plan.rft.train.lr *= 2.0;
    let error = call(&plan, false).0.unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("rft.train.lr"), "{error}");
}
