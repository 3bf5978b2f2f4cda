//! The model against numbers recorded from transformers (scripts/reference/record_model.py): positions, logits, log-probabilities,
//! loss and the gradient of every parameter, with the fused kernels and with the compositions that other devices use.

use candle_core::{DType, Device, Tensor, safetensors};
use jigsaw::model::qwen2_5_vl::rope::get_rope_index;
use jigsaw::model::qwen2_5_vl::{Config, Model};
use jigsaw::model::{ImageInput, Prompt, Sequence, TokenGrads};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CASES: [&str; 4] = ["one_image_tied", "two_images_untied", "text_only_tied", "one_image_nested"];
const TOLERANCE: f64 = 1e-4;

struct Case {
    dir: PathBuf,
    expected: HashMap<String, Tensor>,
    record: Value,
}

impl Case {
    fn open(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model").join(name);
        let expected = safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap();
        let record = serde_json::from_str(&std::fs::read_to_string(dir.join("case.json")).unwrap()).unwrap();
        Case { dir, expected, record }
    }

    fn sequences(&self) -> usize {
        self.record["sequences"].as_array().unwrap().len()
    }

    fn ids(&self, i: usize) -> Vec<u32> {
        let ids = self.expected[&format!("seq{i}.input_ids")].to_vec1::<i64>().unwrap();
        ids.into_iter().map(|id| id as u32).collect()
    }

    fn images(&self, i: usize) -> Vec<Arc<ImageInput>> {
        let Some(grids) = self.expected.get(&format!("seq{i}.image_grid_thw")) else { return Vec::new() };
        let pixels = self.expected[&format!("seq{i}.pixel_values")].to_vec2::<f32>().unwrap();
        let mut pixels = pixels.into_iter();
        let grids = grids.to_vec2::<i64>().unwrap();
        let image = |grid: &Vec<i64>| {
            let grid = [grid[0] as usize, grid[1] as usize, grid[2] as usize];
            let patches = pixels.by_ref().take(grid.iter().product()).flatten().collect();
            Arc::new(ImageInput { patches, grid })
        };
        grids.iter().map(image).collect()
    }

    fn prompt(&self, i: usize, len: usize) -> Arc<Prompt> {
        Arc::new(Prompt { ids: self.ids(i)[..len].to_vec(), images: self.images(i) })
    }

    fn batch(&self) -> Vec<Sequence> {
        let sequence = |i: usize| {
            let start = self.record["sequences"][i]["response_start"].as_u64().unwrap() as usize;
            Sequence { prompt: self.prompt(i, start), response: self.ids(i)[start..].to_vec() }
        };
        (0..self.sequences()).map(sequence).collect()
    }
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (flat(got), flat(want));
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= TOLERANCE * scale, "{what}[{i}]: {g} against {w} (largest {scale})");
    }
}

fn models(case: &Case) -> [Model; 2] {
    let load = || Model::load(&case.dir, &Device::Cpu).unwrap();
    [load(), load().without_fused_kernels()]
}

#[test]
fn position_ids_equal_those_of_transformers() {
    for case in CASES.map(Case::open) {
        let config = Config::from_dir(&case.dir).unwrap();
        for i in 0..case.sequences() {
            let grids: Vec<[usize; 3]> = case.images(i).iter().map(|image| image.grid).collect();
            let index = get_rope_index(&case.ids(i), &grids, config.image_token_id, 2).unwrap();
            let want = case.expected[&format!("seq{i}.position_ids")].to_vec2::<i64>().unwrap();
            for (axis, want) in want.iter().enumerate() {
                let got: Vec<i64> = index.positions[axis].iter().map(|&p| p as i64).collect();
                assert_eq!(&got, want, "{} sequence {i} axis {axis}", case.dir.display());
            }
        }
    }
}

