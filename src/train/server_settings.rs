//! `rollout.server` and what belongs to it: responses that a serving engine samples.

use super::settings::RolloutSettings;
use crate::sampling::chat_api::{Endpoint, INITIAL_BACKOFF};
use crate::sampling::sampling_flags::LONGEST_TIMEOUT;
use crate::{Error, Result};
use std::time::Duration;

/// Ranks that vLLM takes as its `--max-lora-rank` (`MaxLoRARanks` in `vllm/config/lora.py`). It serves adapters of any rank up to that.
pub const SERVER_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];
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
    /// `rollout.max_staleness` is 1: the next round is sampled while the current one trains.
    pub ahead: bool,
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
            ahead: self.max_staleness.unwrap_or(0) > 0,
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
    /// `rft` says whether the method is RFT.
    ///
    /// # Errors
    /// An input error that names the key.
    pub(crate) fn check_server(&self, rft: bool, rank: Option<usize>) -> Result<()> {
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
        if !rft {
            return bad("rollout.server needs train.method = \"rft\": on-policy SFT samples from the model that trains; remove it".into());
        }
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
        match self.max_staleness.unwrap_or(0) {
            0 | 1 => Ok(()),
            more => bad(format!(
                "rollout.max_staleness = {more}: must be 0, for responses of the current adapter, or 1, to sample the next round while the \
                 current one trains"
            )),
        }
    }
}

/// The `--max-lora-rank` with which vLLM serves adapters of this rank.
pub fn server_rank(rank: usize) -> usize {
    SERVER_RANKS.into_iter().find(|served| *served >= rank).unwrap_or(rank)
}
