// Linked to the library before and after the change: bench WHAT DTYPE MODEL THREADS REPEATS, where WHAT is step, rollout or a number of prompts.
#[global_allocator]
static A: jigsaw::alloc::Caching = jigsaw::alloc::Caching::new();
use candle_core::Device;
use jigsaw::model::*;
use std::path::Path;
use std::sync::Arc;
unsafe extern "C" {
    fn clock_gettime(c: i32, t: *mut [i64; 2]) -> i32;
}
fn now(c: i32) -> f64 {
    let mut t = [0i64; 2];
    unsafe { clock_gettime(c, &mut t) };
    t[0] as f64 + t[1] as f64 * 1e-9
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (what, dtype, dir, threads, reps) = (
        a[1].as_str(),
        a[2].as_str(),
        Path::new(&a[3]),
        a[4].parse::<usize>().unwrap(),
        a[5].parse::<usize>().unwrap(),
    );
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let clock = if threads == 1 { 2 } else { 1 };
    let compute = if dtype == "bf16" { ComputeDtype::Bf16 } else { ComputeDtype::F32 };
    let loader = ModelLoader::new(&Device::Cpu, compute);
    let small = a[3].contains("small");
    let (side, tokens, batch) = if small { (16usize, 150usize, 4usize) } else { (6, 105, 64) };
    let model = if what == "step" {
        loader.trainable(dir, &[]).unwrap()
    } else {
        loader.frozen(dir).unwrap()
    };
    let v = model.architecture().vision().unwrap().patch_len;
    let img = model.architecture().image_tokens().unwrap().image;
    let prompt = |i: usize| {
        let patches: Vec<f32> = (0..side * side * v).map(|j| ((j * 7 + i * 13) as f32 * 0.01).sin()).collect();
        let image = Arc::new(ImageInput {
            patches,
            grid: [1, side, side],
        });
        let n = side * side / 4;
        let ids: Vec<u32> = (0..20)
            .chain((0..n).map(|_| img))
            .chain((20..tokens - n).map(|j| ((j * 31 + i * 17) % 1000) as u32))
            .collect();
        Arc::new(Prompt { ids, images: vec![image] })
    };
    let s = |t: f32, n: usize| SamplingParams {
        max_new_tokens: n,
        temperature: t,
        top_p: 1.0,
        top_k: 0,
        stop: vec![],
        seed: 5,
    };
    let mut found = vec![];
    match what {
        "step" => {
            let b: Vec<Sequence> = (0..batch)
                .map(|i| Sequence {
                    prompt: prompt(i),
                    response: (0..13).map(|j| (j * 7 + i) as u32 % 900).collect(),
                })
                .collect();
            let mut sum = 0.0;
            for r in 0..reps + 1 {
                let t = now(clock);
                model.parameters().iter().for_each(|p| p.clear_grad());
                let out = std::sync::Mutex::new(0.0f64);
                model
                    .backward(&b, 1.0, None, &|_, st| {
                        *out.lock().unwrap() += st.logprobs.iter().map(|l| *l as f64).sum::<f64>();
                        Ok(TokenGrads {
                            logprobs: vec![-0.02; st.logprobs.len()],
                            entropies: None,
                            kl: None,
                        })
                    })
                    .unwrap();
                if r > 0 {
                    found.push(now(clock) - t);
                }
                sum = *out.lock().unwrap();
            }
            let rows = b.len() * (tokens + 13);
            found.sort_by(f64::total_cmp);
            println!(
                "{what} {dtype} {} t{threads}: median {:.3} s, best {:.3} s, {:.0} tokens/s; sum {sum:.4}",
                a[3],
                found[found.len() / 2],
                found[0],
                rows as f64 / found[found.len() / 2]
            );
        }
        "rollout" => {
            let p: Vec<_> = (0..16).map(prompt).collect();
            let mut hash = 0u64;
            let mut n = 0;
            for r in 0..reps + 1 {
                let t = now(clock);
                let g = model.generate(&p, 8, &s(1.0, 32), &[], &[]).unwrap();
                if r > 0 {
                    found.push(now(clock) - t);
                }
                n = g.iter().flatten().map(|c| c.ids.len()).sum::<usize>();
                hash = g
                    .iter()
                    .flatten()
                    .flat_map(|c| c.ids.clone())
                    .fold(7, |h: u64, i| h.wrapping_mul(31).wrapping_add(i as u64));
            }
            found.sort_by(f64::total_cmp);
            println!(
                "{what} {dtype} {} t{threads}: median {:.3} s, best {:.3}, {:.0} tokens/s; hash {hash}",
                a[3],
                found[found.len() / 2],
                found[0],
                n as f64 / found[found.len() / 2]
            );
        }
        _ => {
            let n: usize = what.parse().unwrap();
            let p: Vec<_> = (0..n)
                .map(|i| {
                    Arc::new(Prompt {
                        ids: (0..8).map(|j| 40 + i as u32 + j).collect(),
                        images: vec![],
                    })
                })
                .collect();
            let run = |k: usize| {
                let t = now(clock);
                model.generate(&p, 1, &s(0.0, k), &[], &[]).unwrap();
                now(clock) - t
            };
            run(2);
            let bytes: f64 = model
                .parameters()
                .iter()
                .filter(|p| !p.name.starts_with("visual"))
                .map(|p| p.bytes().0 as f64)
                .sum::<f64>();
            for _ in 0..reps {
                let d = (run(20) - run(4)) / 16.0;
                found.push(d);
            }
            found.sort_by(f64::total_cmp);
            println!(
                "decode of {n} {dtype} {} t{threads}: median {:.1} ms a step, best {:.1}; weights {:.2} GB, {:.1} GB/s",
                a[3],
                found[found.len() / 2] * 1e3,
                found[0] * 1e3,
                bytes / 1e9,
                bytes / 1e9 / found[found.len() / 2]
            );
        }
    }
}
