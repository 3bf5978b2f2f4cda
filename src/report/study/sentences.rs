//! The results of a study in sentences that claim no more than the intervals support.

use super::cells::{bare, lost_points};
use super::seed_stats::{IntervalSource, SeedMean, separated_groups};
use crate::stats::Interval;
use crate::stats::table::{p_value, percent};
use crate::train::run_dir::CriterionResult;

/// Up to so many regimes are listed one by one; of more, only the first and the last.
const MAX_LISTED: usize = 3;

/// A regime with a mean over its seeds.
pub type Named<'a> = (&'a str, SeedMean);

/// What one regime learned and lost.
#[derive(Debug, Clone)]
pub struct RegimeResult<'a> {
    /// Name of the regime.
    pub name: &'a str,
    /// What it is.
    pub about: &'a str,
    /// Its learning rate (`learning rate 5e-5`), where it has several.
    pub rate: Option<String>,
    /// Accuracy on the new task.
    pub accuracy: SeedMean,
    /// Mean change over all benchmarks.
    pub change: Option<SeedMean>,
    /// Change of each family.
    pub families: Vec<Named<'a>>,
    /// Of a regime with one seed: questions that were answered worse, and better, and the p-value of the exact sign test.
    pub questions: Option<(usize, usize, f64)>,
}

/// One regime in one sentence: `SFT on bare answers: 15.7 % of puzzles (13.0 to 18.9), lost 0.9 points (0.3 to 1.6), most in knowledge (3.1).`
/// `of`: what is answered.
pub fn regime(one: &RegimeResult<'_>, of: &str) -> String {
    let Interval { value, low, high } = one.accuracy.mean;
    let range = if low.is_finite() { format!(" ({} to {})", bare(low), bare(high)) } else { String::new() };
    let about: Vec<&str> = [one.about].into_iter().chain(one.rate.as_deref()).filter(|part| !part.is_empty()).collect();
    let about = if about.is_empty() { String::new() } else { format!("{}: ", about.join(", ")) };
    let learned = format!("{about}{} of {of}{range}", percent(value));
    let Some(change) = one.change else { return format!("{learned}.") };
    let clear = |(_, over): &&Named<'_>| one.families.len() > 1 && over.mean.excludes_zero() && over.mean.value < 0.0;
    let worst = one.families.iter().filter(clear).min_by(|a, b| a.1.mean.value.total_cmp(&b.1.mean.value));
    let worst = worst.map(|(name, over)| (name, lost_points(-over.mean.value)));
    match worst {
        Some((name, points)) if change.mean.excludes_zero() => {
            format!("{learned}, {}, most in {name} ({points}).", lost(&change))
        }
        Some((name, points)) => format!("{learned}, {}, but {points} points lost in {name}.", lost(&change)),
        None => format!("{learned}, {}.", lost(&change)),
    }
}

/// `lost 0.9 points (0.3 to 1.6)`, `gained ...`, or `no clear loss: ...` where the interval includes 0.
fn lost(change: &SeedMean) -> String {
    let gain = change.mean.excludes_zero() && change.mean.value > 0.0;
    let Interval { value, low, high } = if gain { change.mean } else { change.negated().mean };
    let points = lost_points(value);
    match (low.is_finite() && high.is_finite(), change.mean.excludes_zero()) {
        (false, _) => format!("lost {points} points (no interval)"),
        (true, false) => format!("no clear loss: {points} points ({} to {})", lost_points(low), lost_points(high)),
        (true, true) => {
            let word = if gain { "gained" } else { "lost" };
            format!("{word} {points} points ({} to {})", lost_points(low), lost_points(high))
        }
    }
}

