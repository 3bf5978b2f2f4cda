//! The structure of `src`, held by a test: no two files import each other in a circle, and no room imports from a room above it.
//!
//! An arrow goes from a file to the file that defines what it names, by `use` or by a path in the code, and to a `mod.rs` elsewhere that
//! re-exports it. Test modules are left out. docs/architecture.md explains the rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top down. A file imports from its own room and from rooms below it.
const ROOMS: &[&str] = &[
    "main",
    "cli",
    "config",
    "study",
    "report",
    "dynamics",
    "forgetting",
    "eval",
    "train",
    "sampling",
    "tasks",
    "model",
    "nn",
    "data",
    "stats",
    "hub",
    "comm",
    "io",
    "roots",
];
/// Files of `src` itself that every room may use.
const ROOTS: &[&str] = &["alloc", "error", "machine", "rng"];

/// A source file as a module.
struct Module {
    file: String,
    path: Vec<String>,
    /// Names that the file brings in, with the path that each stands for, and whether it passes them on (`pub use`).
    uses: Vec<Use>,
    /// Every path in the code outside of `use`.
    paths: Vec<Vec<String>>,
    /// Every single word outside of `use`.
    words: BTreeSet<String>,
}

struct Use {
    name: String,
    path: Vec<String>,
    public: bool,
}

#[test]
fn no_file_imports_in_a_circle_and_no_room_from_above() {
    let modules = read_modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(modules.len() > 100, "only {} source files were found", modules.len());
    let arrows = arrows(&modules);
    assert!(arrows.len() > modules.len(), "only {} imports were found", arrows.len());
    let mut offences = Vec::new();
    for (from, to) in &arrows {
        let (above, below) = (room(from), room(to));
        if above > below {
            offences.push(format!("{from} -> {to}: {} lies below {}", ROOMS[above], ROOMS[below]));
        }
    }
    let upward = offences.len();
    for circle in circles(&arrows) {
        offences.push(format!("{} files import each other in a circle:", circle.len()));
        let inside = arrows.iter().filter(|(from, to)| circle.contains(from) && circle.contains(to));
        offences.extend(inside.map(|(from, to)| format!("  {from} -> {to}")));
    }
    let circular = offences.len() - upward;
    assert!(
        offences.is_empty(),
        "{upward} imports from a room above, {circular} lines about circles:\n{}",
        offences.join("\n")
    );
}

/// Files that may take numbers out of a tensor: the border that counts such reads, and a reader of files, whose tensors are in main memory.
const READERS: &[&str] = &["src/model/gguf/file.rs", "src/nn/host.rs", "src/nn/slice.rs"];
/// candle's ways to do it.
const READS: &[&str] = &["to_vec0", "to_vec1", "to_vec2", "to_vec3", "to_scalar", "to_device"];

#[test]
fn what_comes_from_a_device_comes_through_the_border_that_counts_it() {
    let modules = read_modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let is_test = |module: &&Module| module.file.ends_with("tests.rs");
    let reads = |module: &&Module| READS.iter().any(|read| module.words.contains(*read)) && !is_test(module);
    let readers: Vec<&str> = modules.iter().filter(reads).map(|module| &*module.file).collect();
    assert_eq!(readers, READERS, "read with nn::numbers or nn::read_together");
}

/// Place of a file's room in the list.
fn room(file: &str) -> usize {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap_or_default();
    let name = if ROOTS.contains(&name) { "roots" } else { name };
    ROOMS.iter().position(|room| *room == name).unwrap_or_else(|| panic!("{file} is in no room of the list"))
}

