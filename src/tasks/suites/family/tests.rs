//! Questions of every family: their forms, and answers that are true of their pictures.

use super::*;
use crate::rng;
use crate::tasks::response::Style;
use crate::tasks::suites::objects::{COLORS, PLACES, SHAPES, SIDE};
use image::RgbImage;
use std::collections::{BTreeMap, HashSet};

fn photos() -> Photos {
    let picture =
        |i: u32| RgbImage::from_fn(120, 90, |x, y| image::Rgb([(x * 2) as u8, (y * 2) as u8, (i * 30) as u8]));
    let names = ["animal", "building", "fish", "tool", "windmill"];
    Photos {
        all: (0..10).map(|i| (format!("p{i}.jpg"), picture(i))).collect(),
        classes: names.iter().enumerate().map(|(i, n)| (n.to_string(), vec![2 * i, 2 * i + 1])).collect(),
        held_out: false,
    }
}

fn questions(family: Family, n: usize) -> Vec<Question> {
    let photos = photos();
    (0..n).map(|i| family.question(&mut rng::stream(3, "test", &[i as u64]), i, &photos).unwrap()).collect()
}

#[test]
fn every_family_gives_an_answer_in_its_form_and_both_styles() {
    for family in Family::ALL {
        for q in questions(family, 60) {
            assert!(!q.text.is_empty() && !q.wanted.is_empty() && !q.thought.is_empty(), "{family:?}");
            assert!(crate::tasks::check_format(&q.reference(Style::Direct), Style::Direct).is_ok());
            assert!(crate::tasks::check_format(&q.reference(Style::Think), Style::Think).is_ok());
            assert!(q.asked(Style::Think).contains("First think in <think></think>"));
            assert!(q.image.width() <= SIDE && q.image.height() <= SIDE && q.image.width() % 28 == 0, "{family:?}");
            if !q.options.is_empty() {
                let place = (q.answer.as_bytes()[0] - b'A') as usize;
                assert!(place < q.options.len() && q.options.len() == 4, "{:?}", q.options);
                assert_eq!(q.options.iter().collect::<HashSet<_>>().len(), 4);
                assert!(q.text.contains(&format!("\n{}. {}", q.answer, q.options[place])));
            }
        }
    }
}

#[test]
fn the_answers_of_a_lettered_family_are_spread_over_the_letters_and_yes_is_half() {
    for (family, share) in [(Family::Vqa, 0.25), (Family::Knowledge, 0.25), (Family::Pope, 0.5)] {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let n = 800;
        for q in questions(family, n) {
            *counts.entry(q.answer).or_default() += 1;
        }
        for (answer, count) in counts {
            let got = count as f64 / n as f64;
            assert!((got - share).abs() < 0.07, "{family:?} {answer}: {got}");
        }
    }
}

#[test]
fn a_thought_of_a_lettered_question_names_the_right_choice() {
    for q in questions(Family::Vqa, 200) {
        let right = &q.options[(q.answer.as_bytes()[0] - b'A') as usize];
        assert!(q.thought.contains(right.as_str()), "{} {right}", q.thought);
    }
}

#[test]
fn a_located_box_holds_the_described_colour() {
    for q in questions(Family::Grounding, 200).into_iter().filter(|q| q.kind != "shape") {
        let (_, color) = COLORS.into_iter().find(|c| q.text.contains(c.0)).unwrap();
        let edges: Vec<u32> = q.answer.split(' ').map(|n| n.parse().unwrap()).collect();
        let inside = |x: u32, y: u32| x >= edges[0] && x < edges[2] && y >= edges[1] && y < edges[3];
        for (x, y, p) in q.image.enumerate_pixels().filter(|(_, _, p)| p.0 == color) {
            assert!(inside(x, y) || q.kind == "both", "{} at {x},{y}: {p:?}", q.text);
        }
        let lit = q.image.enumerate_pixels().filter(|(x, y, p)| p.0 == color && inside(*x, *y)).count();
        assert!(lit > 60, "{}: {lit}", q.text);
    }
}

#[test]
fn a_description_names_every_object_and_a_lookup_reads_back_what_is_listed() {
    for q in questions(Family::Describe, 50) {
        let cells: Vec<&str> = q.answer.split(", ").collect();
        assert_eq!(cells.len(), 9);
        for cell in cells.iter().filter(|c| **c != "empty") {
            let (color, shape) = cell.split_once(' ').unwrap();
            assert!(COLORS.iter().any(|c| c.0 == color) && SHAPES.iter().any(|s| s.0 == shape), "{cell}");
        }
    }
    for q in questions(Family::Order, 200).into_iter().filter(|q| q.kind == "find") {
        let read: Vec<usize> = q.thought.split(' ').map(|n| n.parse().unwrap()).collect();
        for (number, place) in q.answer.split(' ').enumerate() {
            assert_eq!(read[place.parse::<usize>().unwrap() - 1], number + 1);
        }
    }
}

