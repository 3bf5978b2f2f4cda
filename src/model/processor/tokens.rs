//! The checkpoint's tokenizer, and which of its tokens mean something to the model.

use super::tokenizer_file::{decode, encode, read_tokenizer};
use crate::io::files;
use crate::model::architecture::Architecture;
use crate::model::json_fields::Fields;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Tokens that a prompt cannot be built without.
const IM_START: &str = "<|im_start|>";
const IM_END: &str = "<|im_end|>";
const IMAGE_PAD: &str = "<|image_pad|>";
const VISION_START: &str = "<|vision_start|>";
const VISION_END: &str = "<|vision_end|>";
/// Tokens that only the program may write: what they announce is not in a sampled response.
const NEVER_SAMPLED: [&str; 6] = [IM_START, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, "<|video_pad|>"];
/// The same of Llama 3's chat format, beside its `bos_token`.
const NEVER_SAMPLED_LLAMA: [&str; 2] = ["<|start_header_id|>", "<|end_header_id|>"];

/// The tokens that `tokenizer_config.json` names for the beginning and the end of a text.
#[derive(Default)]
struct NamedTokens {
    bos: Option<String>,
    eos: Option<String>,
}

impl NamedTokens {
    fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer_config.json");
        if !path.exists() {
            return Ok(NamedTokens::default());
        }
        let value: Value = files::read_json(&path)?;
        let token = |key: &str| value[key].as_str().or_else(|| value[key]["content"].as_str()).map(String::from);
        Ok(NamedTokens { bos: token("bos_token"), eos: token("eos_token") })
    }
}

/// See that `tokenizer_config.json` changes nothing of what `tokenizer.json` does: transformers would follow it.
///
/// # Errors
/// An input error that names the key: a token that `tokenizer.json` does not have, or a setting that changes how text is split.
fn check_tokenizer_config(dir: &Path, tokenizer: &Tokenizer) -> Result<()> {
    let path = dir.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(());
    }
    let value: Value = files::read_json(&path)?;
    let fields = Fields::root(&value).map_err(|e| e.context(path.display()))?;
    let bad = |key: &str, what: String| Err(fields.error(key, what).context(path.display()));
    for key in ["split_special_tokens", "add_prefix_space"] {
        if fields.boolean(key).map_err(|e| e.context(path.display()))? == Some(true) {
            return bad(key, "true is not supported: it would split the prompts otherwise".into());
        }
    }
    let keys = value.as_object().into_iter().flatten();
    for (key, value) in
        keys.filter(|(key, _)| key.ends_with("_token") || key.ends_with("special_tokens") || *key == DECODER)
    {
        let items: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(items) if !items.contains_key("content") => items.values().collect(),
            one => vec![one],
        };
        let texts = items.into_iter().filter_map(|item| item.as_str().or_else(|| item["content"].as_str()));
        if let Some(token) = texts.into_iter().find(|token| tokenizer.token_to_id(token).is_none()) {
            return bad(
                key,
                format!("names the token `{token}`, which tokenizer.json does not have; transformers would add it"),
            );
        }
    }
    Ok(())
}

/// The tokens by their ids.
const DECODER: &str = "added_tokens_decoder";

/// Settings of `generation_config.json` that change which tokens are chosen, and that no command has.
const UNUSED_SETTINGS: [&str; 10] = [
    "repetition_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "min_length",
    "min_new_tokens",
    "stop_strings",
];

/// A tokenizer and its special tokens.
pub struct Tokens {
    /// The file of the tokenizer.
    path: PathBuf,
    tokenizer: Tokenizer,
    /// Bytes of the longest token.
    longest: usize,
    /// Positions of the model.
    positions: usize,
    special: Vec<(u32, String)>,
    end_of_turn: (u32, String),
    image_pad: Option<u32>,
    eos: Vec<u32>,
    banned: Vec<u32>,
    unused_settings: Vec<String>,
}