/// Every module that is no test, but for lib.rs, which only lists the rooms.
fn read_modules(src: &Path) -> Vec<Module> {
    let (mut modules, mut tests) = (Vec::new(), Vec::new());
    for file in files_below(src) {
        let relative = file.strip_prefix(src).unwrap().with_extension("");
        let mut path: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if path.last().is_some_and(|last| last == "mod") {
            path.pop();
        }
        if path == ["lib"] {
            continue;
        }
        let tokens = without_tests(tokens(&fs::read_to_string(&file).unwrap()), &path, &mut tests);
        let (uses, paths, words) = names(&tokens);
        let file = format!("src/{}", file.strip_prefix(src).unwrap().display());
        modules.push(Module { file, path, uses, paths, words });
    }
    modules.retain(|module| !tests.iter().any(|test: &Vec<String>| module.path.starts_with(test)));
    modules
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Words and marks, without comments and the contents of strings.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut i) = (Vec::new(), 0);
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    while i < chars.len() {
        let c = chars[i];
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            while i < chars.len() && !(chars[i] == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if c == 'r' && (at(i + 1) == '"' || at(i + 1) == '#') && {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            at(i + 1 + hashes) == '"'
        } {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            i += 2 + hashes;
            while i < chars.len() && !(chars[i] == '"' && (1..=hashes).all(|k| at(i + k) == '#')) {
                i += 1;
            }
            i += 1 + hashes;
        } else if c == '"' {
            i += 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && (at(i + 2) == '\'' || at(i + 1) == '\\') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && chars[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let begin = i;
            while i < chars.len() && (chars[i].is_alphanumeric() || chars[i] == '_' || chars[i] == '#') {
                i += 1;
            }
            let word: String = chars[begin..i].iter().collect();
            tokens.push(word.trim_start_matches("r#").trim_end_matches('#').to_string());
        } else if c == ':' && at(i + 1) == ':' {
            tokens.push("::".into());
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            i += 1;
        }
    }
    tokens
}

/// The code without what stands under `#[cfg(test)]`; test modules in files of their own are added to `tests`.
fn without_tests(tokens: Vec<String>, path: &[String], tests: &mut Vec<Vec<String>>) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if !tokens[i..].iter().zip(TEST).all(|(a, b)| a == b) || tokens.len() - i < TEST.len() {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        // The item that follows: up to its `;`, or over its braces.
        let begin = i + TEST.len();
        let (mut depth, mut end) = (0, begin);
        while end < tokens.len() {
            match tokens[end].as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
            end += 1;
        }
        if let Some(word) = tokens[begin..end].iter().position(|token| token == "mod")
            && tokens.get(end).is_some_and(|token| token == ";")
        {
            tests.push([path, &tokens[begin + word + 1..begin + word + 2]].concat());
        }
        i = end + 1;
    }
    kept
}

/// What `use` brings in, the paths in the rest of the code, and its words.
fn names(tokens: &[String]) -> (Vec<Use>, Vec<Vec<String>>, BTreeSet<String>) {
    let (mut uses, mut paths, mut words) = (Vec::new(), Vec::new(), BTreeSet::new());
    let word = |token: &String| token.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i] == "use" {
            let end = i + tokens[i..].iter().position(|token| token == ";").unwrap_or(tokens.len() - i - 1);
            let public = i > 0 && (tokens[i - 1] == "pub" || tokens[i - 1] == ")");
            use_tree(&tokens[i + 1..end], &mut Vec::new(), public, &mut uses);
            i = end + 1;
        } else if tokens[i] == "mod" {
            i += 2;
        } else if word(&tokens[i]) {
            let mut path = vec![tokens[i].clone()];
            while tokens.get(i + 1).is_some_and(|token| token == "::") && tokens.get(i + 2).is_some_and(word) {
                path.push(tokens[i + 2].clone());
                i += 2;
            }
            if path.len() == 1 {
                words.insert(path.remove(0));
            } else {
                words.insert(path[0].clone());
                paths.push(path);
            }
            i += 1;
        } else {
            i += 1;
        }
    }
    (uses, paths, words)
}

/// `a::b::{c, d as e, f::*}` as names with their paths; a glob is called `*`.
fn use_tree(tokens: &[String], before: &mut Vec<String>, public: bool, uses: &mut Vec<Use>) {
    let depth_of = before.len();
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "{" => {
                let (mut depth, mut begin) = (0, i + 1);
                for (j, token) in tokens.iter().enumerate().skip(i) {
                    match token.as_str() {
                        "{" => depth += 1,
                        "," if depth == 1 => {
                            use_tree(&tokens[begin..j], before, public, uses);
                            begin = j + 1;
                        }
                        "}" if depth == 1 => {
                            use_tree(&tokens[begin..j], before, public, uses);
                            depth = 0;
                        }
                        "}" => depth -= 1,
                        _ => {}
                    }
                }
                before.truncate(depth_of);
                return;
            }
            "::" => {}
            "as" => {
                let name = tokens[i + 1].clone();
                uses.push(Use { name, path: before.clone(), public });
                before.truncate(depth_of);
                return;
            }
            "self" if i > 0 || depth_of > 0 => {}
            part => before.push(part.to_string()),
        }
        i += 1;
    }
    if before.len() > depth_of || tokens.iter().any(|token| token == "self") {
        uses.push(Use { name: before.last().cloned().unwrap_or_default(), path: before.clone(), public });
    }
    before.truncate(depth_of);
}