/// The objects that the thought of a list tells of: colour, shape and place of each.
fn told(thought: &str) -> Vec<(&'static str, &'static str, &'static str)> {
    let known = |part: &str, words: &[&'static str]| words.iter().copied().find(|w| part.contains(w)).unwrap();
    let of = |part: &str| {
        let shape = known(part, &SHAPES.map(|s| s.0));
        (known(part, &COLORS.map(|c| c.0)), shape, known(part, &PLACES))
    };
    thought.split(", ").map(of).collect()
}

const DIGITS: [&str; 9] = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[test]
fn every_look_up_of_a_list_is_answered_by_what_is_there() {
    let mut looked_up = BTreeMap::new();
    for q in questions(Family::Lists, 520).into_iter().filter(|q| !["fields", "letters", "choices"].contains(&q.kind)) {
        let objects = told(&q.thought);
        let asked = q.text.rsplit_once("? ").unwrap().1.split(", ");
        let pairs: Vec<&str> = q.answer.split(", ").collect();
        assert_eq!(asked.clone().count(), pairs.len(), "{}", q.text);
        for (asked, pair) in asked.zip(pairs) {
            *looked_up.entry(q.kind).or_insert(0) += 1;
            let found = pair.strip_prefix(asked).unwrap_or_else(|| panic!("{pair} is not about {asked}")).trim();
            let fits: Vec<_> = objects
                .iter()
                .filter(|(color, shape, place)| match q.kind {
                    "cells" => PLACES[asked.parse::<usize>().unwrap() - 1] == *place,
                    "counts" => asked.contains(color) || asked.starts_with(shape),
                    "colours" | "shapes" => asked == *color || asked == *shape,
                    _ => asked == format!("{color} {shape}"),
                })
                .collect();
            let want = match q.kind {
                "counts" => crate::tasks::suites::objects::NUMBERS[fits.len()].to_string(),
                "presence" => if fits.is_empty() { "no" } else { "yes" }.to_string(),
                "boxes" => {
                    assert_eq!((found.split(' ').count(), fits.len()), (4, 1), "{pair}");
                    continue;
                }
                _ => {
                    let mut said: Vec<&str> = fits
                        .iter()
                        .map(|(color, shape, place)| match q.kind {
                            "colours" => *color,
                            "shapes" => *shape,
                            "numbers" => DIGITS[PLACES.iter().position(|p| p == place).unwrap()],
                            _ => *place,
                        })
                        .collect();
                    if let ("cells", [(color, shape, _)]) = (q.kind, &fits[..]) {
                        assert_eq!(found, format!("{color} {shape}"), "{}: {pair}", q.text);
                        continue;
                    }
                    let between = if ["places", "numbers"].contains(&q.kind) { " and " } else { " " };
                    let mut got: Vec<&str> =
                        found.split(between).filter(|w| !["none", "nowhere"].contains(w)).collect();
                    said.sort_unstable();
                    got.sort_unstable();
                    assert_eq!(got, said, "{}: {pair}", q.text);
                    continue;
                }
            };
            assert_eq!(found, want, "{}: {pair}", q.text);
        }
    }
    assert!(looked_up.len() == 8 && looked_up.values().all(|n| *n > 20), "{looked_up:?}");
}

#[test]
fn a_list_of_letters_names_the_choice_that_the_thought_gives() {
    let mut letters = 0;
    for q in questions(Family::Lists, 400).into_iter().filter(|q| q.kind == "letters") {
        let choices: Vec<&str> = q.text.lines().skip(1).collect();
        assert_eq!(choices.len(), 4);
        for (thought, pair) in q.thought.split(", ").zip(q.answer.split(", ")) {
            let letter = pair.rsplit_once(' ').unwrap().1;
            match choices.iter().find(|line| line.starts_with(letter)) {
                Some(line) => {
                    letters += 1;
                    assert!(thought.ends_with(&line[2..]), "{thought}: {pair}");
                }
                None => assert_eq!(letter, "none"),
            }
        }
    }
    assert!(letters > 40, "{letters}");
    for q in questions(Family::Lists, 100).into_iter().filter(|q| q.kind == "choices") {
        let choices: Vec<(&str, &str)> = q.text.lines().skip(1).map(|line| line.split_once(". ").unwrap()).collect();
        let pairs: Vec<&str> = q.answer.split(", ").collect();
        assert!(pairs.len() == choices.len() && (4..=8).contains(&pairs.len()), "{}", q.text);
        for pair in pairs {
            assert!(choices.iter().any(|(l, w)| pair == format!("{l} {w}") || pair == format!("{w} {l}")), "{pair}");
        }
    }
}

#[test]
fn tiles_are_ordered_from_dark_to_light() {
    for q in questions(Family::Order, 200).into_iter().filter(|q| q.kind == "shade" || q.kind == "photo") {
        let cols = q.image.width() / 28;
        let light = |tile: u32| -> f64 {
            let (x0, y0) = (tile % cols * 28, tile / cols * 28);
            let pixels = (0..28 * 28).map(|i| q.image.get_pixel(x0 + i % 28, y0 + i / 28).0);
            pixels.map(|[r, g, b]| 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b)).sum()
        };
        let order: Vec<f64> = q.answer.split(' ').map(|n| light(n.parse::<u32>().unwrap() - 1)).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}

#[test]
fn no_question_asks_for_what_a_jigsaw_asks() {
    for family in Family::ALL {
        for q in questions(family, 40) {
            for word in ["tile belongs", "restore", "jigsaw", "puzzle"] {
                assert!(!q.text.contains(word), "{family:?}: {}", q.text);
            }
        }
    }
}

#[test]
fn photos_of_too_few_classes_are_an_input_error() {
    let mut few = photos();
    few.classes.truncate(3);
    let error = Family::Knowledge.question(&mut rng::stream(3, "test", &[]), 0, &few).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("ATTRIBUTION.tsv"), "{error}");
}
