//! The fields of a record that hold its conversation -> turns.
//!
//! | fields | written by |
//! |---|---|
//! | `messages` (`role`, `content`), `conversations` (`from`, `value`) | LLaMA-Factory, ms-swift, TRL, LLaVA |
//! | `instruction`, `input`, `output`, `history` | Alpaca |
//! | `prompt`, `completion`: each a text or a list of turns | TRL |
//! | `question` or `problem`: the prompt alone; its answer is in a field of its own (`line.rs`) | GSM8K, MATH |
//!
//! The content of a turn is a text with `<image>` placeholders, or a list of parts (`{"type": "text", "text": ...}`, `{"type": "image"}`).

use super::items::Object;
use crate::data::{IMAGE_PLACEHOLDER, Message};
use serde_json::{Value, json};
use std::borrow::Cow;

/// Fields that hold a question.
const QUESTIONS: [&str; 2] = ["question", "problem"];
/// Fields that set the loss weight of a turn.
const LOSS_WEIGHT_FIELDS: [&str; 5] = ["loss", "train", "weight", "loss_scale", "loss_weight"];
/// Fields of a turn that hold tool calls.
const TOOL_CALL_FIELDS: [&str; 2] = ["tool_calls", "function_call"];
/// Placeholders for media other than images.
const UNSUPPORTED_PLACEHOLDERS: [&str; 2] = ["<video>", "<audio>"];
/// Fields of a part that say which image it is.
const IMAGE_SOURCES: [&str; 6] = ["image", "image_url", "url", "path", "base64", "bytes"];

/// The turns of a record: a system turn perhaps, then user and assistant in turn.
pub(super) struct Conversation {
    pub messages: Vec<Message>,
    /// What the image parts name, one for each `<image>` of `messages`; empty if the images stand in a field of their own.
    pub images: Vec<Value>,
}

/// A turn before it is checked.
struct Turn<'a> {
    /// The field that holds it, as messages name it.
    place: String,
    /// The field is the content itself, not an object with a role and a content.
    is_text: bool,
    fields: Cow<'a, Object>,
}

/// The conversation of a record, or what is wrong with it.
pub(super) fn conversation(object: &Object) -> Result<Conversation, String> {
    let turns = turns(object)?;
    let mut messages: Vec<Message> = Vec::with_capacity(turns.len() + 1);
    match non_null(object, "system") {
        Some(Value::String(system)) if system.trim().is_empty() => {}
        Some(Value::String(system)) => {
            reject_other_placeholders(system).map_err(|why| format!("field `system`: {why}"))?;
            messages.push(Message { role: "system".into(), content: system.clone() });
        }
        Some(_) => return Err("field `system` is not a string".into()),
        None => {}
    }
    let (mut images, mut seen) = (Vec::new(), 0);
    for (i, turn) in turns.iter().enumerate() {
        let is_last = i + 1 == turns.len();
        let message = message(turn, is_last, messages.last(), &mut images, &mut seen)?;
        messages.push(message);
    }
    if !messages.iter().any(|message| message.role == "user") {
        let field = turns.first().map_or("messages", |turn| turn.place.split('[').next().unwrap_or_default());
        return Err(format!("field `{field}` has no turn of the user"));
    }
    if !images.is_empty() && images.len() != seen {
        return Err(format!("{} of {seen} images say which image they are; either all do or none", images.len()));
    }
    Ok(Conversation { messages, images })
}

/// A field that is there and not `null`.
pub(super) fn non_null<'a>(object: &'a Object, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

