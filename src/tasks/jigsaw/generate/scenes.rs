//! Synthetic scenes to cut puzzles from, as many as needed: each is a function of (seed, its number).
//!
//! With cues to absolute position they look like landscapes: the sky is above and lighter towards the horizon, the ground below
//! and darker towards the viewer, light falls from the left. Without cues they are fields of shapes, the same everywhere on average:
//! only what continues over the edges of the tiles tells where they belong.

use crate::data::canvas::{Canvas, Color, polygon};
use crate::rng::{self, Rng};
use image::RgbImage;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tiny_skia::{Path, PathBuilder, Rect};

/// Side of a scene in pixels.
pub const SIDE: u32 = 336;
const S: f32 = SIDE as f32;

/// Whether a scene shows where in it a tile comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cues {
    /// Sky above, ground below, light from the left.
    #[default]
    With,
    /// No cue but the shapes that continue from tile to tile.
    Without,
}

/// Draw scene `index`: [`SIDE`] x [`SIDE`] pixels.
pub fn draw(seed: u64, cues: Cues, index: u64) -> RgbImage {
    let rng = &mut rng::stream(seed, "scene", &[index]);
    match cues {
        Cues::With => landscape(rng),
        Cues::Without => field(rng),
    }
}

fn rect(left: f32, top: f32, width: f32, height: f32) -> Option<Path> {
    Rect::from_xywh(left, top, width, height).map(PathBuilder::from_rect)
}

fn oval(x: f32, y: f32, across: f32, down: f32) -> Option<Path> {
    Rect::from_xywh(x - across, y - down, 2.0 * across, 2.0 * down).and_then(PathBuilder::from_oval)
}

fn mix(a: Color, b: Color, share: f32) -> Color {
    [0, 1, 2].map(|i| (f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * share).round() as u8)
}

/// A colour near `color`.
fn near(color: Color, by: i16, rng: &mut Rng) -> Color {
    color.map(|c| (i16::from(c) + rng.random_range(-by..=by)).clamp(0, 255) as u8)
}

fn any(rng: &mut Rng) -> Color {
    [0, 1, 2].map(|_| rng.random_range(20..=235))
}

/// Skies: at the top and at the horizon.
const SKIES: [[Color; 2]; 5] = [
    [[60, 120, 215], [190, 220, 250]],
    [[90, 110, 140], [200, 205, 215]],
    [[70, 60, 130], [250, 180, 130]],
    [[15, 20, 60], [70, 80, 140]],
    [[110, 170, 220], [240, 235, 210]],
];
/// Grounds: at the horizon and at the bottom.
const GROUNDS: [[Color; 2]; 5] = [
    [[130, 175, 90], [45, 85, 30]],
    [[225, 205, 150], [150, 115, 65]],
    [[110, 165, 195], [20, 60, 95]],
    [[240, 245, 250], [150, 165, 185]],
    [[160, 140, 110], [70, 55, 40]],
];

