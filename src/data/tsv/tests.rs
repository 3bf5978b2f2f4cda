//! Files as they come, good and bad: every mistake is named with its place.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use std::io::Cursor;

/// A picture of one colour, encoded.
fn picture(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(width, height, image::Rgb([width as u8, height as u8, 7]));
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(width: u32, height: u32) -> String {
    STANDARD.encode(picture(width, height, image::ImageFormat::Png))
}

fn layout(_: &[String]) -> Result<TsvSchema> {
    Ok(TsvSchema { prefix: None })
}

fn open(text: &[u8]) -> Result<(Tsv, Vec<TsvRow>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.tsv");
    std::fs::write(&path, text).unwrap();
    Tsv::open(&path, layout)
}

/// What is said about a file, from its name on.
fn refusal(text: impl AsRef<[u8]>) -> String {
    let error = open(text.as_ref()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    text.split_once("bench.tsv").map(|(_, rest)| rest.to_string()).unwrap_or(text)
}

#[test]
fn a_file_is_read_with_quotes_options_references_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pictures")).unwrap();
    std::fs::write(dir.path().join("pictures/a.jpg"), picture(30, 20, image::ImageFormat::Jpeg)).unwrap();
    let text = [
        "index\timage\timage_path\tquestion\tA\tB\tanswer\tcategory".to_string(),
        format!("7\t{}\t\t\"What is \"\"this\"\"?\nTell.\"\tone\ttwo\tA\tx", png(8, 6)),
        "8\t7\t\tAnd this?\t\t\t['a', \"b's\"]\t".to_string(),
        format!("9\t\"['{}', '7']\"\t\tBoth?\tno\tyes\tB\ty", png(5, 4)),
        "10\t\tpictures/a.jpg\tFrom a file?\t\t\tyes\t".to_string(),
        "11\t\t['pictures/a.jpg', 'pictures/a.jpg']\tTwice?\t\t\tyes\t".to_string(),
        "12\t\t\tNo picture?\t\t\tyes\t".to_string(),
        format!("13\tdata:image/webp;base64,{}\t\tWebP?\t\t\tyes\t", {
            STANDARD.encode(picture(9, 3, image::ImageFormat::WebP))
        }),
    ]
    .join("\n");
    let path = dir.path().join("bench.tsv");
    for text in [text.clone(), format!("\u{feff}{}\r\n", text.replace('\n', "\r\n"))] {
        std::fs::write(&path, text).unwrap();
        let (tsv, rows) = Tsv::open(&path, layout).unwrap();
        let sizes = |row: &TsvRow| row.images.iter().map(|&i| tsv.size(i)).collect::<Vec<_>>();
        let found: Vec<_> = rows.iter().map(|r| (r.id.as_str(), r.line, sizes(r))).collect();
        let expected = [
            ("7", 2, vec![(8, 6)]),
            ("8", 4, vec![(8, 6)]),
            ("9", 5, vec![(5, 4), (8, 6)]),
            ("10", 6, vec![(30, 20)]),
            ("11", 7, vec![(30, 20); 2]),
            ("12", 8, vec![]),
            ("13", 9, vec![(9, 3)]),
        ];
        assert_eq!(found, expected);
        assert_eq!(rows[0].get("question").unwrap().lines().collect::<Vec<_>>(), ["What is \"this\"?", "Tell."]);
        assert_eq!((rows[0].get("A"), rows[1].get("A"), rows[1].get("Z")), (Some("one"), None, None));
        assert_eq!(rows[1].fields().map(|(column, _)| column).collect::<Vec<_>>(), ["index", "question", "answer"]);
        for row in &rows {
            for &image in &row.images {
                let decoded = tsv.image(image).unwrap();
                assert_eq!(decoded.dimensions(), tsv.size(image));
                let (width, height) = tsv.size(image);
                if width < 10 {
                    assert_eq!(decoded.get_pixel(0, 0).0, [width as u8, height as u8, 7]);
                }
            }
        }
        assert_eq!(tsv.digest(rows[0].images[0]), tsv.digest(rows[1].images[0]));
        assert_ne!(tsv.digest(rows[0].images[0]), tsv.digest(rows[2].images[0]));
        assert!(tsv.place(&rows[2]).ends_with("bench.tsv:5: row 3"));
    }
}

#[test]
fn questions_without_images_need_no_column_for_them() {
    let (_, rows) = open(b"index\tquestion\tanswer\n1\tWhy?\tso\n").unwrap();
    assert_eq!((rows[0].images.len(), rows[0].get("question")), (0, Some("Why?")));
}

#[test]
fn an_index_may_need_another_column_to_be_unique() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.tsv");
    let row = |split: &str, image: &str| format!("1\t{image}\tq\ta\t{split}\n");
    let text = format!("index\timage\tquestion\tanswer\tsplit\n{}{}", row("val", &png(8, 6)), row("test", &png(6, 8)));
    std::fs::write(&path, text + "2\t1\tq\ta\ttest\n").unwrap();
    let prefixed = |_: &[String]| Ok(TsvSchema { prefix: Some("split".into()) });
    let (tsv, rows) = Tsv::open(&path, prefixed).unwrap();
    assert_eq!(rows.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["val_1", "test_1", "test_2"]);
    assert_eq!(tsv.size(rows[2].images[0]), (6, 8), "a reference stays in its split");
}

