//! What each cell holds: a dense task, from which a model learns to use its vision tower.

use super::question::Question;
use crate::rng::Rng;
use crate::tasks::suites::objects::{CELLS, Objects};

pub fn question(rng: &mut Rng) -> Question {
    let scene = Objects::random(rng, 3..=7);
    let cells: Vec<String> =
        (0..CELLS * CELLS).map(|cell| scene.at(cell).map_or("empty".into(), |o| o.name())).collect();
    let text = "Describe every cell of the grid, row by row from the top left.".to_string();
    Question::new(scene.draw(), "cells", "list", text, cells.join(", "))
        .wanting("what each cell holds, separated by commas")
        .thinking(format!("There are {} objects.", scene.objects.len()))
}
