//! The object of a JSONL line -> a record.
//!
//! | field | becomes |
//! |---|---|
//! | `messages` or `conversations` | the turns: `role`/`content` or `from`/`value`; the last one, if it is the assistant's, is the reference response |
//! | `system` | a system turn before them |
//! | `images`, `image` | the images of the `<image>` placeholders, in order |
//! | `task`, `meta` | as in our own datasets; without `task`, the scorer is `exact` |
//! | `answer`, `solution` | the gold answer, or several; without them, what the last assistant turn answers |
//! | `id`, `source`, `seed` | as in our own datasets; without an id, the line's number |
//!
//! Other fields are ignored, unless they would change what is learnt: those are an error. So are marks that an answer is bad or excluded
//! from the loss (`label`, `kto_tag`; of the last turn `loss`, `train`, `weight`, `loss_scale`, `loss_weight`).

use super::images::Images;
use crate::data::{IMAGE_PLACEHOLDER, Message, Record};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The scorer of a record that names none.
const SCORER: &str = "exact";

/// Fields that are an error unless empty, and why.
const UNSUPPORTED_FIELDS: [(&str, &str); 12] = [
    ("videos", "there are images only"),
    ("audios", "there are images only"),
    ("tools", "tool calls are not represented"),
    ("objects", "placeholders for boxes are not filled in; write the boxes into the text"),
    ("chosen", "preference pairs are not represented; keep the better answer as the last turn"),
    ("rejected", "preference pairs are not represented; keep the better answer as the last turn"),
    ("rejected_response", "preference pairs are not represented; leave the field out to learn the other answer"),
    ("rejected_messages", "preference pairs are not represented; leave the field out to learn the other answer"),
    ("rejected_images", "preference pairs are not represented; leave the field out to learn the other answer"),
    ("margin", "preference pairs are not represented; leave the field out to learn the answer"),
    (
        "negative_messages",
        "answers to learn to tell apart are not represented; leave the field out to learn the answer",
    ),
    (
        "chat_template_kwargs",
        "settings of the chat template are not represented; leave the field out for the plain prompt",
    ),
];

/// Fields that say whether the answer of a conversation is good (for KTO, in ms-swift and LLaMA-Factory).
const PREFERENCE_LABELS: [&str; 2] = ["label", "kto_tag"];
/// Fields that set the loss weight of a turn.
const LOSS_WEIGHT_FIELDS: [&str; 5] = ["loss", "train", "weight", "loss_scale", "loss_weight"];
/// Fields of a turn that hold tool calls.
const TOOL_CALL_FIELDS: [&str; 2] = ["tool_calls", "function_call"];
/// Placeholders for media other than images.
const UNSUPPORTED_PLACEHOLDERS: [&str; 2] = ["<video>", "<audio>"];

/// The record of a line, or what is wrong with it.
pub(super) fn record(object: &Object, line: usize, found: &mut Images) -> Result<Record, String> {
    for (field, why) in UNSUPPORTED_FIELDS {
        if object.get(field).is_some_and(|value| !is_empty(value)) {
            return Err(format!("field `{field}`: {why}"));
        }
    }
    // A label that is a number or a string is a class, not a judgement.
    if let Some(field) = PREFERENCE_LABELS.into_iter().find(|field| object.get(*field) == Some(&Value::Bool(false))) {
        return Err(format!(
            "field `{field}` is false: bad answers are not represented, and this one would be learnt; leave the line out"
        ));
    }
    let messages = turns(object)?;
    let field = image_field(object)?;
    let images = object.get(field).map_or(Ok(Vec::new()), |value| found.names(value, line));
    let images = images.map_err(|why| format!("field `{field}`: {why}"))?;
    let mut record = Record {
        file_name: images.first().cloned().unwrap_or_default(),
        id: id(object)?.unwrap_or_else(|| format!("line-{line}")),
        task: text(object, "task")?.unwrap_or(SCORER).to_string(),
        messages,
        answer: String::new(),
        source: text(object, "source")?.map(String::from).or(images.first().cloned()).unwrap_or_default(),
        images,
        seed: object.get("seed").and_then(Value::as_u64).unwrap_or(0),
        meta: match object.get("meta") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(meta)) => meta.clone(),
            Some(_) => return Err("field `meta` is not an object".into()),
        },
    };
    check_placeholders(&record, field)?;
    record.answer = answer(object, &mut record)?;
    Ok(record)
}

