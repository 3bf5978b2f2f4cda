//! The process that a rank is.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// What a rank must know of another to name it and to see that it has ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Process {
    pub host: String,
    /// The process id, and the namespace in which it is one.
    pub id: u32,
    namespace: String,
}

impl Process {
    /// This process, on the machine `host`.
    pub fn own(host: String) -> Process {
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default().to_string_lossy().into_owned();
        Process { host, id: std::process::id(), namespace }
    }

    /// Whether it runs where `other` runs and has ended.
    pub fn has_ended(&self, other: &Process) -> bool {
        let near = !self.namespace.is_empty() && (&self.host, &self.namespace) == (&other.host, &other.namespace);
        let id = Pid::from_raw(self.id as i32).filter(|_| near);
        id.is_some_and(|id| test_kill_process(id) == Err(Errno::SRCH))
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn a_process_of_this_host_is_seen_to_have_ended_and_one_of_another_host_is_not() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let here = Process::own("here".into());
        let ended = Process { id: child.id(), ..here.clone() };
        child.wait().unwrap();
        assert!(ended.has_ended(&here) && !here.has_ended(&here));
        assert!(!ended.has_ended(&Process { host: "there".into(), ..here }));
    }
}
