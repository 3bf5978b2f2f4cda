//! Rows of every kind of benchmark become the records that their scorers score.

use super::*;
use crate::data::IMAGE_PLACEHOLDER;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::io::Cursor;
use std::path::PathBuf;

fn png(width: u32, height: u32) -> String {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(width, height).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

struct Case {
    dir: tempfile::TempDir,
    path: PathBuf,
}

/// A file of this header and these rows; `{image}` in a row is a picture of 200 x 100.
fn file(header: &str, rows: &[&str]) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.tsv");
    let lines: Vec<String> =
        std::iter::once(&header).chain(rows).map(|l| l.replace("{image}", &png(200, 100))).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    Case { dir, path }
}

fn task(name: &str, kind: Option<&str>, header: &str, rows: &[&str]) -> Result<BenchTask> {
    let case = file(header, rows);
    let task = read(name, &case.path, kind)?.into_task(name, &|(width, height)| Ok((2 * width, 3 * height)));
    drop(case.dir);
    task
}

fn records(name: &str, kind: Option<&str>, header: &str, rows: &[&str]) -> Vec<Record> {
    task(name, kind, header, rows).unwrap().records
}

fn refusal(name: &str, kind: Option<&str>, header: &str, rows: &[&str]) -> String {
    let error = task(name, kind, header, rows).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

const CHOICES: &str = "index\timage\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category";

#[test]
fn a_question_with_options_is_asked_and_scored_by_its_letter() {
    let records = records(
        "MMStar",
        None,
        CHOICES,
        &[
            "1\t{image}\tWhat is it?\tLook.\ta cat\ta dog\t\t\tB\tfine\tobjects",
            "2\t1\tAnd now?\t\tyes\tno\tperhaps\tnever\td\t\t",
        ],
    );
    assert_eq!(
        records[0].messages[0].content,
        "<image>Hint: Look.\nQuestion: What is it?\nOptions:\nA. a cat\nB. a dog\nPlease select the correct answer from the \
         options above."
    );
    assert_eq!((records[0].task.as_str(), records[0].answer.as_str(), records[0].id.as_str()), ("choice", "B", "1"));
    let group = records[1].meta["group"].clone();
    assert_eq!(
        json!(records[0].meta),
        json!({"options": ["a cat", "a dog"], "l2-category": "objects", "category": "fine", "group": group})
    );
    assert_eq!((records[1].answer.as_str(), &records[1].meta["options"][3]), ("D", &json!("never")));
    assert_eq!(records[1].images, ["2:0"]);
    let scorer = scorer(&records[0]).unwrap();
    assert_eq!((scorer.score("B").value, scorer.score("A").value), (1.0, 0.0));
}

#[test]
fn an_open_question_among_choices_is_scored_by_its_content_and_dev_rows_are_left_out() {
    let header = "index\timage\tquestion\tA\tB\tanswer\tcategory\tsplit";
    let rows = [
        "dev_1\t{image}\tq\ta\tb\tA\tArt\tdev",
        "val_1\t{image}\tHow many?\t\t\t['2.5', '5/2']\tMath\tvalidation",
        "val_2\t\"['dev_1', 'dev_1']\"\tIs <image 1> like <image 2>?\ta\tb\tA\tArt\tvalidation",
    ];
    let task = task("mmmu_val", None, header, &rows).unwrap();
    assert_eq!(task.records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["val_1", "val_2"]);
    let open = &task.records[0];
    assert_eq!(
        (open.task.as_str(), open.answer.as_str(), &open.meta["answers"]),
        ("exact", "2.5", &json!(["2.5", "5/2"]))
    );
    assert!(open.messages[0].content.ends_with("?\nAnswer the question using a single word or phrase."));
    assert_eq!(task.records[1].messages[0].content.matches(IMAGE_PLACEHOLDER).count(), 2);
    assert!(task.records[1].messages[0].content.contains("Is <image 1> like <image 2>?"));
    assert_eq!(task.image_sizes(1).unwrap(), [(200, 100); 2]);
    assert_eq!(task.protocol(Some(Pixels { min: 1, max: 2, factor: 28 })).scorer, "exact+choice");

    let said = refusal("mmmu_val", None, header, &["1\t{image}\tq\ta\tb\tA\tArt\ttest"]);
    assert!(said.contains("no row belongs to mmmu_val") && said.contains("the file has: test"), "{said}");
}

#[test]
fn boxes_come_with_the_sizes_that_answers_are_rescaled_by() {
    let header = "index\timage\tquestion\tanswer\tcategory";
    let question = "Please provide the box: <ref>left dog</ref>";
    let rows = [
        format!("7\t{{image}}\t{question}\t[0.25, 0.5, 0.75, 1.0]\tRefCOCO val"),
        format!("7\t{{image}}\t{question}\t[0.1, 0.1, 0.2, 0.2]\tRefCOCO+ test-A"),
    ];
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let all = records("RefCOCO", None, header, &rows);
    assert_eq!(all.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["RefCOCO val_7", "RefCOCO+ test-A_7"]);
    let one = records("refcoco_val", None, header, &rows);
    assert_eq!((one.len(), one[0].answer.as_str()), (1, "50 50 150 100"));
    assert_eq!(
        one[0].messages[0].content,
        "<image>Locate left dog in this image and output the bbox coordinates in JSON format."
    );
    assert_eq!(
        json!([one[0].meta["space"], one[0].meta["size"], one[0].meta["resized"]]),
        json!(["absolute-resized", [200, 100], [400, 300]])
    );
    // Twice as wide and three times as high where the model sees it.
    let scorer = scorer(&one[0]).unwrap();
    assert_eq!(scorer.score(r#"[{"bbox_2d": [100, 150, 300, 300], "label": "left dog"}]"#).value, 1.0);
    assert_eq!(scorer.score(r#"[{"bbox_2d": [50, 50, 150, 100], "label": "left dog"}]"#).value, 0.0);
    assert_eq!(records("refcoco+_testA", None, header, &rows)[0].id, "RefCOCO+ test-A_7");

    let own =
        records("mine", Some("iou-xywh"), "index\timage\tquestion\tbbox", &["1\t{image}\tthe cat\t[50, 50, 100, 50]"]);
    assert_eq!(own[0].answer, "50 50 150 100");
}

#[test]
fn yes_and_no_lists_of_golds_and_formulas_keep_what_their_rules_need() {
    let header = "index\timage\timage_path\tquestion\tanswer\tcategory";
    let mme = records(
        "MME",
        None,
        header,
        &[
            "1\t{image}\tcode/1.png\tIs it red? Please answer yes or no.\tYes\tcolor",
            "2\t1\tcode/1.png\tIs it blue? Please answer yes or no.\tNo\tcolor",
        ],
    );
    assert_eq!(
        (mme[0].task.as_str(), &mme[0].meta["group"], &mme[1].meta["group"]),
        ("yes-no", &json!("code/1.png"), &json!("code/1.png"))
    );
    assert_eq!(mme[0].messages[0].content, "<image>Is it red? Please answer yes or no.");

    let header = "index\timage\tquestion\tanswer\tcategory\tsplit";
    let ocr = records(
        "ocrbench",
        None,
        header,
        &[
            "1\t{image}\twhat?\t['CENTRE', 'centre']\tRegular Text Recognition\t",
            "2\t{image}\twhat?\t['\\\\frac { a } { b }']\tHandwritten Mathematical Expression Recognition\t",
        ],
    );
    assert_eq!((&ocr[0].meta["formula"], &ocr[1].meta["formula"]), (&json!(false), &json!(true)));
    assert_eq!((ocr[0].answer.as_str(), ocr[1].answer.as_str()), ("CENTRE", "\\frac { a } { b }"));
    let chart = records("ChartQA_TEST", None, header, &["1\t{image}\thow many?\t14\t\ttest_human"]);
    assert_eq!((chart[0].task.as_str(), &chart[0].meta["category"]), ("relaxed", &json!("test_human")));
    assert!(!chart[0].meta.contains_key("answers"));
    let list = records("mine", Some("list"), header, &["1\t{image}\twhich?\t['a', 'b']\t\t"]);
    assert_eq!(list[0].answer, "a, b");
    let bench = records(
        "MMBench_DEV_EN",
        None,
        CHOICES,
        &["241\t{image}\tq\t\ta\tb\t\t\tA\t\t", "1000241\t241\tq\t\tb\ta\t\t\tB\t\t"],
    );
    assert_eq!((&bench[0].meta["group"], &bench[1].meta["group"]), (&json!("241"), &json!("241")));
}

#[test]
fn a_file_that_describes_itself_is_asked_as_it_is() {
    let header = "index\timage\tquestion\tA\tB\tanswer\tcategory\tsplit\tscorer\tstyle\tspace";
    let task = task(
        "anything",
        None,
        header,
        &[
            "a\t{image}\t<image>\\nWhich? A or B\tred\tblue\tB\tcolour\ttest\tchoice\tdirect\t",
            "b\ta\tWhere is it?\t\t\t10 20 110 60\tplace\ttest\tiou\t\tper-mille",
            "c\ta\tName it.\t\t\tcat\tname\ttest\texact\tthink\t",
        ],
    )
    .unwrap();
    let contents: Vec<&str> = task.records.iter().map(|r| r.messages[0].content.as_str()).collect();
    assert_eq!(contents, ["<image>\\nWhich? A or B", "<image>Where is it?", "<image>Name it."]);
    assert_eq!(task.records[0].meta["options"], json!(["red", "blue"]));
    assert_eq!((&task.records[0].meta["style"], task.records[1].meta.get("style")), (&json!("direct"), None));
    // A question that names the tags asks for them.
    let asked = records(
        "x",
        Some("exact"),
        "index\tquestion\tanswer",
        &["1\tFirst <think></think>, then <answer></answer>.\tno"],
    );
    assert_eq!(asked[0].meta["style"], "think");
    assert_eq!((&task.records[1].meta["space"], &task.records[1].meta["split"]), (&json!("per-mille"), &json!("test")));
    assert_eq!(task.score(0, "<answer>B</answer>").value, 1.0);
    assert_eq!(task.score(0, "B").value, 0.0, "the tags were asked for");
    assert_eq!(task.score(1, r#"{"bbox_2d": [50, 200, 550, 600]}"#).value, 1.0);
    assert_eq!(
        task.scorers().iter().map(|(scorer, _)| scorer.as_str()).collect::<Vec<_>>(),
        ["choice", "iou", "exact"]
    );
    assert_eq!((task.max_new_tokens(), task.protocol(Some(Pixels { min: 1, max: 2, factor: 28 })).prompt), (512, None));
}

#[test]
fn every_mistake_in_a_row_is_named_with_its_column() {
    let self_describing = "index\timage\tquestion\tA\tB\tC\tanswer\tscorer\tstyle\tspace";
    for (name, header, row, said) in [
        (
            "mmstar",
            CHOICES,
            "1\t{image}\tq\t\ta\tb\t\t\tC\t\t",
            ":2: row 1, column `answer`: is the letter C, but the options end with B",
        ),
        (
            "mmstar",
            CHOICES,
            "1\t{image}\tq\t\ta\tb\t\t\tcat\t\t",
            "column `answer`: `cat` is not the letter of an option",
        ),
        (
            "mmstar",
            CHOICES,
            "1\t{image}\tq\t\t\t\t\t\tA\t\t",
            "column `answer`: is the letter A, but column A is empty",
        ),
        ("mmstar", CHOICES, "1\t{image}\tq\t\ta\t\tc\t\tA\t\t", "column `B`: is empty, but option C is not"),
        (
            "mmstar",
            CHOICES,
            "1\t{image}\tIs <image> like <image>?\t\ta\tb\t\t\tA\t\t",
            "column `question`: has `<image>` 2 time(s), and the row has 1 image(s)",
        ),
        (
            "pope",
            "index\timage\tquestion\tanswer",
            "1\t{image}\tq\tperhaps",
            ":2: row 1: field `answer`: `perhaps` is neither yes nor no",
        ),
        ("mme", "index\timage\tquestion\tanswer", "1\t{image}\tq\tyes", "field `meta.category` is missing"),
        (
            "docvqa_val",
            "index\timage\tquestion\tanswer",
            "1\t{image}\tq\t['a' 'b']",
            "column `answer`: a comma is missing after item 1",
        ),
        (
            "docvqa_val",
            "index\timage\tquestion\tanswer",
            "1\t{image}\tq\t['a', '']",
            "column `answer`: `['a', '']` is an empty list or has a blank answer",
        ),
        ("refcoco", "index\timage\tquestion\tanswer", "1\t{image}\tq\ta dog", "column `answer`: `a dog` is no box"),
        ("refcoco", "index\timage\tquestion\tanswer", "1\t\tq\t1 2 3 4", "column `image`: there are 0 images"),
        (
            "x",
            self_describing,
            "1\t{image}\tq\ta\tb\t\tA\tchoise\t\t",
            "column `scorer`: `choise` is no scorer; known: iou, ",
        ),
        ("x", self_describing, "1\t{image}\tq\ta\tb\t\tA\t\t\t", "column `scorer`: is empty"),
        ("x", self_describing, "1\t{image}\tq\ta\tb\t\tA\tchoice\tloud\t", ":2: row 1: field `meta.style`"),
        (
            "x",
            self_describing,
            "1\t{image}\tq\t\t\t\t1 2 3 4\tiou\t\tpixels",
            "column `space`: `pixels` is none of absolute-resized",
        ),
    ] {
        let refusal = refusal(name, None, header, &[row]);
        assert!(refusal.contains(said), "{said}\n{refusal}");
    }
}

#[test]
fn an_unknown_name_needs_a_scorer() {
    let header = "index\timage\tquestion\tanswer";
    let rows = ["1\t{image}\tq\tyes"];
    let said = refusal("mmstra", None, header, &rows);
    for part in ["mmstra=", "no column `scorer`", "did you mean `mmstar`?", "mmstra=", ":choice", "docvqa_val"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(records("mine", Some("yes-no"), header, &rows)[0].task, "yes-no");
    assert_eq!(
        records("mine", Some("POPE"), header, &rows)[0].messages[0].content,
        "<image>q Please answer yes or no."
    );
    let said = refusal("mine", Some("vqa"), "index\timage\tquestion\tanswer\tscorer", &["1\t{image}\tq\tyes\tvqa"]);
    assert!(said.contains("leave out :vqa"), "{said}");
    let said = refusal("refcoco", None, "index\timage\tquestion\tlabel", &["1\t{image}\tq\t1 2 3 4"]);
    assert!(said.contains("there is no column `answer`, but `label`"), "{said}");
}

#[test]
fn a_file_without_answers_is_asked_and_written_with_its_responses() {
    for (header, row) in [
        ("index\timage\tquestion\tA\tB", "7\t{image}\t\"Is \"\"x\"\"\nred?\"\tyes\tno"),
        ("index\timage\tquestion\tA\tB\tanswer", "7\t{image}\t\"Is \"\"x\"\"\nred?\"\tyes\tno\t"),
    ] {
        let mut task = task("mmstar", None, header, &[row, &row.replacen('7', "8", 1)]).unwrap();
        assert_eq!(
            task.records[0].messages[0].content,
            "<image>Question: Is \"x\"\nred?\nOptions:\nA. yes\nB. no\nPlease select the correct answer from the options above."
        );
        assert_eq!(task.scorers(), [(UNSCORED.to_string(), 1)]);
        let table = task.take_predictions().unwrap();
        let written = String::from_utf8(table.tsv(&["A", "say \"B\"\tor C"]).unwrap()).unwrap();
        let last = if header.ends_with("answer") { "\tno\t" } else { "\tno" };
        assert_eq!(
            written,
            format!(
                "{}\tprediction\n7\t\"Is \"\"x\"\"\nred?\"\tyes{last}\tA\n8\t\"Is \"\"x\"\"\nred?\"\tyes{last}\t\"say \"\"B\"\"\tor C\"\n",
                header.replace("\timage", "")
            )
        );
        // The first rows alone, as with --limit.
        assert_eq!(String::from_utf8(table.tsv(&["A"]).unwrap()).unwrap().matches("\tA\n").count(), 1);
    }
    // One answer makes the others missing.
    let header = "index\timage\tquestion\tanswer";
    let said = refusal("pope", None, header, &["1\t{image}\tq\tyes", "2\t1\tq\t"]);
    assert!(said.contains(":3: row 2, column `answer`: is empty"), "{said}");
    let mut scored = task("pope", None, header, &["1\t{image}\tq\tyes"]).unwrap();
    assert!(scored.take_predictions().is_none());
    // Boxes stand in a column of their own.
    let boxes = task("mine", Some("iou"), "index\timage\tquestion\tbbox", &["1\t{image}\tthe cat\t[5, 5, 9, 9]"]);
    assert!(boxes.unwrap().take_predictions().is_none());
}