/// The field that the images stand in.
pub(super) fn image_field(object: &Object) -> Result<&'static str, String> {
    match (non_null(object, "images"), non_null(object, "image")) {
        (Some(_), Some(_)) => Err("has both fields `images` and `image`".into()),
        (Some(_), None) => Ok("images"),
        _ => Ok("image"),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty() || text.trim() == "[]",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

/// A field that is there and not `null`.
fn non_null<'a>(object: &'a Object, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

/// A field that is a text, if it is there.
fn text<'a>(object: &'a Object, field: &str) -> Result<Option<&'a str>, String> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(Value::String(_)) => Err(format!("field `{field}` is empty")),
        Some(_) => Err(format!("field `{field}` is not a string")),
    }
}

fn id(object: &Object) -> Result<Option<String>, String> {
    match object.get("id") {
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        _ => text(object, "id").map(|id| id.map(String::from)),
    }
}

/// The turns: a system turn perhaps, then user and assistant in turn.
fn turns(object: &Object) -> Result<Vec<Message>, String> {
    let (field, value) = match (non_null(object, "messages"), non_null(object, "conversations")) {
        (Some(_), Some(_)) => return Err("has both fields `messages` and `conversations`".into()),
        (Some(value), None) => ("messages", value),
        (None, Some(value)) => ("conversations", value),
        (None, None) => {
            let named: Vec<&str> = object.keys().map(String::as_str).collect();
            return Err(format!(
                "has neither `messages` (role, content) nor `conversations` (from, value); its fields: {}",
                named.join(", ")
            ));
        }
    };
    let Value::Array(all) = value else { return Err(format!("field `{field}` is not a list of turns")) };
    let mut messages: Vec<Message> = Vec::with_capacity(all.len() + 1);
    match non_null(object, "system") {
        Some(Value::String(system)) if system.trim().is_empty() => {}
        Some(Value::String(system)) => {
            reject_other_placeholders(system).map_err(|why| format!("field `system`: {why}"))?;
            messages.push(Message { role: "system".into(), content: system.clone() });
        }
        Some(_) => return Err("field `system` is not a string".into()),
        None => {}
    }
    for (i, turn) in all.iter().enumerate() {
        let bad = |name: &str, why: String| format!("field `{field}[{i}]{name}`: {why}");
        let Value::Object(turn) = turn else { return Err(bad("", "is not an object".into())) };
        if let Some(name) =
            TOOL_CALL_FIELDS.into_iter().find(|name| turn.get(*name).is_some_and(|value| !is_empty(value)))
        {
            return Err(bad(&format!(".{name}"), "tool calls are not represented".into()));
        }
        let part = |names: [&'static str; 2]| {
            let found = names.into_iter().find_map(|name| turn.get(name).map(|value| (name, value)));
            match found {
                Some((name, Value::String(text))) => Ok((name, text.as_str())),
                Some((name, Value::Array(_))) => Err(bad(
                    &format!(".{name}"),
                    "is a list of parts; write a text with `<image>` where images go".into(),
                )),
                Some((name, _)) => Err(bad(&format!(".{name}"), "is not a string".into())),
                None => Err(bad("", format!("has neither `{}` nor `{}`", names[0], names[1]))),
            }
        };
        let ((name, said), (text, content)) = (part(["role", "from"])?, part(["content", "value"])?);
        let role = role(said).map_err(|why| bad(&format!(".{name}"), why))?;
        reject_other_placeholders(content).map_err(|why| bad(&format!(".{text}"), why))?;
        // Answers before the last one are not learnt anyway.
        if role == "assistant"
            && i + 1 == all.len()
            && let Some((name, value)) =
                LOSS_WEIGHT_FIELDS.into_iter().find_map(|name| Some((name, changed_loss_weight(turn.get(name)?)?)))
        {
            return Err(bad(
                &format!(".{name}"),
                format!(
                    "is {value}, but the last answer is what is learnt, all of it; leave the line out, or the field"
                ),
            ));
        }
        let before = messages.last().map(|message| message.role.as_str());
        let in_turn = match role {
            "system" => before.is_none(),
            "user" => before != Some("user"),
            _ => before == Some("user"),
        };
        if !in_turn {
            let after = before.map_or("nothing".into(), |before| format!("`{before}`"));
            return Err(bad(
                "",
                format!(
                    "`{role}` after {after} cannot be represented: a system turn comes first, then user and assistant in turn"
                ),
            ));
        }
        messages.push(Message { role: role.to_string(), content: content.to_string() });
    }
    if !messages.iter().any(|message| message.role == "user") {
        return Err(format!("field `{field}` has no turn of the user"));
    }
    Ok(messages)
}

