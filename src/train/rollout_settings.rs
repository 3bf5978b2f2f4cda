//! `[rollout]`: how responses are sampled, by the model that trains or by a serving engine.

use crate::model::SamplingParams;
use crate::sampling::chat_api::{Endpoint, INITIAL_BACKOFF, ServerUrls};
use crate::sampling::sampling_flags::LONGEST_TIMEOUT;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[rollout]`: how responses are sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSettings {
    /// Responses to each prompt (the group).
    #[schemars(extend("trl" = "num_generations"))]
    pub num_generations: usize,
    /// Prompts generated for at a time; 0 for all of a rollout batch together (in SFT, as many as a step has examples).
    pub batch_size: usize,
    /// Longest response in tokens.
    #[schemars(extend("trl" = "max_completion_length"))]
    pub max_new_tokens: usize,
    /// Softmax temperature, for sampling and for the log-probabilities of the loss alike.
    #[schemars(extend("trl" = "temperature"))]
    pub temperature: f32,
    /// Nucleus sampling; 1 for off. The loss uses the whole distribution whatever this is, as TRL does.
    #[schemars(extend("trl" = "top_p"))]
    pub top_p: f32,
    /// Only the k likeliest tokens; 0 for off.
    #[schemars(extend("trl" = "top_k"))]
    pub top_k: usize,
    /// Texts that end a response, each a part of it, as in transformers' `stop_strings`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Write every response that is trained on to `rollouts.jsonl`, with its tokens, log-probabilities, rewards and advantage.
    #[schemars(extend("trl" = "log_completions"))]
    pub log_completions: bool,
    /// Sample from serving engines in place of the model that trains: an address such as `http://localhost:8000`, or a list of them. RFT with
    /// [lora] only; every new version of the adapter is loaded there (docs/scaling.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "vllm_server_base_url"))]
    pub server: Option<ServerUrls>,
    /// Directory that adapters are written to for `server`, which must see it; `adapters` in the run directory when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_dir: Option<String>,
    /// The path under which `server` sees `adapter_dir`; the same path when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_dir_on_server: Option<String>,
    /// Seconds to wait for a response of `server`, and for a server that does not answer before the run pauses; 300 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "vllm_server_timeout"))]
    pub server_timeout: Option<f64>,
    /// The run stops if the log-probabilities of `server` differ from those of the model that trains by more than this, on average over tokens,
    /// in nats; 0.1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sampler_gap: Option<f64>,
    /// Importance weights that correct for `server` are cut off here; 3 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "vllm_importance_sampling_clip_max"))]
    pub max_sampler_ratio: Option<f64>,
    /// Rounds that `server` samples ahead of the one that trains, each with the adapter as it is then: 0 (when not given) is exactly on-policy;
    /// at 1 the next round is sampled while the current one trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("trl" = "max_staleness"))]
    pub max_staleness: Option<usize>,
}

impl RolloutSettings {
    /// How tokens are chosen, in a run with this seed.
    pub fn sampling(&self, seed: u64) -> SamplingParams {
        let RolloutSettings { max_new_tokens, temperature, top_p, top_k, .. } = *self;
        SamplingParams { max_new_tokens, temperature, top_p, top_k, stop: self.stop.clone(), seed }
    }
}

impl Default for RolloutSettings {
    fn default() -> Self {
        RolloutSettings {
            num_generations: 8,
            batch_size: 0,
            max_new_tokens: 512,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            stop: Vec::new(),
            log_completions: false,
            server: None,
            adapter_dir: None,
            adapter_dir_on_server: None,
            server_timeout: None,
            max_sampler_gap: None,
            max_sampler_ratio: None,
            max_staleness: None,
        }
    }
}

/// Ranks that vLLM takes as its `--max-lora-rank` (`MaxLoRARanks` in `vllm/config/lora.py`). It serves adapters of any rank up to that.
pub const SERVER_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];
/// Largest `rollout.max_staleness`: each round ahead has a thread and an adapter on the servers.
const MOST_STALE: usize = 16;
/// Requests under way at once to each server.
const CONCURRENCY: usize = 64;

