//! One checkpoint on all prepared benchmarks.

use super::{Prepared, RESULTS_CSV, RESULTS_JSON, write_results};
use crate::eval::{Directory, Engine, EvalResult, Key, Progress, evaluate_in, hash_model, hash_prompt_files};
use crate::model::qwen2_5_vl::Model;
use crate::{Error, Result, files};
use candle_core::Device;
use std::path::Path;

/// Evaluate the checkpoint directory `model` on every prepared benchmark, or do what is left of it: `out/<name>/` for each,
/// then `results.json` and `results.csv` in `out`, written anew after every benchmark. What is finished is only read, and
/// the weights are loaded only if something is not.
///
/// # Errors
/// An input error, before the weights are loaded, if the benchmarks were prepared for other prompt files, or `out` holds
/// something else.
pub fn run(
    prepared: &[Prepared],
    model: &Path,
    device: &Device,
    out: &Path,
    fresh: bool,
    progress: &mut dyn FnMut(&str, Progress),
) -> Result<Vec<(String, EvalResult)>> {
    let prompt = hash_prompt_files(model)?;
    for bench in prepared {
        if bench.prompt_hash != prompt {
            return Err(Error::input(format!(
                "{}: the tokenizer, chat template or image settings are not those that {} was prepared for",
                model.display(),
                bench.name
            )));
        }
    }
    claim(out)?;
    let weights = hash_model(model)?;
    let mut directories = Vec::with_capacity(prepared.len());
    for bench in prepared {
        let key = Key::new(&weights, &prompt, bench.task(), &bench.plan, &bench.sampling)?;
        let key = Key { bench: Some(bench.protocol.clone()), ..key };
        directories.push(Directory::open(&out.join(&bench.name), key, model, &bench.path, &bench.split, fresh)?);
    }
    let mut loaded: Option<Model> = None;
    let mut results: Vec<(String, EvalResult)> = Vec::with_capacity(prepared.len());
    for (bench, mut directory) in prepared.iter().zip(directories) {
        let result = match directory.finished()? {
            Some(result) => result,
            None => {
                let policy = match &loaded {
                    Some(policy) => policy,
                    None => loaded.insert(Model::load_frozen(model, device)?),
                };
                let engine = Engine {
                    policy,
                    codec: &bench.processor,
                    task: bench.task(),
                    sampling: &bench.sampling,
                    samples: bench.plan.samples,
                };
                let generate = |examples| engine.generate(examples);
                evaluate_in(&mut directory, bench.task(), &bench.plan, generate, |p| progress(&bench.name, p))
                    .map_err(|e| e.context(&bench.name))?
            }
        };
        results.push((bench.name.clone(), result));
        write_results(out, &results)?;
    }
    Ok(results)
}

/// The directory over all benchmarks: it may hold evaluations and what is written over them, and no files of anything else.
fn claim(out: &Path) -> Result<()> {
    files::create_dir(out)?;
    let own = |name: &str| name == RESULTS_JSON || name == RESULTS_CSV || out.join(name).is_dir();
    if files::holds_foreign(out, own) {
        return Err(Error::input(format!(
            "{} holds something else than evaluations of benchmarks; give another --out",
            out.display()
        )));
    }
    Ok(())
}
