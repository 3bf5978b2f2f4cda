//! How often the interval of a mean over benchmarks covers the true change: experiments with known losses, drawn many times.
//!
//! `scripts/coverage.sh` draws 5,000 of each kind and writes `docs/results/coverage/coverage.csv`; the quick test draws a few.

use super::change::{ChangeStats, measure};
use super::fixtures::{paired_scores, sides};
use super::group_mean::mean_change;
use super::overlap::overlap_groups;
use super::pairing::pair;
use crate::rng::{self, Rng};
use crate::stats::Stratum;
use rand::RngExt as _;
use rand_distr::{Beta, Distribution as _};
use rayon::prelude::*;
use std::fmt::Write as _;

/// Questions of one kind, asked in one style or in two. A style of a family is a benchmark.
#[derive(Clone, Copy)]
struct Family {
    /// Images; each is a cluster.
    images: usize,
    /// Questions about each image.
    questions: usize,
    /// Benchmarks that ask them.
    styles: usize,
    /// Chance that the base is right; one draw for all styles.
    base: f64,
    /// Chance that a right answer is lost, on average over images.
    loss: f64,
    /// Chance that a wrong one is gained.
    gain: f64,
    /// Of questions in two styles: chance that what happens in one happens in the other too.
    both: f64,
    /// Correlation of the losses of one image; 0 for none.
    correlation: f64,
    /// Losses are of a graded score: between 0 and 1, 1/2 on average.
    graded: bool,
}

/// Independent questions of 0/1 scores in one style, which the base answers all.
const PLAIN: Family = Family {
    images: 100,
    questions: 1,
    styles: 1,
    base: 1.0,
    loss: 0.0,
    gain: 0.0,
    both: 0.0,
    correlation: 0.0,
    graded: false,
};
/// The same in two styles: of those that change, three in ten do in both.
const STYLES: Family = Family { styles: 2, both: 0.3, ..PLAIN };

impl Family {
    /// Chance that a right answer of one benchmark is lost, that a wrong one is gained: a factor of `loss` and `gain`.
    fn part(&self) -> f64 {
        if self.styles == 2 { (1.0 + self.both) / 2.0 } else { 1.0 }
    }

    /// True change of a benchmark's score.
    fn change(&self) -> f64 {
        let size = if self.graded { 0.5 } else { 1.0 };
        self.part() * ((1.0 - self.base) * self.gain - self.base * self.loss * size)
    }

    /// Questions that change in any style, on average.
    fn events(&self) -> f64 {
        (self.images * self.questions) as f64 * ((1.0 - self.base) * self.gain + self.base * self.loss)
    }

    /// One experiment: writes the differences of each cluster of each style, and returns how many of the base's answers are right.
    fn draw(&self, random: &mut Rng, benchmarks: &mut [ChangeStats]) -> usize {
        let mut right = 0;
        for image in 0..self.images {
            let loss = match self.correlation {
                0.0 => self.loss,
                icc => {
                    let size = 1.0 / icc - 1.0;
                    Beta::new(self.loss * size, (1.0 - self.loss) * size).unwrap().sample(random)
                }
            };
            let mut sums = [0.0; 2];
            for _ in 0..self.questions {
                let is_right = random.random::<f64>() < self.base;
                right += usize::from(is_right);
                if random.random::<f64>() >= if is_right { loss } else { self.gain } {
                    continue;
                }
                let size = if self.graded { Beta::new(2.0, 2.0).unwrap().sample(random) } else { 1.0 };
                let change = if is_right { -size } else { size };
                let (both, first) = (random.random::<f64>() < self.both, random.random::<f64>() < 0.5);
                for (style, sum) in sums.iter_mut().enumerate().take(self.styles) {
                    if self.styles == 1 || both || first == (style == 0) {
                        *sum += change;
                    }
                }
            }
            for (benchmark, sum) in benchmarks.iter_mut().zip(sums) {
                benchmark.differences[image].0 = sum;
            }
        }
        right
    }

    /// Its benchmarks before any draw. Styles share their images.
    fn benchmarks(&self, number: usize) -> Vec<ChangeStats> {
        let pairs = self.images * self.questions;
        let (base, tuned) = sides(&paired_scores(pairs, pairs, 0, 0));
        let pairing = pair(base, tuned).unwrap();
        let groups: Vec<usize> = (0..pairs).map(|i| i / self.questions).collect();
        let mut one = measure(&pairing.pairs.iter().collect::<Vec<_>>(), &groups, false);
        one.shares = (0..self.images).map(|image| vec![format!("{number} {image}")]).collect();
        vec![one; self.styles]
    }
}

/// A kind of experiment.
struct Scenario {
    name: String,
    families: Vec<Family>,
}

