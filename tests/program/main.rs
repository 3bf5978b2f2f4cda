//! The program as a user runs it, and the data that it makes.

#[path = "../command/mod.rs"]
mod command;
#[path = "../http/mod.rs"]
mod http;
#[path = "../hub_server/mod.rs"]
mod hub_server;
#[cfg(feature = "mpi")]
#[path = "../run_files/mod.rs"]
mod run_files;

mod api;
mod bad_checkpoints;
mod bench;
mod countdown;
mod datasets;
mod eval_and_score;
mod forgetting;
mod gen_bad_images;
mod hostile;
mod hub;
mod kills;
mod large_numbers;
mod maths;
mod messages;
mod mistakes;
#[cfg(feature = "mpi")]
mod mpi;
mod other_tools;
mod sequence;
#[cfg(target_os = "linux")]
mod slurm;
mod special_files;
mod stopping;
mod streams;
mod study;
mod text_model;
#[cfg(unix)]
mod trackers;
mod vision_families;
#[cfg(unix)]
mod watch;
