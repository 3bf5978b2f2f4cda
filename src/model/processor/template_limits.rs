//! What a chat template may take: how long it may be, and how much work and memory its rendering may need.
//!
//! The template engine counts both in units of fuel: one for an instruction, and one for 64 bytes that are made or gone through. What it
//! does not count itself (Python's methods of strings, `tojson`) is counted here.

use crate::error::catch_panic;
use crate::io::running_time::RunningTime;
use minijinja::value::ValueKind;
use minijinja::{ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Most bytes of a template. The longest published ones have some ten thousand.
const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Most bytes of one tag (`{{ }}` or `{% %}`), strings in it not counted: the engine goes as deep as an expression is long.
const MAX_TAG_BYTES: usize = 8 << 10;
/// Fuel of a rendering, for the template itself.
const BASE_FUEL: u64 = 500_000;
/// Fuel for each value in the messages: a turn, its role, a part of its content.
const FUEL_PER_VALUE: u64 = 2_000;
/// Bytes of the messages for which there is one unit of fuel more. A template may go through them a dozen times.
const MESSAGE_BYTES_PER_FUEL: u64 = 4;
/// Bytes that cost one unit of fuel.
const BYTES_PER_FUEL: u64 = 64;
/// Bytes of an item of a list.
const ITEM_BYTES: u64 = 32;
/// Stack of a thread that compiles a template.
const COMPILE_STACK: usize = 512 << 20;
/// Stack of a thread that renders one, beside what values within values need, the deeper the more fuel there is.
const RENDER_STACK: usize = 32 << 20;
/// Stack for each unit of fuel.
const STACK_PER_FUEL: usize = 256;
/// Most stack that is asked for. It is address space, which becomes memory only where it is used.
const MAX_STACK: usize = 8 << 30;
/// Longest time that a template is at work. Any other takes milliseconds.
const MAX_TIME: Duration = Duration::from_secs(5);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Most digits of a number in a format string: a width is memory.
const MAX_FORMAT_DIGITS: usize = 3;

/// Refuse a template that is longer, or has a longer tag, than any chat template.
///
/// # Errors
/// What is wrong with it, as it goes on after "the chat template".
pub(super) fn check_length(template: &str) -> Result<(), String> {
    if template.len() > MAX_TEMPLATE_BYTES {
        return Err(format!("has {} bytes; at most {MAX_TEMPLATE_BYTES} are read", template.len()));
    }
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let line = || 1 + template[..template.len() - rest.len() + open].matches('\n').count();
        let tag = &rest[open..];
        rest = if let Some(comment) = tag.strip_prefix("{#") {
            comment.find("#}").map_or("", |end| &comment[end + 2..])
        } else if tag.starts_with("{{") || tag.starts_with("{%") {
            let (length, end) =
                tag_length(tag).ok_or_else(|| format!("has a tag that never ends, on line {}", line()))?;
            if length > MAX_TAG_BYTES {
                return Err(format!(
                    "has a tag of {length} bytes on line {}; at most {MAX_TAG_BYTES} are read",
                    line()
                ));
            }
            match is_block(tag, "raw") {
                true => after_raw(&tag[end..]),
                false => &tag[end..],
            }
        } else {
            &tag[1..]
        };
    }
    Ok(())
}

/// Bytes of the tag that a text begins with, strings in it not counted, and where it ends; `None` if it does not.
fn tag_length(text: &str) -> Option<(usize, usize)> {
    let close: &[u8] = if text.starts_with("{{") { b"}}" } else { b"%}" };
    let bytes = text.as_bytes();
    let (mut at, mut length) = (2, 0);
    // Braces of an object in the tag, which may end in two as well.
    let mut braces = 0usize;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while *bytes.get(at)? != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' => braces += 1,
            _ if braces == 0 && bytes[at..].starts_with(close) => return Some((length, at + 2)),
            b'}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        length += 1;
        at += 1;
    }
    None
}

