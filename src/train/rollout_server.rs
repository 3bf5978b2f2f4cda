//! Rollouts by serving engines (`rollout.server`): before each round the adapter is written and loaded there under a name of its own, and
//! what the servers answer is held against the model that trains before anything is learnt from it.
//!
//! Responses are kept in `rollout-server/` of the run directory as they arrive, in files named after the round that learns from them and the
//! adapter, whose name holds a checksum of its weights. They stay until a checkpoint has left their round behind. So a run that was interrupted takes them again in place of asking,
//! and ends with the same bytes even if the server would now answer otherwise.

use super::job::TrainJob;
use super::rollout_settings::{ServerSettings, server_rank};
use super::state::StepContext;
use crate::comm::Communicator;
use crate::io::files;
use crate::model::{LanguageModel, Sequence, all_reduce};
use crate::sampling::chat_api::api_key_from_env;
use crate::sampling::{AdapterResponder, AdapterServers, AdapterVersion, Prompts, Responder, Response, SampleOptions};
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the run directory keeps responses.
const RESPONSES: &str = "rollout-server";
/// Responses of each server that are held against the model.
const CHECKED: usize = 8;
/// Temperatures that a gap may come from.
const TEMPERATURES: [f32; 11] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5];

/// What is known of the servers from one round to the next.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    /// A server has answered.
    connected: bool,
    /// The adapter that they have.
    loaded: Option<AdapterVersion>,
}

/// The servers with the adapter of a round.
pub(super) struct RolloutServer<'a> {
    servers: AdapterServers<'a>,
    settings: ServerSettings<'a>,
    job: &'a TrainJob<'a>,
    dir: &'a Path,
    round: u64,
    /// The adapter as it is.
    version: AdapterVersion,
    /// Earlier ones, which sample the first prompts of this round and of those after it.
    earlier: Vec<AdapterVersion>,
}

/// A response that may be held against the model.
pub(super) struct Checked<'a> {
    /// It, with its prompt.
    pub sequence: Sequence,
    /// The log-probabilities that the server gave with it.
    pub logprobs: &'a [f32],
    /// The place of its prompt in the call that asked for it.
    pub place: usize,
}

impl ServerState {
    /// Write the adapter as it is now, have all servers load it, and unload the one before.
    ///
    /// # Errors
    /// An input error that says what to change if a server cannot load it; [`Error::Unavailable`] if a server that has answered before does
    /// not.
    pub fn sync<'a>(&mut self, ctx: &StepContext<'a>, settings: ServerSettings<'a>) -> Result<RolloutServer<'a>> {
        let (job, dir, round) = (ctx.job, ctx.dir, ctx.state.round);
        let servers = AdapterServers::new(settings.endpoints.clone(), api_key_from_env(), settings.timeout, job.stop)?;
        let (version, earlier) = on_root(job.comm, || {
            let version = write_version(job, dir, round, &settings)?;
            let earlier: Vec<AdapterVersion> =
                ctx.state.sampled_by.iter().map(|name| described(job, dir, &settings, name.clone())).collect();
            if self.loaded.as_ref() != Some(&version) {
                servers.load(&version).map_err(|e| match e {
                    Error::Unavailable(why) if !self.connected => {
                        Error::failed(format!("rollout.server: {why}; is it running? The same command continues"))
                    }
                    e => e,
                })?;
                self.connected = true;
                // The one before, and those of a call that was killed.
                for name in other_versions(&settings, dir, &|name| {
                    [&version].into_iter().chain(&earlier).any(|needed| needed.name == name)
                })? {
                    servers.unload(&name)?;
                    files::remove_if_exists(&adapter_dir(&settings, dir).join(name))?;
                }
                self.loaded = Some(version.clone());
            }
            files::create_dir(&dir.join(RESPONSES))?;
            Ok((version, earlier))
        })?;
        Ok(RolloutServer { servers, settings, job, dir, round, version, earlier })
    }

    /// Have all servers load the adapter again: one that was away may have forgotten it.
    pub fn forget(&mut self) {
        self.loaded = None;
    }
}

