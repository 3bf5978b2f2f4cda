//! The model, its losses and its training, against recorded references and against themselves.

#[path = "../command/mod.rs"]
mod command;
#[path = "../common/mod.rs"]
mod common;
#[path = "../run_files/mod.rs"]
mod run_files;
#[path = "../served/mod.rs"]
mod served;
#[path = "../toy/mod.rs"]
mod toy;

mod bf16_parity;
mod divergence;
mod dynamics_parity;
mod gguf;
mod lora;
mod model_parity;
mod processor_parity;
mod ranks;
mod rollout_server;
mod sft_parity;
mod shards;
mod text_reference;
mod train;
mod train_model;
mod train_parity;
