//! Changes inputs: a function of (target, seed, number), so that a find can be made again from its number.

use jigsaw::rng::{Rng, stream};
use rand::RngExt;
use serde_json::Value;

/// Most bytes of a changed input.
const MAX_BYTES: usize = 1 << 16;
/// What parsers trip over, in any text.
const TOKENS: [&str; 40] = [
    "\"",
    "'",
    "`",
    "\\",
    "\\u",
    "\\ud800",
    "\0",
    "\u{feff}",
    "\u{1b}[31m",
    "\r\n",
    "\n\n",
    "\t",
    "\t\t",
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "null",
    "true",
    "NaN",
    "-0",
    "1e999",
    "-1",
    "0",
    "18446744073709551616",
    "9223372036854775807",
    "4294967295",
    "1e-320",
    "0x1F",
    "<image>",
    "<answer>",
    "</answer>",
    "<|im_end|>",
    "\u{301}\u{301}",
    "\u{10ffff}",
    "../../..",
];
/// Numbers in place of others.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "1e308",
    "-1e308",
    "1e-308",
    "0.5",
    "99999999999999999999999999",
    "1000000000000",
];

/// Input `number` of a run: one of the seeds, changed one to six times.
pub fn input(target: &str, seed: u64, number: u64, seeds: &[Vec<u8>], dictionary: &[&str]) -> Vec<u8> {
    let mut rng = stream(seed, target, &[number]);
    let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..=6) {
        change(&mut bytes, seeds, dictionary, &mut rng);
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dictionary: &[&str], rng: &mut Rng) {
    let place = |bytes: &[u8], rng: &mut Rng| rng.random_range(0..=bytes.len());
    let range = |bytes: &[u8], rng: &mut Rng| {
        let begin = rng.random_range(0..=bytes.len());
        let length = [1, 4, 16, 64, 1024][rng.random_range(0..5)];
        begin..(begin + length).min(bytes.len())
    };
    match rng.random_range(0..12) {
        0 | 1 if !bytes.is_empty() => {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        2 if !bytes.is_empty() => {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = [0, 0xff, 0x80, b' ', b'\n', b'9', b'{', b'"'][rng.random_range(0..8)];
        }
        3 => {
            let cut = range(bytes, rng);
            drop(bytes.drain(cut));
        }
        4 => {
            let copy = bytes[range(bytes, rng)].to_vec();
            let at = place(bytes, rng);
            let times = [1, 1, 2, 50][rng.random_range(0..4)];
            drop(bytes.splice(at..at, copy.repeat(times)));
        }
        5 => {
            let other = &seeds[rng.random_range(0..seeds.len())];
            let at = place(bytes, rng);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.random_range(0..=other.len())..]);
        }
        6 => {
            let at = place(bytes, rng);
            bytes.truncate(at);
        }
        7 | 8 => {
            let which = rng.random_range(0..TOKENS.len() + dictionary.len());
            let token = TOKENS.get(which).copied().unwrap_or_else(|| dictionary[which - TOKENS.len()]);
            let times = [1, 1, 1, 1, 7, 300, 5000][rng.random_range(0..7)];
            let at = place(bytes, rng);
            drop(bytes.splice(at..at, token.as_bytes().repeat(times)));
        }
        9 => number(bytes, rng),
        10 => nest(bytes, rng),
        _ => json(bytes, rng),
    }
}

/// Put another number in place of one.
fn number(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|&i| {
            bytes[i].is_ascii_digit() && !i.checked_sub(1).is_some_and(|before| bytes[before].is_ascii_digit())
        })
        .collect();
    if starts.is_empty() {
        return;
    }
    let begin = starts[rng.random_range(0..starts.len())];
    let end = begin + bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    drop(bytes.splice(begin..end, NUMBERS[rng.random_range(0..NUMBERS.len())].bytes()));
}

/// Put something deeply nested somewhere.
fn nest(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let (open, close) =
        [("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("[[a.", "]]"), ("{{", "}}"), ("-", ""), ("not ", ""), ("a.", "b")]
            [rng.random_range(0..8)];
    let depth = [10, 130, 1000, 10_000][rng.random_range(0..4)];
    let text =
        format!("{}1{}", open.repeat(depth), if rng.random_bool(0.7) { close.repeat(depth) } else { String::new() });
    let at = rng.random_range(0..=bytes.len());
    drop(bytes.splice(at..at, text.into_bytes()));
}

/// Change a value of a JSON text, or of one of its lines, which stays JSON.
fn json(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let whole = serde_json::from_slice::<Value>(bytes).ok();
    let (mut value, line) = match whole {
        Some(value) => (value, None),
        None => {
            let at = rng.random_range(0..lines.len());
            match serde_json::from_slice::<Value>(lines[at]) {
                Ok(value) => (value, Some(at)),
                Err(_) => return,
            }
        }
    };
    let leaves = count(&value);
    let mut at = rng.random_range(0..leaves);
    replace(&mut value, &mut at, rng);
    let text = value.to_string().into_bytes();
    *bytes = match line {
        None => text,
        Some(line) => {
            let changed: Vec<&[u8]> =
                lines.iter().enumerate().map(|(i, old)| if i == line { text.as_slice() } else { old }).collect();
            changed.join(&b'\n')
        }
    };
}

/// Values in a value, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Change the value that is reached after `left` others.
fn replace(value: &mut Value, left: &mut usize, rng: &mut Rng) -> bool {
    if *left == 0 {
        *value = other(value, rng);
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, left, rng)),
        Value::Object(fields) => fields.values_mut().any(|field| replace(field, left, rng)),
        _ => false,
    }
}

fn other(value: &Value, rng: &mut Rng) -> Value {
    let text = |rng: &mut Rng| TOKENS[rng.random_range(0..TOKENS.len())];
    match rng.random_range(0..10) {
        0 => Value::Null,
        1 => Value::from(0),
        2 => Value::from(-1),
        3 => serde_json::from_str(NUMBERS[rng.random_range(0..NUMBERS.len())]).unwrap_or_default(),
        4 => Value::from(text(rng)),
        5 => Value::from(text(rng).repeat(1000)),
        6 => Value::Array(Vec::new()),
        7 => Value::Array(vec![value.clone(); 3]),
        8 => Value::Object(serde_json::Map::from_iter([("a".to_string(), value.clone())])),
        _ => match value {
            Value::Object(fields) if !fields.is_empty() => {
                let mut fields = fields.clone();
                let name = fields.keys().nth(rng.random_range(0..fields.len())).cloned().unwrap_or_default();
                fields.shift_remove(&name);
                Value::Object(fields)
            }
            Value::String(text) => Value::from(text.chars().rev().collect::<String>()),
            Value::Number(number) => number.as_f64().map_or(Value::Null, |x| Value::from(x * 1e6)),
            _ => Value::from(true),
        },
    }
}