fn landscape(rng: &mut Rng) -> RgbImage {
    let sky = SKIES[rng.random_range(0..SKIES.len())].map(|c| near(c, 18, rng));
    let ground = GROUNDS[rng.random_range(0..GROUNDS.len())].map(|c| near(c, 18, rng));
    let horizon = S * rng.random_range(0.38..0.62f32);
    let mut canvas = Canvas::new(SIDE, SIDE, sky[0]);
    let band = 4.0;
    for i in 0..(S / band) as usize {
        let y = i as f32 * band;
        let color = if y < horizon {
            mix(sky[0], sky[1], y / horizon)
        } else {
            mix(ground[0], ground[1], (y - horizon) / (S - horizon))
        };
        canvas.fill(rect(0.0, y, S, band), color, 255);
    }
    let (x, y) = (S * rng.random_range(0.1..0.9f32), horizon * rng.random_range(0.15..0.6f32));
    canvas.fill(
        PathBuilder::from_circle(x, y, S * rng.random_range(0.04..0.08f32)),
        near([255, 240, 190], 12, rng),
        235,
    );
    for _ in 0..rng.random_range(1..=4) {
        let (x, y) = (S * rng.random_range(0.0..1.0f32), horizon * rng.random_range(0.1..0.7f32));
        for _ in 0..4 {
            let (dx, dy) = (S * rng.random_range(-0.09..0.09f32), S * rng.random_range(-0.015..0.015f32));
            canvas.fill(oval(x + dx, y + dy, S * rng.random_range(0.04..0.09f32), S * 0.028), [248, 248, 250], 170);
        }
    }
    hills(&mut canvas, horizon, mix(ground[0], sky[1], 0.45), rng);
    // From the horizon to the viewer: what is nearer is larger and hides what is behind.
    let mut depths: Vec<f32> = (0..rng.random_range(4..=8)).map(|_| rng.random_range(0.06..0.95f32)).collect();
    depths.sort_by(f32::total_cmp);
    for depth in depths {
        let (x, foot) = (S * rng.random_range(0.02..0.98f32), horizon + (S - horizon) * depth);
        let size = S * (0.07 + 0.2 * depth);
        match rng.random_range(0..4) {
            0 | 1 => tree(&mut canvas, x, foot, size, rng),
            2 => house(&mut canvas, x, foot, size, rng),
            _ => canvas.fill(oval(x, foot, size * 0.4, size * 0.22), near([120, 115, 110], 30, rng), 255),
        }
    }
    // Light from the left, shade to the right.
    let strip = 8.0;
    for i in 0..(S / strip) as usize {
        let at = (i as f32 + 0.5) * strip / S;
        let (color, strength) = if at < 0.5 { ([255, 250, 225], 0.5 - at) } else { ([15, 15, 40], at - 0.5) };
        canvas.fill(rect(i as f32 * strip, 0.0, strip, S), color, (strength * 150.0) as u8);
    }
    canvas.into_image()
}

fn hills(canvas: &mut Canvas, horizon: f32, color: Color, rng: &mut Rng) {
    let (a, b) = (rng.random_range(0.0..6.3f32), rng.random_range(0.0..6.3f32));
    let height = S * rng.random_range(0.03..0.11f32);
    let mut points = vec![(0.0, horizon + 1.0)];
    for i in 0..=24 {
        let at = i as f32 / 24.0;
        let wave = 0.5 + 0.3 * (at * 7.0 + a).sin() + 0.2 * (at * 17.0 + b).sin();
        points.push((at * S, horizon - height * wave));
    }
    points.push((S, horizon + 1.0));
    canvas.fill(polygon(&points), color, 255);
}

fn tree(canvas: &mut Canvas, x: f32, foot: f32, size: f32, rng: &mut Rng) {
    canvas.fill(rect(x - size * 0.06, foot - size * 0.5, size * 0.12, size * 0.5), near([95, 65, 40], 15, rng), 255);
    let leaf = near([50, 120, 45], 35, rng);
    if rng.random() {
        canvas.fill(
            polygon(&[
                (x, foot - size * 1.3),
                (x + size * 0.35, foot - size * 0.3),
                (x - size * 0.35, foot - size * 0.3),
            ]),
            leaf,
            255,
        );
    } else {
        for (dx, dy) in [(-0.2, 0.6), (0.2, 0.62), (0.0, 0.85)] {
            canvas.fill(
                PathBuilder::from_circle(x + dx * size, foot - dy * size, size * 0.28),
                near(leaf, 10, rng),
                255,
            );
        }
    }
}

