//! Is an object there? Half the answers are yes. An absent object is drawn at random, or (adversarial) its colour and its shape
//! are both there, on different objects.

use super::question::Question;
use crate::rng::Rng;
use crate::tasks::suites::objects::{COLORS, Objects, PLACES, SHAPES};
use rand::RngExt;

pub fn question(rng: &mut Rng, index: usize) -> Option<Question> {
    let scene = Objects::random(rng, 2..=5);
    let there = index.is_multiple_of(2);
    let kind = ["random", "adversarial"][index / 2 % 2];
    let any = &scene.objects[rng.random_range(0..scene.objects.len())];
    let (shape, color) = match (there, kind) {
        (true, _) => (any.shape, any.color),
        (false, "random") => (rng.random_range(0..SHAPES.len()), rng.random_range(0..COLORS.len())),
        (false, _) => (any.shape, scene.objects[rng.random_range(0..scene.objects.len())].color),
    };
    let found = scene.objects.iter().find(|o| (o.shape, o.color) == (shape, color));
    if found.is_some() != there {
        return None;
    }
    let name = format!("{} {}", COLORS[color].0, SHAPES[shape].0);
    let text = format!("Is there a {name} in the image?");
    // The thought lists what could be mistaken for it, so that it can be wrong before the answer is.
    let colors = scene.told(|o| o.shape == shape, |o| COLORS[o.color].0);
    let thought = match found {
        Some(o) => format!("{}: {colors}. There is a {name} in the {}.", SHAPES[shape].1, PLACES[o.cell]),
        None => format!("{}: {colors}. There is no {name}.", SHAPES[shape].1),
    };
    let answer = if there { "yes" } else { "no" };
    Some(Question::new(scene.draw(), kind, "yes-no", text, answer.into()).wanting("yes or no").thinking(thought))
}
