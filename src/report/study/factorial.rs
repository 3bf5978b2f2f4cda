//! Is it the data, the learning rate or the method? Least squares over the runs of a study: points lost on data, log learning rate, method and
//! their products.

use super::cells::{Cell, TableWithCaption};
use super::level::ComparedRegimes;
use super::load::RegimeResults;
use super::measure::prior;
use crate::stats::table::{p_value, short};
use crate::stats::{Coefficient, Interval, Ols, effects};

/// An effect on the points lost.
pub struct Effect {
    /// What has it.
    pub name: String,
    /// In points, with the interval clustered by run.
    pub by_run: Coefficient,
    /// The same clustered by seed; `None` of one seed.
    pub by_seed: Option<Coefficient>,
}

/// A fitted model.
pub struct Factorial {
    /// The effects, in the order of the terms.
    pub effects: Vec<Effect>,
    /// What the model is, and what it assumes.
    pub how: String,
}

/// A run.
struct Row {
    /// Its level of each factor.
    levels: Vec<usize>,
    /// log2 of the learning rate.
    rate: f64,
    seed: usize,
    lost: f64,
}

/// A factor with the names of its levels.
struct Factor {
    name: &'static str,
    levels: Vec<String>,
}

impl Factor {
    fn new(name: &'static str) -> Factor {
        Factor { name, levels: Vec::new() }
    }

    /// Number of the level of this name.
    fn level(&mut self, name: &str) -> usize {
        self.levels.iter().position(|known| known == name).unwrap_or_else(|| {
            self.levels.push(name.to_string());
            self.levels.len() - 1
        })
    }
}

/// The model over the regimes that are compared with each other and have several learning rates each; `None` if there are fewer than two of
/// them, or no more runs than effects. Data and method are factors of their own where they can be told apart; else each regime is a level.
pub fn factorial(group: &ComparedRegimes<'_, '_>) -> Option<Factorial> {
    let rates = |regime: &RegimeResults<'_>| {
        regime.variants.iter().filter(|one| one.learning_rate.is_some() && one.done().next().is_some()).count()
    };
    let regimes: Vec<&RegimeResults<'_>> = group.regimes.iter().copied().filter(|regime| rates(regime) > 1).collect();
    let of = |factors: Vec<Factor>, names: &dyn Fn(usize) -> Vec<String>| fit(&regimes, factors, names);
    let by_regime = || of(vec![Factor::new("regime")], &|i| vec![regimes[i].name.to_string()]);
    let apart = || {
        let names = |i: usize| vec![regimes[i].recipe.data.clone(), regimes[i].recipe.method.clone()];
        of(vec![Factor::new("data"), Factor::new("method")], &names)
    };
    if regimes.len() < 2 {
        return None;
    }
    let cell =
        |regime: &&RegimeResults<'_>| format!("{} ({}; {})", regime.name, regime.recipe.data, regime.recipe.method);
    let cells: Vec<String> = regimes.iter().map(cell).collect();
    let (mut found, what) = match apart() {
        Some(found) => (found, format!("Data and method of each regime: {}. ", cells.join(", "))),
        None => (
            by_regime()?,
            "Data and method cannot be told apart among these regimes, so each regime is a level. ".into(),
        ),
    };
    found.how = what + &found.how;
    Some(found)
}

