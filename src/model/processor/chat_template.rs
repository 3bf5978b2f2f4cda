//! The checkpoint's own chat template, rendered as transformers renders it.
//!
//! A template comes with any name on the Hub, so what it may take is bounded: its length and the length of its tags when it is compiled, work
//! and memory when it renders (`template_limits.rs`). Both happen on a thread whose stack is deep enough for what these bounds allow.
//!
//! transformers' Jinja environment trims blocks, has loop controls, Python's string methods, a `tojson` that does not
//! escape HTML, and `raise_exception`; so has this one. A `{% generation %}` block, which tells a trainer which tokens to learn, renders its
//! content; `strftime_now` is not there.

use super::template_limits::{FuelWriter, Stopped, check_length, fuel_for, method, on_deep_stack, out_of_fuel};
use crate::io::files;
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind, State, context};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::path::Path;

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Variables that every template sees (`bos_token`, `eos_token`, ...).
    tokens: Map<String, Json>,
    source: String,
    /// The file that it is from.
    origin: String,
}

/// Most characters of an engine's error that are shown. It can quote what the template made.
const MAX_ERROR: usize = 300;
/// Most blanks that JSON is indented by.
const MAX_INDENT: usize = 64;

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compile a template; `origin` says in errors where it is from.
    ///
    /// # Errors
    /// An input error for a template that is no Jinja, or longer than any chat template is.
    pub fn new(template: &str, origin: &str) -> Result<Self> {
        check_length(template).map_err(|why| Error::input(format!("{origin}: the chat template {why}")))?;
        let mut environment = Environment::new();
        // An error would hold the template's variables, whose values may be nested deeper than the stack that drops them.
        environment.set_debug(false);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Error::failed(format!("template engine: {e}")))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(method);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let source = without_generation(template);
        let compile = move || environment.add_template_owned(NAME, source).map(|()| environment);
        let environment = on_deep_stack(None, compile).map_err(|why| stopped(why, origin))?;
        let environment = environment
            .map_err(|e| Error::input(format!("{origin}: the chat template is not valid Jinja: {}", explain(&e))))?;
        Ok(ChatTemplate { environment, tokens: Map::new(), source: template.to_string(), origin: origin.to_string() })
    }

    /// The template of a checkpoint directory: the `chat_template` of `processor_config.json`, `chat_template.json` or
    /// `chat_template.jinja`, else that of `tokenizer_config.json` (a string, or a list of named ones with a `default`).
    ///
    /// # Errors
    /// An input error that names the files looked at if none has a template, or two files whose templates differ.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let config_path = dir.join("tokenizer_config.json");
        let config: Json = if config_path.exists() { files::read_json(&config_path)? } else { Json::Null };
        let (text, origin) = template_text(dir, &config)?;
        let mut template = Self::new(&text, &origin)?;
        template.tokens = special_tokens(&config);
        Ok(template)
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The file that it is from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Render `messages` (a JSON list of `{"role", "content"}`); `options` are further variables, such as
    /// `add_generation_prompt`.
    ///
    /// # Errors
    /// An input error that names the template's file, if the template fails, refuses the messages, or takes more work or memory than
    /// messages of this length can need.
    pub fn render(&self, messages: &Json, options: &Map<String, Json>) -> Result<String> {
        let fuel = fuel_for(messages);
        // transformers passes these two whether or not they are given.
        let base = context! { messages => Serde(messages), tools => (), documents => () };
        let variables = context! { ..Value::from(Serde(options)), ..base, ..Value::from(Serde(&self.tokens)) };
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let render = move || {
            let rendered = environment.get_template(NAME).and_then(|template| template.render(variables));
            rendered.map_err(|e| (e.kind() == ErrorKind::OutOfFuel, explain(&e)))
        };
        let rendered = on_deep_stack(Some(fuel), render).map_err(|why| stopped(why, &self.origin))?;
        rendered.map_err(|(out_of_fuel, why)| match out_of_fuel {
            true => stopped(Stopped::TooLong, &self.origin),
            false => Error::input(format!("{}: the chat template failed: {why}", self.origin)),
        })
    }
}

