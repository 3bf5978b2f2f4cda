//! `--device` and `--dtype`: where to compute, and in what.

use super::output::note;
use crate::machine::MemoryLocation;
use crate::model::{ComputeDtype, ModelLoader};
use crate::{Error, Result};
use candle_core::Device;

// No doc comment: clap would show it in the help of the command.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceArgs {
    /// Device to compute on: cpu, cuda, or cuda:N for GPU number N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

impl DeviceArgs {
    /// The device that is named, which need not be on this machine.
    ///
    /// # Errors
    /// An input error for another name.
    pub fn place(&self) -> Result<MemoryLocation> {
        let name = self.device.as_str();
        let bad = || Error::input(format!("--device {name}: give cpu, cuda, or cuda:N with the number of the GPU"));
        match name {
            "cpu" => Ok(MemoryLocation::Cpu),
            "cuda" => Ok(MemoryLocation::Gpu(0)),
            _ => Ok(MemoryLocation::Gpu(name.strip_prefix("cuda:").ok_or_else(bad)?.parse().map_err(|_| bad())?)),
        }
    }

    /// The device, ready to compute.
    ///
    /// # Errors
    /// An input error for another name, a GPU in a build without CUDA, or a GPU that is not there.
    pub fn open(&self) -> Result<Device> {
        let MemoryLocation::Gpu(index) = self.place()? else { return Ok(Device::Cpu) };
        let name = &self.device;
        if !cfg!(feature = "cuda") {
            return Err(Error::input(format!(
                "--device {name}: this jigsaw was built without CUDA (cargo build --features cuda)"
            )));
        }
        // A CUDA stream belongs to the thread that made it, so a model on a GPU works on one thread alone.
        Device::new_cuda(index).map_err(|e| {
            let reason = e.to_string();
            let reason = reason.lines().next().unwrap_or_default();
            let plain = [
                ("STUB_LIBRARY", "NVIDIA's driver (libcuda.so.1) is not installed"),
                ("NO_DEVICE", "the driver finds no GPU"),
                ("INVALID_DEVICE", "the driver finds no GPU of this number"),
                ("CublasError", "CUDA's library cuBLAS does not start"),
                ("CurandError", "CUDA's library cuRAND does not start"),
            ];
            let plain = plain.into_iter().find(|(code, _)| reason.contains(code)).map_or(reason, |(_, text)| text);
            Error::input(format!("--device {name}: no such GPU can be used on this machine: {plain}. Leave --device out to compute on the CPU"))
        })
    }
}

// As above.
#[derive(Debug, Clone, clap::Args)]
pub struct ComputeArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Type of the factors of matrix products: f32 or bf16, which holds the weights in 2 bytes and is faster on processors that multiply in it
    /// (AMX; AVX512-BF16 on AMD's); others say so and compute in f32, with weights rounded to bf16
    #[arg(long, value_name = "TYPE", value_enum, hide_possible_values = true, default_value = "f32")]
    dtype: ComputeDtype,
}

impl ComputeArgs {
    /// What loads models to the device, for products of the type.
    ///
    /// # Errors
    /// See [`DeviceArgs::open`].
    pub fn open(&self) -> Result<ModelLoader> {
        let device = self.device.open()?;
        if self.dtype == ComputeDtype::Bf16 && device.is_cpu() {
            note(&ComputeDtype::bf16_on_cpu("--dtype bf16"));
        }
        Ok(ModelLoader::new(&device, self.dtype))
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceArgs;

    #[test]
    fn a_device_that_does_not_exist_is_a_usage_error() {
        let open = |name: &str| DeviceArgs { device: name.into() }.open();
        assert!(open("cpu").is_ok());
        for name in ["gpu", "cuda:", "cuda:x"] {
            assert_eq!(open(name).unwrap_err().exit_code(), 2, "{name}");
        }
    }
}
