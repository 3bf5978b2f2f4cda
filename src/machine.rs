//! What this machine has.

/// Where a model is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In main memory.
    Cpu,
    /// On the GPU of this number.
    Gpu(usize),
}

/// Bytes of memory that programs can still take: the kernel's estimate, or what a control group leaves if that is less. `None` where
/// it cannot be told (not Linux).
pub fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = field(&text, "MemAvailable")?;
    Some(group_memory().map_or(free, |left| left.min(free)))
}

/// Bytes of memory of the machine.
pub fn total_memory() -> Option<usize> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")
}

/// Bytes that are free on the GPU that a program here knows by this number, as `nvidia-smi` has it; `None` where it cannot be told.
/// Programs count the GPUs that `CUDA_VISIBLE_DEVICES` names, where it is set. (Where GPUs differ, CUDA's order is that of `nvidia-smi` with
/// `CUDA_DEVICE_ORDER=PCI_BUS_ID` only.)
pub fn gpu_memory(index: usize) -> Option<usize> {
    let id = gpu_id(index, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())?;
    let asked = ["-i", &id, "--query-gpu=memory.free", "--format=csv,noheader,nounits"];
    let said = std::process::Command::new("nvidia-smi").args(asked).output().ok()?;
    let mebibytes: usize = String::from_utf8_lossy(&said.stdout).lines().next()?.trim().parse().ok()?;
    Some(mebibytes << 20)
}

/// What `nvidia-smi` calls the GPU of this number among the `visible` ones: a plain list of numbers, or all where there is none.
fn gpu_id(index: usize, visible: Option<&str>) -> Option<String> {
    let Some(visible) = visible else { return Some(index.to_string()) };
    let numbers = visible.split(',').map(|id| id.trim().parse().ok()).collect::<Option<Vec<usize>>>()?;
    Some(numbers.get(index)?.to_string())
}

fn field(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?)
}

/// What the control group of a container or a batch job (cgroup v2) leaves; `None` without a limit.
fn group_memory() -> Option<usize> {
    let number = |name: &str| -> Option<usize> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        let (free, all) = (available_memory().unwrap(), total_memory().unwrap());
        assert!(free > 10_000_000 && free <= all, "{free} of {all}");
        assert_eq!(field("MemTotal:  3 kB\nMemAvailable:    7 kB\n", "MemAvailable"), Some(7168));
    }

    #[test]
    fn a_gpu_is_counted_among_those_that_are_visible() {
        assert_eq!(gpu_id(1, None).as_deref(), Some("1"));
        assert_eq!(gpu_id(1, Some("3, 5")).as_deref(), Some("5"));
        assert_eq!((gpu_id(2, Some("3,5")), gpu_id(0, Some("")), gpu_id(0, Some("GPU-3f"))), (None, None, None));
    }
}
