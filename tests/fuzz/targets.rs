//! What is tried: each parser with inputs to begin from, and words that mean something to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candle_core::Device;
use jigsaw::Error;
use jigsaw::data::{Record, source};
use jigsaw::io::jsonl;
use jigsaw::model::inspect::inspect;
use jigsaw::model::processor::ChatTemplate;
use jigsaw::model::safetensors_file::TensorFile;
use jigsaw::model::{Processor, check, lora, missing_files, read_architecture};
use jigsaw::study::Study;
use jigsaw::tasks::{DatasetTask, Task as _, benchmarks, scorer};
use jigsaw::train::settings::TrainConfig;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What a parser says of an input.
#[derive(Debug)]
pub enum Verdict {
    Accepted,
    Refused(Error),
    /// Refused by something that knows no file.
    #[allow(dead_code)]
    Unnamed(String),
}

/// A parser.
pub struct Target {
    pub name: &'static str,
    /// What its errors must name.
    pub file: &'static str,
    /// Inputs in a normal test run.
    pub few: u64,
    /// Most bytes that an input may take.
    pub max_bytes: usize,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub dictionary: &'static [&'static str],
    /// Make what lies around the input.
    pub prepare: fn(&Path),
    pub run: fn(&Path, &[u8]) -> Verdict,
}

const MIB: usize = 1 << 20;

const fn target(
    name: &'static str,
    file: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&Path, &[u8]) -> Verdict,
) -> Target {
    Target { name, file, few: 40, max_bytes: 256 * MIB, seeds, dictionary: &[], prepare: |_| {}, run }
}