/// Whether a text begins with the block tag of this name.
fn is_block(text: &str, name: &str) -> bool {
    let inside = text.strip_prefix("{%").map(|rest| rest.trim_start_matches(['-', '+']).trim_start());
    inside
        .and_then(|rest| rest.strip_prefix(name))
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// What follows the end of a raw block.
fn after_raw(text: &str) -> &str {
    let end = text.match_indices("{%").find(|(at, _)| is_block(&text[*at..], "endraw"));
    end.map_or("", |(at, _)| &text[at + 2..])
}

/// The fuel for rendering these messages.
pub(super) fn fuel_for(messages: &Json) -> u64 {
    BASE_FUEL + fuel_for_value(messages)
}

fn fuel_for_value(messages: &Json) -> u64 {
    let below: u64 = match messages {
        Json::String(text) => text.len() as u64 / MESSAGE_BYTES_PER_FUEL,
        Json::Array(items) => items.iter().map(fuel_for_value).sum(),
        Json::Object(fields) => fields.values().map(fuel_for_value).sum(),
        _ => 0,
    };
    FUEL_PER_VALUE + below
}

/// Why a template did not come to an end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It was at work for longer than [`MAX_TIME`].
    TooLong,
    /// The engine panicked, with this message.
    Panicked(String),
    /// There can be no thread for it.
    NoThread(String),
}

/// Run `work` on a thread whose stack is deep enough to compile a template, or to render one with this much fuel. What takes too long, as
/// writing a list does that holds itself twice on sixty levels, is left behind: the command ends with the error.
pub(super) fn on_deep_stack<T: Send + 'static>(
    fuel: Option<u64>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stopped> {
    let stack = match fuel {
        None => COMPILE_STACK,
        Some(fuel) => MAX_STACK.min(RENDER_STACK.saturating_add(STACK_PER_FUEL.saturating_mul(fuel as usize))),
    };
    let (sender, receiver) = channel();
    let task = Arc::new(OnceLock::new());
    let here = Arc::clone(&task);
    let thread = std::thread::Builder::new().name("chat template".into()).stack_size(stack).spawn(move || {
        // Of the thread that it is read by.
        let _ = here.set(std::fs::read_link("/proc/thread-self").unwrap_or_default());
        // Nobody waits for an answer that came too late.
        let _ = sender.send(catch_panic(work));
    });
    thread.map_err(|e| Stopped::NoThread(e.to_string()))?;
    let mut waited = RunningTime::start();
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(done) => return done.map_err(Stopped::Panicked),
            Err(RecvTimeoutError::Disconnected) => return Err(Stopped::Panicked("its thread ended".into())),
            Err(RecvTimeoutError::Timeout) => {
                if time_at_work(task.get()).unwrap_or(waited.elapsed() / 10) > MAX_TIME {
                    return Err(Stopped::TooLong);
                }
            }
        }
    }
}

