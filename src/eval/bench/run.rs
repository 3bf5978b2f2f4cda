//! One checkpoint, or one server, on all prepared benchmarks.

use super::{PreparedBenchmark, RESULTS_CSV, RESULTS_JSON, write_results};
use crate::comm::Communicator;
use crate::eval::evaluate_api::{Questions, Server};
use crate::eval::{EvalDir, EvalResult, evaluate_in, predict_in};
use crate::io::lock::LockFile;
use crate::io::output_dir::{self, Growing};
use crate::model::{Model, ModelLoader, hash_model, hash_prompt_files};
use crate::sampling::chat_api::{Endpoint, Note, TokenUsage};
use crate::sampling::{LocalModel, SampleProgress, SamplingKey};
use crate::{Error, Result};
use std::path::Path;

/// Evaluate the checkpoint directory `model` on every prepared benchmark, or on what is left: `out/<name>/` for each,
/// then `results.json` and `results.csv` in `out`, written again after every benchmark. A benchmark without answers has a file of predictions
/// and no result. What is finished is only read, and
/// the weights are loaded only if something is not. Every rank calls it; one that gets an error must end the others ([`Communicator::abort`]).
///
/// # Errors
/// An input error, before the weights are loaded, if the benchmarks were prepared for other prompt files, or `out` holds
/// something else.
pub fn run(
    prepared: &[PreparedBenchmark],
    model: &Path,
    (loader, comm): (&ModelLoader, &dyn Communicator),
    out: &Path,
    fresh: bool,
    progress: &mut dyn FnMut(&str, SampleProgress),
) -> Result<Vec<(String, EvalResult)>> {
    let prompt = hash_prompt_files(model)?;
    for bench in prepared {
        if bench.reader()?.prompt_hash != prompt {
            return Err(Error::input(format!(
                "{}: the tokenizer, chat template or image settings are not those that {} was prepared for",
                model.display(),
                bench.name
            )));
        }
    }
    let _lock = comm.root_alone(|| claim(out))?;
    let weights = hash_model(model)?;
    let mut keys = Vec::with_capacity(prepared.len());
    for bench in prepared {
        let key = SamplingKey::new(&weights, &prompt, bench.task(), &bench.plan, &bench.sampling)?;
        let key = SamplingKey { bench: Some(bench.protocol.clone()), dtype: loader.compute(), ..key };
        key.check_ranks(comm, &bench.plan, loader).map_err(|e| e.context(&bench.name))?;
        keys.push(key);
    }
    let mut directories = Vec::with_capacity(prepared.len());
    for (bench, key) in prepared.iter().zip(keys) {
        let data = (bench.path.as_path(), bench.split.as_str());
        directories.push(EvalDir::open(&out.join(&bench.name), key, model, data, fresh, comm)?);
    }
    let mut loaded: Option<Model> = None;
    let mut results: Vec<(String, EvalResult)> = Vec::with_capacity(prepared.len());
    for (bench, directory) in prepared.iter().zip(directories) {
        let result = match directory.finished()? {
            Some(result) => result,
            None if directory.has_predictions()? => continue,
            None => {
                let policy = match &loaded {
                    Some(policy) => policy,
                    None => loaded.insert(loader.frozen(model)?),
                };
                let responder = LocalModel::new(policy, bench.codec()?);
                let (task, progress) = (bench.task(), |p| progress(&bench.name, p));
                let named = |e: Error| e.context(&bench.name);
                if let Some(table) = &bench.predictions {
                    predict_in(&directory, &responder, (task, table), &bench.plan, &bench.sampling, progress)
                        .map_err(named)?;
                    continue;
                }
                evaluate_in(&directory, &responder, task, &bench.plan, &bench.sampling, progress).map_err(named)?
            }
        };
        results.push((bench.name.clone(), result));
        comm.on_root(|| write_results(out, &results))?;
    }
    Ok(results)
}

/// As [`run`], with the answers of the model behind `endpoint`; `key` is the API key, if the server needs one; `note` receives a message for each long pause.
/// Also the tokens that it counts, over all that is in `out`.
///
/// # Errors
/// An input error if `out` holds something else or the server refuses; a failure if it does not answer. What has been answered by then
/// is kept.
pub fn run_server(
    prepared: &[PreparedBenchmark],
    endpoint: &Endpoint,
    key: Option<String>,
    note: Note<'_>,
    out: &Path,
    fresh: bool,
    progress: &mut dyn FnMut(&str, SampleProgress),
) -> Result<(Vec<(String, EvalResult)>, TokenUsage)> {
    let _lock = claim(out)?;
    let server = Server { endpoint, key: &key, note };
    let mut directories = Vec::with_capacity(prepared.len());
    for bench in prepared {
        let (place, protocol) = ((bench.path.as_path(), bench.split.as_str()), Some(bench.protocol.clone()));
        let dir = out.join(&bench.name);
        directories.push(server.open(&dir, &bench.questions(), protocol, place, fresh)?);
    }
    let mut results: Vec<(String, EvalResult)> = Vec::with_capacity(prepared.len());
    let mut usage = TokenUsage::default();
    for (bench, directory) in prepared.iter().zip(directories) {
        let (result, tokens) = server
            .evaluate(directory, &bench.questions(), |p| progress(&bench.name, p))
            .map_err(|e| e.context(&bench.name))?;
        usage += tokens;
        if let Some(result) = result {
            results.push((bench.name.clone(), result));
            write_results(out, &results)?;
        }
    }
    Ok((results, usage))
}

impl PreparedBenchmark {
    fn questions(&self) -> Questions<'_> {
        let (task, predictions) = (self.task(), self.predictions.as_ref());
        Questions { task, predictions, plan: &self.plan, sampling: &self.sampling }
    }
}

/// Lock the directory over all benchmarks: it may hold evaluations and what is written over them, and no files of anything else.
fn claim(out: &Path) -> Result<LockFile> {
    let own = |name: &str| name == RESULTS_JSON || name == RESULTS_CSV || out.join(name).is_dir();
    let content = Growing { what: "evaluations of benchmarks", doing: "evaluating", mark: None, own: &own };
    output_dir::open(out, &content)
}