fn house(canvas: &mut Canvas, x: f32, foot: f32, size: f32, rng: &mut Rng) {
    let (half, wall) = (size * rng.random_range(0.3..0.5f32), size * rng.random_range(0.4..0.6f32));
    let top = foot - wall;
    canvas.fill(rect(x - half, top, 2.0 * half, wall), near([205, 190, 165], 45, rng), 255);
    let roof = [(x - half * 1.2, top), (x + half * 1.2, top), (x, top - size * 0.35)];
    canvas.fill(polygon(&roof), near([150, 60, 45], 40, rng), 255);
    canvas.fill(rect(x - half * 0.2, foot - wall * 0.6, half * 0.4, wall * 0.6), near([80, 50, 35], 15, rng), 255);
    for side in [-0.65, 0.4] {
        canvas.fill(
            rect(x + half * side, top + wall * 0.25, half * 0.3, wall * 0.28),
            near([250, 230, 140], 20, rng),
            255,
        );
    }
}

fn field(rng: &mut Rng) -> RgbImage {
    let mut canvas = Canvas::new(SIDE, SIDE, any(rng));
    for _ in 0..rng.random_range(26..=40) {
        let (x, y) = (S * rng.random_range(-0.1..1.1f32), S * rng.random_range(-0.1..1.1f32));
        let (a, b) = (S * rng.random_range(0.04..0.16f32), S * rng.random_range(0.04..0.16f32));
        let color = any(rng);
        match rng.random_range(0..4) {
            0 => canvas.fill(oval(x, y, a, b), color, 255),
            1 => canvas.fill(rect(x - a, y - b, 2.0 * a, 2.0 * b), color, 255),
            2 => {
                let turn = rng.random_range(0.0..6.3f32);
                let corner = |k: f32| (x + 1.3 * a * (turn + k).cos(), y + 1.3 * a * (turn + k).sin());
                canvas.fill(polygon(&[corner(0.0), corner(2.1), corner(4.2)]), color, 255);
            }
            _ => {
                let (turn, wide, long) = (rng.random_range(0.0..6.3f32), S * 0.02, S * 0.4);
                let (dx, dy) = (turn.cos(), turn.sin());
                let point = |l: f32, w: f32| (x + l * dx - w * dy, y + l * dy + w * dx);
                canvas.fill(
                    polygon(&[point(-long, -wide), point(long, -wide), point(long, wide), point(-long, wide)]),
                    color,
                    255,
                );
            }
        }
    }
    canvas.into_image()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(image: &RgbImage, part: impl Fn(u32, u32) -> bool) -> f64 {
        let values: Vec<f64> = image
            .enumerate_pixels()
            .filter(|(x, y, _)| part(*x, *y))
            .map(|(_, _, p)| p.0.iter().map(|&c| f64::from(c)).sum::<f64>() / 3.0)
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// Mean over scenes of the difference in brightness, first half minus second, down and across.
    fn slopes(cues: Cues) -> (f64, f64) {
        let (mut down, mut across) = (0.0, 0.0);
        for index in 0..60 {
            let image = draw(5, cues, index);
            down += mean(&image, |_, y| y < SIDE / 2) - mean(&image, |_, y| y >= SIDE / 2);
            across += mean(&image, |x, _| x < SIDE / 2) - mean(&image, |x, _| x >= SIDE / 2);
        }
        (down / 60.0, across / 60.0)
    }

    #[test]
    fn only_scenes_with_cues_tell_above_from_below_and_left_from_right() {
        let (down, across) = slopes(Cues::With);
        assert!(down > 20.0 && across > 20.0, "{down} {across}");
        let (down, across) = slopes(Cues::Without);
        assert!(down.abs() < 8.0 && across.abs() < 8.0, "{down} {across}");
    }

    #[test]
    fn a_scene_follows_from_its_seed_and_number_alone() {
        assert_eq!(draw(1, Cues::With, 3), draw(1, Cues::With, 3));
        assert_ne!(draw(1, Cues::With, 3), draw(1, Cues::With, 4));
        assert_ne!(draw(1, Cues::With, 3), draw(2, Cues::With, 3));
        assert_ne!(draw(1, Cues::Without, 3), draw(2, Cues::Without, 3));
    }
}