/// The value, if it gives the turn a loss weight other than 1.
fn changed_loss_weight(value: &Value) -> Option<&Value> {
    let learnt = matches!(value, Value::Null | Value::Bool(true)) || value.as_f64() == Some(1.0);
    (!learnt).then_some(value)
}

/// An error for a text with a placeholder for other media.
fn reject_other_placeholders(text: &str) -> Result<(), String> {
    match UNSUPPORTED_PLACEHOLDERS.into_iter().find(|placeholder| text.contains(placeholder)) {
        Some(placeholder) => Err(format!("has `{placeholder}` in it: there are images only")),
        None => Ok(()),
    }
}

/// A role by any of its names.
fn role(name: &str) -> Result<&'static str, String> {
    match name {
        "system" => Ok("system"),
        "user" | "human" => Ok("user"),
        "assistant" | "gpt" => Ok("assistant"),
        "tool" | "tool_call" | "tool_response" | "function" | "function_call" | "observation" => {
            Err(format!("`{name}`: a tool's turn cannot be represented"))
        }
        other => Err(format!("`{other}` is none of system, user (human), assistant (gpt)")),
    }
}

fn check_placeholders(record: &Record, field: &str) -> Result<(), String> {
    let count =
        |messages: &[Message]| messages.iter().map(|m| m.content.matches(IMAGE_PLACEHOLDER).count()).sum::<usize>();
    let prompt: usize = count(record.prompt());
    let all: usize = count(&record.messages);
    if all > prompt {
        return Err(format!(
            "the last answer has `{IMAGE_PLACEHOLDER}` in it: an image in an answer cannot be represented"
        ));
    }
    if prompt != record.images.len() {
        return Err(format!(
            "field `{field}` names {} image(s), but the turns have {prompt} `{IMAGE_PLACEHOLDER}` placeholder(s)",
            record.images.len()
        ));
    }
    Ok(())
}

/// The gold answer; all of them into `meta.answers` where there are several.
fn answer(object: &Object, record: &mut Record) -> Result<String, String> {
    for field in ["answer", "solution"] {
        let plain = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        match object.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(all)) => {
                let golds: Option<Vec<String>> = all.iter().map(plain).collect();
                let golds =
                    golds.filter(|g| !g.is_empty()).ok_or(format!("field `{field}` is not a list of strings"))?;
                let first = golds[0].clone();
                record.meta.entry("answers").or_insert_with(|| golds.into());
                return Ok(first);
            }
            Some(value) => {
                let gold = plain(value).ok_or(format!("field `{field}` is not a string"))?;
                // A record of our own is taken as it is.
                return Ok(if object.contains_key("task") { gold } else { gold_of(&gold) });
            }
        }
    }
    let gold = record.response().map(gold_of).filter(|gold| !gold.is_empty());
    gold.ok_or("there is no answer to learn or to score by: neither a last turn of the assistant, nor `answer`, nor `solution`".into())
}

/// What a response answers: the content of its one answer block, else what follows its thought.
fn gold_of(response: &str) -> String {
    const THOUGHT: &str = "</think>";
    let after = match response.trim_start().starts_with("<think>") {
        true => response.find(THOUGHT).map_or(response, |at| &response[at + THOUGHT.len()..]),
        false => response,
    };
    let block = after.split_once("<answer>").and_then(|(_, rest)| rest.split_once("</answer>"));
    let gold = match block {
        Some((inside, rest)) if !rest.contains("<answer>") => inside,
        _ => after,
    };
    gold.trim().to_string()
}