pub const TARGETS: &[Target] = &[
    Target {
        dictionary: &[
            "[train]",
            "[lora]",
            "method = \"rft\"",
            "learning_rate",
            "\"\"\"",
            "'''",
            "inf",
            "nan",
            "[[a]]",
            " = ",
            "#",
            "1979-05-27",
        ],
        ..target("config", "config.toml", || configs(&["sft", "rft", "rft-dapo", "sft-lora"]), config)
    },
    Target {
        dictionary: &["[regimes.a]", "[puzzles.p]", "seeds = [1, 2]", "from = \"model\"", "steps", "inf", "nan", "{ }"],
        ..target("study", "study.toml", || configs(&["study-quick", "study-tiny", "study-2x2"]), study)
    },
    Target {
        dictionary: &[
            "messages",
            "\"role\": \"user\"",
            "\"from\": \"gpt\"",
            "conversations",
            "images",
            "data:image/png;base64,",
            "solution",
        ],
        ..target("jsonl", "data.jsonl", conversations, conversation_file)
    },
    Target {
        dictionary: &["\"answer\"", "\"meta\"", "jigsaw-pair", "countdown", "\"grid\"", "\"options\""],
        prepare: dataset_around,
        ..target("records", "metadata.jsonl", records, record_file)
    },
    Target {
        dictionary: &[
            "\tindex",
            "\timage_path",
            "\tscorer",
            "\"\"",
            "['a', \"b\"]",
            "[[1, 2, 3, 4]]",
            "\tA\t",
            "array([",
        ],
        ..target("tsv", "bench.tsv", || vec![choice_tsv(), boxes_tsv(), scorer_tsv()], tsv)
    },
    Target { few: 60, ..target("boxes", "bench.tsv", boxes, box_field) },
    Target {
        dictionary: &[
            "{%",
            "%}",
            "{{",
            "}}",
            "{#",
            "#}",
            "{% for m in messages %}",
            "{% endfor %}",
            "{% set ns.x = ns.x + ns.x %}",
            "|tojson",
            ".strip()",
            "namespace()",
            "range(9999)",
            " ~ ",
            "{% raw %}",
            "{% endraw %}",
            "{% macro f() %}",
            "{{ f() }}",
            ".split('')",
            "* 1000",
            "[::-1]",
            "loop.index",
        ],
        ..target("template", "chat_template.jinja", templates, template)
    },
    Target {
        max_bytes: 512 * MIB,
        dictionary: &[
            "Replace",
            "Prepend",
            "Precompiled",
            "ByteLevel",
            "Metaspace",
            "Unigram",
            "WordPiece",
            "BPE",
            "(a+)+$",
            "\\\\p{L}",
            "Sequence",
            "Split",
            "FixedLength",
        ],
        prepare: checkpoint_around,
        ..target("tokenizer", "tokenizer.json", tokenizers, tokenizer)
    },
    Target {
        prepare: checkpoint_around,
        ..target("model-config", "place", || vec![checkpoint_file("config.json")], model_config)
    },
    Target {
        prepare: checkpoint_around,
        ..target(
            "preprocessor",
            "place",
            || vec![checkpoint_file("preprocessor_config.json")],
            |dir, bytes| processor(dir, "preprocessor_config.json", bytes),
        )
    },
    Target {
        prepare: checkpoint_around,
        ..target(
            "generation",
            "place",
            || vec![checkpoint_file("generation_config.json")],
            |dir, bytes| processor(dir, "generation_config.json", bytes),
        )
    },
    Target {
        prepare: checkpoint_around,
        ..target(
            "tokenizer-config",
            "place",
            || vec![checkpoint_file("tokenizer_config.json"), checkpoint_file("chat_template.json")],
            |dir, bytes| processor(dir, "chat_template.json", bytes),
        )
    },
    Target { prepare: adapter_around, ..target("adapter", "adapter_config.json", adapters, adapter) },
    target("safetensors", "model.safetensors", safetensors, tensors),
    target("index", "model.safetensors.index.json", indices, index),
    target("log", "responses.jsonl", || vec![b"{\"a\": 1}\n{\"a\": 2}\n".to_vec()], log),
    Target {
        few: 100,
        dictionary: &[
            "A",
            "B.",
            "yes",
            "no",
            "<think>",
            "\\boxed{",
            "1/3",
            "50%",
            "three",
            "```json",
            "[[1,2,3,4]]",
            "(A)",
            "42 + 1",
        ],
        ..target("responses", "", responses, response)
    },
    Target {
        max_bytes: 1024 * MIB,
        dictionary: &[
            "IHDR",
            "IDAT",
            "iCCP",
            "zTXt",
            "acTL",
            "VP8X",
            "EXIF",
            "ICCP",
            "Exif\0\0",
            "\u{0}\u{0}\u{0}\u{1}",
        ],
        ..target("images", "", images, image)
    },
];

fn verdict<T>(result: Result<T, Error>) -> Verdict {
    result.map_or_else(Verdict::Refused, |_| Verdict::Accepted)
}

/// Write the input to a file of this name.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> Vec<u8> {
    fs::read(repository(path)).unwrap()
}

fn lines(values: &[Value]) -> Vec<u8> {
    values.iter().map(|value| format!("{value}\n")).collect::<String>().into_bytes()
}

fn png() -> Vec<u8> {
    read("tests/fixtures/processor/images/gray.png")
}

fn configs(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| read(&format!("configs/{name}.toml"))).collect()
}

fn config(dir: &Path, bytes: &[u8]) -> Verdict {
    verdict(TrainConfig::resolve(None, Some(&put(dir, "config.toml", bytes)), &[]))
}

fn study(dir: &Path, bytes: &[u8]) -> Verdict {
    verdict(Study::read(&put(dir, "study.toml", bytes), &[], TrainConfig::resolve))
}

fn conversations() -> Vec<Vec<u8>> {
    let image = format!("data:image/png;base64,{}", STANDARD.encode(png()));
    let user = |text: &str| json!({"role": "user", "content": text});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    vec![
        lines(&[
            json!({"messages": [user("1+1?"), says("<answer>2</answer>")], "solution": "2", "id": "a"}),
            json!({"messages": [user("<image>what?"), says("a cat")], "images": [image], "answer": ["cat", "a cat"]}),
        ]),
        lines(&[
            json!({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}], "system": "be kind"}),
        ]),
        lines(&[
            json!({"messages": [user("a or b?"), says("B")], "task": "choice", "answer": "B", "meta": {"options": {"A": "x", "B": "y"}}}),
        ]),
    ]
}

