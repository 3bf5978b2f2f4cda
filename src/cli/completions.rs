//! `jigsaw completions`: completion scripts for shells.

use super::output::print;
use crate::Result;

/// Print a completion script for a shell.
///
/// bash: jigsaw completions bash > ~/.local/share/bash-completion/completions/jigsaw
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl CompletionsArgs {
    /// Print the script for this command line on stdout.
    pub fn run(self, mut command: clap::Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "jigsaw", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