#[test]
fn logits_equal_those_of_transformers() {
    for case in CASES.map(Case::open) {
        for model in models(&case) {
            for i in 0..case.sequences() {
                let logits = model.logits(&case.prompt(i, case.ids(i).len())).unwrap();
                assert_close(
                    &format!("{} {i}", case.dir.display()),
                    &logits,
                    &case.expected[&format!("seq{i}.logits")],
                );
            }
        }
    }
}

#[test]
fn loss_log_probabilities_and_every_gradient_equal_those_of_transformers() {
    for case in CASES.map(Case::open) {
        for model in models(&case) {
            let batch = case.batch();
            let mut logprobs = Vec::new();
            model
                .backward(&batch, 1.0, &mut |stats| {
                    logprobs = stats.logprobs.clone();
                    let n = stats.logprobs.len();
                    Ok(TokenGrads { logprobs: vec![-1.0 / n as f32; n], entropies: None })
                })
                .unwrap();
            let want: Vec<Tensor> =
                (0..case.sequences()).map(|i| case.expected[&format!("seq{i}.logprobs")].clone()).collect();
            let got = Tensor::from_slice(&logprobs, logprobs.len(), &Device::Cpu).unwrap();
            assert_close("logprobs", &got, &Tensor::cat(&want, 0).unwrap());
            let loss = -logprobs.iter().map(|&x| f64::from(x)).sum::<f64>() / logprobs.len() as f64;
            let want = flat(&case.expected["loss"])[0];
            assert!((loss - want).abs() <= TOLERANCE * want.abs(), "loss {loss} against {want}");
            let without: Vec<&str> =
                case.record["no_gradient"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
            let mut compared = 0;
            for parameter in model.parameters() {
                match parameter.grad() {
                    None => assert!(without.contains(&parameter.name.as_str()), "{} got no gradient", parameter.name),
                    Some(grad) => {
                        assert_close(&parameter.name, &grad, &case.expected[&format!("grad.{}", parameter.name)]);
                        compared += 1;
                    }
                }
            }
            assert_eq!(compared + without.len(), model.parameters().len());
        }
    }
}

#[test]
fn a_sequence_scores_the_same_alone_and_in_a_batch() {
    let case = Case::open("two_images_untied");
    for model in models(&case) {
        let batch = case.batch();
        let together = model.score(&batch, 1.0).unwrap();
        let alone: Vec<f32> =
            batch.iter().flat_map(|s| model.score(std::slice::from_ref(s), 1.0).unwrap().logprobs).collect();
        for (a, b) in together.logprobs.iter().zip(&alone) {
            assert!((a - b).abs() < 1e-5, "{a} against {b}");
        }
    }
}

#[test]
fn responses_that_share_a_prompt_score_as_if_each_had_its_own() {
    let case = Case::open("two_images_untied");
    let first = case.batch().remove(0);
    let responses: [&[u32]; 4] = [&[5, 9, 11], &[7], &[5, 9, 12, 3], &[20, 21]];
    for model in models(&case) {
        let sequence = |prompt: &Arc<Prompt>, r: &[u32]| Sequence { prompt: Arc::clone(prompt), response: r.to_vec() };
        let shared: Vec<Sequence> = responses.iter().map(|r| sequence(&first.prompt, r)).collect();
        let own: Vec<Sequence> = responses.iter().map(|r| sequence(&Arc::new((*first.prompt).clone()), r)).collect();
        let gradients = |batch: &[Sequence]| -> Vec<Tensor> {
            model.parameters().iter().for_each(|p| p.clear_grad());
            let mut n = 0;
            model
                .backward(batch, 0.8, &mut |stats| {
                    n = stats.logprobs.len();
                    let weights = (0..n).map(|i| (i as f32 * 0.7).sin());
                    Ok(TokenGrads { logprobs: weights.clone().collect(), entropies: Some(weights.collect()) })
                })
                .unwrap();
            assert_eq!(n, 10);
            model.parameters().iter().map(|p| p.grad().unwrap().copy().unwrap()).collect()
        };
        let (a, b) = (gradients(&shared), gradients(&own));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_close(&model.parameters()[i].name, a, b);
        }
    }
}
