//! `jigsaw eval --api` as a user runs it, against a chat server of a few lines on this machine.

use crate::http;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SECRET: &str = "sk-very-secret";

/// What the server does with a request, given its number from 0 and its body: status, further header lines, body.
type Answer = dyn Fn(usize, &Value) -> (u16, String, String) + Send + Sync;

#[derive(Default)]
struct Log {
    heads: Vec<String>,
    bodies: Vec<Value>,
    under_way: usize,
    most_at_once: usize,
}

struct Server {
    url: String,
    log: Arc<Mutex<Log>>,
}

impl Server {
    fn start(answer: impl Fn(usize, &Value) -> (u16, String, String) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let log: Arc<Mutex<Log>> = Arc::default();
        let (answer, shared): (Arc<Answer>, _) = (Arc::new(answer), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream.unwrap(), answer.as_ref(), &log));
            }
        });
        Server { url, log }
    }

    fn requests(&self) -> usize {
        self.log.lock().unwrap().bodies.len()
    }
}

fn serve(stream: TcpStream, answer: &Answer, log: &Mutex<Log>) {
    let (head, body) = http::read_request(&stream);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut log = log.lock().unwrap();
        log.heads.push(head);
        log.bodies.push(body.clone());
        log.under_way += 1;
        log.most_at_once = log.most_at_once.max(log.under_way);
        log.bodies.len() - 1
    };
    let (status, headers, text) = answer(number, &body);
    log.lock().unwrap().under_way -= 1;
    http::respond(&stream, status, &headers, &text);
}

fn says(text: &str) -> (u16, String, String) {
    reply(text, "stop")
}

fn reply(text: &str, reason: &str) -> (u16, String, String) {
    let choice = json!({"message": {"role": "assistant", "content": text}, "finish_reason": reason});
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 7});
    (200, String::new(), json!({"choices": [choice], "usage": usage}).to_string())
}

/// All text of a request's last message.
fn asked(body: &Value) -> String {
    let content = &body["messages"].as_array().unwrap().last().unwrap()["content"];
    match content.as_array() {
        None => content.as_str().unwrap().to_string(),
        Some(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
    }
}

fn jigsaw(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
    command.args(line.split_whitespace()).current_dir(dir).env("OPENAI_API_KEY", SECRET);
    let output = command.output().unwrap();
    for text in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(text).contains(SECRET), "{line}: the key is printed");
    }
    output
}