impl RolloutServer<'_> {
    /// `rollout.max_sampler_ratio`.
    pub fn max_ratio(&self) -> f64 {
        self.settings.max_ratio
    }

    /// `rollout.max_staleness`.
    pub fn max_staleness(&self) -> usize {
        self.settings.max_staleness
    }

    /// The name of the adapter that samples the first prompts of the round `distance` rounds after this one.
    pub fn adapter_of(&self, distance: usize) -> &str {
        &self.version_of(distance).name
    }

    fn version_of(&self, distance: usize) -> &AdapterVersion {
        self.earlier.get(distance).unwrap_or(&self.version)
    }

    /// Whether the adapter as it is has sampled the round, so that its responses can be held against the model.
    pub fn is_on_policy(&self) -> bool {
        self.earlier.is_empty()
    }

    /// Whether the first prompts of a round are sampled with the adapter as it is.
    pub fn is_by_current_adapter(&self, round: u64) -> bool {
        round.saturating_sub(self.round) as usize >= self.earlier.len()
    }

    /// What answers the first prompts of the round `distance` rounds after this one, on rank 0 alone.
    pub fn on_this_rank(&self, distance: usize) -> AdapterResponder<'_> {
        self.responder(distance, self.version_of(distance))
    }

    fn responder<'b>(&'b self, distance: usize, version: &'b AdapterVersion) -> AdapterResponder<'b> {
        let file = format!("{:08}-{}", self.round + distance as u64, version.name);
        self.servers.responder(version, self.job.encoder, self.dir.join(RESPONSES).join(file))
    }

    /// How many prompts a call should have for each server to answer enough of them.
    pub fn enough_to_check(&self) -> usize {
        CHECKED * self.settings.endpoints.len()
    }

    /// How far the servers' log-probabilities are from those of the model that trains, by the first of these responses of each server, which the
    /// adapter as it is has sampled: the mean
    /// of the differences over tokens, without their signs, in nats (TRL's `sampling_logp_difference/mean`).
    ///
    /// # Errors
    /// A failure that names the likely cause if that of one server is above `rollout.max_sampler_gap`, or if its tokens are rather those of the
    /// model without the adapter.
    pub fn verify(&self, answered: &[Checked<'_>], temperature: f32) -> Result<f64> {
        let (mut sum, mut tokens) = (0.0, 0);
        let endpoints = &self.settings.endpoints;
        for (number, endpoint) in endpoints.iter().enumerate() {
            let own = answered.iter().filter(|one| one.place % endpoints.len() == number).take(CHECKED);
            let sample = Sample::of(own, self.job.comm);
            let gap = sample.gap(self.job.model, temperature)?;
            if let Some(wrong) = self.fault(&endpoint.url, &sample, gap, temperature)? {
                // They are not to be taken again when the server has been put right.
                let dir = self.dir.join(RESPONSES);
                self.job.comm.on_root(|| remove_files(&dir, &|name| name.contains(&self.version.name)))?;
                return Err(Error::failed(wrong));
            }
            (sum, tokens) = (sum + gap * sample.logprobs.len() as f64, tokens + sample.logprobs.len());
        }
        Ok(sum / tokens.max(1) as f64)
    }

    /// What is wrong, if a gap is too large, or much larger than that of the model without the adapter or before the temperature.
    fn fault(&self, url: &str, sample: &Sample<'_>, gap: f64, temperature: f32) -> Result<Option<String>> {
        let (model, most) = (self.job.model, self.settings.max_gap);
        // Below this, the adapter has changed too little to tell.
        if gap <= most / 10.0 {
            return Ok(None);
        }
        let explains = |other: f64| 2.0 * other < gap;
        let without =
            self.job.reference.map(|base| sample.gap(base, temperature)).transpose()?.unwrap_or(f64::INFINITY);
        let others: &[f32] = if gap > most { &TEMPERATURES } else { &[1.0] };
        let mut best = (gap, temperature);
        for &other in others.iter().filter(|other| **other != temperature && !explains(without)) {
            let gap = sample.gap(model, other)?;
            best = if gap < best.0 { (gap, other) } else { best };
        }
        let cause = if explains(without) {
            format!(
                "they are those of the model without the adapter ({without:.4} from it): the server ignores the adapter. Start it with \
                 --enable-lora, and compare the names in adapter_model.safetensors with what it loads"
            )
        } else if explains(best.0) {
            format!(
                "they are those of temperature {} ({:.4} from them), and rollout.temperature is {temperature}: other sampling defaults, or \
                 log-probabilities before the temperature. Start vLLM with --logprobs-mode processed_logprobs --generation-config vllm",
                best.1, best.0
            )
        } else if gap > most {
            "likely causes: another model, or one that is quantised; a stale cache (try --no-enable-prefix-caching); sampling settings of its \
             own (--logprobs-mode processed_logprobs --generation-config vllm)"
                .into()
        } else {
            return Ok(None);
        };
        Ok(Some(format!(
            "{url}: its log-probabilities of {} tokens differ from those of the model that trains by {gap:.4} nats on average \
             (rollout.max_sampler_gap is {most}) with the adapter {}: {cause}. Nothing was learnt from its responses",
            sample.logprobs.len(),
            self.version.name
        )))
    }
}

impl Responder for RolloutServer<'_> {
    /// Rank 0 asks, and all ranks get the responses. The first draw of a round is that of an earlier adapter, where one samples it.
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>> {
        let distance = options.stream.1.first().map_or(0, |round| round.saturating_sub(self.round)) as usize;
        let is_first = options.stream.1.get(1) == Some(&0);
        let version = if is_first { self.version_of(distance) } else { &self.version };
        let responder = self.responder(distance, version);
        on_root(self.job.comm, || responder.respond(prompts, options))
    }
}