fn opened(data: &Path) -> Verdict {
    verdict(DatasetTask::open(data, "train").and_then(|task| {
        for i in 0..task.len().min(20) {
            task.score(i, "<answer>2</answer>");
            task.images(i)?;
        }
        Ok(())
    }))
}

fn conversation_file(dir: &Path, bytes: &[u8]) -> Verdict {
    opened(&put(dir, "data.jsonl", bytes))
}

fn record(task: &str, answer: &str, meta: Value) -> Value {
    json!({"id": task, "task": task, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}], "answer": answer,
        "source": "s", "seed": 1, "meta": meta})
}

fn some_records() -> Vec<Value> {
    let options = json!({"options": {"A": "red", "B": "green"}});
    vec![
        record(
            "jigsaw",
            "3 1 2 4",
            json!({"grid": [2, 2], "rows": 2, "cols": 2, "columns": 2, "tile": 28, "style": "direct"}),
        ),
        record("jigsaw-pair", "A", json!({"rows": 1, "cols": 2, "style": "direct"})),
        record("countdown", "1 + 2", json!({"numbers": [1, 2], "target": 3, "style": "direct"})),
        record("iou", "[1, 2, 30, 40]", json!({"size": [100, 100], "width": 100, "height": 100})),
        record("anls", "hello", json!({})),
        record("containment", "hello", json!({})),
        record("vqa", "two", json!({"answers": ["two", "2"]})),
        record("relaxed", "12.5", json!({})),
        record("yes-no", "yes", json!({})),
        record("choice", "B", options),
        record("exact", "42", json!({})),
        record("list", "a, b", json!({})),
    ]
}

fn records() -> Vec<Vec<u8>> {
    let each = some_records().into_iter().filter(|record| {
        let record: Record = serde_json::from_value(record.clone()).unwrap();
        scorer(&record).is_ok()
    });
    let all: Vec<Value> = each.collect();
    assert!(all.len() > 6, "only {} records can be scored", all.len());
    all.chunks(3).map(lines).collect()
}

fn dataset_around(dir: &Path) {
    fs::create_dir_all(dir.join("data/train")).unwrap();
    let split = json!({"records": 3, "sources": 1, "sha256": "x"});
    let manifest = json!({"tool": "jigsaw", "version": "0", "sha256": "x", "splits": {"validation": split}});
    put(dir, "data/manifest.json", manifest.to_string().as_bytes());
}

fn record_file(dir: &Path, bytes: &[u8]) -> Verdict {
    put(dir, "data/train/metadata.jsonl", bytes);
    opened(&dir.join("data/train"))
}

fn choice_tsv() -> Vec<u8> {
    let image = STANDARD.encode(png());
    format!(
        "index\tquestion\tA\tB\tanswer\timage\n1\t\"say \"\"x\"\"\"\tred\tgreen\tA\t{image}\n2\twhich?\tx\ty\tB\t1\n"
    )
    .into_bytes()
}

fn boxes_tsv() -> Vec<u8> {
    let image = STANDARD.encode(png());
    format!("index\tquestion\tbbox\tanswer\timage\n1\twhere?\t[1, 2, 5, 6]\t\t{image}\n2\tand?\t[[1,2,5,6],[2,3,6,7]]\t\t1\n").into_bytes()
}

fn scorer_tsv() -> Vec<u8> {
    let image = STANDARD.encode(png());
    let mut text = "index\tquestion\tscorer\tanswer\tanswers\tA\tB\timage\n".to_string();
    for (i, (scorer, answer)) in
        [("exact", "4"), ("yes-no", "yes"), ("choice", "B"), ("anls", "['a', 'b']"), ("vqa", "two"), ("relaxed", "3.5")]
            .iter()
            .enumerate()
    {
        text += &format!(
            "{}\tq?\t{scorer}\t{answer}\t['a', 'b']\tx\ty\t{}\n",
            i + 1,
            if i == 0 { image.as_str() } else { "1" }
        );
    }
    text.into_bytes()
}