/// How long a thread has had a processor, where the system says it.
fn time_at_work(task: Option<&PathBuf>) -> Option<Duration> {
    let text = std::fs::read_to_string(Path::new("/proc").join(task?).join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Python's methods of strings, lists and objects, with the fuel that they cost.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, minijinja::Error> {
    let refuse = |why: &str| Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{name}: {why}")));
    let text = |value: Option<&Value>| value.and_then(|value| value.as_str().map(String::from));
    match (value.as_str(), name) {
        (Some(_), "join") if arguments.len() == 1 => {
            // The filter counts what it makes.
            return state.apply_filter("join", &[arguments[0].clone(), value.clone()]);
        }
        (Some(own), "format") => {
            let digits = own.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
            if digits > MAX_FORMAT_DIGITS {
                return refuse("a number in the format is too large");
            }
            if !arguments.iter().all(is_plain) {
                return refuse("lists and objects are not formatted");
            }
            let given: u64 = arguments.iter().map(bytes_of).sum();
            state.consume_fuel((own.len() as u64 + given * (1 + own.len() as u64 / 2)) / BYTES_PER_FUEL)?;
        }
        (Some(own), _) => {
            let (length, first) = (own.len() as u64, text(arguments.first()));
            let made = match name {
                "strip" | "lstrip" | "rstrip" => length * first.map_or(0, |chars| chars.len() as u64),
                "replace" => {
                    let times = first.map_or(0, |old| own.matches(old.as_str()).count()) as u64;
                    times * arguments.get(1).map_or(0, bytes_of)
                }
                "split" => {
                    let pieces = match first {
                        Some(separator) => own.matches(separator.as_str()).count(),
                        None => own.split_whitespace().count(),
                    };
                    ITEM_BYTES * pieces as u64
                }
                "splitlines" => ITEM_BYTES * own.matches('\n').count() as u64,
                _ => 0,
            };
            state.consume_fuel((length + made) / BYTES_PER_FUEL)?;
        }
        (None, "count") => {
            if !arguments.iter().all(is_plain) {
                return refuse("lists and objects are not counted");
            }
            state.consume_fuel(value.len().unwrap_or(0) as u64)?;
        }
        (None, _) => {}
    }
    unknown_method_callback(state, value, name, arguments)
}

fn bytes_of(value: &Value) -> u64 {
    value.as_str().map_or(0, str::len) as u64
}

/// Whether a value holds no others. One that does can hold the same one many times, and be endless to write.
fn is_plain(value: &Value) -> bool {
    use ValueKind::{Bool, None, Number, String, Undefined};
    matches!(value.kind(), Bool | None | Number | String | Undefined)
}

/// The error of a rendering without fuel.
pub(super) fn out_of_fuel() -> minijinja::Error {
    ErrorKind::OutOfFuel.into()
}

/// Text that is paid for with fuel as it is made.
pub(super) struct FuelWriter<'a, 'b, 'c> {
    pub bytes: Vec<u8>,
    state: &'a State<'b, 'c>,
    unpaid: u64,
}

impl<'a, 'b, 'c> FuelWriter<'a, 'b, 'c> {
    pub fn new(state: &'a State<'b, 'c>) -> Self {
        FuelWriter { bytes: Vec::new(), state, unpaid: 0 }
    }
}

