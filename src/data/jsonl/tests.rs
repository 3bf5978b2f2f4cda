//! Lines as other tools write them, and lines that cannot be used.

use super::*;
use crate::data::{Dataset, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use serde_json::{Value, json};
use std::io::Cursor;

fn png(width: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(width, 6, image::Rgb([width as u8, 1, 2]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("images")).unwrap();
        std::fs::write(dir.path().join("images/a.png"), png(8)).unwrap();
        std::fs::write(dir.path().join("images/b.png"), png(9)).unwrap();
        Case(dir)
    }

    fn open(&self, text: impl AsRef<[u8]>) -> Result<Dataset> {
        let path = self.0.path().join("data.jsonl");
        std::fs::write(&path, text).unwrap();
        Dataset::open(&path, "test")
    }

    /// What is said about a file, from its name on.
    fn refusal(&self, text: impl AsRef<[u8]>) -> String {
        let error = self.open(text).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string().split_once("data.jsonl").unwrap().1.to_string()
    }
}

fn said(record: &Record) -> Vec<(&str, &str)> {
    record.messages.iter().map(|m: &Message| (m.role.as_str(), m.content.as_str())).collect()
}

#[test]
fn messages_conversations_and_our_own_records_are_read() {
    let case = Case::new();
    let absolute = case.0.path().join("images/b.png");
    let lines = [
        // LLaMA-Factory and ms-swift.
        json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>Who?"},
            {"role": "assistant", "content": "A cat."}], "images": ["images/a.png"]}),
        // LLaMA-Factory's ShareGPT, with a turn before the last and a system text beside them.
        json!({"conversations": [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "A cat"},
            {"from": "human", "value": "And <image>?"}, {"from": "gpt", "value": "<think>Hm.</think> A dog"}],
            "images": ["images/a.png", absolute.to_str().unwrap()], "system": "Look.", "tools": "[]", "videos": []}),
        // ms-swift: bytes or a path; a solution to score by.
        json!({"messages": [{"role": "user", "content": "<image><image>Same? (<answer></answer>)"}], "solution": "<answer>no</answer>",
            "images": [{"bytes": STANDARD.encode(png(10)), "path": null}, {"bytes": null, "path": "images/b.png"}]}),
        // LLaVA's field for one image, as a data URL.
        json!({"id": 17, "conversations": [{"from": "human", "value": "<image>\nHow wide?"}, {"from": "gpt", "value": "11"}],
            "image": format!("data:image/png;base64,{}", STANDARD.encode(png(11)))}),
        // Our own.
        json!({"id": "own", "task": "choice", "messages": [{"role": "user", "content": "A or B?"}], "answer": "B",
            "meta": {"options": ["one", "two"], "style": "direct"}, "file_name": "", "images": [], "source": "s", "seed": 4}),
        json!({"messages": [{"role": "user", "content": "Name one."}], "answer": ["red", 2]}),
    ];
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let text = lines.join("\n");
    for text in [text.clone(), format!("\u{feff}{}\r\n\r\n", text.replace('\n', "\r\n"))] {
        let data = case.open(&text).unwrap();
        let records = data.records();
        assert_eq!(
            records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>()[..4],
            ["line-1", "line-2", "line-3", "17"]
        );
        assert_eq!(said(&records[0]), [("system", "Be brief."), ("user", "<image>Who?"), ("assistant", "A cat.")]);
        assert_eq!((records[0].task.as_str(), records[0].answer.as_str()), ("exact", "A cat."));
        assert_eq!(said(&records[1])[0], ("system", "Look."));
        assert_eq!((records[1].prompt().len(), records[1].answer.as_str()), (4, "A dog"));
        assert_eq!((records[2].response(), records[2].answer.as_str()), (None, "no"));
        assert_eq!((&records[2].meta["style"], records[1].meta.get("style")), (&json!("direct"), None));
        assert_eq!((records[3].answer.as_str(), records[3].source.as_str()), ("11", "line 4/image 1"));
        assert_eq!((records[4].task.as_str(), records[4].answer.as_str(), records[4].seed), ("choice", "B", 4));
        assert_eq!(records[4].meta["style"], "direct");
        assert_eq!((records[5].answer.as_str(), &records[5].meta["answers"]), ("red", &json!(["red", "2"])));
        let widths = |i: usize| -> Vec<u32> {
            let sizes = data.image_sizes(&records[i]).unwrap();
            let decoded = data.load_images(&records[i]).unwrap();
            assert_eq!(sizes, decoded.iter().map(RgbImage::dimensions).collect::<Vec<_>>());
            sizes.iter().map(|(width, _)| *width).collect()
        };
        assert_eq!([widths(0), widths(1), widths(2), widths(3)], [vec![8], vec![8, 9], vec![10, 9], vec![11]]);
        assert!(data.place(3).ends_with("data.jsonl:4"));
        assert!(data.note().unwrap().starts_with("1 of 6 conversations"), "{:?}", data.note());
        assert_eq!(data.manifest().splits["train"].records, 6);
    }
}