fn tsv(dir: &Path, bytes: &[u8]) -> Verdict {
    let path = put(dir, "bench.tsv", bytes);
    let header = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let has = |name: &str| header.split(|&byte| byte == b'\t').any(|column| column == name.as_bytes());
    let kind = if has("scorer") {
        None
    } else if has("bbox") {
        Some("iou")
    } else {
        Some("choice")
    };
    let task = benchmarks::read("mine", &path, kind).and_then(|file| file.into_task("mine", &|size| Ok(size)));
    verdict(task.and_then(|task| {
        for i in 0..task.len().min(20) {
            task.score(i, "B");
            task.images(i)?;
        }
        Ok(())
    }))
}

fn boxes() -> Vec<Vec<u8>> {
    [
        "[1, 2, 5, 6]",
        "[[1,2,5,6],[2,3,6,7]]",
        "1 2 5 6",
        "(0.1, 0.2, 0.5, 0.6)",
        "{\"bbox_2d\": [1, 2, 5, 6]}",
        "['1', '2']",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn box_field(dir: &Path, bytes: &[u8]) -> Verdict {
    let field = String::from_utf8_lossy(bytes).replace(['\t', '\n', '\r', '"'], " ");
    let image = STANDARD.encode(png());
    let path = put(dir, "bench.tsv", format!("index\tquestion\tbbox\timage\n1\twhere?\t{field}\t{image}\n").as_bytes());
    let task = benchmarks::read("mine", &path, Some("iou")).and_then(|file| file.into_task("mine", &|size| Ok(size)));
    verdict(task.map(|task| task.score(0, &field)))
}

fn templates() -> Vec<Vec<u8>> {
    let published: Value = serde_json::from_slice(&read("data/base-tiny/chat_template.json")).unwrap();
    let mine = "{%- set ns = namespace(x='a', n=0) -%}{% for m in messages %}{% if m.role == 'user' %}{{ m['content']|trim }}{% else %}{{ m | tojson(indent=2) }}\
        {% endif %}{% set ns.n = ns.n + 1 %}{% set ns.x = ns.x ~ m.role.upper() %}{% endfor %}{{ ns.x.replace('A', 'bb').split('b')|join('-') }}";
    let macros = "{% macro show(m, deep=1) %}{{ '%5d'|format(deep) }}{% if deep < 3 %}{{ show(m, deep + 1) }}{% endif %}{% endmacro %}\
        {% for m in messages if m.content is string %}{{ show(m) }}{{ {'a': [1, 2.5, none, true]}['a'][::-1] }}{{ '{} {}'.format(1, 'x') }}{% endfor %}\
        {% if not (1 + 2 * 3 == 7 and 'a' in 'abc') %}{{ raise_exception('no') }}{% endif %}";
    vec![published["chat_template"].as_str().unwrap_or_default().as_bytes().to_vec(), mine.into(), macros.into()]
}

fn template(dir: &Path, bytes: &[u8]) -> Verdict {
    put(dir, "chat_template.jinja", bytes);
    let messages = json!([{"role": "user", "content": "hello"}, {"role": "assistant", "content": [{"type": "text", "text": "hi"}, {"type": "image"}]}]);
    let options = Map::from_iter([("add_generation_prompt".to_string(), Value::Bool(true))]);
    verdict(ChatTemplate::from_dir(dir).and_then(|template| template.render(&messages, &options)))
}

/// A small checkpoint: the published one's files, and the tokenizer of the tests.
fn checkpoint_around(dir: &Path) {
    for name in
        ["config.json", "chat_template.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json"]
    {
        put(dir, name, &checkpoint_file(name));
    }
    put(dir, "model.safetensors", &read("data/base-tiny/model.safetensors"));
}

fn checkpoint_file(name: &str) -> Vec<u8> {
    match name {
        // The ids of the small tokenizer.
        "config.json" => {
            let mut config: Value = serde_json::from_slice(&read("data/base-tiny/config.json")).unwrap();
            for (key, id) in [
                ("vision_start_token_id", 489),
                ("vision_end_token_id", 490),
                ("image_token_id", 492),
                ("video_token_id", 493),
            ] {
                config[key] = id.into();
            }
            serde_json::to_vec_pretty(&config).unwrap()
        }
        "tokenizer.json" => read("tests/fixtures/processor/checkpoint/tokenizer.json"),
        "generation_config.json" => br#"{"eos_token_id": [482, 480], "do_sample": true, "temperature": 0.1}"#.to_vec(),
        name => read(&format!("data/base-tiny/{name}")),
    }
}

fn tokenizers() -> Vec<Vec<u8>> {
    let small: Value = serde_json::from_slice(&checkpoint_file("tokenizer.json")).unwrap();
    let with = |changes: Value| {
        let mut file = small.clone();
        for (name, part) in changes.as_object().unwrap() {
            file[name] = part.clone();
        }
        serde_json::to_vec(&file).unwrap()
    };
    let sequence = json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "StripAccents"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "_"}, {"type": "Replace", "pattern": {"Regex": "[0-9]+"}, "content": "0"},
        {"type": "Prepend", "prepend": "_"}, {"type": "Strip", "strip_left": true, "strip_right": true}]});
    let splits = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Split", "pattern": {"Regex": "a+b|c"}, "behavior": "MergedWithNext", "invert": false}, {"type": "FixedLength", "length": 5},
        {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": true}, {"type": "CharDelimiterSplit", "delimiter": "x"}]});
    let words = json!({"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"});
    let pieces = json!({"type": "WordPiece", "vocab": {"a": 0, "##b": 1, "[UNK]": 2}, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["ab", -1.5], ["_", -2.0]], "byte_fallback": false});
    let decoders = json!({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    vec![
        with(json!({})),
        with(json!({"normalizer": sequence, "decoder": decoders})),
        with(json!({"pre_tokenizer": splits})),
        with(json!({"model": words, "pre_tokenizer": {"type": "Whitespace"}})),
        with(
            json!({"model": pieces, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}}),
        ),
        with(
            json!({"model": unigram, "pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": false}}),
        ),
    ]
}

