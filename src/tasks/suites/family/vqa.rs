//! Colour, shape, count and position, with lettered choices.

use super::question::{Question, others};
use crate::rng::Rng;
use crate::tasks::suites::objects::{CELLS, COLORS, NUMBERS, Objects, SHAPES, SceneObject};
use rand::RngExt;

/// Choices besides the right one.
const WRONG: usize = 3;
/// The largest number that is the answer to a count; all up to it are the choices.
const MOST: usize = WRONG;
/// Kinds of questions to train on (0 colour, 1 shape, 2 count, 3 position): the kinds that models learn last are asked more often.
const TO_TRAIN: [usize; 8] = [0, 1, 2, 2, 2, 3, 3, 3];

pub fn question(rng: &mut Rng, index: usize, held_out: bool) -> Option<Question> {
    let scene = Objects::random(rng, 2..=5);
    let pick = |found: Vec<SceneObject>, rng: &mut Rng| found.get(rng.random_range(0..found.len().max(1))).copied();
    let colors = || COLORS.iter().map(|c| c.0.to_string());
    let shapes = || SHAPES.iter().map(|s| s.0.to_string());
    let asked = if held_out { index % 4 } else { TO_TRAIN[index % TO_TRAIN.len()] };
    let (kind, text, right, all, thought): (_, _, String, Vec<String>, _) = match asked {
        0 => {
            let o = pick(scene.unique(|a, b| a.shape == b.shape), rng)?;
            let (shape, color) = (SHAPES[o.shape].0, COLORS[o.color].0);
            let text = format!("What colour is the {shape}?");
            ("colour", text, color.to_string(), colors().collect(), format!("The {shape} is {color}."))
        }
        1 => {
            let o = pick(scene.unique(|a, b| a.color == b.color), rng)?;
            let (shape, color) = (SHAPES[o.shape].0, COLORS[o.color].0);
            let text = format!("Which shape is {color}?");
            ("shape", text, shape.to_string(), shapes().collect(), format!("The {shape} is {color}."))
        }
        2 => {
            let (what, told, n) = if rng.random() {
                let shape = rng.random_range(0..SHAPES.len());
                let told = scene.told(|o| o.shape == shape, |o| COLORS[o.color].0);
                (SHAPES[shape].1.to_string(), told, scene.count(|o| o.shape == shape))
            } else {
                let color = rng.random_range(0..COLORS.len());
                let told = scene.told(|o| o.color == color, |o| SHAPES[o.shape].0);
                (format!("{} objects", COLORS[color].0), told, scene.count(|o| o.color == color))
            };
            // Small numbers alike often, so that guessing the commonest does not pay.
            if n > MOST || rng.random_range(0..4) < MOST - n {
                return None;
            }
            let text = format!("How many {what} are there?");
            (
                "count",
                text,
                NUMBERS[n].to_string(),
                NUMBERS[..=MOST].iter().map(|n| n.to_string()).collect(),
                format!("{what}: {told}. The number of {what} is {}.", NUMBERS[n]),
            )
        }
        _ => {
            let o = pick(scene.unique(|a, b| a.shape == b.shape), rng)?;
            let (shape, place) = (SHAPES[o.shape].0, (o.cell + 1).to_string());
            let text = format!("In which place, counted row by row, is the {shape}?");
            let thought = format!("The {shape} is in place {place}.");
            ("position", text, place, (1..=CELLS * CELLS).map(|p| p.to_string()).collect(), thought)
        }
    };
    let wrong = others(all.into_iter(), &right, WRONG, rng);
    Some(Question::choice(scene.draw(), kind, text, right, wrong, rng).thinking(thought))
}
