//! The name of this machine, and the memory of it and of its GPUs.

use rustix::process::{Resource, getrlimit};

/// The memory that holds a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLocation {
    /// In main memory.
    Cpu,
    /// On the GPU of this number.
    Gpu(usize),
}

/// The name of this machine on its network.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Free bytes of main memory: the kernel's estimate, or what is left to the control group or under the limit of the address space
/// (`ulimit -v`) if that is less. `None` where it is unknown (not Linux).
pub fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let used = |limit: usize| Some(limit.saturating_sub(process_memory("VmSize")?));
    let free = [field(&text, "MemAvailable"), cgroup_memory(), address_space().and_then(used)];
    free.into_iter().flatten().min()
}

/// Bytes of main memory, or the limit of the control group or of the address space if that is less.
pub fn total_memory() -> Option<usize> {
    let all = field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?;
    Some([cgroup_number("memory.max"), address_space()].into_iter().flatten().fold(all, usize::min))
}

/// A memory figure of this process in bytes, by its name in Linux's `/proc/self/status`: `VmRSS` now, `VmHWM` at its highest.
pub fn process_memory(name: &str) -> Option<usize> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// The limit of this process's address space, if it has one.
fn address_space() -> Option<usize> {
    getrlimit(Resource::As).current.and_then(|bytes| usize::try_from(bytes).ok())
}

/// Free bytes of GPU `index`, from `nvidia-smi`; `None` where they are unknown. If `CUDA_VISIBLE_DEVICES` is set, `index` counts the
/// GPUs that it names. (If the GPUs differ, CUDA orders them as `nvidia-smi` does only with `CUDA_DEVICE_ORDER=PCI_BUS_ID`.)
pub fn gpu_memory(index: usize) -> Option<usize> {
    let id = gpu_id(index, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())?;
    let arguments = ["-i", &id, "--query-gpu=memory.free", "--format=csv,noheader,nounits"];
    let output = std::process::Command::new("nvidia-smi").args(arguments).output().ok()?;
    let mebibytes: usize = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().parse().ok()?;
    Some(mebibytes << 20)
}

/// The id for `nvidia-smi` of GPU `index` among the `visible` ones (a list of numbers; all GPUs if there is no list).
fn gpu_id(index: usize, visible: Option<&str>) -> Option<String> {
    let Some(visible) = visible else { return Some(index.to_string()) };
    let numbers = visible.split(',').map(|id| id.trim().parse().ok()).collect::<Option<Vec<usize>>>()?;
    Some(numbers.get(index)?.to_string())
}

fn field(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?)
}

/// Bytes left to the control group (cgroup v2) of a container or batch job; `None` without a limit.
fn cgroup_memory() -> Option<usize> {
    Some(cgroup_number("memory.max")?.saturating_sub(cgroup_number("memory.current")?))
}

fn cgroup_number(name: &str) -> Option<usize> {
    std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_at_most_the_total() {
        let (free, all) = (available_memory().unwrap(), total_memory().unwrap());
        assert!(free > 10_000_000 && free <= all, "{free} of {all}");
        assert_eq!(field("MemTotal:  3 kB\nMemAvailable:    7 kB\n", "MemAvailable"), Some(7168));
    }

    #[test]
    fn the_process_knows_its_memory() {
        let (now, highest) = (process_memory("VmRSS").unwrap(), process_memory("VmHWM").unwrap());
        assert!(now > 1 << 20 && highest >= now);
        assert_eq!(process_memory("VmNothing"), None);
    }

    #[test]
    fn gpu_indices_count_the_visible_gpus() {
        assert_eq!(gpu_id(1, None).as_deref(), Some("1"));
        assert_eq!(gpu_id(1, Some("3, 5")).as_deref(), Some("5"));
        assert_eq!((gpu_id(2, Some("3,5")), gpu_id(0, Some("")), gpu_id(0, Some("GPU-3f"))), (None, None, None));
    }
}