#[test]
fn marks_that_an_answer_is_good_and_empty_fields_change_nothing() {
    let case = Case::new();
    let user = json!({"role": "user", "content": "q"});
    let answer = |fields: Value| {
        let mut answer = json!({"role": "assistant", "content": "a"});
        fields.as_object().unwrap().iter().for_each(|(key, value)| answer[key] = value.clone());
        answer
    };
    for line in [
        json!({"messages": [user, answer(json!({}))], "label": true, "kto_tag": true}),
        json!({"messages": [user, answer(json!({}))], "label": 0, "kto_tag": null, "system": null}),
        json!({"messages": [user, answer(json!({"loss": true, "train": true, "weight": 1, "tool_calls": []}))], "system": " "}),
        json!({"messages": [user, answer(json!({"loss": 1.0, "loss_weight": 1.0, "train": null, "tool_calls": null}))],
            "conversations": null, "margin": null, "chat_template_kwargs": {}, "negative_messages": []}),
        json!({"messages": null, "images": null, "image": "images/a.png",
            "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]}),
        // What is not learnt may say so.
        json!({"messages": [user, answer(json!({"loss": false, "weight": 0})), user, answer(json!({}))]}),
    ] {
        let data = case.open(line.to_string()).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(data.records()[0].answer, "a", "{line}");
    }
}

#[test]
fn the_hash_is_of_records_and_images() {
    let case = Case::new();
    let line = json!({"messages": [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}],
        "images": ["images/a.png"]});
    let hash = |line: &Value| case.open(line.to_string()).unwrap().manifest().sha256.clone();
    let first = hash(&line);
    assert_eq!(hash(&line), first);
    let mut other = line.clone();
    other["messages"][1]["content"] = "b".into();
    assert_ne!(hash(&other), first);
    std::fs::write(case.0.path().join("images/a.png"), png(12)).unwrap();
    assert_ne!(hash(&line), first);
}

#[test]
fn every_mistake_is_named_with_line_and_field() {
    let case = Case::new();
    let user = |content: &str| json!({"role": "user", "content": content});
    let assistant = |content: &str| json!({"role": "assistant", "content": content});
    let turns = |turns: Value| json!({"messages": turns});
    let with = |field: &str, value: Value| {
        let mut object = turns(json!([user("q"), assistant("a")]));
        object[field] = value;
        object
    };
    // Fields of the last turn.
    let last = |fields: Value| {
        let mut answer = assistant("a");
        fields.as_object().unwrap().iter().for_each(|(key, value)| answer[key] = value.clone());
        turns(json!([user("q"), answer]))
    };
    let parts = |parts: Value| turns(json!([{"role": "user", "content": parts}, assistant("a")]));
    let good = turns(json!([user("q"), assistant("a")]));
    for (line, expected) in [
        (
            turns(json!([user("<image>q"), assistant("a")])),
            "field `image` names 0 image(s), but the turns have 1 `<image>`",
        ),
        (
            json!({"messages": [user("<image>q"), assistant("a")], "images": ["images/a.png", "images/b.png"]}),
            "field `images` names 2 image(s), but the turns have 1 `<image>`",
        ),
        (turns(json!([user("q"), assistant("<image>")])), "an image in an answer cannot be represented"),
        (
            turns(json!([{"role": "moderator", "content": "q"}])),
            "field `messages[0].role`: `moderator` is none of system",
        ),
        (turns(json!([user("q"), {"role": "tool", "content": "q"}])), "`tool`: a tool's turn cannot be represented"),
        (
            turns(json!([user("q"), user("q"), assistant("a")])),
            "field `messages[1]`: `user` after `user` cannot be represented",
        ),
        (turns(json!([assistant("a")])), "`assistant` after nothing cannot be represented"),
        (
            turns(json!([user("q"), assistant("a"), {"role": "system", "content": "s"}])),
            "`system` after `assistant` cannot be represented",
        ),
        (
            turns(json!([{"role": "user", "content": 3}])),
            "`messages[0].content`: is neither a string nor a list of parts",
        ),
        (
            parts(json!([{"type": "video", "video": "v.mp4"}])),
            "`messages[0].content[0]`: `video` is neither text nor image",
        ),
        (parts(json!([{"type": "text", "text": "q"}, 7])), "`messages[0].content[1]`: is neither a text nor an object"),
        (parts(json!([{"kind": "text"}])), "`messages[0].content[0]`: has no `type`"),
        (parts(json!([{"type": "text", "text": null}])), "`messages[0].content[0]`: has no string `text`"),
        (
            parts(json!([{"type": "image", "path": "images/a.png"}, {"type": "text", "text": "<image>q"}])),
            "`messages[0].content[1]`: has `<image>` in its text, and there are image parts beside it",
        ),
        (
            parts(json!([{"type": "image", "path": "images/a.png"}, {"type": "image"}])),
            "1 of 2 images say which image they are",
        ),
        (
            parts(json!([{"type": "image", "index": 1}])),
            "`messages[0].content[0]`: `index` is 1, but images stand in order",
        ),
        (
            parts(json!([{"type": "image", "url": "https://x/a.png"}])),
            "its image parts: item 1: `https://x/a.png` is a URL",
        ),
        (parts(json!([{"type": "image"}, "q"])), "names 0 image(s), but the turns have 1 `<image>`"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image", "image": "images/a.png"}]}, assistant("a")],
                "images": ["images/a.png"]}),
            "has images in the parts of its turns and in the field `images`",
        ),
        (json!({"instruction": "q", "input": 3, "output": "a"}), "field `input` is not a string"),
        (json!({"instruction": "q", "output": "a", "history": [["q"]]}), "field `history[0]`: is not a pair of texts"),
        (json!({"instruction": "<video>q", "output": "a"}), "field `instruction`: has `<video>` in it"),
        (json!({"prompt": 3, "completion": "a"}), "field `prompt` is neither a text nor a list of turns"),
        (json!({"prompt": [user("q")], "completion": [user("q")]}), "field `completion[0]`: `user` after `user`"),
        (with("solution", json!("<answer>a")), "field `solution`: has `<answer>` in it, but not one block"),
        (with("answer", json!(["<answer>a</answer><answer>b</answer>"])), "field `answer`: has `<answer>` in it"),
        (turns(json!([{"content": "q"}])), "field `messages[0]`: has neither `role` nor `from`"),
        (turns(json!([user("q")])), "there is no answer to learn or to score by"),
        (turns(json!([user("q"), assistant(" ")])), "there is no answer to learn or to score by"),
        (turns(json!([])), "field `messages` has no turn of the user"),
        (json!({"query": "q", "response": "a"}), "has neither `messages` (role, content) nor `conversations`"),
        (with("conversations", json!([])), "has both fields `messages` and `conversations`"),
        (with("videos", json!(["v.mp4"])), "field `videos`: there are images only"),
        (with("objects", json!({"bbox": [[1, 2, 3, 4]], "ref": []})), "field `objects`: placeholders for boxes"),
        (with("rejected_response", json!("b")), "field `rejected_response`: preference pairs"),
        (with("rejected_images", json!(["images/a.png"])), "field `rejected_images`: preference pairs"),
        (with("margin", json!(0.5)), "field `margin`: preference pairs"),
        (with("negative_messages", json!([[user("q")]])), "field `negative_messages`: answers to learn to tell apart"),
        (
            with("chat_template_kwargs", json!({"enable_thinking": false})),
            "field `chat_template_kwargs`: settings of the chat template",
        ),
        (last(json!({"loss_weight": 0.0})), "field `messages[1].loss_weight`: is 0.0, but"),
        (with("label", json!(false)), "field `label` is false: bad answers are not represented"),
        (with("kto_tag", json!(false)), "field `kto_tag` is false: bad answers are not represented"),
        (last(json!({"loss": false})), "field `messages[1].loss`: is false, but the last answer is what is learnt"),
        (last(json!({"loss": 0})), "field `messages[1].loss`: is 0, but"),
        (last(json!({"loss": 0.5})), "field `messages[1].loss`: is 0.5, but"),
        (last(json!({"train": false})), "field `messages[1].train`: is false, but"),
        (last(json!({"weight": 0})), "field `messages[1].weight`: is 0, but"),
        (
            last(json!({"tool_calls": [{"function": {"name": "f"}}]})),
            "field `messages[1].tool_calls`: tool calls are not",
        ),
        (last(json!({"content": null, "tool_calls": [{}]})), "field `messages[1].tool_calls`: tool calls are not"),
        (last(json!({"function_call": {"name": "f"}})), "field `messages[1].function_call`: tool calls are not"),
        (with("system", json!(5)), "field `system` is not a string"),
        (with("system", json!(["a"])), "field `system` is not a string"),
        (with("system", json!("<video>")), "field `system`: has `<video>` in it: there are images only"),
        (turns(json!([user("<video>q"), assistant("a")])), "field `messages[0].content`: has `<video>` in it"),
        (turns(json!([user("<audio>q"), assistant("a")])), "field `messages[0].content`: has `<audio>` in it"),
        (with("meta", json!(3)), "field `meta` is not an object"),
        (with("answer", json!({})), "field `answer` is not a string"),
        (with("id", json!("")), "field `id` is empty"),
        (with("images", json!([7])), "field `images`: item 1: is neither a path"),
        (with("images", json!(["https://x/a.png"])), "field `images`: item 1: `https://x/a.png` is a URL"),
        (with("images", json!([{"bytes": null, "path": null}])), "item 1: has neither a path nor bytes"),
        (with("images", json!([{"bytes": "###"}])), "item 1: is not base64"),
        (json!([1]), "item 1 is not a JSON object"),
        (json!(7), "not a JSON object"),
    ] {
        let array = line.is_array();
        let text = if array { line.to_string() } else { format!("{good}\n\n{line}") };
        let refusal = case.refusal(text);
        assert!(refusal.contains(expected), "{expected}\n{refusal}");
        assert!(refusal.starts_with(if array { ":1: " } else { ":3: " }), "{refusal}");
    }
    let picture = |name: &str| json!({"messages": [user("<image>q"), assistant("a")], "images": [name]}).to_string();
    std::fs::write(case.0.path().join("images/torn.png"), &png(8)[..60]).unwrap();
    std::fs::write(case.0.path().join("images/text.png"), "no picture").unwrap();
    for (name, expected) in [
        ("images/none.png", "there is no file "),
        ("images/torn.png", "torn.png: "),
        ("images/text.png", "not an image"),
    ] {
        let refusal = case.refusal(format!("{good}\n{}", picture(name)));
        assert!(refusal.starts_with(":2: field `images`: ") && refusal.contains(expected), "{refusal}");
    }
    // Base64 where a path belongs, whole and damaged: not all of it is shown.
    let base64 = STANDARD.encode(png(8)) + &"A".repeat(20_000);
    for name in [&STANDARD.encode(png(8)), &base64, &format!("{base64}#")] {
        let refusal = case.refusal(picture(name));
        assert!(
            refusal.contains("`iVBORw0KGgo") && refusal.contains("write that as `data:image/png;base64,"),
            "{refusal}"
        );
        assert!(refusal.len() < 250, "{}", refusal.len());
    }
    let refusal = case.refusal(picture(&"x y".repeat(5_000)));
    assert!(refusal.contains("there is no file `x yx") && refusal.len() < 250, "{}", refusal.len());
    // The field is the one of the line.
    let one = json!({"messages": [user("<image>q"), assistant("a")], "image": "images/none.png"});
    let refusal = case.refusal(format!("{good}\n{one}"));
    assert!(refusal.starts_with(":2: field `image`: there is no file "), "{refusal}");
    assert!(case.refusal(format!("{good}\n{{\"a\": ")).contains(":2: column 5: not JSON: the text ends"));
    let bytes = [b"{\"messages\": \"caf\xe9\"}".as_slice()].concat();
    assert!(case.refusal(bytes).contains(":1: byte 0xE9 at position 18 is not UTF-8"));
    assert!(case.refusal(" \n").contains(" holds no records"));
    let twice = with("id", json!("x"));
    assert!(case.refusal(format!("{twice}\n{twice}")).contains(":2: field `id`: `x` is already the id of line 1"));
    let missing = Dataset::open(&case.0.path().join("none.jsonl"), "train").unwrap_err();
    assert!(missing.exit_code() == 2 && missing.to_string().contains("none.jsonl"), "{missing}");
    assert!(case.refusal("[]").contains(" holds no records"));
    // In an array, the item is named beside its line.
    let refusal = case.refusal(format!("[{good},\n{{}}]"));
    assert!(refusal.starts_with(":2: item 2: has neither `messages`"), "{refusal}");
    let refusal = case.refusal(format!("[{twice}, {twice}]"));
    assert!(refusal.starts_with(":1: item 2: field `id`: `x` is already the id of item 1"), "{refusal}");
}

