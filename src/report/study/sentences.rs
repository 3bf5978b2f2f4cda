//! The results of a study in sentences that claim no more than the intervals support.

use super::seed_stats::{IntervalSource, SeedMean, separated_groups};
use crate::stats::Interval;
use crate::stats::table::{p_value, percent, points};
use crate::train::run_dir::CriterionResult;

/// Up to so many regimes are listed one by one; of more, only the first and the last.
const MAX_LISTED: usize = 3;

/// A regime with a mean over its seeds.
pub type Named<'a> = (&'a str, SeedMean);

/// What was learned: `on` names the new task where regimes have different ones, `base` is the base's share of right answers.
/// Runs that ended at a criterion are not ranked by how far beyond it they came.
pub fn learned(regimes: &[Named<'_>], on: Option<&str>, base: Option<&str>, criterion: bool) -> Option<String> {
    let sorted = sorted(regimes);
    let values = listed(&sorted, percent, |i| format!("{} to {}", bare(i.low), bare(i.high)), " with ");
    let base = base.map(|base| format!("; the base {base}")).unwrap_or_default();
    let on = on.map(|on| format!(" on {on}")).unwrap_or_default();
    let one = |what: &str| format!("New-task accuracy{on}, each regime at its best learning rate: {what}{base}.");
    let order = match criterion {
        true => " Runs ended where they met their criterion, so they are not ranked here.".to_string(),
        false => order(&sorted, &LEARNED),
    };
    (!sorted.is_empty()).then(|| [one(&values), order].concat())
}

/// What a regime forgot.
#[derive(Debug, Clone)]
pub struct Forgotten<'a> {
    /// Name of the regime.
    pub name: &'a str,
    /// Mean change over all benchmarks.
    pub mean: SeedMean,
    /// Change of each family.
    pub families: Vec<Named<'a>>,
    /// Of a regime with one seed: questions that were answered worse, and better, and the p-value of the exact sign test.
    pub questions: Option<(usize, usize, f64)>,
}

/// What was forgotten: `base` is the base's mean score.
pub fn forgotten(regimes: &[Forgotten<'_>], base: Option<f64>) -> Option<String> {
    let sorted = sorted(&regimes.iter().map(|regime| (regime.name, regime.mean)).collect::<Vec<_>>());
    if sorted.is_empty() {
        return None;
    }
    let base = base.map(|base| format!(" (mean score, base {})", percent(base))).unwrap_or_default();
    let mut text = format!("Prior knowledge{base} {}.", changes(&sorted));
    let unsure: Vec<&str> = sorted.iter().filter(|(_, o)| !o.mean.excludes_zero()).map(|(name, _)| *name).collect();
    if !unsure.is_empty() {
        let who = if unsure.len() > MAX_LISTED { format!("{} of them", unsure.len()) } else { and(&unsure) };
        text += &format!(" The change of the mean is not significant for {who}: the 95 % interval includes 0.");
    }
    text += &changed_families(regimes);
    if regimes.len() <= MAX_LISTED {
        text += &by_question(regimes);
    }
    Some(text + &order(&sorted, &LOST))
}

/// Every family whose interval leaves out 0, of every regime; empty where there is one family, which is the mean.
fn changed_families(regimes: &[Forgotten<'_>]) -> String {
    let families = regimes.iter().map(|regime| regime.families.len()).max().unwrap_or(0);
    if families < 2 {
        return String::new();
    }
    let one = |(name, over): &Named<'_>| {
        format!("{name} ({} points, {} to {})", points(over.mean.value), points(over.mean.low), points(over.mean.high))
    };
    let of = |regime: &Forgotten<'_>| {
        let changed: Vec<String> = regime.families.iter().filter(|(_, o)| o.mean.excludes_zero()).map(one).collect();
        (!changed.is_empty())
            .then(|| format!("{} under {}", and(&changed.iter().map(String::as_str).collect::<Vec<_>>()), regime.name))
    };
    let changed: Vec<String> = regimes.iter().filter_map(of).collect();
    if changed.is_empty() {
        return format!(" The 95 % interval of each of the {families} families includes 0.");
    }
    format!(
        " Of {families} families, the 95 % interval (not adjusted for their number) leaves out 0 for {}.",
        changed.join("; ")
    )
}

