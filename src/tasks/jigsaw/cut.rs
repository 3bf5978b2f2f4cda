//! Cutting a picture into tiles, shuffling them and putting them back.

use super::{Grid, Permutation};
use image::RgbImage;

/// The shuffled picture: the tile of cell `c` of `original` goes to place `permutation.places()[c]`.
/// The sides of `original` must be multiples of the grid's.
pub fn shuffle(original: &RgbImage, grid: Grid, permutation: &Permutation) -> RgbImage {
    rearrange(original, grid, permutation.places().iter().enumerate().map(|(cell, &place)| (cell, place)))
}

/// The original picture: cell `c` gets the tile at place `permutation.places()[c]` of `shuffled`.
pub fn restore(shuffled: &RgbImage, grid: Grid, permutation: &Permutation) -> RgbImage {
    rearrange(shuffled, grid, permutation.places().iter().enumerate().map(|(cell, &place)| (place, cell)))
}

/// Copy tiles `(from, to)` of `image` into a new picture of the same size.
fn rearrange(image: &RgbImage, grid: Grid, moves: impl Iterator<Item = (usize, usize)>) -> RgbImage {
    let (width, height) = (image.width() as usize, image.height() as usize);
    assert!(
        width.is_multiple_of(grid.cols()) && height.is_multiple_of(grid.rows()),
        "a {width}x{height} picture does not divide into {grid} tiles"
    );
    let (tile_width, tile_height) = (width / grid.cols(), height / grid.rows());
    let row_bytes = tile_width * 3;
    let offset = |tile: usize, line: usize| {
        let (row, col) = grid.place(tile);
        ((row * tile_height + line) * width + col * tile_width) * 3
    };
    let source = image.as_raw();
    let mut out = vec![0; source.len()];
    for (from, to) in moves {
        for line in 0..tile_height {
            let (from, to) = (offset(from, line), offset(to, line));
            out[to..to + row_bytes].copy_from_slice(&source[from..from + row_bytes]);
        }
    }
    RgbImage::from_raw(image.width(), image.height(), out).expect("as many bytes as the source picture")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::stream;
    use image::Rgb;

    #[test]
    fn each_tile_lands_where_the_answer_says() {
        let grid = Grid::new(1, 3).unwrap();
        let original = RgbImage::from_fn(6, 2, |x, _| Rgb([(x / 2) as u8, x as u8, 0]));
        let p = Permutation::new(vec![2, 0, 1]).unwrap(); // answer `3 1 2`
        let shuffled = shuffle(&original, grid, &p);
        let shown: Vec<u8> = (0..3).map(|place| shuffled.get_pixel(place * 2, 1)[0]).collect();
        assert_eq!(shown, [1, 2, 0], "the first cell's tile is the third one shown");
        assert_eq!(restore(&shuffled, grid, &p), original);
    }

    #[test]
    fn restoring_undoes_shuffling_on_any_grid() {
        for (seed, (rows, cols)) in [(1, 2), (2, 1), (2, 2), (3, 3), (2, 5), (10, 10)].into_iter().enumerate() {
            let grid = Grid::new(rows, cols).unwrap();
            let original = RgbImage::from_fn(cols as u32 * 5, rows as u32 * 3, |x, y| Rgb([x as u8, y as u8, 7]));
            let p = Permutation::random(grid.tiles(), &mut stream(seed as u64, "test", &[]));
            let shuffled = shuffle(&original, grid, &p);
            assert_ne!(shuffled, original);
            assert_eq!(restore(&shuffled, grid, &p), original);
        }
    }
}