impl std::io::Write for FuelWriter<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.unpaid += bytes.len() as u64;
        if self.unpaid >= BYTES_PER_FUEL {
            self.state.consume_fuel(self.unpaid / BYTES_PER_FUEL).map_err(std::io::Error::other)?;
            self.unpaid %= BYTES_PER_FUEL;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ChatTemplate;
    use super::*;
    use crate::Result;
    use serde_json::json;

    fn render(template: &str) -> Result<String> {
        let messages = json!([{"role": "user", "content": "hello"}]);
        ChatTemplate::new(template, "here.jinja")?.render(&messages, &serde_json::Map::new())
    }

    /// Every template ends soon with an error that names its file.
    fn refused(template: &str, said: &str) {
        let began = std::time::Instant::now();
        let error = render(template).unwrap_err();
        let (text, begin) = (error.to_string(), template.chars().take(60).collect::<String>());
        assert!(error.exit_code() == 2 && text.starts_with("here.jinja: the chat template "), "{begin}: {text}");
        assert!(text.contains(said) && text.len() < 400, "{begin}: {text}");
        assert!(began.elapsed().as_secs() < 60, "{begin}: {:?}", began.elapsed());
    }

    #[test]
    fn a_long_or_deep_template_is_refused_or_compiled_without_an_overflow() {
        let repeat = |text: &str, times: usize| text.repeat(times);
        refused(&repeat("x", MAX_TEMPLATE_BYTES + 1), "bytes; at most");
        refused(&format!("a\n{{{{ 1{} }}}}", repeat("+1", 20_000)), "has a tag of 40");
        refused(&format!("{{# {{{{ ' #}}{{{{ 1{} }}}}{{# ' }}}} #}}", repeat("+1", 20_000)), "has a tag of 40");
        let raw = "{%- raw %}{{ '{% endraw -%}";
        refused(&format!("{raw}{{{{ 1{} }}}}{{% raw %}}' }}}}{{% endraw %}}", repeat("+1", 20_000)), "has a tag of 40");
        refused("a\n{{ 'x", "never ends, on line 2");
        refused(&format!("{{{{ {}1{} }}}}", repeat("(", 2000), repeat(")", 2000)), "not valid Jinja");
        refused(&repeat("{% if x %}", 9000), "not valid Jinja");
        // As long as may be.
        assert_eq!(render(&format!("{{{{ 1{} }}}}", repeat("+1", 4000))).unwrap(), "4001");
        assert_eq!(render(&format!("{{{{ messages|length{} }}}}", repeat("+1", 4000))).unwrap(), "4001");
        assert_eq!(render(&format!("{{{{ {} false }}}}", repeat("not ", 2000))).unwrap().to_lowercase(), "false");
        let elif = format!("{{% if false %}}{}{{% else %}}end{{% endif %}}", repeat("{%elif x%}", 20_000));
        assert_eq!(render(&elif).unwrap(), "end");
        assert_eq!(render(&format!("{{{{ '{}'|length }}}}", repeat("x", 100_000))).unwrap(), "100000");
        assert_eq!(render("{{ {'a': {'b': 1}}['a']['b'] }}{% raw %}{{ ' }}{% endraw %}").unwrap(), "1{{ ' }}");
    }

    #[test]
    fn work_and_memory_of_a_template_are_bounded() {
        let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let doubling = "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
        let big = "{% set s = 'x' * 1000000 %}";
        let mut cases =
            vec![loops.to_string(), doubling.into(), "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}".into()];
        for end in [
            "{{ s.replace('x', s) }}",
            "{{ s|replace('x', s) }}",
            "{{ s.join(s) }}",
            "{{ s.join([s] * 1000) }}",
            "{{ s.strip(s) }}",
            "{{ ('x ' * 9000000).split() }}",
            "{% for i in range(99999) %}{{ s.count('y') }}{% endfor %}",
            "{{ ('{}' * 100000).format(s) }}",
        ] {
            cases.push(format!("{big}{end}"));
        }
        cases.iter().for_each(|template| refused(template, "takes more work or memory than these messages can need"));
        for (template, said) in [
            ("{{ 1|tojson(indent=99999999999) }}", "indent above 64"),
            ("{{ 'x'|indent(99999999999) }}", "takes more work"),
            ("{{ '{:999999999999}'.format(1) }}", "too large"),
            ("{{ '%999999999999d'|format(1) }}", "takes more work"),
            ("{{ '{}'.format([1]) }}", "not formatted"),
            ("{{ [[1]].count([1]) }}", "not counted"),
            ("{% include 'chat_template' %}{% include 'chat_template' %}", "failed"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "failed"),
        ] {
            refused(template, said);
        }
        // Values within values, as deep as the fuel goes.
        let deep = "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% for j in range(9) %}{% set ns.s = [ns.s] %}{% endfor %}{% endfor %}";
        for end in ["", "{{ ns.s|tojson }}", "{{ ns.s }}", "{{ ns.s == [ns.s] }}", "{{ {}[ns.s] }}"] {
            let _ = render(&format!("{deep}{end}"));
        }
    }

    #[test]
    fn what_templates_do_is_allowed() {
        for (template, expected) in [
            ("{{ ' a '.strip() }}{{ 'aXb'.split('X')[1] }}{{ 'ab'.replace('a', 'cd') }}", "abcdb"),
            ("{{ ', '.join(['a', 'b']) }}{{ '{} {:>3}'.format('a', 1) }}{{ [1, 2, 1].count(1) }}", "a, ba   12"),
            ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}.get('b', 2) }}", "a12"),
            ("{{ 'x\ny'.splitlines()|length }}{{ 'a'.upper() }}{{ 'abc'.startswith('a')|string|lower }}", "2Atrue"),
        ] {
            assert_eq!(render(template).unwrap(), expected);
        }
        // A long conversation through a template that goes over it several times.
        let turn = |i: usize| json!({"role": (if i.is_multiple_of(2) { "user" } else { "assistant" }), "content": "word ".repeat(400)});
        let messages = Json::Array((0..2000).map(turn).collect());
        let template = "{% for m in messages %}<s>{{ m.role }}\n{{ m['content'].strip().replace('w', 'W')|trim }}</s>\n{% endfor %}";
        let template = ChatTemplate::new(template, "here").unwrap();
        let text = template.render(&messages, &serde_json::Map::new()).unwrap();
        assert!(text.len() > 4_000_000, "{}", text.len());
    }
}