/// The template and the file it is from.
fn template_text(dir: &Path, tokenizer_config: &Json) -> Result<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for name in ["processor_config.json", "chat_template.json"] {
        let path = dir.join(name);
        let value: Json = if path.exists() { files::read_json(&path)? } else { continue };
        let template = &value["chat_template"];
        match named_template(template) {
            Some(text) => found.push((text, path.display().to_string())),
            None if name == "processor_config.json" && template.is_null() => {}
            None => return Err(Error::input(format!("{}: has no usable `chat_template`", path.display()))),
        }
    }
    let jinja = dir.join("chat_template.jinja");
    if jinja.exists() {
        found.push((files::read_text(&jinja)?, jinja.display().to_string()));
    }
    // Which of them is read depends on the version of transformers.
    if let [(first, one), rest @ ..] = found.as_slice()
        && let Some((_, other)) = rest.iter().find(|(text, _)| text.trim_end() != first.trim_end())
    {
        return Err(Error::input(format!("{one} and {other} hold chat templates that differ; remove the wrong one")));
    }
    if let Some(found) = found.into_iter().next() {
        return Ok(found);
    }
    if let Some(text) = named_template(&tokenizer_config["chat_template"]) {
        return Ok((text, dir.join("tokenizer_config.json").display().to_string()));
    }
    Err(Error::input(format!(
        "{} has no chat template: looked for chat_template.jinja, chat_template.json, and `chat_template` in processor_config.json and \
         tokenizer_config.json; copy the one of the checkpoint that this one was made from",
        dir.display()
    )))
}

/// The template with `{% generation %}` blocks as blocks that change nothing. Like those, `{% with %}` has a scope of its own.
fn without_generation(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text += before;
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let (name, after) = name.split_at(end);
        let new = match name {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => name,
        };
        text += &tag[..tag.len() - name.len() - after.len()];
        text += new;
        rest = after;
    }
    text + rest
}

/// A template string, or the entry named `default` of a list or object of them.
fn named_template(value: &Json) -> Option<String> {
    let found = match value {
        Json::String(_) => value,
        Json::Array(entries) => &entries.iter().find(|e| e["name"] == "default")?["template"],
        Json::Object(entries) => entries.get("default")?,
        _ => return None,
    };
    found.as_str().map(String::from)
}

/// The `*_token` entries of `tokenizer_config.json`, each a string or `{"content": ...}`.
fn special_tokens(tokenizer_config: &Json) -> Map<String, Json> {
    let Some(config) = tokenizer_config.as_object() else { return Map::new() };
    config
        .iter()
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| {
            let content = value.as_str().or_else(|| value["content"].as_str())?;
            Some((key.clone(), Json::from(content)))
        })
        .collect()
}

/// The error of a template that did not come to its end.
fn stopped(why: Stopped, origin: &str) -> Error {
    match why {
        Stopped::TooLong => Error::input(format!(
            "{origin}: the chat template takes more work or memory than these messages can need; is it that of this model?"
        )),
        Stopped::Panicked(said) => {
            Error::input(format!("{origin}: the template engine failed on the chat template: {said}"))
        }
        Stopped::NoThread(why) => Error::failed(format!("{origin}: there is no thread for the chat template: {why}")),
    }
}

