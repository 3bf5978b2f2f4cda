//! Several look-ups in one answer. A question of the other families looks up one thing. This one asks for many at once, and the answer
//! repeats each item before its value, so that a small model learns look-up from every item.

use super::doc;
use super::question::Question;
use crate::rng::Rng;
use crate::tasks::suites::objects::{COLORS, NUMBERS, Objects, PLACES, SHAPES, SceneObject};
use image::RgbImage;
use rand::RngExt;
use rand::seq::SliceRandom;

/// The value of an object that is not in the picture.
const NOWHERE: &str = "nowhere";
/// The answer if nothing is to be listed.
const NONE: &str = "none";
/// Lettered choices.
const CHOICES: usize = 4;

pub fn question(rng: &mut Rng, index: usize) -> Question {
    match index % 17 {
        0 => colours(rng),
        1 => shapes(rng),
        2 => places(rng),
        3 => counts(rng),
        4 => presence(rng),
        5 => boxes(rng),
        6 => fields(rng),
        7..=11 => letters(rng),
        12..=14 => cells(rng),
        _ => choices(rng),
    }
}

/// A picture of objects and the question's pairs, each what is asked and what is found.
fn objects(rng: &mut Rng, scene: &Objects, kind: &'static str, text: &str, pairs: Vec<(String, String)>) -> Question {
    list(scene.draw(), kind, text, pairs).thinking(told(rng, scene))
}

fn list(image: RgbImage, kind: &'static str, text: &str, pairs: Vec<(String, String)>) -> Question {
    let asked: Vec<&str> = pairs.iter().map(|(asked, _)| asked.as_str()).collect();
    let found: Vec<String> = pairs.iter().map(|(asked, found)| format!("{asked} {found}")).collect();
    let text = format!("{text} {}", asked.join(", "));
    Question::new(image, kind, "list", text, found.join(", ")).wanting("each with its answer, separated by commas")
}

/// The objects in random order, each told from a random side.
fn told(rng: &mut Rng, scene: &Objects) -> String {
    let mut objects = scene.objects.clone();
    objects.shuffle(rng);
    let told: Vec<String> = objects
        .iter()
        .map(|o| {
            let (shape, color, place) = (SHAPES[o.shape].0, COLORS[o.color].0, PLACES[o.cell]);
            match rng.random_range(0..3) {
                0 => format!("{color} {shape} in the {place}"),
                1 => format!("{shape} is {color} in the {place}"),
                _ => format!("in the {place} is a {color} {shape}"),
            }
        })
        .collect();
    told.join(", ")
}

/// A picture of one to six objects, few more often than many: with few objects a model learns sooner which one is meant.
fn scene(rng: &mut Rng) -> Objects {
    let most = rng.random_range(1..=6);
    Objects::random(rng, 1..=most)
}

/// Those of `all` that are there, and at most one that is not, in random order, with what `found` says of each.
fn each(rng: &mut Rng, all: &[&str], found: impl Fn(usize) -> Vec<&'static str>) -> Vec<(String, String)> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.shuffle(rng);
    let absent = if rng.random() { order.iter().copied().find(|i| found(*i).is_empty()) } else { None };
    order.retain(|i| !found(*i).is_empty() || Some(*i) == absent);
    let said = |i| Some(found(i)).filter(|f| !f.is_empty()).map_or(NONE.into(), |f| f.join(" "));
    order.into_iter().map(|i| (all[i].to_string(), said(i))).collect()
}

fn colours(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    let colors = |shape| scene.objects.iter().filter(|o| o.shape == shape).map(|o| COLORS[o.color].0).collect();
    let pairs = each(rng, &SHAPES.map(|s| s.0), colors);
    objects(rng, &scene, "colours", "What colour is each shape?", pairs)
}

fn shapes(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    let shapes = |color| scene.objects.iter().filter(|o| o.color == color).map(|o| SHAPES[o.shape].0).collect();
    let pairs = each(rng, &COLORS.map(|c| c.0), shapes);
    objects(rng, &scene, "shapes", "Which shape has each colour?", pairs)
}

