//! An object of a file -> a record.
//!
//! | field | becomes |
//! |---|---|
//! | `messages`, `conversations`, `prompt` and `completion`, `instruction` and `output`, `question` | the turns (`turns.rs`); the last one, if it is the assistant's, is the reference response |
//! | `system` | a system turn before them |
//! | `images`, `image` | the images of the `<image>` placeholders, in order; before the first text of the user if there are none |
//! | `task`, `meta` | as in our own datasets; without `task`, the scorer is `exact` |
//! | `answer`, `solution` | the gold answer, or several; without them, what the last assistant turn answers |
//! | `id`, `source`, `seed` | as in our own datasets; without an id, the number of the line, or of the item of an array |
//!
//! Other fields are ignored, unless they would change what is learnt: those are an error. So are marks that an answer is bad or excluded
//! from the loss (`label`, `kto_tag`; of the last turn `loss`, `train`, `weight`, `loss_scale`, `loss_weight`).

use super::answer_form::{CLOSE, FormEvidence, OPEN, after_thought, answer_of};
use super::images::Images;
use super::items::Object;
use super::turns::{Conversation, conversation, is_empty, non_null};
use crate::data::{IMAGE_PLACEHOLDER, Message, Record};
use serde_json::{Map, Value};

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
/// A record, and how its images were placed.
pub(super) struct Read {
    pub record: Record,
    /// The turns had no `<image>`, so that the images were put before the first text of the user.
    pub images_first: bool,
    /// The form of the answers that the record shows.
    pub form: FormEvidence,
}

/// The record of an object, or what is wrong with it. `name` is its place in the file, `line 3` or `item 3`.
pub(super) fn record(object: &Object, name: &str, found: &mut Images) -> Result<Read, String> {
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
    let Conversation { mut messages, images: named } = conversation(object)?;
    let field = image_field(object)?;
    let listed = non_null(object, field);
    if !named.is_empty() && listed.is_some_and(|value| !is_empty(value)) {
        return Err(format!("has images in the parts of its turns and in the field `{field}`"));
    }
    let images = match named.is_empty() {
        true => found.names(listed.unwrap_or(&Value::Null), name).map_err(|why| format!("field `{field}`: {why}"))?,
        false => found.names(&Value::Array(named), name).map_err(|why| format!("its image parts: {why}"))?,
    };
    let images_first = place_images(&mut messages, images.len());
    let mut record = Record {
        file_name: images.first().cloned().unwrap_or_default(),
        id: id(object)?.unwrap_or_else(|| name.replace(' ', "-")),
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
    let mut tagged = false;
    record.answer = answer(object, &mut record, &mut tagged)?;
    let form = FormEvidence::of(&mut record, tagged);
    Ok(Read { record, images_first, form })
}

/// Put images that no turn has a place for before the first text of the user, as TRL and ms-swift do. Returns whether it did.
fn place_images(messages: &mut [Message], images: usize) -> bool {
    let placed = messages.iter().any(|message| message.content.contains(IMAGE_PLACEHOLDER));
    let Some(first) = messages.iter_mut().find(|message| message.role == "user") else { return false };
    if images == 0 || placed {
        return false;
    }
    first.content.insert_str(0, &IMAGE_PLACEHOLDER.repeat(images));
    true
}

/// The field that the images stand in.
pub(super) fn image_field(object: &Object) -> Result<&'static str, String> {
    match (non_null(object, "images"), non_null(object, "image")) {
        (Some(_), Some(_)) => Err("has both fields `images` and `image`".into()),
        (Some(_), None) => Ok("images"),
        _ => Ok("image"),
    }
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

/// The gold answer; all of them into `meta.answers` where there are several. `tagged` is set if it stands in answer tags.
fn answer(object: &Object, record: &mut Record, tagged: &mut bool) -> Result<String, String> {
    for field in ["answer", "solution"] {
        let plain = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let mut read = |gold: String| -> Result<String, String> {
            let has_tags = gold.contains(OPEN);
            *tagged |= has_tags;
            match answer_of(&gold) {
                None if has_tags => {
                    Err(format!("field `{field}`: has `{OPEN}` in it, but not one block `{OPEN}...{CLOSE}`"))
                }
                // A record of our own is taken as it is.
                None if object.contains_key("task") => Ok(gold),
                None => Ok(after_thought(&gold).trim().to_string()),
                Some(inside) => Ok(inside.to_string()),
            }
        };
        match object.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(all)) => {
                let golds: Option<Vec<String>> = all.iter().map(plain).collect();
                let golds =
                    golds.filter(|g| !g.is_empty()).ok_or(format!("field `{field}` is not a list of strings"))?;
                let golds: Vec<String> = golds.into_iter().map(read).collect::<Result<_, _>>()?;
                let first = golds[0].clone();
                record.meta.entry("answers").or_insert_with(|| golds.into());
                return Ok(first);
            }
            Some(value) => return read(plain(value).ok_or(format!("field `{field}` is not a string"))?),
        }
    }
    let gold = record.response().map(|response| {
        let block = answer_of(response);
        block.unwrap_or_else(|| after_thought(response)).trim().to_string()
    });
    let gold = gold.filter(|gold| !gold.is_empty());
    gold.ok_or("there is no answer to learn or to score by: neither a last turn of the assistant, nor `answer`, nor `solution`".into())
}