/// The turns by whichever fields the record has.
fn turns(object: &Object) -> Result<Vec<Turn<'_>>, String> {
    match (non_null(object, "messages"), non_null(object, "conversations")) {
        (Some(_), Some(_)) => return Err("has both fields `messages` and `conversations`".into()),
        (Some(value), None) => return list("messages", value),
        (None, Some(value)) => return list("conversations", value),
        (None, None) => {}
    }
    if non_null(object, "instruction").is_some() {
        return alpaca(object);
    }
    if let Some(prompt) = non_null(object, "prompt") {
        let mut turns = text_or_list("prompt", prompt, "user")?;
        if let Some(completion) = non_null(object, "completion") {
            turns.extend(text_or_list("completion", completion, "assistant")?);
        }
        return Ok(turns);
    }
    if let Some((field, question)) = QUESTIONS.into_iter().find_map(|field| Some((field, non_null(object, field)?))) {
        return match question {
            Value::String(text) => Ok(vec![text_turn(field, text, "user")]),
            _ => Err(format!("field `{field}` is not a string")),
        };
    }
    let named: Vec<&str> = object.keys().map(String::as_str).collect();
    Err(format!(
        "has neither `messages` (role, content) nor `conversations` (from, value), nor `prompt` and `completion`, nor `instruction` and \
         `output`, nor `question`; its fields: {}",
        named.join(", ")
    ))
}

fn list<'a>(field: &str, value: &'a Value) -> Result<Vec<Turn<'a>>, String> {
    let Value::Array(all) = value else { return Err(format!("field `{field}` is not a list of turns")) };
    let turn = |(i, turn): (usize, &'a Value)| match turn {
        Value::Object(fields) => {
            Ok(Turn { place: format!("{field}[{i}]"), is_text: false, fields: Cow::Borrowed(fields) })
        }
        _ => Err(format!("field `{field}[{i}]`: is not an object")),
    };
    all.iter().enumerate().map(turn).collect()
}

fn text_or_list<'a>(field: &str, value: &'a Value, role: &str) -> Result<Vec<Turn<'a>>, String> {
    match value {
        Value::String(text) => Ok(vec![text_turn(field, text, role)]),
        Value::Array(_) => list(field, value),
        _ => Err(format!("field `{field}` is neither a text nor a list of turns")),
    }
}

fn text_turn<'a>(place: &str, text: &str, role: &str) -> Turn<'a> {
    let fields = Object::from_iter([("role".to_string(), json!(role)), ("content".to_string(), json!(text))]);
    Turn { place: place.to_string(), is_text: true, fields: Cow::Owned(fields) }
}

/// Alpaca: the instruction, a line break and the input are the question, as LLaMA-Factory joins them.
fn alpaca(object: &Object) -> Result<Vec<Turn<'_>>, String> {
    let text = |field: &str| match object.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(format!("field `{field}` is not a string")),
    };
    let mut turns = Vec::new();
    let pairs = match non_null(object, "history") {
        None => &[],
        Some(Value::Array(pairs)) => pairs.as_slice(),
        Some(_) => return Err("field `history` is not a list of pairs".into()),
    };
    for (i, pair) in pairs.iter().enumerate() {
        let texts: Option<Vec<&str>> = pair.as_array().map(|pair| pair.iter().filter_map(Value::as_str).collect());
        let Some(&[question, answer]) = texts.as_deref() else {
            return Err(format!("field `history[{i}]`: is not a pair of texts, a question and its answer"));
        };
        turns.push(text_turn(&format!("history[{i}]"), question, "user"));
        turns.push(text_turn(&format!("history[{i}]"), answer, "assistant"));
    }
    let parts: Vec<&str> = [text("instruction")?, text("input")?].into_iter().filter(|t| !t.is_empty()).collect();
    turns.push(text_turn("instruction", &parts.join("\n"), "user"));
    let output = text("output")?;
    if !output.is_empty() {
        turns.push(text_turn("output", output, "assistant"));
    }
    Ok(turns)
}