/// Names of objects that may be there or not, each once: all that are there, and others whose colour or shape is there.
fn named(rng: &mut Rng, scene: &Objects, most: usize) -> Vec<(String, Vec<SceneObject>)> {
    let mut names: Vec<(usize, usize)> = Vec::new();
    for _ in 0..2 * most {
        let mut any = || scene.objects[rng.random_range(0..scene.objects.len())];
        let (a, b) = (any(), any());
        names.push(match rng.random_range(0..6) {
            0..3 => (a.shape, a.color),
            3 => (a.shape, b.color),
            4 => (a.shape, rng.random_range(0..COLORS.len())),
            _ => (rng.random_range(0..SHAPES.len()), a.color),
        });
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    names.truncate(most);
    let here =
        |(shape, color)| scene.objects.iter().filter(|o| (o.shape, o.color) == (shape, color)).copied().collect();
    names.into_iter().map(|(s, c)| (format!("{} {}", COLORS[c].0, SHAPES[s].0), here((s, c)))).collect()
}

fn places(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    // In words, or by number.
    let by_number = rng.random();
    let place = |o: &SceneObject| if by_number { (o.cell + 1).to_string() } else { PLACES[o.cell].to_string() };
    let said = |found: Vec<SceneObject>| match found[..] {
        [] => NOWHERE.into(),
        _ => found.iter().map(place).collect::<Vec<_>>().join(" and "),
    };
    let pairs = named(rng, &scene, 5).into_iter().map(|(name, found)| (name, said(found))).collect();
    let text = if by_number { "In which place, counted row by row, is each object?" } else { "Where is each object?" };
    objects(rng, &scene, if by_number { "numbers" } else { "places" }, text, pairs)
}

fn cells(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    let mut order: Vec<usize> = (0..PLACES.len()).collect();
    order.shuffle(rng);
    let found = |cell: usize| scene.objects.iter().find(|o| o.cell == cell);
    // Mostly those with something in them.
    order.sort_by_key(|cell| found(*cell).is_none());
    order.truncate(scene.objects.len() + 1);
    order.shuffle(rng);
    let said = |cell: usize| found(cell).map_or_else(|| NONE.to_string(), SceneObject::name);
    let pairs = order.into_iter().map(|cell| ((cell + 1).to_string(), said(cell))).collect();
    objects(rng, &scene, "cells", "What is in each place, counted row by row?", pairs)
}

fn presence(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    let said = |found: Vec<SceneObject>| if found.is_empty() { "no" } else { "yes" };
    let pairs = named(rng, &scene, 6).into_iter().map(|(name, found)| (name, said(found).to_string())).collect();
    objects(rng, &scene, "presence", "Is there each object?", pairs)
}

fn counts(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    let shapes = (0..SHAPES.len()).map(|s| (SHAPES[s].1.to_string(), scene.count(|o| o.shape == s)));
    let colors = (0..COLORS.len()).map(|c| (format!("{} objects", COLORS[c].0), scene.count(|o| o.color == c)));
    let mut pairs: Vec<(String, String)> =
        shapes.chain(colors).map(|(what, n)| (what, NUMBERS[n].to_string())).collect();
    pairs.shuffle(rng);
    pairs.truncate(6);
    objects(rng, &scene, "counts", "How many are there of each?", pairs)
}

fn boxes(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    let mut alone = scene.unique(|a, b| (a.shape, a.color) == (b.shape, b.color));
    if alone.is_empty() {
        alone.push(scene.objects[0]);
    }
    alone.shuffle(rng);
    let pairs = alone.iter().map(|o| (o.name(), o.bounds().map(|edge| edge.to_string()).join(" "))).collect();
    objects(rng, &scene, "boxes", "What is the bounding box of each object?", pairs)
}

fn fields(rng: &mut Rng) -> Question {
    let (image, mut pairs) = if rng.random() { doc::form(rng) } else { doc::table(rng) };
    let read: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} {value}")).collect();
    pairs.shuffle(rng);
    list(image, "fields", "What is the value of each in the document?", pairs).thinking(read.join(", "))
}

/// Four lettered choices, and for several things which of them is right.
fn letters(rng: &mut Rng) -> Question {
    let scene = scene(rng);
    let colors: Vec<String> = COLORS.iter().map(|c| c.0.to_string()).collect();
    let shapes: Vec<String> = SHAPES.iter().map(|s| s.0.to_string()).collect();
    let numbers: Vec<String> = NUMBERS.iter().map(|n| n.to_string()).collect();
    // What is asked, each with what is right.
    let (text, mut asked, mut options): (&str, Vec<(String, String)>, Vec<String>) = match rng.random_range(0..6) {
        0 => {
            let alone = scene.unique(|a, b| a.shape == b.shape);
            let asked = alone.iter().map(|o| (shapes[o.shape].clone(), colors[o.color].clone())).collect();
            ("What colour is each shape?", asked, colors)
        }
        1 => {
            let alone = scene.unique(|a, b| a.color == b.color);
            let asked = alone.iter().map(|o| (colors[o.color].clone(), shapes[o.shape].clone())).collect();
            ("Which shape has each colour?", asked, shapes)
        }
        2..=3 => {
            let alone = scene.unique(|a, b| a.shape == b.shape);
            let asked = alone.iter().map(|o| (shapes[o.shape].clone(), (o.cell + 1).to_string())).collect();
            let all = (1..=PLACES.len()).map(|p| p.to_string()).collect();
            ("In which place, counted row by row, is each shape?", asked, all)
        }
        _ => {
            let asked =
                (0..SHAPES.len())
                    .map(|s| (SHAPES[s].1.to_string(), NUMBERS[scene.count(|o| o.shape == s)].to_string()))
                    .chain((0..COLORS.len()).map(|c| {
                        (format!("{} objects", COLORS[c].0), NUMBERS[scene.count(|o| o.color == c)].to_string())
                    }))
                    .collect();
            ("How many are there of each?", asked, numbers)
        }
    };
    asked.shuffle(rng);
    options.shuffle(rng);
    // The choices hold the answer of the first that is asked; the rest is asked where its answer is among them.
    if let Some((_, right)) = asked.first() {
        let at = options.iter().position(|o| o == right).unwrap_or(0);
        options.swap(0, at);
    }
    options.truncate(CHOICES);
    options.shuffle(rng);
    let letter = |right: &String| {
        options.iter().position(|o| o == right).and_then(|i| ('A'..).nth(i)).map_or(NONE.into(), String::from)
    };
    asked.truncate(5);
    let pairs: Vec<(String, String)> = asked.iter().map(|(what, right)| (what.clone(), letter(right))).collect();
    let thought: Vec<String> = asked.iter().map(|(what, right)| format!("{what} {right}")).collect();
    let listed: String = ('A'..).zip(&options).map(|(letter, option)| format!("\n{letter}. {option}")).collect();
    if pairs.is_empty() {
        return presence(rng);
    }
    let question = list(scene.draw(), "letters", text, pairs);
    Question { text: question.text + &listed, ..question }
        .wanting("each with the letter of the right choice, separated by commas")
        .thinking(thought.join(", "))
}