/// Tokens with the log-probabilities that a server gave.
struct Sample<'a> {
    comm: &'a dyn Communicator,
    sequences: Vec<Sequence>,
    logprobs: Vec<f32>,
}

impl<'a> Sample<'a> {
    fn of<'c>(checked: impl Iterator<Item = &'c Checked<'c>>, comm: &'a dyn Communicator) -> Sample<'a> {
        let mut sample = Sample { comm, sequences: Vec::new(), logprobs: Vec::new() };
        for checked in checked {
            sample.sequences.push(checked.sequence.clone());
            sample.logprobs.extend_from_slice(checked.logprobs);
        }
        sample
    }

    /// The mean absolute difference from what `model` says of the tokens, in nats; computed on all ranks.
    fn gap(&self, model: &dyn LanguageModel, temperature: f32) -> Result<f64> {
        if self.sequences.is_empty() {
            return Ok(0.0);
        }
        let here = all_reduce::score(self.comm, model, &self.sequences, temperature)?;
        let difference = |(here, there): (&f32, &f32)| (f64::from(*here) - f64::from(*there)).abs();
        Ok(here.iter().zip(&self.logprobs).map(difference).sum::<f64>() / self.logprobs.len().max(1) as f64)
    }
}

/// What `work` comes to on rank 0, on every rank; that a server is away too.
fn on_root<T: Serialize + DeserializeOwned>(comm: &dyn Communicator, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = comm.on_root(|| match work() {
        Err(Error::Unavailable(why)) => Ok(Err(why)),
        other => other.map(Ok),
    })?;
    outcome.map_err(Error::Unavailable)
}

/// Where adapters are written.
fn adapter_dir(settings: &ServerSettings<'_>, run: &Path) -> PathBuf {
    settings.adapter_dir.map_or_else(|| run.join("adapters"), PathBuf::from)
}

/// How the names of a run's adapters begin. Another run may use the same server.
fn prefix(run: &Path) -> String {
    format!("jigsaw-{:08x}-", crc32fast::hash(files::absolute(run).as_os_str().as_encoded_bytes()))
}

/// Write the adapter, whole or not at all, into a directory that is named after it.
fn write_version(job: &TrainJob<'_>, run: &Path, round: u64, settings: &ServerSettings<'_>) -> Result<AdapterVersion> {
    let dir = adapter_dir(settings, run);
    let partial = dir.join(format!(".partial-{}", prefix(run)));
    files::remove_if_exists(&partial)?;
    files::create_dir(&partial)?;
    job.model.save_weights(&partial)?;
    let failed = |e: &dyn std::fmt::Display| Error::failed(format!("cannot write {}: {e}", dir.display()));
    let mut checksum = crc32fast::Hasher::new();
    for entry in walkdir::WalkDir::new(&partial).sort_by_file_name() {
        let entry = entry.map_err(|e| failed(&e))?;
        if entry.file_type().is_file() {
            checksum.update(&files::read(entry.path())?);
        }
    }
    let name = format!("{}{round:08}-{:08x}", prefix(run), checksum.finalize());
    let whole = dir.join(&name);
    files::remove_if_exists(&whole)?;
    fs::rename(&partial, &whole).map_err(|e| failed(&e))?;
    Ok(described(job, run, settings, name))
}

/// The version of this name, as the servers see it.
fn described(job: &TrainJob<'_>, run: &Path, settings: &ServerSettings<'_>, name: String) -> AdapterVersion {
    let path = match settings.adapter_dir_on_server {
        Some(there) => Path::new(there).join(&name),
        None => files::absolute(&adapter_dir(settings, run).join(&name)),
    };
    let rank = server_rank(job.config.lora.as_ref().map_or(0, |lora| lora.rank));
    AdapterVersion { name, path, rank }
}

/// Names of the run's adapters that are not needed.
fn other_versions(settings: &ServerSettings<'_>, run: &Path, is_needed: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let dir = adapter_dir(settings, run);
    let unreadable = |e: std::io::Error| Error::failed(format!("cannot read {}: {e}", dir.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix(run)) && !is_needed(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Remove the responses of rounds before `round`, which a checkpoint has left behind.
///
/// # Errors
/// A failure to remove a file.
pub(super) fn forget_rounds_before(run: &Path, round: u64) -> Result<()> {
    let of = |name: &str| name.split('-').next().and_then(|of| of.parse::<u64>().ok());
    remove_files(&run.join(RESPONSES), &|name| of(name).is_some_and(|of| of < round))
}

/// Remove the files of a directory that have such a name.
fn remove_files(dir: &Path, is_one: &dyn Fn(&str) -> bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    let gone = entries.flatten().filter(|entry| is_one(&entry.file_name().to_string_lossy()));
    gone.into_iter().try_for_each(|entry| files::remove_if_exists(&entry.path()))
}
