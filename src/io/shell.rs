//! Commands of the user's, run by the shell beside a run.

use std::process::{Child, Command};

/// A shell that will run `command` in a process group of its own: Ctrl-C ends the run, which then ends the command.
pub fn shell(command: &str) -> Command {
    #[cfg(unix)]
    let (mut shell, flag) = (Command::new("sh"), "-c");
    #[cfg(not(unix))]
    let (mut shell, flag) = (Command::new("cmd"), "/C");
    shell.args([flag, command]);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell
}

/// End a command with all that it has started.
pub fn end(child: &mut Child) {
    #[cfg(unix)]
    let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(child), rustix::process::Signal::KILL);
    let _ = child.kill();
    let _ = child.wait();
}