/// An error of the template engine in one line, with its cause, up to [`MAX_ERROR`] characters.
fn explain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    match text.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(state: &State, value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let fail = |e: serde_json::Error| match e.is_io() {
        true => out_of_fuel(),
        false => minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()),
    };
    let indent: Option<usize> = options.get("indent")?;
    if indent.is_some_and(|width| width > MAX_INDENT) {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("tojson: indent above {MAX_INDENT}")));
    }
    // Accepted and without effect here: text is never escaped.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = FuelWriter::new(state);
    match indent {
        Some(width) => {
            let spaces = vec![b' '; width];
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(fail)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)).map_err(fail)?,
    }
    String::from_utf8(out.bytes).map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// Python's default separators: a space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String> {
        let messages = json!([{"role": "user", "content": "a<b>'c'"}, {"role": "assistant", "content": "d"}]);
        ChatTemplate::new(template, "here")?.render(&messages, &Map::new())
    }

    #[test]
    fn text_is_not_escaped() {
        assert_eq!(render("{{ messages[0].content }}").unwrap(), "a<b>'c'");
        assert_eq!(render("{{ {'a': [1, '<é>']} | tojson }}").unwrap(), r#"{"a": [1, "<é>"]}"#);
    }

    #[test]
    fn block_lines_leave_no_trace_and_loops_can_be_left() {
        let template = "{% for m in messages %}\n  {% if loop.index == 2 %}\n    {% break %}\n  {% endif %}\n{{ m.role }}\n{% endfor %}\nend";
        assert_eq!(render(template).unwrap(), "user\nend");
    }

    /// Recorded with transformers 5.23.0: `render_jinja_template([messages], chat_template=template)`.
    #[test]
    fn a_generation_block_renders_its_content() {
        for (template, expected) in [
            (
                "{% for m in messages %}\n  {% if m.role=='assistant' %}\n{% generation %}\n{{ m.content }}\n    {% endgeneration %}\n  \
                 {% else %}\n{{ m.content }}{% endif %}\n{% endfor %}",
                "hiyo\n",
            ),
            (
                "{%- for m in messages -%}{%- if m.role=='assistant' -%}A: {%- generation -%} {{ m.content }} {%- endgeneration -%} !\
                 {% else %}{{m.content}}|{% endif %}{%- endfor -%}",
                "hi|A:yo!",
            ),
            ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
            (
                "{% set ns = namespace(x=1) %}{%+ generation +%}{% set ns.x = 2 %}{{ ns.x }}\n {%+ endgeneration %}{{ ns.x }}",
                "2\n 2",
            ),
            ("a\n {%- generation %}\n b {% endgeneration -%}\n c", "a b c"),
            (
                "{% for m in messages %}{% generation %}{{ loop.index }}{{ m.content }}{% endgeneration %}{% endfor %}",
                "1hi2yo",
            ),
        ] {
            let messages = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]);
            let template = ChatTemplate::new(template, "here").unwrap();
            assert_eq!(template.render(&messages, &Map::new()).unwrap(), expected, "{}", template.source());
        }
        assert!(render("{% generation %}").unwrap_err().to_string().contains("not valid Jinja"));
    }

    #[test]
    fn a_template_can_refuse_with_its_own_words() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_broken_template_is_reported_with_its_origin() {
        let error = render("{% if %}").unwrap_err().to_string();
        assert!(error.starts_with("here: the chat template is not valid Jinja"), "{error}");
    }

    #[test]
    fn templates_are_found_in_all_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let source = || ChatTemplate::from_dir(dir.path()).map(|t| t.source().to_string());
        let missing = source().unwrap_err().to_string();
        assert!(missing.contains("has no chat template") && missing.contains("chat_template.jinja"), "{missing}");
        let write = |name: &str, value: Json| files::write_json(&dir.path().join(name), &value).unwrap();
        write("tokenizer_config.json", json!({"chat_template": "plain"}));
        assert_eq!(source().unwrap(), "plain");
        let named = json!([{"name": "rag", "template": "no"}, {"name": "default", "template": "named"}]);
        write("tokenizer_config.json", json!({"chat_template": named}));
        assert_eq!(source().unwrap(), "named");
        write("chat_template.json", json!({"chat_template": "legacy"}));
        assert_eq!(source().unwrap(), "legacy");
        let jinja = |text: &[u8]| files::write_atomic(&dir.path().join("chat_template.jinja"), text).unwrap();
        jinja(b"legacy\n");
        assert_eq!(source().unwrap(), "legacy");
        jinja(b"own file");
        let differ = source().unwrap_err().to_string();
        assert!(differ.contains("chat_template.json and ") && differ.contains("differ"), "{differ}");
        std::fs::remove_file(dir.path().join("chat_template.json")).unwrap();
        assert_eq!(source().unwrap(), "own file");
        std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
        write("processor_config.json", json!({"image_processor": {}}));
        assert_eq!(source().unwrap(), "named");
        write("processor_config.json", json!({"chat_template": "of the processor"}));
        assert_eq!(source().unwrap(), "of the processor");
    }

    #[test]
    fn the_tokenizers_special_tokens_are_variables() {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"chat_template": "{{ eos_token }}{{ bos_token }}{{ tools }}", "eos_token": "<e>",
            "bos_token": {"content": "<b>"}, "unk_token": null});
        files::write_json(&dir.path().join("tokenizer_config.json"), &config).unwrap();
        let template = ChatTemplate::from_dir(dir.path()).unwrap();
        assert_eq!(template.render(&json!([]), &Map::new()).unwrap(), "<e><b>None");
    }
}