fn fit(
    regimes: &[&RegimeResults<'_>],
    mut factors: Vec<Factor>,
    names: &dyn Fn(usize) -> Vec<String>,
) -> Option<Factorial> {
    let mut rows: Vec<Row> = Vec::new();
    for (i, regime) in regimes.iter().enumerate() {
        let levels: Vec<usize> = factors.iter_mut().zip(names(i)).map(|(factor, name)| factor.level(&name)).collect();
        for variant in &regime.variants {
            let Some(rate) = variant.learning_rate.map(f64::log2) else { continue };
            let lost =
                variant.done().filter_map(|(run, tuned)| Some((run.plan.seed, -100.0 * prior(tuned)?.change.value)));
            rows.extend(lost.map(|(seed, lost)| Row { levels: levels.clone(), rate, seed: seed as usize, lost }));
        }
    }
    if factors.iter().any(|factor| factor.levels.len() < 2) {
        return None;
    }
    let middle = rows.iter().map(|row| row.rate).sum::<f64>() / rows.len() as f64;
    let coded = |row: &Row| -> Vec<Vec<f64>> {
        row.levels.iter().zip(&factors).map(|(level, factor)| effects(*level, factor.levels.len())).collect()
    };
    // With the product of data and method where every combination that the product needs was run.
    let design = |row: &Row, crossed: bool| {
        let (own, rate) = (coded(row), row.rate - middle);
        let main = own.concat();
        let slopes: Vec<f64> = main.iter().map(|x| x * rate).collect();
        let product = match own.as_slice() {
            [a, b] if crossed => a.iter().flat_map(|a| b.iter().map(move |b| a * b)).collect(),
            _ => Vec::new(),
        };
        [vec![1.0], main, vec![rate], slopes, product].concat()
    };
    let (lost, seeds): (Vec<f64>, Vec<usize>) = rows.iter().map(|row| (row.lost, row.seed)).unzip();
    let several_seeds = seeds.iter().any(|seed| *seed != seeds[0]);
    let runs: Vec<usize> = (0..rows.len()).collect();
    let model = |crossed: bool| {
        let design: Vec<Vec<f64>> = rows.iter().map(|row| design(row, crossed)).collect();
        let by_run = Ols::fit(&design, &lost, &runs).filter(|ols| ols.coefficients.len() < rows.len())?;
        Some((by_run, Ols::fit(&design, &lost, &seeds).filter(|_| several_seeds)))
    };
    let crossed = if factors.len() == 2 { model(true) } else { None };
    let has_product = crossed.is_some();
    let (ols, by_seed) = crossed.or_else(|| model(false))?;
    let columns = ols.coefficients.len();
    let at = |name: String, start: usize, weights: &[f64]| {
        let mut all = vec![0.0; columns];
        all[start..start + weights.len()].copy_from_slice(weights);
        let by_seed = by_seed.as_ref().map(|ols| ols.combination(&all));
        Effect { name, by_run: ols.combination(&all), by_seed }
    };
    let width: usize = factors.iter().map(|factor| factor.levels.len() - 1).sum();
    let mut all = vec![at(format!("mean at learning rate {:.1e}", middle.exp2()), 0, &[1.0])];
    let per_level = |start: usize, suffix: &str, all: &mut Vec<Effect>| {
        let mut start = start;
        for factor in &factors {
            let count = factor.levels.len();
            for (level, name) in factor.levels.iter().enumerate() {
                all.push(at(format!("{}: {name}{suffix}", factor.name), start, &effects(level, count)));
            }
            start += count - 1;
        }
    };
    per_level(1, "", &mut all);
    all.push(at("learning rate per doubling".into(), 1 + width, &[1.0]));
    per_level(2 + width, " x learning rate per doubling", &mut all);
    if let ([a, b], true) = (factors.as_slice(), has_product) {
        for (i, first) in a.levels.iter().enumerate() {
            for (j, second) in b.levels.iter().enumerate() {
                let (own, other) = (effects(i, a.levels.len()), effects(j, b.levels.len()));
                let weights: Vec<f64> = own.iter().flat_map(|x| other.iter().map(move |y| x * y)).collect();
                let name = format!("{}: {first} x {}: {second}", a.name, b.name);
                all.push(at(name, 2 + 2 * width, &weights));
            }
        }
    }
    let how = format!(
        "Least squares over the final models of {} runs, R\u{b2} {}: points lost (positive) on the factors in effects coding (each level against the \
         unweighted mean of the levels), on log2 of the learning rate and on their products{}. Intervals are cluster-robust (CR1, Student\u{2019}s t): by run, \
         {} degrees of freedom, {}. The test questions are the same in all runs \
         and are not resampled here, and the loss is taken to be linear in the log of the rate.",
        rows.len(),
        short(ols.r2),
        if factors.len() == 2 && !has_product {
            "; not every method learned all data, so the product of the two is left out"
        } else {
            ""
        },
        rows.len() - columns,
        match &by_seed {
            Some(by_seed) => format!(
                "and by seed, {}: the fixed effects of a mixed model in which seeds are random. The wider one is the one to quote",
                by_seed.clusters - 1
            ),
            None => "which of one seed says nothing of other seeds".into(),
        },
    );
    Some(Factorial { effects: all, how })
}

/// As a table.
pub fn table(group: &ComparedRegimes<'_, '_>) -> Option<TableWithCaption> {
    let found = factorial(group)?;
    let signed = |x: f64| format!("{x:+.2}");
    let interval = |one: &Coefficient| match one.value {
        Interval { low, high, .. } if low.is_finite() && high.is_finite() => {
            Cell::with(format!("{} to {}", signed(low), signed(high)), format!("p {}", p_value(one.p)))
        }
        _ => Cell::none(),
    };
    let row = |effect: &Effect| {
        let by_seed = effect.by_seed.as_ref().map(interval);
        let points = Cell::text(signed(effect.by_run.value.value));
        [Cell::text(effect.name.clone()), points, interval(&effect.by_run)].into_iter().chain(by_seed).collect()
    };
    let by_seed = found.effects.iter().any(|effect| effect.by_seed.is_some());
    let header = ["term", "points lost", "95 % by run"].into_iter().chain(by_seed.then_some("95 % by seed"));
    Some(TableWithCaption {
        title: "Data, learning rate or method",
        how: found.how.clone(),
        header: header.map(String::from).collect(),
        rows: found.effects.iter().map(row).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forgetting::TunedResult;
    use crate::forgetting::fixtures::{compared, model, paired_scores};
    use crate::report::study::load::{RegimeRuns, SeedRun};
    use crate::report::study::recipe::Recipe;
    use crate::report::study_index::StudyRun;

    const RATES: [f64; 3] = [1e-4, 2e-4, 4e-4];
    /// Regime, data, method and what it loses of 1,000 answers beside 40, 10 for each doubling of the rate and 2 in the second seed.
    const REGIMES: [(&str, &str, &str, usize); 4] = [
        ("a", "bare", "sft", 0),
        ("b", "rollouts", "sft", 20),
        ("c", "own samples", "sft", 30),
        ("d", "own samples", "rft", 80),
    ];

    fn named<'f>(found: &'f Factorial, name: &str) -> &'f Effect {
        found.effects.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("{name}"))
    }

    fn effect(found: &Factorial, name: &str) -> Interval {
        named(found, name).by_seed.unwrap().value
    }

    fn analysed(of: &[usize]) -> Option<Factorial> {
        let mut plans: Vec<StudyRun> = Vec::new();
        let mut models: Vec<TunedResult> = Vec::new();
        for (regime, rate, seed) in runs(of) {
            let lost = 40 + REGIMES[regime].3 + 10 * rate + 2 * seed;
            models.push(TunedResult::of(
                model("m"),
                None,
                vec![compared("prior", &paired_scores(1000, 1000, lost, 0))],
                Vec::new(),
            ));
            plans.push(StudyRun {
                name: String::new(),
                regime: REGIMES[regime].0.into(),
                learning_rate: Some(RATES[rate]),
                seed: seed as u64,
                dir: None,
                comparison: "c".into(),
                data: None,
                new_task: None,
                training: None,
            });
        }
        let one = |i: usize| SeedRun {
            plan: &plans[i],
            dir: None,
            models: vec![&models[i]],
            done: true,
            state: String::new(),
            data: None,
            trajectory: Vec::new(),
        };
        let places: Vec<(usize, usize, usize)> = runs(of).collect();
        let variant = |regime: usize, rate: usize| RegimeRuns {
            learning_rate: Some(RATES[rate]),
            setting: "",
            runs: (0..places.len()).filter(|i| (places[*i].0, places[*i].1) == (regime, rate)).map(one).collect(),
        };
        let regime = |&i: &usize| RegimeResults {
            name: REGIMES[i].0,
            about: "",
            variants: (0..RATES.len()).map(|rate| variant(i, rate)).collect(),
            best: Some(0),
            recipe: Recipe { data: REGIMES[i].1.into(), method: REGIMES[i].2.into() },
            perplexity: None,
        };
        let regimes: Vec<RegimeResults<'_>> = of.iter().map(regime).collect();
        factorial(&ComparedRegimes { new_tasks: Vec::new(), regimes: regimes.iter().collect(), level: None })
    }

    fn runs(of: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
        let regimes = of.iter().copied();
        regimes.flat_map(|regime| (0..RATES.len()).flat_map(move |rate| (0..2).map(move |seed| (regime, rate, seed))))
    }

    #[test]
    fn data_method_and_rate_have_the_effects_that_were_put_in() {
        let found = analysed(&[0, 1, 2, 3]).unwrap();
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
        let value = |name: &str| effect(&found, name).value;
        near(value("method: rft") - value("method: sft"), 5.0);
        near(value("data: rollouts") - value("data: bare"), 2.0);
        near(value("data: own samples") - value("data: bare"), 3.0);
        near(value("learning rate per doubling"), 1.0);
        near(value("method: rft x learning rate per doubling"), 0.0);
        // Clustered by run, the seeds' difference is noise like any other.
        let by_run = named(&found, "method: rft").by_run.value;
        assert!(by_run.low < by_run.value - 0.05 && by_run.high > by_run.value + 0.05, "{by_run:?}");
        // Every regime has the same two seeds, which differ by 0.2 points: no effect but the mean varies with them.
        let method = effect(&found, "method: rft");
        assert!(method.high - method.low < 1e-6, "{method:?}");
        let mean = effect(&found, "mean at learning rate 2.0e-4");
        assert!(mean.low < mean.value - 0.5 && mean.high > mean.value + 0.5, "{mean:?}");
        assert!(found.how.contains("the product of the two is left out") && found.how.contains("d (own samples; rft)"));
    }

    #[test]
    fn what_cannot_be_told_apart_is_one_factor_and_one_regime_none() {
        let found = analysed(&[0, 3]).unwrap();
        let (a, d) = (effect(&found, "regime: a"), effect(&found, "regime: d"));
        assert!((d.value - a.value - 8.0).abs() < 1e-9);
        assert!(found.how.contains("cannot be told apart"));
        assert!(analysed(&[0]).is_none());
    }
}
