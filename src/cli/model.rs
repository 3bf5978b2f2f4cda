//! `jigsaw model`: make and look at checkpoint directories.

use super::hub;
use super::output::{print, status};
use crate::forgetting::weights_table;
use crate::io::refused::undo_if_refused;
use crate::io::text::counted;
use crate::model::convert_dtype::convert;
use crate::model::gguf;
use crate::model::init::{Preset, write_checkpoint};
use crate::model::inspect::{Inspection, inspect};
use crate::model::interpolate_weights::interpolate;
use crate::model::lora;
use crate::model::new_checkpoint::Written;
use crate::model::weight_diff::weight_diff;
use crate::model::weight_dtype::WeightDtype;
use crate::{Error, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Make and look at checkpoint directories (Hugging Face form).
#[derive(Debug, clap::Args)]
pub struct ModelCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a checkpoint directory with random weights.
    Init(Init),
    /// Convert the weights of a checkpoint to another dtype.
    Convert(Convert),
    /// Interpolate two checkpoints (WiSE-FT): (1 - alpha) * A + alpha * B, weight by weight, in f32.
    Interpolate(Interpolate),
    /// Merge a LoRA adapter (a PEFT directory) into the weights of its base.
    MergeLora(MergeLora),
    /// Import a GGUF file (Llama, Qwen2 or Qwen3) as a checkpoint directory.
    ImportGguf(ImportGguf),
    /// Describe a checkpoint directory: parameters, layers, tokens, image sizes.
    Inspect(Inspect),
    /// How the weights of a model differ from its base's: norm, rank and share of what changed, by part.
    Diff(Diff),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// Size of the model.
    #[arg(long, value_enum, default_value = "tiny")]
    preset: Preset,
    /// Directory to write; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Confirm random weights for a preset of a published checkpoint: they are useful only for measuring speed and memory.
    #[arg(long)]
    random: bool,
    /// Seed of the weights; the same seed gives the same files.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, clap::Args)]
struct Convert {
    /// Checkpoint directory, or a name on the Hub (OWNER/NAME[@REVISION]).
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Type in which the weights are stored.
    #[arg(long, value_enum)]
    dtype: WeightDtype,
    /// Directory to write; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a model that is already there.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, clap::Args)]
struct Interpolate {
    /// Checkpoint directory or name on the Hub, usually the base; tokenizer, template and image settings are taken from it.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Checkpoint directory or name on the Hub, of the same architecture, usually tuned from A.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Share of B, in [0, 1].
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    alpha: f64,
    /// Directory to write; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a model that is already there.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, clap::Args)]
struct MergeLora {
    /// Adapter directory, as `jigsaw train` with [lora] or peft writes it, or its name on the Hub; its base is the one that
    /// adapter_config.json names.
    #[arg(value_name = "ADAPTER")]
    dir: PathBuf,
    /// Type in which the weights are stored.
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: WeightDtype,
    /// Directory to write; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a model that is already there.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, clap::Args)]
struct ImportGguf {
    /// The GGUF file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Type in which the dequantised weights are stored; f32 holds all of their digits.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: WeightDtype,
    /// Directory to write; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a model that is already there.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// Checkpoint directory, or a name on the Hub (OWNER/NAME[@REVISION]).
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Diff {
    /// Checkpoint directory or name on the Hub of the model that was tuned.
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// Checkpoint directory or name on the Hub, of the same architecture; an adapter stands for its base with the adapter merged in.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Print JSON instead of a table, with every tensor.
    #[arg(long)]
    json: bool,
}

impl ModelCommand {
    /// Do what was asked.
    pub fn run(self) -> Result<()> {
        match self.action {
            Action::Init(Init { preset, out, random, seed }) => {
                if preset.is_published() && !random {
                    return Err(Error::input(
                        "the weights would be random: give --random for a model to measure with; the published weights come by their name, \
                         such as --model Qwen/Qwen2.5-VL-3B-Instruct",
                    ));
                }
                let (parameters, written) = undo_if_refused(&out, || write_checkpoint(&out, preset, seed))?;
                say_if_found(written, &out);
                status(&format!(
                    "{} parameters, random, seed {seed}; look with: jigsaw model inspect {}",
                    grouped(parameters),
                    out.display()
                ));
                print(&format!("{}\n", out.display()))
            }
            Action::Convert(Convert { dir, dtype, out, overwrite }) => {
                let dir = hub::directory(&dir)?;
                say_if_found(undo_if_refused(&out, || convert(&dir, &out, dtype, overwrite))?, &out);
                print(&format!("{}\n", out.display()))
            }
            Action::Interpolate(Interpolate { a, b, alpha, out, overwrite }) => {
                let (a, b) = (hub::directory(&a)?, hub::directory(&b)?);
                let written = undo_if_refused(&out, || interpolate(&a, &b, alpha, &out, overwrite))?;
                say_if_found(written, &out);
                print(&format!("{}\n", out.display()))
            }
            Action::MergeLora(MergeLora { dir, dtype, out, overwrite }) => {
                let dir = hub::directory(&dir)?;
                let (written, note) = undo_if_refused(&out, || lora::merge(&dir, &out, dtype, overwrite))?;
                note.iter().for_each(|note| status(note));
                say_if_found(written, &out);
                print(&format!("{}\n", out.display()))
            }
            Action::ImportGguf(ImportGguf { file, dtype, out, overwrite }) => {
                let (origin, written) = undo_if_refused(&out, || gguf::import(&file, &out, dtype, overwrite))?;
                status(&format!("{}; look with: jigsaw model inspect {}", origin.describe(), out.display()));
                say_if_found(written, &out);
                print(&format!("{}\n", out.display()))
            }
            Action::Inspect(Inspect { dir, json }) => {
                let found = inspect(&hub::directory(&dir)?)?;
                print(&if json { pretty(&found)? } else { describe(&found) })
            }
            Action::Diff(Diff { base, model, json }) => {
                let found = weight_diff(&hub::directory(&base)?, &hub::directory(&model)?)?;
                print(&match json {
                    true => pretty(&found)?,
                    false => {
                        format!("{} against {}\n\n{}", found.model, found.base, weights_table(&found.parts).text())
                    }
                })
            }
        }
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|e| Error::failed(format!("cannot write JSON: {e}")))? + "\n")
}

fn say_if_found(written: Written, out: &Path) {
    if written == Written::Found {
        status(&format!("{} holds this checkpoint already; nothing was written", out.display()));
    }
}

/// The description for a person.
fn describe(found: &Inspection) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_description(&mut text, found);
    text
}

fn write_description(out: &mut String, found: &Inspection) -> std::fmt::Result {
    let bytes: u64 = found.files.iter().map(|file| file.bytes).sum();
    let dtypes: Vec<String> = found.dtypes.keys().map(|dtype| dtype.to_lowercase()).collect();
    writeln!(out, "{}", found.directory)?;
    writeln!(out, "{} ({}), {} parameters", found.family, found.model_type, grouped(found.parameters))?;
    if let Some(origin) = &found.gguf {
        writeln!(out, "{}", origin.describe())?;
    }
    if let Some(adapter) = &found.adapter {
        writeln!(
            out,
            "an adapter (LoRA) of {} parameters beside {} linear maps; what follows is its base, {}",
            grouped(adapter.parameters),
            adapter.modules,
            adapter.base
        )?;
        if let Some(warning) = &adapter.warning {
            writeln!(out, "{warning}")?;
        }
    }
    writeln!(
        out,
        "{}, {:.1} MB, stored as {}",
        counted(found.files.len(), "weight file"),
        bytes as f64 / 1e6,
        dtypes.join(" and ")
    )?;

    writeln!(out, "\nParameters")?;
    for part in &found.parts {
        let share = 100.0 * part.parameters as f64 / found.parameters as f64;
        writeln!(
            out,
            "  {:<13} {:>13}  {share:5.1} %  {:>4} tensors",
            part.part.name(),
            grouped(part.parameters),
            part.tensors
        )?;
    }
    if found.decoder.tied {
        writeln!(out, "  {:<13} {:>13}  (tied to the embeddings)", "head", "-")?;
    }

    if let Some(vision) = &found.vision {
        writeln!(out, "\nVision tower")?;
        writeln!(
            out,
            "  {} blocks, {} wide, {} heads, MLP {}",
            vision.blocks, vision.hidden_size, vision.heads, vision.intermediate_size
        )?;
        match vision.window_size {
            Some(side) => writeln!(
                out,
                "  attention in windows of {side} x {side} pixels; over the whole image in blocks {:?}",
                vision.full_attention_blocks
            )?,
            None => writeln!(out, "  attention over the whole image")?,
        }
    }
    if let Some(images) = &found.images {
        writeln!(
            out,
            "  images of {} to {} pixels; {2} x {2} pixels are one token, at most {3} tokens an image",
            grouped(images.min_pixels),
            grouped(images.max_pixels),
            images.token_size,
            grouped(images.max_tokens)
        )?;
    }

    let decoder = &found.decoder;
    writeln!(out, "\nDecoder")?;
    writeln!(
        out,
        "  {} layers, {} wide, {} heads ({} for keys and values), MLP {}",
        decoder.layers, decoder.hidden_size, decoder.heads, decoder.key_value_heads, decoder.intermediate_size
    )?;
    let sections = match decoder.mrope_section.as_slice() {
        [] => String::new(),
        sections => format!("rotary sections (time, height, width) {sections:?}; "),
    };
    writeln!(out, "  {sections}up to {} positions", grouped(decoder.max_positions))?;

    let tokenizer = &found.tokenizer;
    writeln!(out, "\nTokens")?;
    writeln!(
        out,
        "  {} in the tokenizer, {} rows in the embedding matrix, {} never sampled",
        grouped(tokenizer.tokens),
        grouped(tokenizer.vocab_size),
        grouped(tokenizer.never_sampled)
    )?;
    for special in &tokenizer.special {
        let note = match (special.ends_response, special.never_sampled) {
            (true, _) => "ends a response",
            (_, true) => "never sampled",
            _ => "",
        };
        writeln!(out, "{}", format!("  {:>6}  {:<24} {note}", special.id, special.token).trim_end())?;
    }
    if !tokenizer.unused_settings.is_empty() {
        writeln!(out, "  not used of generation_config.json: {}", tokenizer.unused_settings.join(", "))?;
    }
    Ok(())
}

/// A number with its thousands set apart: `1,658,880`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1658880, "1,658,880")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_description_names_parts_bounds_and_tokens() {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), Preset::Tiny, 0).unwrap();
        let text = describe(&inspect(dir.path()).unwrap());
        for expected in
            ["vision tower", "merger", "tied to the embeddings", "stored as f32", "784 to 200,704 pixels", "<|im_end|>"]
        {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
    }

    #[test]
    fn the_flags_parse() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            command: ModelCommand,
        }
        let parse = |line: &str| <Line as clap::Parser>::try_parse_from(line.split(' '));
        assert!(matches!(
            parse("model init --preset small --out x --seed 3").unwrap().command.action,
            Action::Init(Init { preset: Preset::Small, seed: 3, .. })
        ));
        assert!(matches!(
            parse("model inspect d --json").unwrap().command.action,
            Action::Inspect(Inspect { json: true, .. })
        ));
        assert!(matches!(
            parse("model interpolate a b --alpha 0.3 --out x").unwrap().command.action,
            Action::Interpolate(Interpolate { alpha: 0.3, .. })
        ));
        assert!(matches!(
            parse("model diff a b --json").unwrap().command.action,
            Action::Diff(Diff { json: true, .. })
        ));
        assert!(parse("model interpolate a --out x").is_err());
        assert!(parse("model init").is_err());
    }
}