fn done(dir: &Path, line: &str) -> String {
    let output = jigsaw(dir, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What was said by a command that ended with this code and printed nothing on stdout.
fn failed(dir: &Path, line: &str, code: i32) -> String {
    let output = jigsaw(dir, line);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{line}: {said}");
    said
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Puzzles of two tiles, of which the answer is always 2 1.
fn puzzles(dir: &Path, count: usize) {
    done(dir, &format!("gen --images scenes --grid 1x2 --count {count} --split 0,0,1 --out data"));
}

fn picture(width: u32, height: u32) -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(width, height).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

/// Questions whose number says the answer, and a box.
fn benchmarks(dir: &Path) {
    let mut pope = "index\timage\tquestion\tanswer\tcategory\n".to_string();
    for i in 0..6 {
        let image = if i == 0 { picture(41, 30) } else { "0".into() };
        pope += &format!("{i}\t{image}\tIs there a number {i}?\t{}\trandom\n", ["yes", "no"][i % 2]);
    }
    fs::write(dir.join("pope.tsv"), pope).unwrap();
    let own =
        format!("index\timage\tquestion\tanswer\tscorer\na\t{}\tWhere is it?\t50 25 150 75\tiou\n", picture(201, 101));
    fs::write(dir.join("own.tsv"), own).unwrap();
}

#[test]
fn an_interrupted_evaluation_of_a_server_continues_without_paying_twice() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    puzzles(dir, 12);
    // Right, wrong, cut off; and after eight of them out of order.
    let ailing = Arc::new(Mutex::new(true));
    let state = Arc::clone(&ailing);
    let server = Server::start(move |n, _| {
        std::thread::sleep(Duration::from_millis(30));
        if n >= 8 && *state.lock().unwrap() {
            return (500, String::new(), format!("out of order, {SECRET}"));
        }
        match n {
            0 => says("<answer>1 2</answer>"),
            1 => reply("<answer>2", "length"),
            _ => says("<answer>2 1</answer>"),
        }
    });
    let line = format!("eval --api {}/ --model org/name --data data --concurrency 4 --retries 0 --out out", server.url);
    let said = failed(dir, &line, 1);
    assert!(said.contains("status 500: out of order, [key]") && said.contains("the same command continues"), "{said}");
    assert!(!dir.join("out/result.json").exists());
    let paid = rows(&dir.join("out/api-cache.jsonl")).len();
    assert_eq!(paid, 8);
    {
        let log = server.log.lock().unwrap();
        assert!(log.most_at_once > 1 && log.most_at_once <= 4, "{}", log.most_at_once);
        assert!(log.heads.iter().all(|head| head.to_lowercase().contains(&format!("authorization: bearer {SECRET}"))));
        let body = &log.bodies[0];
        assert_eq!(
            (&body["model"], &body["temperature"], &body["max_tokens"]),
            (&json!("org/name"), &json!(0.0), &json!(512))
        );
    }
    *ailing.lock().unwrap() = false;
    let before = server.requests();
    let table = done(dir, &line);
    assert_eq!(server.requests() - before, 12 - paid, "what was answered is not asked for again");
    for expected in [
        "org/name at http://127.0.0.1:",
        "12 examples",
        "cut off by the length limit: 1",
        "1200 of prompts, 84 of responses",
    ] {
        assert!(table.contains(expected), "{expected:?} is missing in:\n{table}");
    }
    let result = read(&dir.join("out/result.json"));
    assert_eq!(result["summary"]["accuracy"]["value"], 10.0 / 12.0);
    assert_eq!((&result["summary"]["truncated"], &result["summary"]["mean_tokens"]), (&json!(1), &json!(7.0)));
    assert_eq!(
        (&result["key"]["model"], &result["key"]["prompt"]),
        (&json!(format!("org/name at {}", server.url)), &json!(""))
    );
    let responses = rows(&dir.join("out/responses.jsonl"));
    assert_eq!(responses.iter().filter(|r| r["finished"] == false).count(), 1);
    assert_eq!(responses.iter().map(|r| r["index"].as_u64().unwrap()).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());

    // Every image was sent as it is, with the prompt that a model here is given.
    let records = rows(&dir.join("data/test/metadata.jsonl"));
    let body = server.log.lock().unwrap().bodies[0].clone();
    let parts = body["messages"].as_array().unwrap().last().unwrap()["content"].as_array().unwrap().clone();
    let url = parts.iter().find_map(|part| part["image_url"]["url"].as_str()).unwrap();
    let sent = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
    let sent = image::load_from_memory(&sent).unwrap().into_rgb8();
    let same = |record: &&Value| {
        let path = dir.join("data/test").join(record["images"][0].as_str().unwrap());
        image::open(path).unwrap().into_rgb8() == sent
    };
    let record = records.iter().find(same).expect("the image is that of a record");
    let prompt = record["messages"][0]["content"].as_str().unwrap().replace("<image>", "");
    assert_eq!(asked(&body), prompt);

    // Done is done; another model there is another evaluation; what was paid for by another one is not taken for it.
    let before = server.requests();
    done(dir, &line);
    assert_eq!(server.requests(), before);
    let other = line.replace("org/name", "org/other");
    assert!(failed(dir, &other, 2).contains("model: "));
    done(dir, &format!("{other} --fresh"));
    assert_eq!(server.requests(), before + 12);
    let rescored = done(dir, "eval --rescore --out out");
    assert!(rescored.contains("100.0 %"), "{rescored}");
    assert_eq!(done(dir, "report out --out page.html").trim(), "page.html");
    for file in ["key.json", "api-cache.jsonl", "responses.jsonl", "result.json"] {
        assert!(!fs::read_to_string(dir.join("out").join(file)).unwrap().contains(SECRET), "{file}");
    }
}

#[test]
fn benchmarks_keep_their_prompts_and_image_sizes() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    benchmarks(dir);
    let server = Server::start(|_, body| {
        let question = asked(body);
        match question.split("number ").nth(1).and_then(|rest| rest.chars().next()).and_then(|c| c.to_digit(10)) {
            Some(5) => says("Yes."),
            Some(n) => says(["Yes", "No"][n as usize % 2]),
            None => says(r#"{"bbox_2d": [50, 25, 150, 75]}"#),
        }
    });
    let line = format!("eval --api {} --model m --bench pope=pope.tsv --bench own=own.tsv --out out", server.url);
    let table = done(dir, &line);
    for expected in
        ["m at http://", "pope", "83.3 %", "own", "100.0 %", "700 of prompts, 49 of responses", "out/results.csv"]
    {
        assert!(table.contains(expected), "{expected:?} is missing in:\n{table}");
    }
    let bodies = server.log.lock().unwrap().bodies.clone();
    let first = bodies.iter().find(|body| asked(body).contains("number 0")).unwrap();
    assert!(asked(first).ends_with("Please answer yes or no."), "{}", asked(first));
    assert_eq!(first["max_tokens"], 32);
    let result = read(&dir.join("out/pope/result.json"));
    assert_eq!(
        (&result["key"]["bench"]["pixels"], &result["key"]["bench"]["benchmark"]),
        (&Value::Null, &json!("pope"))
    );
    let own = &rows(&dir.join("out/own/responses.jsonl"))[0];
    assert_eq!((&own["correct"], &own["partial_credit"]), (&json!(true), &json!(1.0)));
    done(dir, &line);
    assert_eq!(server.requests(), 7);
    done(dir, "eval --rescore --out out");
    assert_eq!(read(&dir.join("out/own/result.json"))["summary"]["value"]["value"], 1.0);
    for (more, said) in [
        ("--max-pixels 784", "images are sent in the size they have"),
        ("--baseline b", "compares weights"),
        ("--device cuda", "--device"),
    ] {
        let message = failed(dir, &format!("{line} {more}"), 2);
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_refused_prompt_counts_as_unanswered_and_stops_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    puzzles(dir, 5);
    let server = Server::start(|n, _| match n % 5 {
        4 => {
            let error = json!({"message": "This model's maximum context length is 64 tokens.", "code": 400});
            (400, String::new(), json!({"error": error}).to_string())
        }
        0 => {
            let inner = json!({"code": "ResponsibleAIPolicyViolation"});
            let error = json!({"message": "filtered", "code": "content_filter", "innererror": inner});
            (400, String::new(), json!({"error": error}).to_string())
        }
        1 => (200, String::new(), json!({"choices": [{"message": {"content": null}}]}).to_string()),
        n => {
            let text = if n == 2 { "<answer>2 1</answer><|im_end|>" } else { "<answer>2 1</answer>" };
            let choice = json!({"message": {"content": text}, "finish_reason": "stop"});
            (200, String::new(), json!({"choices": [choice]}).to_string())
        }
    });
    let line = format!("eval --api {} --model m --data data --concurrency 1 --out out", server.url);
    let table = done(dir, &line);
    for expected in [
        "refused by the server: 1",
        "prompt too long for the server: 1",
        "no text from the server: 1",
        "not known: the server does not",
    ] {
        assert!(table.contains(expected), "{expected:?} is missing in:\n{table}");
    }
    assert!(!table.contains("cut off") && !table.contains("mean response"), "{table}");
    let result = || read(&dir.join("out/result.json"))["summary"].clone();
    assert_eq!(result()["faults"]["refused by the server"], 1);
    assert_eq!(done(dir, &line), table);
    assert_eq!(server.requests(), 5, "a refusal is not asked for again");
    done(dir, "eval --rescore --out out");
    assert_eq!(result()["faults"]["prompt too long for the server"], 1);
    assert_eq!(result()["faults"]["no text from the server"], 1);

    let line =
        format!("rollout --teacher {} --teacher-model m --data data --split test --num-generations 1", server.url);
    let table = done(dir, &format!("{line} --keep all --concurrency 1 --out rollouts"));
    for expected in [
        "dropped: refused by the server",
        "dropped: no text",
        "dropped: special token in the text",
        "not known: the server does not",
    ] {
        assert!(table.contains(expected), "{expected:?} is missing in:\n{table}");
    }
    assert_eq!(rows(&dir.join("rollouts/train/metadata.jsonl")).len(), 1);
    for line in [
        "eval --api http://127.0.0.1:99999/v1 --model m --data data --out new",
        "rollout --teacher http://127.0.0.1:99999/v1 --teacher-model m --data data --out new",
    ] {
        assert!(failed(dir, line, 2).contains("http://127.0.0.1:99999/v1: `99999` is no port"));
    }
}

#[test]
fn a_server_that_denies_access_is_busy_hangs_or_is_absent_is_reported() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    puzzles(dir, 3);
    let line =
        |url: &str, more: &str| format!("eval --api {url} --model m --data data --concurrency 1 --out out {more}");
    let locked =
        Server::start(|_, _| (401, String::new(), json!({"error": {"message": format!("bad {SECRET}")}}).to_string()));
    let said = failed(dir, &line(&locked.url, "--fresh"), 2);
    assert!(said.contains("OPENAI_API_KEY") && said.contains("[key]") && locked.requests() == 1, "{said}");

    let unknown =
        Server::start(|_, _| (404, String::new(), json!({"error": {"message": "no such model"}}).to_string()));
    let said = failed(dir, &line(&unknown.url, "--fresh"), 2);
    assert!(said.contains("model `m`") && said.contains("no such model"), "{said}");

    let busy = Server::start(|n, _| match n % 2 {
        0 => (429, "Retry-After: 0\r\n".into(), "slow down".into()),
        _ => says("<answer>2 1</answer>"),
    });
    let table = done(dir, &line(&busy.url, "--fresh"));
    assert!(table.contains("100.0 %") && busy.requests() == 6, "{table}");

    let hangs = Server::start(|_, _| {
        std::thread::sleep(Duration::from_secs(60));
        says("too late")
    });
    let began = Instant::now();
    let said = failed(dir, &line(&hangs.url, "--fresh --timeout 1 --retries 1"), 1);
    assert!(said.contains("no answer within 1 s (after 1 more attempts)"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let said = failed(dir, &line(&url, "--fresh --retries 9"), 1);
    assert!(said.contains("is it running?"), "{said}");
}
