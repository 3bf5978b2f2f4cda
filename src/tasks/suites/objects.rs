//! Pictures of simple objects: a 3 x 3 grid of cells, each empty or with one object, on a dark field.

use crate::data::canvas::{Canvas, Color, polygon};
use crate::rng::Rng;
use image::RgbImage;
use rand::RngExt;
use rand::seq::SliceRandom;
use tiny_skia::{Path, PathBuilder, Rect};

/// Cells each way.
pub const CELLS: usize = 3;
/// Side of a cell in pixels: one visual token.
pub const CELL: u32 = 28;
/// Side of the picture in pixels.
pub const SIDE: u32 = CELLS as u32 * CELL;

/// Where a cell is, in words, row by row.
pub const PLACES: [&str; CELLS * CELLS] = [
    "top left",
    "top middle",
    "top right",
    "middle left",
    "centre",
    "middle right",
    "bottom left",
    "bottom middle",
    "bottom right",
];

/// Numbers in words, as far as objects are counted.
pub const NUMBERS: [&str; 7] = ["zero", "one", "two", "three", "four", "five", "six"];

/// Names of the shapes and their plurals.
pub const SHAPES: [(&str, &str); 5] =
    [("circle", "circles"), ("square", "squares"), ("triangle", "triangles"), ("cross", "crosses"), ("ring", "rings")];

/// Names of the colours of objects.
pub const COLORS: [(&str, Color); 6] = [
    ("red", [225, 40, 40]),
    ("green", [50, 185, 70]),
    ("blue", [60, 100, 245]),
    ("yellow", [245, 225, 60]),
    ("purple", [165, 60, 200]),
    ("orange", [250, 140, 30]),
];

/// Fields behind the objects: dark, so that every colour stands out.
const FIELDS: [Color; 6] = [[12, 12, 14], [40, 40, 44], [10, 20, 52], [46, 14, 18], [10, 40, 22], [44, 34, 14]];

/// One object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SceneObject {
    /// Index into [`SHAPES`].
    pub shape: usize,
    /// Index into [`COLORS`].
    pub color: usize,
    /// Its cell, row by row.
    pub cell: usize,
    /// Left and top edge of its box in pixels.
    pub corner: [u32; 2],
    /// Side of its box in pixels; every shape touches all four sides.
    pub size: u32,
}

impl SceneObject {
    /// Such as `red circle`.
    pub fn name(&self) -> String {
        format!("{} {}", COLORS[self.color].0, SHAPES[self.shape].0)
    }

    /// Left, top, right, bottom in pixels.
    pub fn bounds(&self) -> [u32; 4] {
        let [x, y] = self.corner;
        [x, y, x + self.size, y + self.size]
    }
}

/// A picture of objects.
#[derive(Debug, Clone)]
pub struct Objects {
    field: Color,
    /// In the order of their cells.
    pub objects: Vec<SceneObject>,
}

impl Objects {
    /// A random picture with a number of objects in `count`.
    pub fn random(rng: &mut Rng, count: std::ops::RangeInclusive<usize>) -> Objects {
        let mut cells: Vec<usize> = (0..CELLS * CELLS).collect();
        cells.shuffle(rng);
        cells.truncate(rng.random_range(count));
        cells.sort_unstable();
        let mut field = FIELDS[rng.random_range(0..FIELDS.len())];
        for channel in &mut field {
            *channel = channel.saturating_add_signed(rng.random_range(-8..=8));
        }
        let objects = cells
            .into_iter()
            .map(|cell| {
                let size = rng.random_range(24..=27);
                let slack = CELL - size;
                let place = |at: usize, rng: &mut Rng| at as u32 * CELL + rng.random_range(0..=slack);
                SceneObject {
                    shape: rng.random_range(0..SHAPES.len()),
                    color: rng.random_range(0..COLORS.len()),
                    cell,
                    corner: [place(cell % CELLS, rng), place(cell / CELLS, rng)],
                    size,
                }
            })
            .collect();
        Objects { field, objects }
    }

