//! The rate of a piece of work as a share of the rate of a matrix product, in short alternations of the two.

use jigsaw::nn::{Matrix, MatrixMut, matmul, parallel_map};
use jigsaw::{Error, Result};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::hint::black_box;
use std::time::Instant;

/// Threads of everything that is measured.
const THREADS: usize = 2;
/// Shortest timed stretch, in seconds: long beside the system's time slices of a few milliseconds.
const STRETCH: f64 = 0.012;
/// Time for one path, in seconds, and the alternations it is divided into.
const BUDGET: f64 = 2.2;
const ALTERNATIONS: (usize, usize) = (7, 61);
/// Side of the product: its operands lie in the second-level cache.
const SIDE: usize = 256;
/// Side of a product that is spread over the threads: long enough beside starting and ending that.
const WIDE_SIDE: usize = 768;
/// Elements that are copied (128 MiB, far beyond the caches).
const COPIED: usize = 32 << 20;

/// How the work uses threads, and so the reference.
#[derive(Clone, Copy, PartialEq)]
pub enum Reference {
    /// Products on one thread; the work is kept on one.
    One,
    /// Products side by side, one on each thread, as a small model's shards are.
    Lanes,
    /// Products that are each spread over all threads, as a large model's are.
    All,
    /// In place of products, memory copied by all threads: for work that waits for memory. An operation is a byte moved.
    Copy,
}

/// A path to be measured.
pub struct Check {
    /// What it is measured against.
    pub reference: Reference,
    /// Operations of its matrix products, or what stands for them.
    pub operations: f64,
    /// The path.
    pub work: Box<dyn FnMut() -> Result<()> + Send>,
}

/// Share of the reference's rate over all alternations: median and quartiles.
#[derive(Clone, Copy)]
pub struct Share {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

/// Make the global pool one of two threads.
pub fn two_threads() -> Result<()> {
    let built = ThreadPoolBuilder::new().num_threads(THREADS).build_global();
    built.map_err(|e| Error::failed(format!("cannot start {THREADS} threads: {e}")))?;
    // The lanes are made for the pool that first asks for them.
    parallel_map(THREADS, |_| ());
    Ok(())
}

/// Whether gemm's products use vectors of 512 bits here.
pub fn wide_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

impl Check {
    /// Run the work once.
    pub fn once(&mut self) -> Result<()> {
        match self.reference {
            Reference::One => single()?.install(|| (self.work)()),
            _ => (self.work)(),
        }
    }
}

/// The share that `check` reaches.
pub fn measure(check: &mut Check) -> Result<Share> {
    match check.reference {
        Reference::One => single()?.install(|| alternate(check)),
        _ => alternate(check),
    }
}

fn single() -> Result<ThreadPool> {
    let built = ThreadPoolBuilder::new().num_threads(1).build();
    built.map_err(|e| Error::failed(format!("cannot start a thread: {e}")))
}

/// Reference, work, reference, work, ..., reference. Each stretch of work is compared with the references on both sides.
fn alternate(check: &mut Check) -> Result<Share> {
    let mut product = Product::new(check.reference);
    (check.work)()?;
    product.run(1);
    let work_time = time(|| (check.work)())?;
    let work_times = (STRETCH / work_time).ceil().max(1.0) as usize;
    let one = time(|| {
        product.run(3);
        Ok(())
    })? / 3.0;
    // Both references together last about as long as the work.
    let stretch = (work_time * work_times as f64 / 2.0).clamp(STRETCH / 2.0, 0.1);
    let product_times = (stretch / one).ceil().max(1.0) as usize;
    let alternation = work_time * work_times as f64 + one * product_times as f64;
    let count = ((BUDGET / alternation) as usize).clamp(ALTERNATIONS.0, ALTERNATIONS.1);
    let mut shares = Vec::with_capacity(count);
    let mut before = time(|| product.done(product_times))?;
    for _ in 0..count {
        let work = time(|| (0..work_times).try_for_each(|_| (check.work)()))?;
        let after = time(|| product.done(product_times))?;
        let reference_rate = 2.0 * product.operations * product_times as f64 / (before + after);
        shares.push(check.operations * work_times as f64 / work / reference_rate);
        before = after;
    }
    shares.sort_by(f64::total_cmp);
    let at = |quarters: usize| shares[(shares.len() - 1) * quarters / 4];
    Ok(Share { low: at(1), median: at(2), high: at(3) })
}

fn time(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The reference.
struct Product {
    reference: Reference,
    operations: f64,
    side: usize,
    /// Operands, and a result for each lane.
    from: Vec<f32>,
    to: Vec<Vec<f32>>,
}

impl Product {
    fn new(reference: Reference) -> Self {
        let side = if reference == Reference::All { WIDE_SIDE } else { SIDE };
        let one = 2.0 * (side * side * side) as f64;
        let (operations, len) = match reference {
            Reference::One | Reference::All => (one, side * side),
            Reference::Lanes => (one * THREADS as f64, side * side),
            Reference::Copy => (8.0 * COPIED as f64, COPIED),
        };
        let from = (0..len).map(|i| (i % 251) as f32 * 0.01 - 1.0).collect();
        Product { reference, operations, side, from, to: vec![vec![0.0; len]; THREADS] }
    }

    fn done(&mut self, times: usize) -> Result<()> {
        self.run(times);
        Ok(())
    }

    fn run(&mut self, times: usize) {
        let (n, from) = (self.side, &*self.from);
        let product = |to: &mut [f32]| {
            let (a, b) = (Matrix::new(from, n, n, n), Matrix::new(from, n, n, n));
            for _ in 0..times {
                matmul(MatrixMut::new(black_box(&mut *to), n, n, n), a, b, false, true);
            }
        };
        match self.reference {
            Reference::One | Reference::All => product(&mut self.to[0]),
            Reference::Lanes => {
                let results: Vec<_> = self.to.iter_mut().map(std::sync::Mutex::new).collect();
                parallel_map(THREADS, |lane| {
                    if let Ok(mut to) = results[lane].lock() {
                        product(&mut to);
                    }
                });
            }
            Reference::Copy => {
                let piece = COPIED / THREADS;
                for _ in 0..times {
                    let to = black_box(&mut self.to[0]).par_chunks_mut(piece);
                    to.zip(from.par_chunks(piece)).for_each(|(to, from)| to.copy_from_slice(from));
                }
            }
        }
    }
}

/// Has this processor two multiply-add units of 512 bits a core? Known of Intel's server processors with AVX512-BF16, whose virtual machines may
/// hide AMX; others count as having one.
pub fn two_wide_units() -> bool {
    let has = |text: &str| text.contains("GenuineIntel") && text.contains(" avx512_bf16");
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| has(&text))
}
