//! `--device`: where to compute.

use crate::machine::Place;
use crate::{Error, Result};
use candle_core::Device;

/// What `--device` names: `cpu`, `cuda` or `cuda:N`.
pub fn place(name: &str) -> Result<Place> {
    let bad = || Error::input(format!("--device {name}: give cpu, cuda, or cuda:N with the number of the GPU"));
    match name {
        "cpu" => Ok(Place::Cpu),
        "cuda" => Ok(Place::Gpu(0)),
        _ => Ok(Place::Gpu(name.strip_prefix("cuda:").ok_or_else(bad)?.parse().map_err(|_| bad())?)),
    }
}

/// `cpu`, `cuda` or `cuda:N`.
pub fn device(name: &str) -> Result<Device> {
    let Place::Gpu(index) = place(name)? else { return Ok(Device::Cpu) };
    if !cfg!(feature = "cuda") {
        return Err(Error::input(format!(
            "--device {name}: this jigsaw was built without CUDA (cargo build --features cuda)"
        )));
    }
    // Its stream is one thread's own: what one thread makes there no other may use. A model on a GPU works on one thread alone.
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