#[test]
fn every_mistake_is_named_with_line_row_and_column() {
    let good = png(8, 6);
    let head = "index\timage\tquestion\tanswer\n";
    let row = |index: &str, image: &str| format!("{index}\t{image}\tq?\ta\n");
    let torn = |format| {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * y) as u8, x as u8, 7])).write_to(&mut bytes, format).unwrap();
        let bytes = bytes.into_inner();
        STANDARD.encode(&bytes[..bytes.len() - 8])
    };
    let not_an_image = STANDARD.encode([b'x'; 100]);
    let gif = STANDARD.encode([b"GIF89a".as_slice(), &[0; 100]].concat());
    for (text, said) in [
        (String::new(), " is empty: its first line must name the columns".to_string()),
        (head.into(), " holds a header and no rows".into()),
        (
            "index\timage\tanswer\n".into(),
            ":1: there is no column `question`; the header has: index, image, answer".into(),
        ),
        ("index,image,question,answer\n".into(), "are the columns separated by tabs?".into()),
        (
            "index\timg\tquestion\tanswer\n".into(),
            ":1: there is neither a column `image` nor `image_path`, but `img`; rename it".into(),
        ),
        ("index\tindex\timage\tquestion\tanswer\n".into(), ":1: the header has two columns `index`".into()),
        (
            format!("{head}{}{}", row("1", &good), row("1", "1")),
            ":3: row 2, column `index`: `1` is already the index of row 1 (line 2)".into(),
        ),
        (format!("{head}{}\t{good}\tq?\ta\n", row("1", &good)), ":3: row 2, column `index` is empty".into()),
        (format!("{head}1\t{good}\t \ta\n"), ":2: row 1, column `question` is empty".into()),
        (format!("{head}1\t{good}\tq?\n"), ":2: row 1 has 3 fields, the header has 4".into()),
        (format!("{head}1\t{good}\tq\t?\ta\n"), ":2: row 1 has 5 fields, the header has 4".into()),
        (format!("{head}1\t{good}\t\"q?\ta\n{}", row("2", "1")), ":2: row 1 has 3 fields".into()),
        (
            format!("{head}{}", row("1", &good.replacen('A', "*", 1))),
            ":2: row 1, column `image`: is not base64: ".into(),
        ),
        (format!("{head}{}", row("1", &not_an_image)), ":2: row 1, column `image`: not an image".into()),
        (format!("{head}{}", row("1", &gif)), ":2: row 1, column `image`: gif content".into()),
        (format!("{head}{}", row("1", &torn(image::ImageFormat::Png))), ":2: row 1, column `image`: truncated".into()),
        (format!("{head}{}", row("1", &torn(image::ImageFormat::WebP))), ":2: row 1, column `image`: truncated".into()),
        (
            format!("{head}{}{}", row("1", &good), row("2", "3")),
            ":3: row 2, column `image`: `3` is too short for an image, and there is no row with that index".into(),
        ),
        (format!("{head}{}", row("1", "1")), ":2: row 1, column `image`: `1` refers to the row itself".into()),
        (
            format!("{head}{}{}{}", row("1", "2"), row("2", "3"), row("3", &good)),
            ":2: row 1, column `image`: `2` refers to row 2, which itself refers to another".into(),
        ),
        (
            format!("{head}{}{}", row("1", ""), row("2", "1")),
            ":3: row 2, column `image`: `1` refers to row 1, which has no image".into(),
        ),
        (
            format!("{head}{}", row("1", &format!("\"['{good}' '{good}']\""))),
            ":2: row 1, column `image`: a comma is missing after item 1".into(),
        ),
        (
            format!("{head}{}", row("1", &format!("\"['{good}', '{not_an_image}']\""))),
            ":2: row 1, column `image`: item 2: not an image".into(),
        ),
        (format!("{head}{}", row("1", "[]")), ":2: row 1, column `image`: is an empty list".into()),
        ("index\timage_path\tquestion\tanswer\n1\tnone.png\tq?\ta\n".into(), "none.png: cannot be read".into()),
    ] {
        let refusal = refusal(&text);
        assert!(refusal.contains(&said), "{said}\n{refusal}");
    }
}

#[test]
fn a_byte_that_is_not_utf8_is_named_with_its_place() {
    let head = b"index\timage\tquestion\tanswer\n";
    let row = [b"1\t".as_slice(), png(8, 6).as_bytes(), b"\tcaf\xe9?\ta\n"].concat();
    let refused = refusal([head.as_slice(), &row].concat());
    assert!(refused.contains(":2: row 1, column `question`: byte 0xE9 at position 4 is not UTF-8"), "{refused}");
    let refused = refusal(b"ind\xffex\timage\tquestion\tanswer\n");
    assert!(refused.contains(":1: column 1 of the header: byte 0xFF at position 4"), "{refused}");
}

#[test]
fn a_picture_whose_pixels_are_damaged_or_that_was_changed_is_no_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.tsv");
    let mut bytes = picture(64, 64, image::ImageFormat::Png);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    let text = |image: &str| format!("index\timage\tquestion\tanswer\n1\t{image}\tq?\ta\n");
    std::fs::write(&path, text(&STANDARD.encode(&bytes))).unwrap();
    let (tsv, rows) = Tsv::open(&path, layout).unwrap();
    let error = tsv.image(rows[0].images[0]).unwrap_err();
    assert!(error.to_string().contains("bench.tsv:2: column `image`: damaged"), "{error}");
    std::fs::write(&path, text(&png(64, 64))).unwrap();
    let error = tsv.image(rows[0].images[0]).unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("changed while it was in use"), "{error}");
    assert!(refusal_of_a_directory(dir.path()).contains("is a directory"));
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_parquet_file_is_refused_with_the_build_that_reads_it() {
    let error = Tsv::open(Path::new("some/MMStar.parquet"), layout).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let said = error.to_string();
    assert!(
        said.starts_with("some/MMStar.parquet: ") && said.contains("cargo build --release --features parquet"),
        "{said}"
    );
}

fn refusal_of_a_directory(dir: &Path) -> String {
    Tsv::open(dir, layout).unwrap_err().to_string()
}
