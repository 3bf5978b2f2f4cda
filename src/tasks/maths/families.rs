//! The word problems: a family each, at three levels. Every answer is exact, and every problem comes with its steps.

use crate::rng::Rng;
use crate::tasks::rational::Rational;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Prices: of one kind of thing, of two, the change.
    Shopping,
    /// Parts of a number of things.
    Sharing,
    /// Distance, time, mean speed.
    Travel,
    /// Percentages: of a number, a discount, a rise and a fall.
    Percent,
    /// Ages, by a linear equation.
    Ages,
    /// Rectangles: area, a side, a path around.
    Garden,
    /// Probability of drawing marbles: one, two with replacement, two without.
    Marbles,
    /// What is left over, largest common divisors, smallest common multiples.
    Groups,
    /// Two unknowns: the answer is a pair.
    Pairs,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 9] = [
        Family::Shopping,
        Family::Sharing,
        Family::Travel,
        Family::Percent,
        Family::Ages,
        Family::Garden,
        Family::Marbles,
        Family::Groups,
        Family::Pairs,
    ];

    /// A problem of a level from 1 to 3; `None` if what was drawn is none.
    pub fn draw(self, level: u32, rng: &mut Rng) -> Option<Problem> {
        match self {
            Family::Shopping => shopping(level, rng),
            Family::Sharing => sharing(level, rng),
            Family::Travel => travel(level, rng),
            Family::Percent => percent(level, rng),
            Family::Ages => ages(level, rng),
            Family::Garden => garden(level, rng),
            Family::Marbles => marbles(level, rng),
            Family::Groups => groups(level, rng),
            Family::Pairs => pairs(level, rng),
        }
    }
}

/// A problem with its solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What is asked.
    pub text: String,
    /// The numbers in it.
    pub numbers: Vec<i128>,
    /// A number, a fraction in lowest terms, or a pair.
    pub answer: String,
    /// How it is found.
    pub steps: String,
    /// What the answer is to be, in words.
    pub form: &'static str,
}