#[test]
fn parts_arrays_alpaca_and_prompt_with_completion_are_read() {
    let case = Case::new();
    let text = |text: &str| json!({"type": "text", "text": text});
    let lines = [
        // TRL: parts, the images in a field of their own; empty fields as `datasets` leaves them.
        json!({"messages": [
            {"role": "system", "content": [text("Be brief.")]},
            {"role": "user", "content": [{"type": "image", "text": null, "index": 0}, {"type": "text", "text": "Who?", "index": null}]},
            {"role": "assistant", "content": [text("A cat.")]}], "images": ["images/a.png"]}),
        // The images in the parts, in the forms of Qwen, OpenAI and `datasets`.
        json!({"messages": [{"role": "user", "content": [
            {"image": "images/a.png"}, {"text": "Like "}, {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", STANDARD.encode(png(10)))}},
            {"type": "image", "image": {"path": null, "bytes": STANDARD.encode(png(11))}}, {"type": "image", "path": "images/b.png"}, "?"]},
            {"role": "assistant", "content": "no"}]}),
        // No place for the image: before the first text of the user.
        json!({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "Who?"}],
            "completion": [{"role": "assistant", "content": "A dog."}], "images": ["images/b.png"]}),
        json!({"prompt": "2 + 2?", "completion": "4"}),
        // GRPO: a prompt and a gold answer.
        json!({"prompt": [{"role": "user", "content": "3 + 3?"}], "solution": "6"}),
        json!({"instruction": "Add.", "input": "1 2", "output": "3", "system": "Count.", "history": [["Hi", "Hello"]], "text": "whatever"}),
        json!({"instruction": "Say no.", "input": "", "output": "no"}),
    ];
    let texts: Vec<String> = lines.iter().map(Value::to_string).collect();
    let array = serde_json::to_string_pretty(&lines).unwrap();
    let mut hashes = Vec::new();
    for (name, text) in [("data.jsonl", texts.join("\n")), ("data.json", array)] {
        let path = case.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        let data = Dataset::open(&path, "train").unwrap();
        let records = data.records();
        let widths = |i: usize| -> Vec<u32> {
            let sizes = data.image_sizes(&records[i]).unwrap();
            sizes.iter().map(|(width, _)| *width).collect()
        };
        assert_eq!(said(&records[0]), [("system", "Be brief."), ("user", "<image>Who?"), ("assistant", "A cat.")]);
        assert_eq!(said(&records[1])[0], ("user", "<image>Like <image><image><image>?"));
        assert_eq!([widths(0), widths(1), widths(2)], [vec![8], vec![8, 10, 11, 9], vec![9]]);
        assert_eq!(said(&records[2]), [("system", "s"), ("user", "<image>Who?"), ("assistant", "A dog.")]);
        assert_eq!(said(&records[3]), [("user", "2 + 2?"), ("assistant", "4")]);
        assert_eq!((records[4].response(), records[4].answer.as_str()), (None, "6"));
        assert_eq!(
            said(&records[5]),
            [("system", "Count."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Add.\n1 2"), ("assistant", "3")]
        );
        assert_eq!(said(&records[6]), [("user", "Say no."), ("assistant", "no")]);
        let note = data.note().unwrap();
        assert!(note.contains("1 of 7 conversations") && note.contains("images come before the first text"), "{note}");
        assert_eq!(records[6].id, if name.ends_with('l') { "line-7" } else { "item-7" });
        hashes.push(records.iter().map(|record| record.messages.clone()).collect::<Vec<_>>());
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn the_form_of_answers_follows_from_the_records() {
    let case = Case::new();
    let record = |prompt: &str, response: Option<&str>, solution: Option<&str>| {
        let mut turns = vec![json!({"role": "user", "content": prompt})];
        turns.extend(response.map(|response| json!({"role": "assistant", "content": response})));
        json!({"messages": turns, "solution": solution})
    };
    let styles = |lines: &[Value]| -> Vec<Option<String>> {
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        let data = case.open(text.join("\n")).unwrap();
        data.records().iter().map(|r| r.meta.get("style").map(|s| s.as_str().unwrap().to_string())).collect()
    };
    let direct = || Some("direct".to_string());
    let think = || Some("think".to_string());
    let (tagged, thought) = ("<answer>no</answer>", "<think>Hm.</think><answer>no</answer>");
    let ask = "Answer in <answer></answer>.";
    // By the response, by the gold answer, by the prompt; an answer that shows nothing goes with the others.
    assert_eq!(styles(&[record("q", Some(tagged), None), record("q", Some(tagged), None)]), [direct(), direct()]);
    assert_eq!(styles(&[record("q", Some(thought), Some("no")), record("q", None, Some("no"))]), [think(), think()]);
    assert_eq!(styles(&[record("q", None, Some(tagged)), record("q", None, Some("yes"))]), [direct(), direct()]);
    assert_eq!(styles(&[record("q", Some("no"), None), record("q", Some("yes"), Some("yes"))]), [None, None]);
    assert_eq!(styles(&[record("First <think></think>, then answer.", Some("no"), None)]), [None]);
    assert_eq!(styles(&[record(ask, None, Some("no"))]), [direct()]);
    assert_eq!(styles(&[record("First <think></think>, then <answer></answer>.", None, Some(tagged))]), [think()]);
    // What the prompts ask for may differ from record to record, and so may what is stated.
    assert_eq!(styles(&[record(ask, Some(tagged), None), record("q", Some("no"), None)]), [direct(), None]);
    let mut stated = record("q", Some("The <answer> tag."), None);
    stated["meta"] = json!({"style": null});
    assert_eq!(styles(&[stated.clone(), record("q", Some(tagged), None)]), [None, direct()]);
    stated["meta"] = json!({"style": "think"});
    assert_eq!(styles(&[stated, record("q", Some("no"), None)]), [think(), None]);
    // The gold answer is what stands in the tags, of several too and where the task is named.
    let mut choice = record("q", None, Some(tagged));
    choice["task"] = "choice".into();
    choice["answer"] = json!(["<answer>a</answer>", "<answer> b </answer>"]);
    let data = case.open(choice.to_string()).unwrap();
    assert_eq!((data.records()[0].answer.as_str(), &data.records()[0].meta["answers"]), ("a", &json!(["a", "b"])));
    // Two forms, and nothing that says which is asked for.
    for (first, second, said) in [
        (record("q", Some("no"), None), record("q", Some(tagged), None), "has answer tags without a thought"),
        (record("q", Some(tagged), None), record("q", Some("no"), None), "has no answer tags"),
        (record("q", Some(tagged), None), record("q", Some(thought), None), "has answer tags after a thought"),
    ] {
        let refusal = case.refusal(format!("{first}\n{second}"));
        assert!(refusal.starts_with(":2: record `line-2` ") && refusal.contains(said), "{said}: {refusal}");
        assert!(refusal.contains("`line-1` before it"), "{refusal}");
    }
}
