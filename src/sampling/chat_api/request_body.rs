//! The body of a chat request: messages with their images, and how tokens are chosen.

use crate::data::{IMAGE_PLACEHOLDER, Message};
use crate::model::SamplingParams;
use crate::{Error, Result, rng};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};
use rand::Rng as _;
use serde_json::{Map, Value, json};
use std::io::Cursor;

/// The body that asks `model` for response `sample` to the example `id`. Each response has a seed of its own. With `banned`, the tokens of
/// the response and their log-probabilities are asked for (fields of vLLM), these tokens are never sampled, and what a server may do to the
/// distribution on its own account (`generation_config.json`) is switched off.
///
/// # Errors
/// A failure to encode an image.
pub(super) fn body(
    model: &str,
    prompt: &[Message],
    images: &[RgbImage],
    (id, sample): (&str, usize),
    sampling: &SamplingParams,
    banned: Option<&[u32]>,
) -> Result<Vec<u8>> {
    let mut urls = Vec::with_capacity(images.len());
    for image in images {
        let mut png = Vec::new();
        image
            .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
            .map_err(|e| Error::failed(format!("cannot encode an image: {e}")))?;
        urls.push(format!("data:image/png;base64,{}", STANDARD.encode(png)));
    }
    let mut urls = urls.into_iter();
    let messages: Vec<Value> = prompt
        .iter()
        .map(|message| json!({"role": message.role, "content": content(&message.content, &mut urls)}))
        .collect();
    // Below 2^31: some servers take no more.
    let seed = rng::stream(sampling.seed, &format!("chat {id}"), &[sample as u64]).next_u64() >> 33;
    let mut body = json!({
        "model": model, "messages": messages, "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature,
        "top_p": sampling.top_p, "seed": seed,
    });
    if sampling.top_k > 0 {
        body["top_k"] = json!(sampling.top_k);
    }
    if !sampling.stop.is_empty() {
        body["stop"] = json!(sampling.stop);
    }
    if let Some(banned) = banned {
        let tokens = json!({
            "logprobs": true, "return_token_ids": true, "include_stop_str_in_output": true, "top_k": sampling.top_k, "min_p": 0.0,
            "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        });
        if let (Value::Object(body), Value::Object(tokens)) = (&mut body, tokens) {
            body.extend(tokens);
        }
        if !banned.is_empty() {
            body["logit_bias"] = banned.iter().map(|id| (id.to_string(), json!(-100.0))).collect::<Map<_, _>>().into();
        }
    }
    serde_json::to_vec(&body).map_err(|e| Error::failed(format!("cannot write a request: {e}")))
}

/// Text and images of a message, in order. The text is sent unchanged: the line break after an image is part of the prompt. Only a part
/// that is blank is left out, because some servers refuse it.
pub(super) fn content(text: &str, urls: &mut impl Iterator<Item = String>) -> Value {
    let mut parts = Vec::new();
    for (i, text) in text.split(IMAGE_PLACEHOLDER).enumerate() {
        if i > 0 {
            parts.push(json!({"type": "image_url", "image_url": {"url": urls.next().unwrap_or_default()}}));
        }
        if !text.trim().is_empty() {
            parts.push(json!({"type": "text", "text": text}));
        }
    }
    match parts.as_slice() {
        [only] if only.get("text").is_some() => only["text"].clone(),
        _ => Value::Array(parts),
    }
}
