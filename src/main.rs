//! Parse, dispatch, exit code: nothing else.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: jigsaw::alloc::Caching = jigsaw::alloc::Caching::new();

fn main() -> ExitCode {
    jigsaw::cli::run()
}