/// Words that are offered as choices, whatever the picture shows.
const WORDS: [&str; 26] = [
    "red",
    "green",
    "blue",
    "yellow",
    "purple",
    "orange",
    "circle",
    "square",
    "triangle",
    "cross",
    "ring",
    "top left",
    "centre",
    "bottom right",
    "animal",
    "building",
    "fish",
    "tool",
    "windmill",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "none",
];

/// Four to eight lettered choices of any words: the letter of each, or what stands behind each letter.
fn choices(rng: &mut Rng) -> Question {
    let mut words = WORDS;
    words.shuffle(rng);
    let words = &words[..rng.random_range(4..=8)];
    let lettered: Vec<(String, String)> =
        ('A'..).zip(words).map(|(letter, word)| (letter.into(), (*word).into())).collect();
    let listed: String = lettered.iter().map(|(letter, word)| format!("\n{letter}. {word}")).collect();
    let (text, wanted, mut pairs) = if rng.random_range(0..4) > 0 {
        let pairs = lettered.into_iter().map(|(letter, word)| (word, letter)).collect();
        ("Which letter belongs to each choice?", "each with its letter, separated by commas", pairs)
    } else {
        ("Which choice belongs to each letter?", "each with its choice, separated by commas", lettered)
    };
    pairs.shuffle(rng);
    let question = list(scene(rng).draw(), "choices", text, pairs);
    Question { text: question.text + &listed, ..question }
        .wanting(wanted)
        .thinking(format!("There are {} choices.", words.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn what_is_there_is_listed_whole_and_sometimes_one_thing_that_is_not() {
        let (colors, shapes) = (COLORS.map(|c| c.0), SHAPES.map(|s| s.0));
        let (mut absent, mut whole) = (0, 0);
        for i in 0..400_u64 {
            let rng = &mut rng::stream(7, "lists", &[i]);
            let by_shape = i % 2 == 0;
            let question = if by_shape { colours(rng) } else { super::shapes(rng) };
            let word = |told: &str, words: &[&'static str]| {
                words.iter().copied().find(|word| told.split(' ').any(|w| w == *word)).unwrap()
            };
            // The thought tells every object in words of its own.
            let objects: Vec<(&str, &str)> = question
                .thought
                .split(", ")
                .map(|told| (word(told, &shapes), word(told, &colors)))
                .map(|(shape, color)| if by_shape { (shape, color) } else { (color, shape) })
                .collect();
            let asked: Vec<&str> = question.answer.split(", ").map(|pair| pair.split(' ').next().unwrap()).collect();
            assert!(objects.iter().all(|(what, _)| asked.contains(what)), "{}", question.answer);
            let mut nothing = 0;
            for pair in question.answer.split(", ") {
                let (what, found) = pair.split_once(' ').unwrap();
                let mut expected: Vec<&str> = objects.iter().filter(|o| o.0 == what).map(|o| o.1).collect();
                nothing += usize::from(expected.is_empty());
                if expected.is_empty() {
                    expected.push(NONE);
                }
                let mut found: Vec<&str> = found.split(' ').collect();
                expected.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, expected, "{} of {}", question.answer, question.thought);
            }
            assert!(nothing <= 1, "{}", question.answer);
            (absent, whole) = (absent + nothing, whole + 1 - nothing);
        }
        assert!(absent > 100 && whole > 100, "{absent} {whole}");
    }
}
