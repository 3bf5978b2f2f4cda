//! A benchmark file far larger than what reading it may hold.

use crate::{alone, highest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jigsaw::alloc;
use jigsaw::data::tsv::{Tsv, TsvSchema};
use std::io::{BufWriter, Write};

const ROWS: usize = 100;

#[test]
fn a_large_file_is_read_in_the_memory_of_a_few_rows() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.tsv");
    // Noise, so that the picture is as large encoded as it is decoded: 0.8 MB.
    let mut state = 1_u32;
    let noise = image::RgbImage::from_fn(512, 512, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, red, green, blue] = state.to_le_bytes();
        image::Rgb([red, green, blue])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    noise.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let picture = STANDARD.encode(bytes.into_inner());
    let mut file = BufWriter::new(std::fs::File::create(&path).unwrap());
    writeln!(file, "index\timage\tquestion\tanswer").unwrap();
    for i in 0..ROWS {
        writeln!(file, "{i}\t{picture}\tIs this number {i}?\tyes").unwrap();
    }
    file.into_inner().unwrap();
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    drop((picture, noise));

    let before = alloc::live_bytes();
    let (peak, (tsv, rows)) = highest(|| Tsv::open(&path, |_| Ok(TsvSchema::default())).unwrap());
    let kept = alloc::live_bytes().saturating_sub(before);
    assert!(length > 100_000_000, "{length}");
    assert!(peak < 10_000_000, "{peak} bytes at the highest for a file of {length}");
    assert!(kept < 200_000, "{kept} bytes kept of a file of {length}");
    assert_eq!((rows.len(), tsv.image(rows[ROWS - 1].images[0]).unwrap().dimensions()), (ROWS, (512, 512)));
}