/// What was found in many draws of a scenario.
#[derive(Debug, Clone, Copy)]
struct Coverage {
    covered: f64,
    /// The truth lies below the interval, above it.
    below: f64,
    above: f64,
    width: f64,
    /// The interval leaves out 0.
    shown: f64,
}

impl Scenario {
    fn new(name: impl Into<String>, families: Vec<Family>) -> Scenario {
        Scenario { name: name.into(), families }
    }

    fn benchmarks(&self) -> f64 {
        self.families.iter().map(|family| family.styles).sum::<usize>() as f64
    }

    fn truth(&self) -> f64 {
        self.families.iter().map(|family| family.styles as f64 * family.change()).sum::<f64>() / self.benchmarks()
    }

    fn run(&self, draws: usize) -> Coverage {
        const BLOCK: usize = 50;
        let truth = self.truth();
        let of_block = |block: usize| {
            let mut members: Vec<Vec<ChangeStats>> =
                self.families.iter().enumerate().map(|(i, family)| family.benchmarks(i)).collect();
            let mut random = rng::stream(17, &self.name, &[block as u64]);
            let mut sums = [0.0; 4];
            for _ in 0..BLOCK {
                let mut base = 0.0;
                for (family, own) in self.families.iter().zip(&mut members) {
                    let right = family.draw(&mut random, own) as f64;
                    base += family.styles as f64 * right / (family.images * family.questions) as f64;
                }
                let all: Vec<&ChangeStats> = members.iter().flatten().collect();
                let strata: Vec<Stratum> = overlap_groups(&all).into_iter().map(|group| group.strict).collect();
                let (found, _) = mean_change(&strata, base / self.benchmarks());
                let count = |holds: bool| f64::from(u8::from(holds));
                // The ends may be the truth itself but for rounding.
                let one = [
                    count(truth < found.low - 1e-12),
                    count(truth > found.high + 1e-12),
                    found.high - found.low,
                    count(found.excludes_zero()),
                ];
                sums.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
            }
            sums
        };
        let blocks: Vec<[f64; 4]> = (0..draws.div_ceil(BLOCK)).into_par_iter().map(of_block).collect();
        let mean = |i: usize| blocks.iter().map(|block| block[i]).sum::<f64>() / (blocks.len() * BLOCK) as f64;
        let (below, above) = (mean(0), mean(1));
        Coverage { covered: 1.0 - below - above, below, above, width: mean(2), shown: mean(3) }
    }
}

/// Three benchmarks with several questions about each image. The base knows four in five answers of two, and all of the third, which loses a
/// fifth as often.
fn clustered(images: usize, questions: usize, loss: f64, correlation: f64) -> Scenario {
    let family = Family { images, questions, loss, gain: 0.1, base: 0.8, correlation, ..PLAIN };
    let families = vec![family, family, Family { base: 1.0, loss: loss / 5.0, ..family }];
    Scenario::new(format!("clustered {images}x{questions} {loss} {correlation}"), families)
}

/// Four benchmarks of different sizes; the largest loses twice as often as the others.
fn sizes(loss: f64) -> Scenario {
    let of = |images, loss| Family { images, loss, ..PLAIN };
    let families = vec![of(1000, loss), of(200, loss / 2.0), of(200, loss / 2.0), of(100, loss / 2.0)];
    Scenario::new(format!("sizes 1000 to 100, {loss}"), families)
}

/// Experiments in which enough changes to ask for the nominal coverage.
fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    // Everything right before: seven families in two styles.
    for (images, loss) in [(50, 0.06), (100, 0.02), (100, 0.05), (500, 0.004), (500, 0.01)] {
        all.push(Scenario::new(format!("saturated {images} {loss}"), vec![Family { images, loss, ..STYLES }; 7]));
    }
    // One family that the base half knows, the others saturated: with a small loss, or with none.
    for (images, loss, gain, elsewhere) in [
        (100, 0.15, 0.1, 0.002),
        (100, 0.3, 0.1, 0.0),
        (500, 0.12, 0.05, 0.0),
        (500, 0.12, 0.05, 0.002),
        (500, 0.05, 0.2, 0.0),
    ] {
        let mut families = vec![Family { images, loss: elsewhere, ..STYLES }; 6];
        families.push(Family { images, loss, gain, base: 0.82, ..STYLES });
        all.push(Scenario::new(format!("mixed {images} {loss} {gain} {elsewhere}"), families));
    }
    // A family alone, a benchmark alone in clusters.
    for (images, loss, gain) in [(100, 0.12, 0.05), (100, 0.3, 0.3), (500, 0.05, 0.05)] {
        let family = Family { images, loss, gain, base: 0.82, ..STYLES };
        all.push(Scenario::new(format!("family {images} {loss} {gain}"), vec![family]));
    }
    // Several questions about each image, with losses that come together.
    for (images, questions, loss, correlation) in
        [(30, 10, 0.3, 0.1), (100, 5, 0.1, 0.3), (300, 3, 0.03, 0.2), (300, 3, 0.3, 0.1)]
    {
        all.push(clustered(images, questions, loss, correlation));
    }
    // Benchmarks of different sizes, graded scores, changes that cancel.
    all.push(sizes(0.2));
    for (images, loss) in [(100, 0.1), (100, 0.5), (500, 0.03)] {
        let family = Family { images, loss, graded: true, ..PLAIN };
        all.push(Scenario::new(
            format!("graded {images} {loss}"),
            vec![family, family, Family { loss: 0.01, ..family }],
        ));
    }
    for images in [50, 200] {
        let lost = Family { images, loss: 0.3, ..PLAIN };
        let gained = Family { base: 0.5, loss: 0.0, gain: 0.6, ..lost };
        all.push(Scenario::new(format!("opposite {images}"), vec![lost, gained]));
    }
    all
}

