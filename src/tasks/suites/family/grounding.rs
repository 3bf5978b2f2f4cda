//! Locate a described object.

use super::question::Question;
use crate::rng::Rng;
use crate::tasks::suites::objects::{COLORS, Objects, PLACES, SHAPES};
use rand::RngExt;

pub fn question(rng: &mut Rng) -> Option<Question> {
    let scene = Objects::random(rng, 2..=5);
    let kind = ["both", "shape", "colour"][rng.random_range(0..3)];
    let candidates = match kind {
        "both" => scene.unique(|a, b| (a.shape, a.color) == (b.shape, b.color)),
        "shape" => scene.unique(|a, b| a.shape == b.shape),
        _ => scene.unique(|a, b| a.color == b.color),
    };
    let target = candidates.get(rng.random_range(0..candidates.len().max(1)))?;
    let described = match kind {
        "both" => target.name(),
        "shape" => SHAPES[target.shape].0.to_string(),
        _ => format!("{} object", COLORS[target.color].0),
    };
    let text = format!("Locate the {described} and give its bounding box in JSON format.");
    let [x1, y1, x2, y2] = target.bounds();
    let question = Question::new(scene.draw(), kind, "iou", text, format!("{x1} {y1} {x2} {y2}"));
    Some(
        Question { response: format!("{{\"bbox_2d\": [{x1}, {y1}, {x2}, {y2}]}}"), ..question }
            .wanting("{\"bbox_2d\": [x1, y1, x2, y2]}")
            .thinking(format!("The {} is in the {}.", target.name(), PLACES[target.cell])),
    )
}