    /// The object of a cell.
    pub fn at(&self, cell: usize) -> Option<&SceneObject> {
        self.objects.iter().find(|o| o.cell == cell)
    }

    /// Number of objects that satisfy a condition.
    pub fn count(&self, holds: impl Fn(&SceneObject) -> bool) -> usize {
        self.objects.iter().filter(|o| holds(o)).count()
    }

    /// The objects that satisfy a condition, each told by a word, row by row; `none` if there are none.
    pub fn told(&self, holds: impl Fn(&SceneObject) -> bool, word: impl Fn(&SceneObject) -> &'static str) -> String {
        let told: Vec<&str> = self.objects.iter().filter(|o| holds(o)).map(word).collect();
        if told.is_empty() { "none".into() } else { told.join(", ") }
    }

    /// The objects that alone satisfy what `same` compares them by.
    pub fn unique(&self, same: impl Fn(&SceneObject, &SceneObject) -> bool) -> Vec<SceneObject> {
        self.objects.iter().filter(|a| self.count(|b| same(a, b)) == 1).copied().collect()
    }

    /// Draw it: 84 x 84 pixels.
    pub fn draw(&self) -> RgbImage {
        let mut canvas = Canvas::new(SIDE, SIDE, self.field);
        for object in &self.objects {
            canvas.fill(outline(object), COLORS[object.color].1, 255);
        }
        canvas.into_image()
    }
}

fn outline(object: &SceneObject) -> Option<Path> {
    let [left, top, right, bottom] = object.bounds().map(|v| v as f32);
    let size = object.size as f32;
    let (x, y) = (left + size / 2.0, top + size / 2.0);
    match object.shape {
        0 => PathBuilder::from_circle(x, y, size / 2.0),
        1 => Rect::from_ltrb(left, top, right, bottom).map(PathBuilder::from_rect),
        2 => polygon(&[(x, top), (right, bottom), (left, bottom)]),
        3 => {
            let (a, b) = (size * 0.34, size * 0.66);
            polygon(&[
                (left + a, top),
                (left + b, top),
                (left + b, top + a),
                (right, top + a),
                (right, top + b),
                (left + b, top + b),
                (left + b, bottom),
                (left + a, bottom),
                (left + a, top + b),
                (left, top + b),
                (left, top + a),
                (left + a, top + a),
            ])
        }
        _ => {
            let mut path = PathBuilder::new();
            path.push_circle(x, y, size / 2.0);
            path.push_circle(x, y, size * 0.26);
            path.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn an_object_fills_its_box_and_no_more() {
        for shape in 0..SHAPES.len() {
            let object = SceneObject { shape, color: 3, cell: 4, corner: [30, 33], size: 20 };
            let image = Objects { field: [0; 3], objects: vec![object] }.draw();
            let lit: Vec<(u32, u32)> =
                image.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 60).map(|(x, y, _)| (x, y)).collect();
            let edge =
                |f: fn(&(u32, u32)) -> u32| (lit.iter().map(f).min().unwrap(), lit.iter().map(f).max().unwrap() + 1);
            let ((left, right), (top, bottom)) = (edge(|p| p.0), edge(|p| p.1));
            for (got, want) in [left, top, right, bottom].into_iter().zip(object.bounds()) {
                assert!(got.abs_diff(want) <= 1, "{}: {got} is not {want}", object.name());
            }
        }
    }

    #[test]
    fn objects_stay_in_their_cells_and_the_same_seed_draws_the_same() {
        for i in 0..200 {
            let scene = Objects::random(&mut rng::stream(1, "test", &[i]), 2..=6);
            assert!((2..=6).contains(&scene.objects.len()));
            for o in &scene.objects {
                let [left, top, right, bottom] = o.bounds();
                let (x, y) = ((o.cell % CELLS) as u32 * CELL, (o.cell / CELLS) as u32 * CELL);
                assert!(left >= x && right <= x + CELL && top >= y && bottom <= y + CELL, "{o:?}");
            }
            let again = Objects::random(&mut rng::stream(1, "test", &[i]), 2..=6);
            assert_eq!(scene.draw(), again.draw());
        }
    }
}
