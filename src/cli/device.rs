//! `--device`: where to compute.

use crate::{Error, Result};
use candle_core::Device;

/// `cpu`, `cuda` or `cuda:N`.
pub fn device(name: &str) -> Result<Device> {
    let bad = || Error::input(format!("--device {name}: give cpu, cuda, or cuda:N with the number of the GPU"));
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        _ => name.strip_prefix("cuda:").ok_or_else(bad)?.parse().map_err(|_| bad())?,
    };
    if !cfg!(feature = "cuda") {
        return Err(Error::input(format!(
            "--device {name}: this jigsaw was built without CUDA (cargo build --features cuda)"
        )));
    }
    Device::new_cuda(index).map_err(|e| Error::failed(format!("--device {name}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::device;

    #[test]
    fn a_device_that_does_not_exist_is_a_usage_error() {
        assert!(device("cpu").is_ok());
        for name in ["gpu", "cuda:", "cuda:x"] {
            assert_eq!(device(name).unwrap_err().exit_code(), 2, "{name}");
        }
    }
}