fn tokenizer(dir: &Path, bytes: &[u8]) -> Verdict {
    put(dir, "tokenizer.json", bytes);
    verdict(Processor::from_dir(dir).and_then(|processor| {
        let tokens = processor.tokens();
        for text in ["", "Hello 12, \u{e9}\u{4e2d}\u{301} <|im_end|>\n\n\tx", &"a".repeat(2000), &"a b ".repeat(500)] {
            tokens.decode(&tokens.encode(text)?)?;
        }
        tokens.decode(&[0, 1, 500, 511, u32::MAX])
    }))
}

fn model_config(dir: &Path, bytes: &[u8]) -> Verdict {
    put(dir, "config.json", bytes);
    let inspected = read_architecture(dir).and_then(|_| check(dir)).and_then(|_| inspect(dir));
    verdict(inspected)
}

fn processor(dir: &Path, name: &str, bytes: &[u8]) -> Verdict {
    put(dir, name, bytes);
    let image = image::RgbImage::new(40, 30);
    let message = jigsaw::data::Message { role: "user".into(), content: "<image>hi".into() };
    verdict(Processor::from_dir(dir).and_then(|processor| processor.encode_prompt(&[message], &[image])))
}

fn adapters() -> Vec<Vec<u8>> {
    ["names", "all_linear_rslora"]
        .iter()
        .map(|name| read(&format!("tests/fixtures/lora/{name}/adapter_config.json")))
        .collect()
}