impl Tokens {
    /// Read `tokenizer.json` and the end-of-sequence ids of `generation_config.json` (else of `config.json`).
    ///
    /// # Errors
    /// An input error that names the file, for one that is missing, has no token that ends a turn, lacks a token of Qwen's chat format
    /// although the model takes images, or contradicts the configuration.
    pub fn from_dir(dir: &Path, architecture: &dyn Architecture) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            return Err(Error::input(format!(
                "{} not found: it holds the tokenizer; copy it from the checkpoint that this one was made from, or write \
                 it with transformers' `AutoTokenizer.from_pretrained(...).save_pretrained(...)`",
                path.display()
            )));
        }
        let tokenizer = read_tokenizer(&files::read(&path)?)
            .map_err(|why| Error::input(format!("{}: not a tokenizer: {why}", path.display())))?;
        let config = check_tokenizer_config(dir, &tokenizer);
        let generation = dir.join("generation_config.json");
        let (mut eos, mut unused) = (None, Vec::new());
        if generation.exists() {
            let value: Value = files::read_json(&generation)?;
            let ids = Fields::root(&value).and_then(|f| f.ids("eos_token_id"));
            eos = ids.map_err(|e| e.context(generation.display()))?;
            // 0, 1, null and an empty list change nothing.
            let changes = |value: &Value| match value {
                Value::Number(number) => !matches!(number.as_f64(), Some(0.0 | 1.0)),
                Value::Array(items) => !items.is_empty(),
                other => !other.is_null(),
            };
            let found = UNUSED_SETTINGS.iter().filter_map(|key| Some((key, value.get(key).filter(|v| changes(v))?)));
            unused.extend(found.map(|(key, value)| format!("{key} = {value}")));
        }
        let eos = eos.unwrap_or_else(|| architecture.eos_token_ids().to_vec());
        let named = NamedTokens::from_dir(dir)?;
        let tokens =
            Self::new(path.clone(), tokenizer, eos, &named, architecture).map_err(|e| e.context(path.display()))?;
        config?;
        Ok(Tokens { unused_settings: unused, ..tokens })
    }

    fn new(
        path: PathBuf,
        tokenizer: Tokenizer,
        mut eos: Vec<u32>,
        named: &NamedTokens,
        architecture: &dyn Architecture,
    ) -> Result<Self> {
        let title = architecture.title();
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| Error::input(format!("has no `{token}` token, which {title}'s chat format needs")))
        };
        let images = architecture.image_tokens();
        let end_of_turn = match (tokenizer.token_to_id(IM_END), &named.eos) {
            (None, Some(token)) if images.is_none() => token.as_str(),
            (None, None) if images.is_none() => {
                return Err(Error::input(format!(
                    "has no `{IM_END}` token, and tokenizer_config.json names no `eos_token`; one of them must end a response"
                )));
            }
            _ => IM_END,
        };
        let end_of_turn = (id(end_of_turn)?, end_of_turn.to_string());
        if images.is_some() {
            id(IMAGE_PAD)?;
        }
        if end_of_turn.1 == IM_END {
            id(IM_START)?;
        }
        for (token, key, stated) in images.iter().flat_map(|tokens| {
            [
                (IMAGE_PAD, "image_token_id", tokens.image),
                (VISION_START, "vision_start_token_id", tokens.start),
                (VISION_END, "vision_end_token_id", tokens.end),
            ]
        }) {
            let found = id(token)?;
            if found != stated {
                return Err(Error::input(format!("`{token}` has id {found}, but {key} in config.json is {stated}")));
            }
        }
        let rows = architecture.decoder().vocab_size;
        let vocab = tokenizer.get_vocab(true);
        let largest = vocab.values().copied().max().unwrap_or(0);
        let longest = vocab.keys().map(String::len).max().unwrap_or(1);
        drop(vocab);
        if largest as usize >= rows {
            return Err(Error::input(format!(
                "has tokens up to id {largest}, but vocab_size in config.json is {rows}"
            )));
        }
        if !eos.contains(&end_of_turn.0) {
            eos.push(end_of_turn.0);
        }
        let mut banned: BTreeSet<u32> = NEVER_SAMPLED.iter().filter_map(|t| tokenizer.token_to_id(t)).collect();
        if end_of_turn.1 != IM_END {
            let others = NEVER_SAMPLED_LLAMA.into_iter().chain(named.bos.as_deref());
            banned.extend(others.filter_map(|token| tokenizer.token_to_id(token)));
        }
        banned.extend(images.iter().flat_map(|tokens| [tokens.start, tokens.end, tokens.image, tokens.video]));
        banned.extend((0..rows as u32).filter(|&id| tokenizer.id_to_token(id).is_none()));
        let mut special: Vec<(u32, String)> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(id, token)| token.special || banned.contains(id) || eos.contains(id))
            .map(|(id, token)| (id, token.content))
            .collect();
        special.sort();
        let banned = banned.into_iter().filter(|id| !eos.contains(id)).collect();
        Ok(Tokens {
            path,
            tokenizer,
            longest,
            positions: architecture.decoder().max_positions,
            special,
            end_of_turn,
            image_pad: images.map(|tokens| tokens.image),
            eos,
            banned,
            unused_settings: Vec::new(),
        })
    }

    /// Token ids of a text; special tokens in it are recognised, none is added.
    ///
    /// # Errors
    /// An input error for a text that has more bytes than the model has positions for, and for a tokenizer that fails on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let most = self.most_bytes(self.positions);
        if text.len() > most {
            return Err(Error::input(format!(
                "{} bytes of text are more than max_position_embeddings in config.json, {} tokens of at most {} bytes, can hold",
                text.len(),
                self.positions,
                self.longest
            )));
        }
        let fail = |why: String| {
            let file = self.path.display();
            Error::input(format!("{file}: the tokenizer fails on a text of {} bytes: {why}", text.len()))
        };
        encode(&self.tokenizer, text).map_err(fail)
    }

    /// The bytes of the longest text of so many tokens, as far as a token stands for the bytes that it has.
    pub fn most_bytes(&self, tokens: usize) -> usize {
        tokens.saturating_mul(self.longest)
    }

    /// Text of token ids, without special tokens. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// An input error for a tokenizer that fails on them.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let fail = |why: String| {
            Error::input(format!("{}: the tokenizer cannot decode {} tokens: {why}", self.path.display(), ids.len()))
        };
        decode(&self.tokenizer, ids).map_err(fail)
    }

    /// An input error if `text` contains a special token literally, because the model would take it for a real one.
    pub fn refuse_special(&self, text: &str) -> Result<()> {
        match self.special.iter().find(|(_, token)| text.contains(token.as_str())) {
            None => Ok(()),
            Some((_, token)) => Err(Error::input(format!(
                "the text contains the special token `{token}`, which would corrupt the prompt; remove it or write it \
                 differently"
            ))),
        }
    }

    /// Special tokens with their ids, by id.
    pub fn special(&self) -> &[(u32, String)] {
        &self.special
    }

    /// Id of the token that ends a turn of the conversation: `<|im_end|>` where the tokenizer has it, else the `eos_token` of
    /// `tokenizer_config.json` (Llama 3: `<|eot_id|>`).
    pub fn end_of_turn(&self) -> u32 {
        self.end_of_turn.0
    }

    /// Its text, if it is another than `<|im_end|>`.
    pub fn other_end_of_turn(&self) -> Option<&str> {
        Some(self.end_of_turn.1.as_str()).filter(|token| *token != IM_END)
    }

    /// Id of `<|image_pad|>`, of a model that takes images.
    pub fn image_pad(&self) -> Option<u32> {
        self.image_pad
    }

    /// Ids that end a response.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Ids that must never be sampled, ascending.
    pub fn banned_ids(&self) -> &[u32] {
        &self.banned
    }

    /// What `generation_config.json` sets and no command does, as `key = value`.
    pub fn unused_settings(&self) -> &[String] {
        &self.unused_settings
    }

    /// Tokens, special ones included.
    pub fn len(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokenizer has no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