/// From each file to the files that define what it names.
fn arrows(modules: &[Module]) -> BTreeSet<(String, String)> {
    let by_path: BTreeMap<&[String], &Module> = modules.iter().map(|m| (m.path.as_slice(), m)).collect();
    let mut arrows = BTreeSet::new();
    for module in modules {
        let mut named: Vec<Vec<String>> = Vec::new();
        for used in &module.uses {
            // A re-export alone is no use of it.
            if !used.public || module.words.contains(&used.name) || !is_below(module, used, &by_path) {
                named.push(used.path.clone());
            }
        }
        for path in &module.paths {
            let alias = module.uses.iter().find(|used| used.name == path[0]);
            named.push(match alias {
                Some(used) => [&used.path, &path[1..]].concat(),
                None => path.clone(),
            });
        }
        for path in named {
            let through = absolute(&path, module, &by_path).and_then(|path| deepest(&path, &by_path));
            // A file that takes what another room or folder re-exports depends on the file that re-exports it, too.
            let through =
                through.filter(|(mod_rs, _)| !module.path.starts_with(&mod_rs.path)).map(|(mod_rs, _)| mod_rs);
            for target in defined_in(&path, module, &by_path, 0).into_iter().chain(through) {
                if target.file != module.file {
                    arrows.insert((module.file.clone(), target.file.clone()));
                }
            }
        }
    }
    arrows
}

fn is_below(module: &Module, used: &Use, by_path: &BTreeMap<&[String], &Module>) -> bool {
    absolute(&used.path, module, by_path).is_some_and(|path| path.starts_with(&module.path))
}

/// The path from the crate's root; `None` if it names another crate or something local.
fn absolute(path: &[String], module: &Module, by_path: &BTreeMap<&[String], &Module>) -> Option<Vec<String>> {
    let mut at = module.path.clone();
    match path.first()?.as_str() {
        "crate" | "jigsaw" => return Some(path[1..].to_vec()),
        "self" => return Some([&at, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            at.truncate(at.len().checked_sub(ups)?);
            return Some([&at, &path[ups..]].concat());
        }
        child => at.push(child.to_string()),
    }
    let known = by_path.keys().any(|path| path.starts_with(&at));
    known.then(|| [&module.path, path].concat())
}

/// The module that defines what a path names. `None` for another crate's, and for a module that only holds others.
fn defined_in<'m>(
    path: &[String],
    from: &Module,
    by_path: &BTreeMap<&[String], &'m Module>,
    followed: usize,
) -> Option<&'m Module> {
    let path = absolute(path, from, by_path)?;
    let (module, depth) = deepest(&path, by_path)?;
    let Some(item) = path.get(depth) else {
        // A module by itself: the paths through it are looked at.
        return (!module.file.ends_with("mod.rs")).then_some(module);
    };
    if followed > 8 {
        return Some(module);
    }
    for used in module.uses.iter().filter(|used| used.name == *item) {
        let further = [used.path.as_slice(), &path[depth + 1..]].concat();
        if let Some(found) = defined_in(&further, module, by_path, followed + 1) {
            return Some(found);
        }
    }
    Some(module)
}

/// The deepest module on an absolute path, and how many parts of the path name it.
fn deepest<'m>(path: &[String], by_path: &BTreeMap<&[String], &'m Module>) -> Option<(&'m Module, usize)> {
    let depth = (1..=path.len()).rev().find(|depth| by_path.contains_key(&path[..*depth]))?;
    Some((by_path[&path[..depth]], depth))
}

/// Groups of two or more files of which each reaches each other.
fn circles(arrows: &BTreeSet<(String, String)>) -> Vec<BTreeSet<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    arrows.iter().for_each(|(from, to)| next.entry(from).or_default().push(to));
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_string()]);
        while let Some(file) = open.pop() {
            for to in next.get(file.as_str()).into_iter().flatten() {
                if seen.insert(to.to_string()) {
                    open.push(to.to_string());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<String, BTreeSet<String>> = next.keys().map(|from| (from.to_string(), reached(from))).collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (file, to) in &reach {
        if to.contains(file) && !circles.iter().any(|circle| circle.contains(file)) {
            let own = to.iter().filter(|other| reach.get(*other).is_some_and(|back| back.contains(file)));
            circles.push(own.cloned().collect());
        }
    }
    circles
}
