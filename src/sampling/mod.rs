//! Scored responses to the prompts of a task: one function, [`sample`], for rollouts, evaluation, on-policy training, training dynamics
//! and divergence.
//!
//! A [`Responder`] answers: a model on this machine ([`LocalModel`]), one behind a server ([`chat_api::ChatClient`]), or servers that have
//! the adapter that trains ([`AdapterServers`]). The task scores,
//! so that reward and accuracy cannot disagree. [`sample_task`] runs a whole task batch by batch; [`ResponseLog`] keeps the responses
//! on disk, so that an interrupted run continues.

mod adapter_servers;
mod batch;
pub mod chat_api;
mod eval_key;
mod example_hash;
mod local;
mod responder;
mod response;
mod response_log;
pub mod rollout;
mod sample_task;
pub mod sampling_flags;
mod summary;

pub use adapter_servers::{AdapterResponder, AdapterServers, AdapterVersion};
pub use batch::{sample, sample_in_batches};
pub use eval_key::{SamplingKey, checkpoint_key};
pub use example_hash::{hash_examples, hash_prompt};
pub use local::LocalModel;
#[cfg(test)]
pub(crate) use responder::from_fn;
pub use responder::{Prompts, Responder, SampleOptions};
pub use response::{Response, ScoredResponse};
pub use response_log::{LoggedResponse, ResponseLog};
pub use sample_task::{BATCH_SIZE, SamplePlan, SampleProgress, sample_task};
pub(crate) use sample_task::{generated_tokens, progress_of, run};
pub use summary::{Category, Summary};