/// Experiments in which so little changes, in all benchmarks or in those that weigh most, that one or two answers decide whether an interval
/// covers.
fn rare() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (images, loss) in [(20, 0.03), (100, 0.0), (100, 0.002), (100, 0.006), (100, 0.01), (500, 0.001)] {
        all.push(Scenario::new(format!("saturated {images} {loss}"), vec![Family { images, loss, ..STYLES }; 7]));
        let always = Family { images, loss, both: 1.0, ..STYLES };
        all.push(Scenario::new(format!("saturated, both styles alike {images} {loss}"), vec![always; 7]));
    }
    for (images, loss, gain, elsewhere) in
        [(20, 0.1, 0.05, 0.0), (50, 0.1, 0.05, 0.0), (50, 0.35, 0.2, 0.005), (100, 0.05, 0.05, 0.0)]
    {
        let mut families = vec![Family { images, loss: elsewhere, ..STYLES }; 6];
        families.push(Family { images, loss, gain, base: 0.82, ..STYLES });
        all.push(Scenario::new(format!("mixed {images} {loss} {gain} {elsewhere}"), families));
    }
    all.extend([clustered(30, 10, 0.1, 0.3), clustered(100, 5, 0.03, 0.2)]);
    all.push(Scenario::new(
        "clustered 10x20",
        vec![Family { images: 10, questions: 20, loss: 0.1, base: 0.8, gain: 0.1, correlation: 0.3, ..PLAIN }; 3],
    ));
    let of = |images, loss| Family { images, loss, ..PLAIN };
    all.push(Scenario::new("sizes 1000 and 20", vec![of(1000, 0.1), of(20, 0.05)]));
    all.push(sizes(0.05));
    all
}

#[test]
fn intervals_of_a_mean_cover_the_truth_about_as_often_as_they_say() {
    // Of 1,000 draws: the standard error is 0.7 %.
    for scenario in
        scenarios().iter().filter(|one| ["saturated 100 0.02", "mixed 100 0.15 0.1 0.002"].contains(&&*one.name))
    {
        let found = scenario.run(1000);
        assert!((0.93..0.985).contains(&found.covered), "{}: {found:?}", scenario.name);
    }
    let unchanged = rare().remove(2).run(200);
    assert_eq!((unchanged.covered, unchanged.shown), (1.0, 0.0), "{unchanged:?}");
}

#[test]
#[ignore = "minutes; scripts/coverage.sh"]
fn coverage_of_5000_draws() {
    const DRAWS: usize = 5000;
    let mut csv = String::from(
        "kind,scenario,benchmarks,changed_questions,true_change,draws,coverage,truth_below,truth_above,mean_width,leaves_out_0\n",
    );
    let mut outside = Vec::new();
    for (kind, scenario) in scenarios().iter().map(|one| ("nominal", one)).chain(rare().iter().map(|one| ("rare", one)))
    {
        let found = scenario.run(DRAWS);
        let events: f64 = scenario.families.iter().map(Family::events).sum();
        let _ = writeln!(
            csv,
            "{kind},\"{}\",{},{events:.1},{:.6},{DRAWS},{:.4},{:.4},{:.4},{:.6},{:.4}",
            scenario.name,
            scenario.benchmarks(),
            scenario.truth(),
            found.covered,
            found.below,
            found.above,
            found.width,
            found.shown
        );
        let (low, high) = if kind == "nominal" { (0.935, 0.97) } else { (0.93, 1.0) };
        if !(low..=high).contains(&found.covered) {
            outside.push(format!("{}: {found:?}", scenario.name));
        }
    }
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results/coverage");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("coverage.csv"), &csv).unwrap();
    assert!(outside.is_empty(), "{outside:#?}");
}