/// Questions answered worse and better, of the regimes with one seed.
fn by_question(regimes: &[Forgotten<'_>]) -> String {
    let of = |regime: &Forgotten<'_>| {
        let (worse, better, p) = regime.questions?;
        Some(format!("{worse} worse and {better} better under {} (sign test p = {})", regime.name, p_value(p)))
    };
    let known: Vec<String> = regimes.iter().filter_map(of).collect();
    match known.is_empty() {
        true => String::new(),
        false => format!(" By question: {}.", and(&known.iter().map(String::as_str).collect::<Vec<_>>())),
    }
}

/// What it cost at an accuracy that all reach; `None` where none is reached by two.
pub fn price(regimes: &[Named<'_>], level: Option<f64>, not_reached: &[&str]) -> String {
    let Some(level) = level else {
        return "No two regimes gained 10 points with all their seeds, so none are compared at equal accuracy.".into();
    };
    let sorted = sorted(regimes);
    let rest = match not_reached {
        [] => String::new(),
        some => format!(" {} did not reach it with all seeds.", and(some)),
    };
    if sorted.is_empty() {
        let level = percent(level);
        return format!(
            "At {level} accuracy on the new task, the highest that all seeds reach, none can be read with all its seeds.{rest}"
        );
    }
    let order = order(&sorted, &PAID);
    format!(
        "At {} accuracy on the new task, the highest that all their seeds reach, prior knowledge {}.{rest}{order}",
        percent(level),
        changes(&sorted)
    )
}

/// What it cost to meet a criterion on validation examples, over the regimes that met it with all their seeds; `accuracies` are theirs on the
/// test examples.
pub fn at_criterion(stop_when: &[&str], regimes: &[Named<'_>], accuracies: &[Named<'_>], not_met: &[&str]) -> String {
    let which = match stop_when {
        [one] => (*one).to_string(),
        _ => "its criterion".to_string(),
    };
    let of = |pick: fn(f64, f64) -> f64| accuracies.iter().map(|(_, over)| over.mean.value).reduce(pick);
    let reached = match (of(f64::min), of(f64::max)) {
        (Some(low), Some(high)) if low == high => format!(" (accuracy on test examples {})", percent(high)),
        (Some(low), Some(high)) => format!(" (accuracy on test examples {} to {})", bare(low), percent(high)),
        _ => String::new(),
    };
    let rest = match not_met {
        [] => String::new(),
        some => format!(" {} did not meet it with all seeds.", and(some)),
    };
    let sorted = sorted(regimes);
    format!(
        "Where each run met {which} on validation examples{reached}, at the learning rate that then forgot least, prior knowledge {}.{rest}{}",
        changes(&sorted),
        order(&sorted, &PAID)
    )
}

/// What the intervals are about.
pub fn caution(regimes: &[Named<'_>]) -> Option<String> {
    let named = |of: fn(&SeedMean) -> bool| -> Vec<&str> {
        regimes.iter().filter(|(_, o)| of(o)).map(|(name, _)| *name).collect()
    };
    let (one, equal) = (
        named(|o| o.basis == IntervalSource::Examples && o.seeds == 1),
        named(|o| o.basis == IntervalSource::Examples && o.seeds > 1),
    );
    let mut parts = Vec::new();
    if !one.is_empty() {
        parts.push(format!(
            "One seed only: {}. The interval is over test examples and does not account for other seeds.",
            and(&one)
        ));
    }
    if !equal.is_empty() {
        parts.push(format!("All seeds at the same value: {}. The interval is over test examples.", and(&equal)));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// What the new task is, where it is not the same for all regimes: the new tasks by what is compared, each by its name with its regimes.
/// Those that are compared are the same puzzles in other words.
pub fn new_tasks(groups: &[Vec<(&str, Vec<&str>)>]) -> Option<String> {
    let listed = |group: &Vec<(&str, Vec<&str>)>| {
        let each: Vec<String> = group.iter().map(|(name, regimes)| format!("{name} ({})", and(regimes))).collect();
        and(&each.iter().map(String::as_str).collect::<Vec<_>>())
    };
    match groups {
        [] => None,
        [group] if group.len() < 2 => None,
        [group] => Some(format!(
            "The new task is the same puzzles in {} wordings: {}. Pictures and right answers are the same, so accuracies are compared; the \
             wording, and with it the form of the answer, belongs to the regime.",
            group.len(),
            listed(group)
        )),
        several => {
            let each: Vec<String> = several.iter().map(listed).collect();
            Some(format!(
                "The regimes have {} different new tasks: {}. Accuracies on different puzzles are not compared.",
                several.len(),
                each.join("; ")
            ))
        }
    }
}

/// Which of the runs that were to train to a criterion did not meet it.
pub fn criteria(trained: &[(&str, &CriterionResult)]) -> Option<String> {
    let first = trained.first()?.1;
    let which = match trained.iter().all(|(_, criterion)| criterion.stop_when == first.stop_when) {
        true => format!("{} on validation examples", first.stop_when),
        false => "a criterion on validation examples".to_string(),
    };
    let unmet: Vec<&str> = trained.iter().filter(|(_, criterion)| !criterion.met).map(|(name, _)| *name).collect();
    let end = match unmet.is_empty() {
        true => "all of them met it.".to_string(),
        false => format!("{} did not meet it within their steps: {}.", unmet.len(), and(&unmet)),
    };
    Some(format!("{} runs trained to {which}; {end}", trained.len()))
}

const LEARNED: Order = Order { open: "learned most", first: "most was learned by", last: "least was learned by" };
const LOST: Order = Order { open: "lost least", first: "least was lost by", last: "most was lost by" };
const PAID: Order = Order { open: "paid least", first: "least was paid by", last: "most was paid by" };

/// Highest value first.
fn sorted<'a>(regimes: &[Named<'a>]) -> Vec<Named<'a>> {
    let mut sorted = regimes.to_vec();
    sorted.sort_by(|a, b| b.1.mean.value.total_cmp(&a.1.mean.value));
    sorted
}

fn changes(sorted: &[Named<'_>]) -> String {
    // The largest loss first.
    let worst_first: Vec<Named<'_>> = sorted.iter().rev().copied().collect();
    let value = |value: f64| format!("{} points", points(value));
    let range = |i: &Interval| format!("{} to {}", points(i.low), points(i.high));
    format!("changed by {}", listed(&worst_first, value, range, " under "))
}

fn listed(
    regimes: &[Named<'_>],
    value: impl Fn(f64) -> String,
    range: impl Fn(&Interval) -> String,
    link: &str,
) -> String {
    let one = |(name, over): &Named<'_>| {
        let known = over.mean.low.is_finite() && over.mean.high.is_finite();
        let seeds = if over.seeds == 1 { "1 seed".to_string() } else { format!("{} seeds", over.seeds) };
        let range = if known { format!(", 95 % interval {}", range(&over.mean)) } else { String::new() };
        format!("{}{link}{name} ({seeds}{range})", value(over.mean.value))
    };
    match regimes {
        [first, .., last] if regimes.len() > MAX_LISTED => format!("between {} and {}", one(first), one(last)),
        _ => and(&regimes.iter().map(one).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// How an order of regimes is put into phrases.
struct Order {
    /// "learned most"
    open: &'static str,
    /// "most was learned by"
    first: &'static str,
    /// "least was learned by"
    last: &'static str,
}

/// The order of the regimes, sorted by value, as far as the intervals support it. A regime without an interval is left out.
fn order(sorted: &[Named<'_>], phrases: &Order) -> String {
    if sorted.len() < 2 {
        return String::new();
    }
    let has_ends = |over: &SeedMean| !over.mean.low.is_nan() && !over.mean.high.is_nan();
    let (known, bare): (Vec<Named<'_>>, Vec<Named<'_>>) = sorted.iter().copied().partition(|(_, over)| has_ends(over));
    if !bare.is_empty() {
        let one = |(name, over): &Named<'_>| {
            format!("{name} ({})", if over.seeds == 1 { "one seed" } else { "all seeds at the same value" })
        };
        let bare: Vec<String> = bare.iter().map(one).collect();
        let bare = and(&bare.iter().map(String::as_str).collect::<Vec<_>>());
        return match known.len() {
            0 | 1 => format!(" Which of them {} is undecided: there is no interval for {bare}.", phrases.open),
            _ => format!(" The order leaves out {bare}: there is no interval.{}", order(&known, phrases)),
        };
    }
    let groups = separated_groups(&sorted.iter().map(|(_, over)| over.mean).collect::<Vec<_>>());
    let names = |group: &Vec<usize>| group.iter().map(|&i| sorted[i].0).collect::<Vec<_>>();
    let [first, .., last] = groups.as_slice() else {
        return format!(" Which of them {} is undecided: their 95 % intervals overlap.", phrases.open);
    };
    let most = match first.len() {
        1 => format!("By the 95 % intervals {} {}", phrases.first, names(first)[0]),
        n if n > MAX_LISTED => {
            format!("Which {} is undecided among {n} of them, whose 95 % intervals overlap", phrases.open)
        }
        _ => format!("By the 95 % intervals {} {}, which overlap", phrases.first, joined(&names(first), "or")),
    };
    let least = match last.len() {
        _ if sorted.len() == 2 => String::new(),
        n if n > MAX_LISTED => String::new(),
        _ => format!("; {} {}", phrases.last, joined(&names(last), "or")),
    };
    format!(" {most}{least}.")
}

/// `a`, `a and b`, `a, b and c`.
pub fn and(names: &[&str]) -> String {
    joined(names, "and")
}

fn joined(names: &[&str], word: &str) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_string(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

fn bare(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(value: f64, half: f64) -> SeedMean {
        SeedMean {
            mean: Interval { value, low: value - half, high: value + half },
            basis: IntervalSource::Seeds,
            seeds: 3,
        }
    }

    #[test]
    fn runs_that_did_not_meet_their_criterion_are_named() {
        let of = |stop_when: &str, met| CriterionResult { stop_when: stop_when.into(), met };
        let (met, unmet, other) =
            (of("accuracy >= 0.2", true), of("accuracy >= 0.2", false), of("unparsed <= 0", true));
        assert_eq!(criteria(&[]), None);
        let said = criteria(&[("a", &met), ("b", &unmet)]).unwrap();
        let criterion = "2 runs trained to accuracy >= 0.2 on validation examples;";
        assert_eq!(said, format!("{criterion} 1 did not meet it within their steps: b."));
        let said = criteria(&[("a", &met), ("c", &other)]).unwrap();
        assert_eq!(said, "2 runs trained to a criterion on validation examples; all of them met it.");
    }

    #[test]
    fn an_order_is_claimed_where_intervals_stand_apart() {
        let text = learned(&[("rft", over(0.41, 0.04)), ("sft", over(0.6, 0.05))], None, Some("4.2 %"), false).unwrap();
        assert_eq!(
            text,
            "New-task accuracy, each regime at its best learning rate: 60.0 % with sft (3 seeds, 95 % interval 55.0 \
             to 65.0) and 41.0 % with rft (3 seeds, 95 % interval 37.0 to 45.0); the base 4.2 %. By the 95 % intervals most was \
             learned by sft."
        );
    }

    fn lost<'a>(regimes: &[Named<'a>]) -> Vec<Forgotten<'a>> {
        let of = |&(name, mean): &Named<'a>| Forgotten { name, mean, families: Vec::new(), questions: None };
        regimes.iter().map(of).collect()
    }

    #[test]
    fn no_order_is_claimed_where_intervals_overlap_and_no_change_where_zero_is_inside() {
        let text = forgotten(&lost(&[("rft", over(-0.004, 0.01)), ("sft", over(-0.05, 0.06))]), Some(0.9)).unwrap();
        assert!(text.contains("changed by -5.0 points under sft"), "{text}");
        assert!(text.contains("The change of the mean is not significant for rft and sft"), "{text}");
        assert!(text.ends_with("Which of them lost least is undecided: their 95 % intervals overlap."), "{text}");
        let mixed =
            [("a", over(-0.01, 0.005)), ("b", over(-0.2, 0.03)), ("c", over(-0.22, 0.03)), ("d", over(-0.5, 0.1))];
        let text = forgotten(&lost(&mixed), None).unwrap();
        assert!(text.ends_with("By the 95 % intervals least was lost by a; most was lost by d."), "{text}");
        assert!(text.contains("changed by between -50.0 points under d (3 seeds"), "{text}");
        // The second and the third overlap, and both lie above the last.
        let open = forgotten(&lost(&mixed[1..]), None).unwrap();
        assert!(open.ends_with("least was lost by b or c, which overlap; most was lost by d."), "{open}");
        assert!(!text.contains("not significant"), "{text}");
    }

    #[test]
    fn every_family_that_changed_is_named_though_the_mean_did_not() {
        let mut regimes = lost(&[("rft", over(0.001, 0.01)), ("sft", over(-0.011, 0.014))]);
        regimes[1].families =
            vec![("ocr", over(0.0, 0.02)), ("knowledge", over(-0.075, 0.05)), ("grounding", over(0.04, 0.03))];
        regimes[1].questions = Some((12, 1, 0.003_417_968_75));
        regimes[0].families =
            vec![("ocr", over(0.0, 0.02)), ("knowledge", over(-0.01, 0.05)), ("grounding", over(0.0, 0.03))];
        let text = forgotten(&regimes, None).unwrap();
        let expected = " Of 3 families, the 95 % interval (not adjusted for their number) leaves out 0 for knowledge (-7.5 points, -12.5 to \
                        -2.5) and grounding (+4.0 points, +1.0 to +7.0) under sft. By question: 12 worse and 1 better under sft (sign test \
                        p = 0.0034).";
        assert!(text.contains(expected) && text.contains("not significant for rft and sft"), "{text}");
        let quiet = forgotten(&regimes[..1], None).unwrap();
        assert!(quiet.ends_with("The 95 % interval of each of the 3 families includes 0."), "{quiet}");
    }

    #[test]
    fn regimes_without_an_interval_are_named_and_not_said_to_overlap() {
        let bare = |value| SeedMean { basis: IntervalSource::Examples, seeds: 1, ..over(value, f64::NAN) };
        let text = price(&[("rft", bare(-0.002)), ("sft", bare(-0.3))], Some(0.3), &[]);
        let open = "Which of them paid least is undecided: there is no interval for rft (one seed) and sft (one seed).";
        assert!(text.ends_with(open), "{text}");
        let text = price(&[("rft", over(-0.002, 0.001)), ("sft", bare(-0.3))], Some(0.3), &[]);
        assert!(
            text.ends_with("is undecided: there is no interval for sft (one seed).") && !text.contains("overlap"),
            "{text}"
        );
        let three = [("rft", over(-0.002, 0.001)), ("lora", over(-0.2, 0.01)), ("sft", bare(-0.3))];
        let text = price(&three, Some(0.3), &[]);
        let order =
            "The order leaves out sft (one seed): there is no interval. By the 95 % intervals least was paid by rft.";
        assert!(text.ends_with(order), "{text}");
    }

    #[test]
    fn the_price_names_who_did_not_get_there() {
        let text = price(&[("rft", over(-0.002, 0.001)), ("sft", over(-0.051, 0.01))], Some(0.3), &["slow"]);
        assert!(text.starts_with("At 30.0 % accuracy on the new task"), "{text}");
        assert!(text.contains("slow did not reach it with all seeds.") && text.ends_with("least was paid by rft."));
        assert!(price(&[], None, &[]).starts_with("No two regimes"));
        assert_eq!((learned(&[], None, None, false), forgotten(&[], None)), (None, None));
    }

    #[test]
    fn wordings_of_the_same_puzzles_are_compared_and_other_puzzles_are_not() {
        let words = vec![("thought", vec!["rft", "sft-rea"]), ("bare", vec!["sft"])];
        let text = new_tasks(std::slice::from_ref(&words)).unwrap();
        let begin = "The new task is the same puzzles in 2 wordings: thought (rft and sft-rea) and bare (sft).";
        assert!(text.starts_with(begin) && text.contains("accuracies are compared"), "{text}");
        let text = new_tasks(&[words, vec![("large", vec!["lora"])]]).unwrap();
        assert!(text.starts_with(
            "The regimes have 2 different new tasks: thought (rft and sft-rea) and bare (sft); large (lora)."
        ));
        assert!(text.ends_with("Accuracies on different puzzles are not compared."), "{text}");
        assert_eq!((new_tasks(&[vec![("bare", vec!["rft", "sft"])]]), new_tasks(&[])), (None, None));
    }

    #[test]
    fn one_seed_is_said_to_be_one() {
        let one = SeedMean { basis: IntervalSource::Examples, seeds: 1, ..over(0.4, 0.1) };
        assert!(caution(&[("rft", one)]).unwrap().starts_with("One seed only: rft."));
        assert_eq!(caution(&[("rft", over(0.4, 0.1))]), None);
        assert_eq!((and(&["a", "b", "c"]), and(&["a"])), ("a, b and c".to_string(), "a".to_string()));
    }
}