/// `rollout.server` with the settings that go with it, all of them resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings<'a> {
    /// The servers, each with an address that ends in `/v1`. The model is the adapter's name, which is still to be filled in.
    pub endpoints: Vec<Endpoint>,
    /// `rollout.adapter_dir`; none for a directory of the run.
    pub adapter_dir: Option<&'a str>,
    /// `rollout.adapter_dir_on_server`; none for the same path.
    pub adapter_dir_on_server: Option<&'a str>,
    /// `rollout.server_timeout`.
    pub timeout: Duration,
    /// `rollout.max_staleness`.
    pub max_staleness: usize,
    /// `rollout.max_sampler_gap`.
    pub max_gap: f64,
    /// `rollout.max_sampler_ratio`.
    pub max_ratio: f64,
}

/// Defaults of the settings that a server has.
pub const SERVER_TIMEOUT: f64 = 300.0;
/// Well above what bf16 does to log-probabilities (some hundredths), well below what another temperature does.
pub const MAX_SAMPLER_GAP: f64 = 0.1;
/// TRL's `vllm_importance_sampling_clip_max`.
pub const MAX_SAMPLER_RATIO: f64 = 3.0;

impl RolloutSettings {
    /// The server that samples, if it is not the model that trains.
    pub fn server_settings(&self) -> Option<ServerSettings<'_>> {
        let timeout = Duration::try_from_secs_f64(self.server_timeout.unwrap_or(SERVER_TIMEOUT)).unwrap_or_default();
        let endpoint = |url: &String| Endpoint {
            url: format!("{}/v1", url.trim_end_matches('/').trim_end_matches("/v1")),
            model: String::new(),
            concurrency: CONCURRENCY,
            per_minute: None,
            retries: usize::MAX,
            backoff: INITIAL_BACKOFF.min(timeout / 8),
            timeout,
        };
        Some(ServerSettings {
            endpoints: self.server.as_ref()?.all().iter().map(endpoint).collect(),
            adapter_dir: self.adapter_dir.as_deref(),
            adapter_dir_on_server: self.adapter_dir_on_server.as_deref(),
            timeout,
            max_staleness: self.max_staleness.unwrap_or(0),
            max_gap: self.max_sampler_gap.unwrap_or(MAX_SAMPLER_GAP),
            max_ratio: self.max_sampler_ratio.unwrap_or(MAX_SAMPLER_RATIO),
        })
    }

    /// Fill in the settings that a server has.
    pub(super) fn complete(&mut self) {
        if self.server.is_some() {
            self.server_timeout.get_or_insert(SERVER_TIMEOUT);
            self.max_sampler_gap.get_or_insert(MAX_SAMPLER_GAP);
            self.max_sampler_ratio.get_or_insert(MAX_SAMPLER_RATIO);
            self.max_staleness.get_or_insert(0);
        }
    }

    /// Refuse a server that cannot be asked, and settings of a server where there is none. `rank` is that of the adapter, if one trains;
    /// `dynamic_sampling` that of RFT, if it is the method.
    ///
    /// # Errors
    /// An input error that names the key.
    pub(crate) fn check_server(&self, dynamic_sampling: Option<usize>, rank: Option<usize>) -> Result<()> {
        let bad = |text: String| Err(Error::input(text));
        let Some(urls) = &self.server else {
            let written = [
                ("adapter_dir", self.adapter_dir.is_some()),
                ("adapter_dir_on_server", self.adapter_dir_on_server.is_some()),
                ("server_timeout", self.server_timeout.is_some()),
                ("max_sampler_gap", self.max_sampler_gap.is_some()),
                ("max_sampler_ratio", self.max_sampler_ratio.is_some()),
                ("max_staleness", self.max_staleness.is_some()),
            ];
            return written.into_iter().find(|(_, written)| *written).map_or(Ok(()), |(key, _)| {
                bad(format!("rollout.{key} has no effect without rollout.server; remove it"))
            });
        };
        let Some(dynamic_sampling) = dynamic_sampling else {
            return bad("rollout.server needs train.method = \"rft\": on-policy SFT samples from the model that trains; remove it".into());
        };
        let Some(rank) = rank else {
            return bad(
                "rollout.server needs a section [lora]: a server is given each new version as an adapter, and full weights are not sent; \
                 write lora.rank = 16, or remove rollout.server"
                    .into(),
            );
        };
        let most = SERVER_RANKS[SERVER_RANKS.len() - 1];
        if rank > most {
            return bad(format!(
                "lora.rank = {rank}: must be at most {most} with rollout.server, the largest --max-lora-rank of vLLM"
            ));
        }
        if urls.all().is_empty() {
            return bad("rollout.server names no address; write rollout.server = \"http://HOST:PORT\"".into());
        }
        for (i, endpoint) in self.server_settings().iter().flat_map(|server| &server.endpoints).enumerate() {
            endpoint.check("rollout.server")?;
            if self.server_settings().is_some_and(|server| server.endpoints[..i].iter().any(|e| e.url == endpoint.url))
            {
                return bad(format!("rollout.server names {} twice", endpoint.url));
            }
        }
        if self.top_p < 1.0 || self.top_k > 0 {
            return bad(
                "rollout.top_p and rollout.top_k cannot be combined with rollout.server: its log-probabilities would be those of the tokens \
                 that are left, and the loss uses the whole distribution; remove them"
                    .into(),
            );
        }
        if self.adapter_dir_on_server.is_some() && self.adapter_dir.is_none() {
            return bad(
                "rollout.adapter_dir_on_server needs rollout.adapter_dir, the path of the same directory here".into()
            );
        }
        for (key, path) in [("adapter_dir", &self.adapter_dir), ("adapter_dir_on_server", &self.adapter_dir_on_server)]
        {
            if path.as_ref().is_some_and(|path| path.trim().is_empty()) {
                return bad(format!("rollout.{key} is empty; name a directory, or remove it"));
            }
        }
        let timeout = self.server_timeout.unwrap_or(SERVER_TIMEOUT);
        if !(timeout > 0.0 && timeout <= LONGEST_TIMEOUT as f64) {
            return bad(format!(
                "rollout.server_timeout = {timeout}: must be above 0 and at most {LONGEST_TIMEOUT} seconds, a day"
            ));
        }
        let gap = self.max_sampler_gap.unwrap_or(MAX_SAMPLER_GAP);
        if !(gap > 0.0 && gap.is_finite()) {
            return bad(format!("rollout.max_sampler_gap = {gap}: must be above 0"));
        }
        let ratio = self.max_sampler_ratio.unwrap_or(MAX_SAMPLER_RATIO);
        if !(ratio >= 1.0 && ratio.is_finite()) {
            return bad(format!(
                "rollout.max_sampler_ratio = {ratio}: must be at least 1 (at 1, no token weighs more than on-policy)"
            ));
        }
        let staleness = self.max_staleness.unwrap_or(0);
        if staleness > MOST_STALE {
            return bad(format!(
                "rollout.max_staleness = {staleness}: must be at most {MOST_STALE}; at 0 every round is sampled with the current adapter"
            ));
        }
        if staleness > 1 && dynamic_sampling > 0 {
            return bad(format!(
                "rollout.max_staleness = {staleness} cannot be combined with grpo.dynamic_sampling: which prompts the rounds after the next begin \
                 with would depend on how many it replaces; set one of them to 0, or rollout.max_staleness = 1"
            ));
        }
        Ok(())
    }
}

/// The `--max-lora-rank` with which vLLM serves adapters of this rank.
pub fn server_rank(rank: usize) -> usize {
    SERVER_RANKS.into_iter().find(|served| *served >= rank).unwrap_or(rank)
}
