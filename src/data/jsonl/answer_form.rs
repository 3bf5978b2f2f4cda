//! The form of answers that the records of a file ask for: in `<answer>` tags, after a thought in `<think>` tags, or free.
//!
//! Files of other tools have no `meta.style`. It follows from what a record shows: the words of its prompt, its reference response, and a
//! gold answer in tags. A record whose prompt names the tags asks for them. All other records of a file ask for the same, or the file is
//! refused: nothing would tell a model which of them want tags.

use crate::data::Record;
use serde_json::Value;

/// What an answer begins with.
pub(super) const OPEN: &str = "<answer>";
/// What it ends with.
pub(super) const CLOSE: &str = "</answer>";
const THOUGHT: &str = "<think>";
const THOUGHT_END: &str = "</think>";
/// The field of `meta` that holds the form.
const STYLE: &str = "style";

/// What one record shows of the form that it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormEvidence {
    /// `meta.style` says it.
    Stated,
    /// The prompt names the tags.
    Asked(Form),
    /// The reference response or the gold answer is in this form.
    Shown(Form),
    /// Neither.
    Nothing,
}

/// A form of answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Without tags.
    #[default]
    Free,
    /// In answer tags.
    Direct,
    /// In answer tags, after a thought in tags.
    Think,
}

impl Form {
    /// The name of the style, as `meta.style` has it.
    fn style(self) -> Option<&'static str> {
        match self {
            Form::Free => None,
            Form::Direct => Some("direct"),
            Form::Think => Some("think"),
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Form::Free => "no answer tags",
            Form::Direct => "answer tags without a thought in <think> tags",
            Form::Think => "answer tags after a thought in <think> tags",
        }
    }
}

impl FormEvidence {
    /// Of a record whose gold answer stands in tags, or not. A `meta.style` of `null` says that no tags are asked for; it is taken out.
    pub fn of(record: &mut Record, gold_is_tagged: bool) -> FormEvidence {
        match record.meta.get(STYLE) {
            Some(Value::Null) => {
                record.meta.remove(STYLE);
                return FormEvidence::Stated;
            }
            Some(_) => return FormEvidence::Stated,
            None => {}
        }
        // Earlier answers show a form, but do not ask for one.
        let asks = |tag: &str| {
            record.prompt().iter().any(|message| message.role != "assistant" && message.content.contains(tag))
        };
        let response = record.response();
        let is_tagged = gold_is_tagged || response.is_some_and(|response| response.contains(OPEN));
        let thinks = asks(THOUGHT) || response.is_some_and(|response| response.trim_start().starts_with(THOUGHT));
        let tags = if thinks { Form::Think } else { Form::Direct };
        match (asks(OPEN), is_tagged, response) {
            (true, _, _) => FormEvidence::Asked(tags),
            (false, true, _) => FormEvidence::Shown(tags),
            (false, false, Some(_)) => FormEvidence::Shown(Form::Free),
            (false, false, None) => FormEvidence::Nothing,
        }
    }
}

/// The form that the records of a file show, of those that neither state one nor ask for one: all of them the same.
#[derive(Debug, Default)]
pub(super) struct ShownForm {
    /// The form, and the id of the first record that shows it.
    first: Option<(Form, String)>,
}

impl ShownForm {
    /// The form, if a record has shown one.
    pub fn form(&self) -> Option<Form> {
        self.first.as_ref().map(|(form, _)| *form)
    }

    /// Look at the next record.
    ///
    /// # Errors
    /// Why its form cannot be another than that of a record before it, though neither prompt names the tags.
    pub fn see(&mut self, record: &Record, evidence: FormEvidence) -> Result<(), String> {
        let FormEvidence::Shown(form) = evidence else { return Ok(()) };
        let (before, first) = self.first.get_or_insert_with(|| (form, record.id.clone()));
        if *before == form {
            return Ok(());
        }
        Err(format!(
            "record `{}` has {}, and `{first}` before it has {}: nothing tells a model which form is asked for; name the tags in the \
             prompts that ask for them, or give every record `\"meta\": {{\"style\": ...}}` (`\"direct\"`, `\"think\"`, or null for no tags)",
            record.id,
            form.in_words(),
            before.in_words()
        ))
    }
}

/// Write the form that a record asks for into its `meta.style`; `shown` is that of a file's records where this one shows none.
pub(super) fn set_style(record: &mut Record, evidence: FormEvidence, shown: Form) {
    let form = match evidence {
        FormEvidence::Stated => return,
        FormEvidence::Asked(form) | FormEvidence::Shown(form) => form,
        FormEvidence::Nothing => shown,
    };
    if let Some(style) = form.style() {
        record.meta.insert(STYLE.into(), style.into());
    }
}

/// The text without a thought at its beginning.
pub(super) fn after_thought(text: &str) -> &str {
    match text.trim_start().starts_with(THOUGHT) {
        true => text.find(THOUGHT_END).map_or(text, |at| &text[at + THOUGHT_END.len()..]),
        false => text,
    }
}

/// The content of the one answer block that stands behind the thought, if there is one.
pub(super) fn answer_of(text: &str) -> Option<&str> {
    let (inside, rest) = after_thought(text).split_once(OPEN)?.1.split_once(CLOSE)?;
    (!rest.contains(OPEN)).then(|| inside.trim())
}