fn adapter_around(dir: &Path) {
    put(dir, "adapter_model.safetensors", &read("tests/fixtures/lora/names/adapter_model.safetensors"));
}

fn adapter(dir: &Path, bytes: &[u8]) -> Verdict {
    // Its base is named by a path, which must be there for the rest to be read.
    let base = repository("tests/fixtures/checkpoint/model");
    let text = String::from_utf8_lossy(bytes).replace("../../checkpoint/model", &base.display().to_string());
    put(dir, "adapter_config.json", text.as_bytes());
    let loaded = lora::base_of(dir).and_then(|_| jigsaw::model::load(dir, &Device::Cpu));
    match loaded {
        Err(e) if e.to_string().contains("adapter_model.safetensors") && e.exit_code() == 2 => {
            Verdict::Unnamed(e.to_string())
        }
        other => verdict(other),
    }
}

fn safetensors() -> Vec<Vec<u8>> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#;
    let mut small = (header.len() as u64).to_le_bytes().to_vec();
    small.extend_from_slice(header.as_bytes());
    small.extend_from_slice(&[7; 22]);
    vec![small, read("tests/fixtures/lora/names/adapter_model.safetensors")]
}

fn tensors(dir: &Path, bytes: &[u8]) -> Verdict {
    let path = put(dir, "model.safetensors", bytes);
    verdict(TensorFile::open(&path).and_then(|file| {
        for (_, tensor) in file.tensors() {
            let mut values = vec![0.0; tensor.shape.iter().product()];
            file.read(tensor, &mut values)?;
        }
        Ok(())
    }))
}

fn indices() -> Vec<Vec<u8>> {
    vec![
        br#"{"metadata": {"total_size": 12}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#
            .to_vec(),
    ]
}

fn index(dir: &Path, bytes: &[u8]) -> Verdict {
    put(dir, "config.json", &checkpoint_file("config.json"));
    put(dir, "model.safetensors.index.json", bytes);
    verdict(missing_files(dir))
}

fn log(dir: &Path, bytes: &[u8]) -> Verdict {
    verdict(jsonl::read::<Value>(&put(dir, "responses.jsonl", bytes)))
}

fn responses() -> Vec<Vec<u8>> {
    [
        "<think>It is red.</think>\n<answer>B</answer>",
        "The answer is (A).",
        "<answer>3 1 2 4</answer>",
        "(1 + 2) * 3 - 4 / 5 = 11",
        "[[10, 20, 30, 40]]",
        "```json\n{\"bbox_2d\": [1, 2, 30, 40]}\n```",
        "yes, there is a dog",
        "12.5 %",
        "two, 2, TWO",
        "a, b and c",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn response(_: &Path, bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    for record in some_records() {
        let mut record: Record = serde_json::from_value(record).unwrap();
        if let Ok(scorer) = scorer(&record) {
            scorer.score(&text);
        }
        // As the gold answer, too, as long as one may be.
        record.answer = text.chars().take(1000).collect();
        if let Ok(scorer) = scorer(&record) {
            scorer.score(&text);
        }
    }
    Verdict::Accepted
}

fn images() -> Vec<Vec<u8>> {
    let fixture = |name: &str| read(&format!("tests/fixtures/images/{name}"));
    let mut all: Vec<Vec<u8>> =
        ["animated.png", "lossy.webp", "progressive.jpg", "turned.jpg", "cmyk.jpg", "animated.webp"]
            .map(fixture)
            .into();
    all.extend(
        ["gray", "palette", "with_alpha"].map(|name| read(&format!("tests/fixtures/processor/images/{name}.png"))),
    );
    all
}

fn image(_: &Path, bytes: &[u8]) -> Verdict {
    let probed = source::probe(bytes);
    let _ = source::probe_header(&bytes[..bytes.len() / 2]);
    match source::decode(bytes) {
        Ok(image) => {
            assert_eq!(Ok(image.dimensions()), probed);
            Verdict::Accepted
        }
        Err(why) => Verdict::Unnamed(why),
    }
}
