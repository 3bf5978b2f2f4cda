//! Has a path become slower? Each is timed against a matrix product of the gemm crate that runs just before and just after it,
//! so that a machine that is busy, hot or shared slows both; and each must keep a share of that product's rate.
//!
//! `cargo bench --bench guard` checks all and fails, with a table, if a share is below its floor; `-- sft` checks those whose
//! names hold `sft`; `-- --test` only sees that each runs. Always two threads, so that floors hold on machines with more.

mod arithmetic;
mod floors;
mod kernels;
mod measure;
mod paths;

use floors::{FLOORS, MEMORY_BOUND, TWO_WIDE_UNITS, WIDE_VECTORS};
use jigsaw::{Error, Result};
use measure::{Check, Share, measure};
use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: jigsaw::alloc::Caching = jigsaw::alloc::Caching::new();

/// A path that falls below its floor is measured so many times in all: only a share that stays low counts.
const ATTEMPTS: usize = 3;

/// What one path came to.
struct Line {
    name: &'static str,
    floor: f64,
    share: Share,
    attempts: usize,
}

impl Line {
    fn holds(&self) -> bool {
        self.share.median >= self.floor
    }
}

/// Measure until the floor is reached, or there are no attempts left; the best one counts.
fn judge(name: &'static str, floor: f64, check: &mut Check) -> Result<Line> {
    let mut line = Line { name, floor, share: measure(check)?, attempts: 1 };
    while !line.holds() && line.attempts < ATTEMPTS {
        let again = measure(check)?;
        if again.median > line.share.median {
            line.share = again;
        }
        line.attempts += 1;
    }
    Ok(line)
}

fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let once = arguments.iter().any(|a| a == "--test");
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    measure::two_threads()?;
    let started = Instant::now();
    let checks = paths::all().into_iter().chain(kernels::all());
    let scale = |name: &str| {
        let wide = if measure::wide_vectors() { WIDE_VECTORS } else { 1.0 };
        let memory = if measure::two_wide_units() && MEMORY_BOUND.contains(&name) { TWO_WIDE_UNITS } else { 1.0 };
        wide * memory
    };
    let mut lines = Vec::new();
    for (name, build) in checks.filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f))) {
        let floor = FLOORS.iter().find(|(n, _)| *n == name).map(|(_, floor)| floor * scale(name));
        let floor = floor.ok_or_else(|| Error::failed(format!("benches/guard/floors.rs has no floor for `{name}`")))?;
        let mut check = build().map_err(|e| e.context(name))?;
        if once {
            check.once().map_err(|e| e.context(name))?;
            println!("{name}: runs");
            continue;
        }
        let line = judge(name, floor, &mut check).map_err(|e| e.context(name))?;
        if lines.is_empty() {
            println!(
                "{:<34}{:>10}{:>10}{:>10}{:>10}{:>8}",
                "share of a product's rate, %", "share", "floor", "1/4", "3/4", "tries"
            );
        }
        let percent =
            [line.share.median, line.floor, line.share.low, line.share.high].map(|x| format!("{:.3}", 100.0 * x));
        let [share, floor, low, high] = &percent;
        let verdict = if line.holds() { "" } else { "  TOO SLOW" };
        println!("{name:<34}{share:>10}{floor:>10}{low:>10}{high:>10}{:>8}{verdict}", line.attempts);
        lines.push(line);
    }
    let slow: Vec<&Line> = lines.iter().filter(|line| !line.holds()).collect();
    println!("{} paths, {:.0} s", lines.len(), started.elapsed().as_secs_f64());
    for line in &slow {
        eprintln!(
            "error: {} reaches {:.3} % of the rate of a matrix product, its floor is {:.3} % (best of {} measurements)",
            line.name,
            100.0 * line.share.median,
            100.0 * line.floor,
            line.attempts
        );
    }
    if !slow.is_empty() {
        eprintln!(
            "Find what made it slower; a floor is lowered (benches/guard/floors.rs) only for a reason that is written down."
        );
    }
    Ok(slow.is_empty())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}
