//! Reading the recorded sequences of tests/fixtures.

// Each test binary uses its part of this.
#![allow(dead_code)]

use candle_core::{Device, Tensor, safetensors};
use jigsaw::model::{ImageInput, Prompt, Sequence};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Where models are tested: on the CPU, or where JIGSAW_TEST_DEVICE says: `cuda` or `cuda:N`, in a build with that feature, or `emulated`, the
/// path of a GPU on tensors of the CPU.
pub fn device() -> Device {
    match std::env::var("JIGSAW_TEST_DEVICE").ok().as_deref() {
        None | Some("" | "cpu") => Device::Cpu,
        Some("emulated") => {
            jigsaw::nn::emulate_device();
            Device::Cpu
        }
        Some(name) => {
            let index = name.strip_prefix("cuda").map(|n| n.strip_prefix(':').unwrap_or("0").parse());
            let index = index
                .and_then(Result::ok)
                .unwrap_or_else(|| panic!("JIGSAW_TEST_DEVICE={name}: cpu, cuda, cuda:N or emulated"));
            Device::new_cuda(index).unwrap()
        }
    }
}

/// Whether models are tested with the CPU's kernels, whose results depend on nothing but the input. A GPU's library may sum in another order
/// where more rows are multiplied.
pub fn on_cpu_kernels() -> bool {
    jigsaw::nn::in_main_memory(&device())
}

/// The repository: where cargo says, or where a test binary that was built elsewhere is told to look.
pub fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

pub fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

/// Sequences recorded as `seq<i>.*` tensors, with the place where each one's response starts.
pub struct Recorded {
    pub tensors: HashMap<String, Tensor>,
    starts: Vec<usize>,
}

impl Recorded {
    pub fn open(tensors: &str, record: &Value) -> Self {
        let sequences = record["sequences"].as_array().unwrap();
        let starts = sequences.iter().map(|s| s["response_start"].as_u64().unwrap() as usize).collect();
        Recorded { tensors: safetensors::load(fixture(tensors), &Device::Cpu).unwrap(), starts }
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn ids(&self, i: usize) -> Vec<u32> {
        let ids = self.tensors[&format!("seq{i}.input_ids")].to_vec1::<i64>().unwrap();
        ids.into_iter().map(|id| id as u32).collect()
    }

    pub fn images(&self, i: usize) -> Vec<Arc<ImageInput>> {
        let Some(grids) = self.tensors.get(&format!("seq{i}.image_grid_thw")) else { return Vec::new() };
        let pixels = self.tensors[&format!("seq{i}.pixel_values")].to_vec2::<f32>().unwrap();
        let mut pixels = pixels.into_iter();
        let grids = grids.to_vec2::<i64>().unwrap();
        let image = |grid: &Vec<i64>| {
            let grid = [grid[0] as usize, grid[1] as usize, grid[2] as usize];
            let patches = pixels.by_ref().take(grid.iter().product()).flatten().collect();
            Arc::new(ImageInput { patches, grid })
        };
        grids.iter().map(image).collect()
    }

    /// The first `len` tokens of sequence `i`, with its images.
    pub fn prompt(&self, i: usize, len: usize) -> Arc<Prompt> {
        Arc::new(Prompt { ids: self.ids(i)[..len].to_vec(), images: self.images(i) })
    }

    pub fn sequence(&self, i: usize) -> Sequence {
        let start = self.starts[i];
        Sequence { prompt: self.prompt(i, start), response: self.ids(i)[start..].to_vec() }
    }

    pub fn sequences(&self) -> Vec<Sequence> {
        (0..self.len()).map(|i| self.sequence(i)).collect()
    }
}