/// Who learned most, as far as the intervals tell. `on` names the new task where regimes have different ones. Runs that ended at a `criterion` are
/// not ranked by how far beyond it they came.
pub fn learned(regimes: &[Named<'_>], on: Option<&str>, criterion: bool) -> Option<String> {
    let order = match criterion && !regimes.is_empty() {
        true => "Runs ended where they met their criterion, so they are not ranked by accuracy.".to_string(),
        false => order(&sorted(regimes), &LEARNED),
    };
    let on = on.map(|on| format!("On {on}: ")).unwrap_or_default();
    (!order.is_empty()).then(|| format!("{on}{}", order.trim_start()))
}

/// Who lost least, as far as the intervals tell, and which families changed.
pub fn forgotten(regimes: &[RegimeResult<'_>]) -> Option<String> {
    let sorted = sorted(&regimes.iter().filter_map(|regime| Some((regime.name, regime.change?))).collect::<Vec<_>>());
    if sorted.is_empty() {
        return None;
    }
    let mut text = order(&sorted, &LOST);
    // Of more regimes, the table by family shows them.
    if regimes.len() <= MAX_LISTED {
        text += &(changed_families(regimes) + &by_question(regimes));
    }
    Some(text.trim_start().to_string()).filter(|text| !text.is_empty())
}

/// Every family whose interval leaves out 0, of every regime; empty where there is one family, which is the mean.
fn changed_families(regimes: &[RegimeResult<'_>]) -> String {
    let families = regimes.iter().map(|regime| regime.families.len()).max().unwrap_or(0);
    if families < 2 {
        return String::new();
    }
    let one = |(name, over): &Named<'_>| format!("{name} {}", lost(over));
    let of = |regime: &RegimeResult<'_>| {
        let changed: Vec<String> = regime.families.iter().filter(|(_, o)| o.mean.excludes_zero()).map(one).collect();
        (!changed.is_empty())
            .then(|| format!("{}: {}", regime.name, and(&changed.iter().map(String::as_str).collect::<Vec<_>>())))
    };
    let changed: Vec<String> = regimes.iter().filter_map(of).collect();
    if changed.is_empty() {
        return format!(" The 95 % interval of each of the {families} families includes 0.");
    }
    format!(
        " Of {families} families, the 95 % interval (not adjusted for their number) leaves out 0 for these. {}.",
        changed.join("; ")
    )
}

/// Questions answered worse and better, of the regimes with one seed.
fn by_question(regimes: &[RegimeResult<'_>]) -> String {
    let of = |regime: &RegimeResult<'_>| {
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
        "At {} accuracy on the new task, the highest that all their seeds reach, lost of prior knowledge: {}.{rest}{order}",
        percent(level),
        losses(&sorted)
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
        "Where each run met {which} on validation examples{reached}, at the learning rate that then lost least, lost of prior knowledge: {}.{rest}{}",
        losses(&sorted),
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

fn losses(sorted: &[Named<'_>]) -> String {
    // The largest loss first.
    let worst_first: Vec<Named<'_>> = sorted.iter().rev().map(|(name, change)| (*name, change.negated())).collect();
    let value = |value: f64| format!("{} points", lost_points(value));
    let range = |i: &Interval| format!("{} to {}", lost_points(i.low), lost_points(i.high));
    listed(&worst_first, value, range, " under ")
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
    fn a_regime_is_one_sentence_that_claims_what_its_intervals_show() {
        let of = |change, families| RegimeResult { about: "SFT on bare answers", families, ..result(("sft", change)) };
        let families =
            || vec![("ocr", over(-0.02, 0.03)), ("knowledge", over(-0.031, 0.01)), ("doc", over(-0.02, 0.01))];
        let text = regime(&of(over(-0.009, 0.006), families()), "puzzles");
        let learned = "SFT on bare answers: 15.7 % of puzzles (13.7 to 17.7)";
        assert_eq!(text, format!("{learned}, lost 0.9 points (0.3 to 1.5), most in knowledge (3.1)."));
        let text = regime(&of(over(-0.009, 0.02), families()), "puzzles");
        let expected = format!("{learned}, no clear loss: 0.9 points (-1.1 to 2.9), but 3.1 points lost in knowledge.");
        assert_eq!(text, expected);
        let one =
            RegimeResult { about: "", rate: Some("learning rate 1e-4".into()), ..of(over(0.02, 0.01), Vec::new()) };
        let text = regime(&one, "puzzles");
        assert_eq!(text, "learning rate 1e-4: 15.7 % of puzzles (13.7 to 17.7), gained 2.0 points (1.0 to 3.0).");
        let still = regime(&of(over(0.0, f64::NAN), Vec::new()), "puzzles");
        assert!(still.ends_with("lost 0.0 points (no interval)."), "{still}");
    }

    #[test]
    fn an_order_is_claimed_where_intervals_stand_apart() {
        let text = learned(&[("rft", over(0.41, 0.04)), ("sft", over(0.6, 0.05))], Some("bare"), false).unwrap();
        assert_eq!(text, "On bare: By the 95 % intervals most was learned by sft.");
        assert_eq!(learned(&[("rft", over(0.41, 0.04))], None, false), None, "nothing to compare");
    }

    fn result<'a>((name, change): Named<'a>) -> RegimeResult<'a> {
        let accuracy = over(0.157, 0.02);
        RegimeResult {
            name,
            about: "",
            rate: None,
            accuracy,
            change: Some(change),
            families: Vec::new(),
            questions: None,
        }
    }

    fn lost_by<'a>(regimes: &[Named<'a>]) -> Vec<RegimeResult<'a>> {
        regimes.iter().copied().map(result).collect()
    }

    #[test]
    fn no_order_is_claimed_where_intervals_overlap() {
        let text = forgotten(&lost_by(&[("rft", over(-0.004, 0.01)), ("sft", over(-0.05, 0.06))])).unwrap();
        assert_eq!(text, "Which of them lost least is undecided: their 95 % intervals overlap.");
        let mixed =
            [("a", over(-0.01, 0.005)), ("b", over(-0.2, 0.03)), ("c", over(-0.22, 0.03)), ("d", over(-0.5, 0.1))];
        let text = forgotten(&lost_by(&mixed)).unwrap();
        assert_eq!(text, "By the 95 % intervals least was lost by a; most was lost by d.");
        // The second and the third overlap, and both lie above the last.
        let open = forgotten(&lost_by(&mixed[1..])).unwrap();
        assert!(open.ends_with("least was lost by b or c, which overlap; most was lost by d."), "{open}");
        let paid = price(&mixed, Some(0.3), &[]);
        assert!(
            paid.contains("lost of prior knowledge: between 50.0 points under d (3 seeds, 95 % interval 40.0 to 60.0)"),
            "{paid}"
        );
    }

    #[test]
    fn every_family_that_changed_is_named_though_the_mean_did_not() {
        let mut regimes = lost_by(&[("rft", over(0.001, 0.01)), ("sft", over(-0.011, 0.014))]);
        regimes[1].families =
            vec![("ocr", over(0.0, 0.02)), ("knowledge", over(-0.075, 0.05)), ("grounding", over(0.04, 0.03))];
        regimes[1].questions = Some((12, 1, 0.003_417_968_75));
        regimes[0].families =
            vec![("ocr", over(0.0, 0.02)), ("knowledge", over(-0.01, 0.05)), ("grounding", over(0.0, 0.03))];
        let text = forgotten(&regimes).unwrap();
        let expected = " Of 3 families, the 95 % interval (not adjusted for their number) leaves out 0 for these. sft: knowledge lost 7.5 points (2.5 \
                        to 12.5) and grounding gained 4.0 points (1.0 to 7.0). By question: 12 worse and 1 better under sft (sign test p = 0.0034).";
        assert!(text.ends_with(expected), "{text}");
        let quiet = forgotten(&regimes[..1]).unwrap();
        assert_eq!(quiet, "The 95 % interval of each of the 3 families includes 0.");
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
        assert_eq!((learned(&[], None, false), forgotten(&[])), (None, None));
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
