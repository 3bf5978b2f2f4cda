//! Whatever lies in an images folder: it is used, or skipped with its name and a reason, and never brings the program down.

use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba};
use jigsaw::data::source;
use jigsaw::tasks::jigsaw::generate::{self, JigsawSettings};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images").join(name)).unwrap()
}

fn encode(image: impl Into<DynamicImage>, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn photo(seed: u32) -> RgbImage {
    RgbImage::from_fn(120, 100, |x, y| Rgb([(x * 2) as u8, (y * 2) as u8, (x * y / 40 + seed * 9) as u8]))
}

/// A PNG that says it has `width` x `height` pixels, and holds next to nothing.
fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8], data: &[u8]| {
        let body = [name, data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&body);
        png.extend(crc32fast::hash(&body).to_be_bytes());
    };
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat());
    chunk(b"IDAT", &[0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]);
    chunk(b"IEND", &[]);
    png
}

/// A JPEG whose frame header says 40,000 x 40,000.
fn huge_jpeg() -> Vec<u8> {
    let mut jpeg = fixture("progressive.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC2]).unwrap();
    for at in [frame + 5, frame + 7] {
        jpeg[at..at + 2].copy_from_slice(&40_000u16.to_be_bytes());
    }
    jpeg
}

/// A lossless WebP whose header says 16,383 x 16,383: 14 bits each, counted from 0.
fn huge_webp() -> Vec<u8> {
    let mut webp = encode(photo(1), image::ImageFormat::WebP);
    let header = webp.windows(4).position(|w| w == b"VP8L").unwrap() + 9;
    let size = 0x3FFE_u32 | 0x3FFE << 14 | u32::from(webp[header + 3] >> 4) << 28;
    webp[header..header + 4].copy_from_slice(&size.to_le_bytes());
    webp
}

fn half(bytes: Vec<u8>) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

/// Name, content, and what the reason for skipping it says.
fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    use image::ImageFormat::{Jpeg, Png, WebP};
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> =
        ImageBuffer::from_fn(99, 99, |x, y| Rgb([x as u16 * 600, y as u16 * 600, 0]));
    let deep_grey: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_fn(99, 99, |x, y| Luma([(x * y) as u16]));
    let mut corrupt = encode(photo(4), Png);
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0x55;
    vec![
        ("truncated.jpg", half(encode(photo(1), Jpeg)), "truncated"),
        ("truncated progressive.jpg", half(fixture("progressive.jpg")), "truncated"),
        ("truncated.png", half(encode(photo(2), Png)), "truncated"),
        ("truncated.webp", half(encode(photo(3), WebP)), ""),
        ("truncated lossy.webp", half(fixture("lossy.webp")), ""),
        ("zero.jpg", Vec::new(), "empty file"),
        ("zero.png", Vec::new(), "empty file"),
        ("cmyk.jpg", fixture("cmyk.jpg"), "CMYK"),
        ("deep.png", encode(deep, Png), "16 bits"),
        ("deep grey.png", encode(deep_grey, Png), "16 bits"),
        ("pixel.png", encode(RgbImage::new(1, 1), Png), "1 x 1 pixels is too small"),
        ("thread.png", encode(RgbImage::new(2000, 2), Png), "too small"),
        ("animated.png", fixture("animated.png"), "animated"),
        ("animated.webp", fixture("animated.webp"), "animated"),
        ("really a gif.png", fixture("content.gif"), "gif content"),
        ("moving.gif", fixture("content.gif"), "gif file"),
        ("huge.png", png_of_size(40_000, 40_000), "40000 x 40000 pixels"),
        ("enormous.png", png_of_size(0x7FFF_FFFF, 0x7FFF_FFFF), ""),
        ("huge.jpg", huge_jpeg(), "40000 x 40000 pixels"),
        ("huge.webp", huge_webp(), "16383 x 16383 pixels"),
        ("lying.png", png_of_size(500, 500), ""),
        ("corrupt.png", corrupt, ""),
        ("text.jpg", b"This is no picture.".to_vec(), "not an image"),
        ("only a header.jpg", vec![0xFF, 0xD8, 0xFF, 0xE0], "JPEG without a frame header"),
        ("noise.webp", [b"RIFF\xFF\xFF\xFF\xFFWEBPVP8 ".as_slice(), &[7; 40]].concat(), ""),
    ]
}

fn settings(images: &Path) -> JigsawSettings {
    JigsawSettings {
        images: images.to_owned(),
        grid: "2x2".parse().unwrap(),
        count: 20,
        min_crop: 0.6,
        seed: 1,
        split: "0.6,0.2,0.2".parse().unwrap(),
        ..JigsawSettings::default()
    }
}

fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, bytes, _) in bad() {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn each_bad_image_is_skipped_with_its_name_and_reason_and_the_rest_is_used() {
    let images = folder();
    for i in 0..4 {
        photo(i).save(images.path().join(format!("good {i}.png"))).unwrap();
    }
    fs::write(images.path().join("notes.txt"), "not asked for").unwrap();
    fs::write(images.path().join("._good 1.png"), "hidden").unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(images.path(), images.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("/no/such/file.png", images.path().join("broken link.png")).unwrap();
    }
    let out = TempDir::new().unwrap();
    let made = generate::generate(&settings(images.path()), &out.path().join("d"), false, &|| ()).unwrap();
    for (name, _, says) in bad() {
        let skipped = made.skipped.iter().find(|s| s.file == name).unwrap_or_else(|| panic!("{name} was not skipped"));
        assert!(!skipped.reason.is_empty() && skipped.reason.contains(says), "{name}: {}", skipped.reason);
    }
    let links = if cfg!(unix) { 2 } else { 0 };
    assert_eq!(made.skipped.len(), bad().len() + links, "{:?}", made.skipped);
    assert_eq!(made.splits.values().map(|s| s.records).sum::<usize>(), 20);
    assert_eq!(made.splits.values().map(|s| s.sources).sum::<usize>(), 4);
}

#[test]
fn a_folder_of_nothing_but_bad_images_is_an_error_that_says_why() {
    let images = folder();
    let out = TempDir::new().unwrap();
    let error = generate::generate(&settings(images.path()), &out.path().join("d"), false, &|| ()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    assert!(message.contains("usable image") && message.contains("animated.png: animated image"), "{message}");
}

#[test]
fn strict_refuses_with_exit_code_2_and_names_the_file() {
    let images = TempDir::new().unwrap();
    for i in 0..4 {
        photo(i).save(images.path().join(format!("good {i}.png"))).unwrap();
    }
    fs::write(images.path().join("cmyk.jpg"), fixture("cmyk.jpg")).unwrap();
    let out = TempDir::new().unwrap();
    let run = |strict: bool, dir: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
        command.args(["gen", "--grid", "2x2", "--count", "9", "--images"]).arg(images.path());
        command.arg("--out").arg(out.path().join(dir)).args(strict.then_some("--strict"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, stderr, _) = run(true, "strict");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("cmyk.jpg: CMYK image"), "{stderr}");
    assert!(!out.path().join("strict").exists());
    let (code, stderr, stdout) = run(false, "lenient");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.starts_with("skipped cmyk.jpg: CMYK image\n") && !stderr.contains("good"), "{stderr}");
    assert!(stdout.contains("train 7") && stdout.contains("lenient"), "{stdout}");
}

#[test]
fn an_image_that_only_fails_when_decoded_is_made_up_for_by_the_others() {
    let images = TempDir::new().unwrap();
    for i in 0..6 {
        photo(i).save(images.path().join(format!("good {i}.png"))).unwrap();
    }
    for i in 0..3 {
        let bytes = encode(photo(20 + i), image::ImageFormat::Png);
        fs::write(images.path().join(format!("half {i}.png")), &bytes[..bytes.len() - 40 - i as usize]).unwrap();
    }
    let out = TempDir::new().unwrap();
    let made = generate::generate(&settings(images.path()), &out.path().join("d"), false, &|| ()).unwrap();
    assert_eq!(made.skipped.len(), 3, "{:?}", made.skipped);
    let counts: Vec<usize> = made.splits.values().map(|s| s.records).collect();
    assert_eq!(counts, [4, 12, 4]); // test, train, validation
    let strict = JigsawSettings { strict: true, ..settings(images.path()) };
    let error = generate::generate(&strict, &out.path().join("e"), false, &|| ()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_cut_or_damaged_file_never_brings_the_decoder_down() {
    let good: Vec<(PathBuf, Vec<u8>)> = vec![
        ("a.jpg".into(), encode(photo(1), image::ImageFormat::Jpeg)),
        ("progressive.jpg".into(), fixture("progressive.jpg")),
        ("a.png".into(), encode(photo(2), image::ImageFormat::Png)),
        ("a.webp".into(), encode(photo(3), image::ImageFormat::WebP)),
        ("lossy.webp".into(), fixture("lossy.webp")),
    ];
    for (name, bytes) in good {
        let whole = source::decode(&bytes).unwrap();
        for cut in (0..bytes.len()).step_by(1 + bytes.len() / 150) {
            let result = source::decode(&bytes[..cut]);
            let complete = result.as_ref().is_ok_and(|image| *image == whole);
            assert!(result.is_err() || complete, "{} cut at {cut} of {} passed as whole", name.display(), bytes.len());
        }
        for i in 0..150usize {
            let mut damaged = bytes.clone();
            let at = i * 7919 % damaged.len();
            damaged[at] ^= (i as u8).wrapping_mul(37) | 1;
            let _ = source::decode(&damaged);
        }
    }
}

#[test]
fn orientation_grey_and_transparency_become_upright_rgb_over_white() {
    let turned = fixture("turned.jpg"); // stored 48 x 32, red on the left; to be shown turned by 90 degrees
    assert_eq!(source::probe(&turned), Ok((32, 48)));
    let image = source::decode(&turned).unwrap();
    assert_eq!(image.dimensions(), (32, 48));
    assert!(image.get_pixel(16, 8)[0] > 200 && image.get_pixel(16, 40)[2] > 200, "red above, blue below");

    let grey = ImageBuffer::from_pixel(5, 5, Luma([77u8]));
    assert_eq!(source::decode(&encode(grey, image::ImageFormat::Png)).unwrap().get_pixel(2, 2).0, [77; 3]);
    let glass = ImageBuffer::from_fn(3, 1, |x, _| Rgba([200u8, 0, 100, [0u8, 51, 255][x as usize]]));
    let image = source::decode(&encode(glass, image::ImageFormat::Png)).unwrap();
    let pixels: Vec<[u8; 3]> = image.pixels().map(|p| p.0).collect();
    assert_eq!(pixels, [[255, 255, 255], [244, 204, 224], [200, 0, 100]]);
    let grey_glass = ImageBuffer::from_pixel(2, 2, LumaA([0u8, 0]));
    assert_eq!(source::decode(&encode(grey_glass, image::ImageFormat::Png)).unwrap().get_pixel(0, 0).0, [255; 3]);
}