const NAMES: [&str; 12] =
    ["Ada", "Ben", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana", "Ivan", "Jun", "Kofi", "Lena"];
const THINGS: [&str; 8] = ["pens", "apples", "books", "cups", "candles", "tickets", "plants", "stamps"];
const COLOURS: [&str; 5] = ["red", "blue", "green", "white", "black"];

/// A problem whose answer is a number.
fn number(text: String, numbers: &[i128], answer: Rational, steps: String) -> Option<Problem> {
    let form = if answer.is_whole() { "the number" } else { "the number, a fraction in lowest terms" };
    Some(Problem { text, numbers: numbers.to_vec(), answer: answer.to_string(), steps, form })
}

fn whole(text: String, numbers: &[i128], answer: i128, steps: String) -> Option<Problem> {
    number(text, numbers, Rational::new(answer, 1)?, steps)
}

fn within(rng: &mut Rng, from: i128, to: i128) -> i128 {
    i128::from(rng.random_range(from as i64..=to as i64))
}

/// Two different ones.
fn two<'a>(rng: &mut Rng, from: &[&'a str]) -> (&'a str, &'a str) {
    let first = rng.random_range(0..from.len());
    let second = (first + rng.random_range(1..from.len())) % from.len();
    (from[first], from[second])
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn shopping(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (name, _) = two(rng, &NAMES);
    let (x, y) = two(rng, &THINGS);
    let (a, p, b, q) = (within(rng, 2, 12), within(rng, 2, 25), within(rng, 2, 12), within(rng, 2, 25));
    let one = a * p;
    let both = one + b * q;
    match level {
        1 => whole(
            format!("{name} buys {a} {x} at {p} dollars each. How many dollars does {name} pay?"),
            &[a, p],
            one,
            format!("{a} * {p} = {one}"),
        ),
        2 => whole(
            format!(
                "{name} buys {a} {x} at {p} dollars each and {b} {y} at {q} dollars each. How many dollars does {name} pay?"
            ),
            &[a, p, b, q],
            both,
            format!("{a} * {p} = {one}, {b} * {q} = {}, {one} + {} = {both}", b * q, b * q),
        ),
        _ => {
            let paid = (both / 50 + 1) * 50;
            let share = within(rng, 2, 4);
            number(
                format!(
                    "{name} buys {a} {x} at {p} dollars each and {b} {y} at {q} dollars each, and pays with {paid} dollars. {name} and {} others share \
                     the change equally. How many dollars does each of them get?",
                    share - 1
                ),
                &[a, p, b, q, share],
                Rational::new(paid - both, share)?,
                format!(
                    "{a} * {p} = {one}, {b} * {q} = {}, {one} + {} = {both}, {paid} - {both} = {}, {} / {share} = {}",
                    b * q,
                    b * q,
                    paid - both,
                    paid - both,
                    Rational::new(paid - both, share)?
                ),
            )
        }
    }
}

fn sharing(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (name, other) = two(rng, &NAMES);
    let (x, _) = two(rng, &THINGS);
    let (d, e) = (within(rng, 2, 9), within(rng, 3, 6));
    let n = if level == 1 { 1 } else { within(rng, 1, d - 1) };
    let count = d * e * within(rng, 2, 9);
    let given = count / d * n;
    let left = count - given;
    if level < 3 {
        return whole(
            format!("{name} has {count} {x} and gives {n}/{d} of them to {other}. How many {x} does {name} keep?"),
            &[count, n, d],
            left,
            format!("{n}/{d} * {count} = {given}, {count} - {given} = {left}"),
        );
    }
    let m = within(rng, 1, e - 1);
    let kept = Rational::new(left * (e - m), e * count)?;
    number(
        format!(
            "{name} has {count} {x}. {name} gives {n}/{d} of them to {other} and then sells {m}/{e} of the rest. What share of the {count} {x} does {name} keep?"
        ),
        &[count, n, d, m, e],
        kept,
        format!(
            "1 - {n}/{d} = {}, 1 - {m}/{e} = {}, {} * {} = {kept}",
            Rational::new(d - n, d)?,
            Rational::new(e - m, e)?,
            Rational::new(d - n, d)?,
            Rational::new(e - m, e)?
        ),
    )
}

fn travel(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (name, _) = two(rng, &NAMES);
    let (v, t, w, u) = (within(rng, 4, 90), within(rng, 2, 9), within(rng, 4, 90), within(rng, 2, 9));
    match level {
        1 => whole(
            format!("{name} rides for {t} hours at {v} km per hour. How many kilometres is that?"),
            &[v, t],
            v * t,
            format!("{v} * {t} = {}", v * t),
        ),
        2 => {
            let way = within(rng, 10, 400);
            let hours = Rational::new(way, v)?;
            number(
                format!("{name} drives {way} km at {v} km per hour. How many hours does it take?"),
                &[way, v],
                hours,
                format!("{way} / {v} = {hours}"),
            )
        }
        _ => {
            let (way, hours) = (v * t + w * u, t + u);
            let mean = Rational::new(way, hours)?;
            number(
                format!(
                    "{name} drives {t} hours at {v} km per hour and then {u} hours at {w} km per hour. What is the mean speed in km per hour?"
                ),
                &[v, t, w, u],
                mean,
                format!(
                    "{v} * {t} = {}, {w} * {u} = {}, {} + {} = {way}, {t} + {u} = {hours}, {way} / {hours} = {mean}",
                    v * t,
                    w * u,
                    v * t,
                    w * u
                ),
            )
        }
    }
}

fn percent(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (x, _) = two(rng, &THINGS);
    let (p, q, n) = (within(rng, 1, 19) * 5, within(rng, 1, 19) * 5, within(rng, 2, 90) * 10);
    let part = Rational::new(n * p, 100)?;
    match level {
        1 => number(
            format!("A shop has {n} {x}. It sells {p} percent of them. How many {x} does it sell?"),
            &[n, p],
            part,
            format!("{n} * {p} / 100 = {part}"),
        )
        .filter(|_| part.is_whole()),
        2 => {
            let price = Rational::new(n * (100 - p), 100)?;
            number(
                format!(
                    "A box of {x} costs {n} dollars. Its price falls by {p} percent. How many dollars does it cost now?"
                ),
                &[n, p],
                price,
                format!("100 - {p} = {}, {n} * {} / 100 = {price}", 100 - p, 100 - p),
            )
        }
        _ => {
            let (risen, price) =
                (Rational::new(n * (100 + p), 100)?, Rational::new(n * (100 + p) * (100 - q), 10_000)?);
            number(
                format!(
                    "A box of {x} costs {n} dollars. Its price rises by {p} percent and then falls by {q} percent. How many dollars does it cost now?"
                ),
                &[n, p, q],
                price,
                format!("{n} * {} / 100 = {risen}, {risen} * {} / 100 = {price}", 100 + p, 100 - q),
            )
        }
    }
}

fn ages(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (name, other) = two(rng, &NAMES);
    let (younger, gap, n, k) = (within(rng, 3, 40), within(rng, 2, 30), within(rng, 2, 12), within(rng, 2, 5));
    match level {
        1 => whole(
            format!(
                "{name} is {gap} years older than {other}. Together they are {} years old. How old is {other}?",
                2 * younger + gap
            ),
            &[younger, gap],
            younger,
            format!("{} - {gap} = {}, {} / 2 = {younger}", 2 * younger + gap, 2 * younger, 2 * younger),
        ),
        2 => {
            let later = younger * (k + 1) + 2 * n;
            whole(
                format!(
                    "{name} is {k} times as old as {other}. In {n} years they will be {later} years old together. How old is {other} now?"
                ),
                &[younger, k, n],
                younger,
                format!("{later} - 2 * {n} = {}, {} / ({k} + 1) = {younger}", later - 2 * n, later - 2 * n),
            )
        }
        _ => {
            let gap = (younger + n) * (k - 1);
            whole(
                format!("{name} is {gap} years older than {other}. In {n} years {name} will be {k} times as old as {other}. How old is {other} now?"),
                &[younger, k, n],
                younger,
                format!("{gap} / ({k} - 1) = {}, {} - {n} = {younger}", younger + n, younger + n),
            )
            .filter(|_| gap < 80)
        }
    }
}

fn garden(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (name, _) = two(rng, &NAMES);
    let (a, b, w) = (within(rng, 3, 30), within(rng, 3, 30), within(rng, 1, 5));
    match level {
        1 => whole(
            format!("The garden of {name} is {a} m long and {b} m wide. How many square metres is its area?"),
            &[a, b],
            a * b,
            format!("{a} * {b} = {}", a * b),
        ),
        2 => {
            let area = within(rng, 20, 600);
            let side = Rational::new(area, a)?;
            number(
                format!(
                    "The garden of {name} has an area of {area} square metres and is {a} m long. How many metres is it wide?"
                ),
                &[area, a],
                side,
                format!("{area} / {a} = {side}"),
            )
        }
        _ => {
            let outer = (a + 2 * w) * (b + 2 * w);
            whole(
                format!(
                    "Around the garden of {name}, {a} m long and {b} m wide, goes a path {w} m wide. How many square metres is the area of the path?"
                ),
                &[a, b, w],
                outer - a * b,
                format!(
                    "{a} + 2 * {w} = {}, {b} + 2 * {w} = {}, {} * {} = {outer}, {a} * {b} = {}, {outer} - {} = {}",
                    a + 2 * w,
                    b + 2 * w,
                    a + 2 * w,
                    b + 2 * w,
                    a * b,
                    a * b,
                    outer - a * b
                ),
            )
        }
    }
}

fn marbles(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (x, y) = two(rng, &COLOURS);
    let (a, b) = (within(rng, 2, 15), within(rng, 2, 15));
    let all = a + b;
    let one = Rational::new(a, all)?;
    let bag = format!("A bag holds {a} {x} and {b} {y} marbles.");
    let (ask, again) = match level {
        1 => {
            let text = format!("{bag} One is drawn. What is the probability that it is {x}?");
            return number(text, &[a, b], one, format!("{a} + {b} = {all}, {a} / {all} = {one}"));
        }
        2 => ("put back, and one is drawn again", one),
        _ => ("kept, and another is drawn", Rational::new(a - 1, all - 1)?),
    };
    let both = one.mul(again)?;
    number(
        format!("{bag} One is drawn and {ask}. What is the probability that both are {x}?"),
        &[a, b],
        both,
        format!("{a} / {all} = {one}, {one} * {again} = {both}"),
    )
}

fn groups(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (x, y) = two(rng, &THINGS);
    let (a, b, k) = (within(rng, 2, 15), within(rng, 2, 15), within(rng, 2, 12));
    match level {
        1 => {
            let (count, size) = (within(rng, 30, 300), within(rng, 4, 25));
            whole(
                format!("{count} {x} are packed into boxes of {size}. How many {x} are left over?"),
                &[count, size],
                count % size,
                format!("{count} = {} * {size} + {}", count / size, count % size),
            )
        }
        2 => {
            let (m, n) = (a * k, b * k);
            let most = gcd(m, n);
            whole(
                format!(
                    "{m} {x} and {n} {y} are put into bags, all with the same contents, and none is left over. How many bags can there be at most?"
                ),
                &[m, n],
                most,
                format!("{m} = {most} * {}, {n} = {most} * {}", m / most, n / most),
            )
        }
        _ => {
            let c = within(rng, 2, 15);
            let two = a / gcd(a, b) * b;
            let all = two / gcd(two, c) * c;
            whole(
                format!("Three lamps flash together. From then on they flash every {a}, {b} and {c} seconds. After how many seconds do all three flash together again?"),
                &[a, b, c],
                all,
                format!("{two} is the least common multiple of {a} and {b}, {all} that of {two} and {c}"),
            )
            .filter(|_| a != b && b != c && a != c)
        }
    }
}

fn pairs(level: u32, rng: &mut Rng) -> Option<Problem> {
    let (a, b) = (within(rng, 2, 40), within(rng, 2, 40));
    let (a, b) = if level == 1 { (a.max(b), a.min(b)) } else { (a, b) };
    let (text, numbers, steps) = match level {
        1 => (
            format!("Two numbers x and y have the sum {} and the difference x - y = {}. What are they?", a + b, a - b),
            vec![a, b],
            format!("({} + {}) / 2 = {a}, {} - {a} = {b}", a + b, a - b, a + b),
        ),
        2 => {
            let legs = 2 * a + 4 * b;
            (
                format!(
                    "On a farm are x hens and y cows. Together they have {} heads and {legs} legs. How many are they?",
                    a + b
                ),
                vec![a, b],
                format!("{legs} - 2 * {} = {}, {} / 2 = {b}, {} - {b} = {a}", a + b, 2 * b, 2 * b, a + b),
            )
        }
        _ => {
            let (p, q, r, s) = (within(rng, 2, 9), within(rng, 2, 9), within(rng, 2, 9), within(rng, 2, 9));
            let determinant = p * s - q * r;
            let (m, n) = (p * a + q * b, r * a + s * b);
            let text = format!("{p} x + {q} y = {m} and {r} x + {s} y = {n}. What are x and y?");
            let steps = format!(
                "{p} * {s} - {q} * {r} = {determinant}, x = ({s} * {m} - {q} * {n}) / {determinant} = {a}, y = ({p} * {n} - {r} * {m}) / {determinant} = {b}"
            );
            (text, vec![p, q, r, s, a, b], steps)
        }
    };
    let solvable = level < 3 || numbers[0] * numbers[3] != numbers[1] * numbers[2];
    solvable.then(|| Problem { text, numbers, answer: format!("({a}, {b})"), steps, form: "(x, y)" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use crate::tasks::scorers::{AnswerScorer, Maths};

    /// Every step of a solution holds, read as an equation by the scorer.
    #[test]
    fn every_step_is_true_and_leads_to_the_answer() {
        for family in Family::ALL {
            for level in 1..=3 {
                let drawn = (0..300).filter_map(|i| family.draw(level, &mut rng::stream(1, "test", &[i])));
                let problems: Vec<Problem> = drawn.collect();
                assert!(problems.len() > 100, "{family:?} {level}");
                for problem in &problems {
                    for step in problem.steps.split(", ").filter(|step| step.contains(" = ")) {
                        let sides: Vec<&str> = step.split(" = ").map(|side| side.trim()).collect();
                        let first = if matches!(sides[0], "x" | "y") { 1 } else { 0 };
                        for side in &sides[first + 1..] {
                            let gold = Maths::new(&[sides[first].to_string()]);
                            assert!(gold.score_answer(side).correct, "{family:?} {level}: {step}: {problem:?}");
                        }
                    }
                    if family != Family::Pairs && !(family == Family::Groups && level > 1) {
                        assert!(problem.steps.contains(&problem.answer), "{problem:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_level_is_harder_by_its_steps() {
        for family in Family::ALL {
            let length = |level| {
                let steps = (0..200).filter_map(|i| family.draw(level, &mut rng::stream(2, "test", &[i])));
                let steps: Vec<usize> = steps.map(|problem| problem.steps.len()).collect();
                steps.iter().sum::<usize>() as f64 / steps.len() as f64
            };
            assert!(length(3) > length(1), "{family:?}: {} {}", length(1), length(3));
        }
    }
}