/// The message of a turn that follows `before`. `images` gets what its image parts name, `seen` counts the parts.
fn message(
    turn: &Turn<'_>,
    is_last: bool,
    before: Option<&Message>,
    images: &mut Vec<Value>,
    seen: &mut usize,
) -> Result<Message, String> {
    let fields = turn.fields.as_ref();
    let bad = |name: &str, why: String| {
        let name = if turn.is_text { "" } else { name };
        format!("field `{}{name}`: {why}", turn.place)
    };
    if let Some(name) =
        TOOL_CALL_FIELDS.into_iter().find(|name| fields.get(*name).is_some_and(|value| !is_empty(value)))
    {
        return Err(bad(&format!(".{name}"), "tool calls are not represented".into()));
    }
    let part = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, non_null(fields, name)?)));
        found.ok_or_else(|| match names.into_iter().find(|name| fields.contains_key(*name)) {
            Some(name) => bad(&format!(".{name}"), "is null".into()),
            None => bad("", format!("has neither `{}` nor `{}`", names[0], names[1])),
        })
    };
    let ((name, said), (text, content)) = (part(["role", "from"])?, part(["content", "value"])?);
    let said = said.as_str().ok_or_else(|| bad(&format!(".{name}"), "is not a string".into()))?;
    let role = role(said).map_err(|why| bad(&format!(".{name}"), why))?;
    let content = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => joined(parts, images, seen).map_err(|(at, why)| bad(&format!(".{text}[{at}]"), why))?,
        _ => return Err(bad(&format!(".{text}"), "is neither a string nor a list of parts".into())),
    };
    reject_other_placeholders(&content).map_err(|why| bad(&format!(".{text}"), why))?;
    // Answers before the last one are not learnt anyway.
    if role == "assistant"
        && is_last
        && let Some((name, value)) =
            LOSS_WEIGHT_FIELDS.into_iter().find_map(|name| Some((name, changed_loss_weight(fields.get(name)?)?)))
    {
        return Err(bad(
            &format!(".{name}"),
            format!("is {value}, but the last answer is what is learnt, all of it; leave the line out, or the field"),
        ));
    }
    let before = before.map(|message| message.role.as_str());
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
    Ok(Message { role: role.to_string(), content })
}

/// The text of a list of parts, each image a placeholder. An error comes with the number of its part.
fn joined(parts: &[Value], images: &mut Vec<Value>, seen: &mut usize) -> Result<String, (usize, String)> {
    let mut content = String::new();
    let (before, mut written) = (*seen, None);
    for (at, part) in parts.iter().enumerate() {
        let bad = |why: &str| (at, why.to_string());
        let fields = match part {
            Value::String(text) => {
                content += text;
                written = written.or(text.contains(IMAGE_PLACEHOLDER).then_some(at));
                continue;
            }
            Value::Object(fields) => fields,
            _ => return Err(bad("is neither a text nor an object with a `type`")),
        };
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // Qwen's own form has no types.
            None | Some(Value::Null) if non_null(fields, "text").is_some() => "text",
            None | Some(Value::Null) if IMAGE_SOURCES.iter().any(|name| non_null(fields, name).is_some()) => "image",
            _ => return Err(bad("has no `type` (text, image)")),
        };
        match kind {
            "text" | "input_text" | "output_text" => {
                let text = fields.get("text").and_then(Value::as_str).ok_or_else(|| bad("has no string `text`"))?;
                content += text;
                written = written.or(text.contains(IMAGE_PLACEHOLDER).then_some(at));
            }
            "image" | "image_url" | "input_image" => {
                // As TRL's first sets have it: the place of the image in `images`.
                if let Some(index) = fields.get("index").and_then(Value::as_u64)
                    && index != *seen as u64
                {
                    return Err((
                        at,
                        format!("`index` is {index}, but images stand in order, and this is number {seen}"),
                    ));
                }
                *seen += 1;
                content += IMAGE_PLACEHOLDER;
                images.extend(source(fields));
            }
            other => return Err((at, format!("`{other}` is neither text nor image: other parts are not represented"))),
        }
    }
    match written {
        Some(at) if *seen > before => {
            Err((at, format!("has `{IMAGE_PLACEHOLDER}` in its text, and there are image parts beside it")))
        }
        _ => Ok(content),
    }
}

/// What an image part names, as the field `images` would.
fn source(fields: &Object) -> Option<Value> {
    let (name, value) = IMAGE_SOURCES.into_iter().find_map(|name| Some((name, non_null(fields, name)?)))?;
    Some(match (name, value) {
        // OpenAI's form.
        (_, Value::Object(inner)) if inner.contains_key("url") => inner["url"].clone(),
        // `{"path": ..., "bytes": ...}` in the part itself.
        ("path" | "bytes", _) => Value::Object(fields.clone()),
        ("base64", value) => json!({ "bytes": value }),
        _ => value.clone(),
    })
}

/// Whether a value says nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty() || text.trim() == "[]",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
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
