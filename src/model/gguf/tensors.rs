//! The weights of a GGUF file under Hugging Face's names.

use super::file::GgufFile;
use crate::model::architecture::Architecture;
use crate::{Error, Result};

/// Names of tensors in GGUF.
pub const EMBEDDING: &str = "token_embd.weight";
pub const HEAD: &str = "output.weight";
pub const ROPE_FREQUENCIES: &str = "rope_freqs.weight";

/// The parts of a layer under Hugging Face's names and GGUF's.
const PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The weights of a file, in the order of an architecture.
pub struct Tensors<'a> {
    file: &'a GgufFile,
    /// For each weight, its name in the file and the heads whose rows it has in another order.
    names: Vec<(String, Option<usize>)>,
}

impl<'a> Tensors<'a> {
    /// Of the weights of `architecture`, with these names and shapes.
    ///
    /// # Errors
    /// An input error that names a tensor that is missing, has another shape than the metadata imply, or has no place.
    pub fn new(file: &'a GgufFile, architecture: &dyn Architecture, shapes: &[(String, Vec<usize>)]) -> Result<Self> {
        let decoder = architecture.decoder();
        let mut names = Vec::with_capacity(shapes.len());
        for (name, shape) in shapes {
            let stored = gguf_name(name);
            match file.shape(&stored) {
                None => return Err(Error::input(format!("the tensors lack `{stored}` {shape:?}"))),
                Some(found) if found != shape => {
                    return Err(Error::input(format!(
                        "`{stored}` has shape {found:?}, but the metadata ask for {shape:?}"
                    )));
                }
                Some(_) => {}
            }
            // llama.cpp pairs neighbouring rows where Hugging Face pairs the halves of a head, for this architecture alone.
            let heads =
                match (architecture.model_type(), name.ends_with("q_proj.weight"), name.ends_with("k_proj.weight")) {
                    ("llama", true, _) => Some(decoder.heads),
                    ("llama", _, true) => Some(decoder.key_value_heads),
                    _ => None,
                };
            names.push((stored, heads));
        }
        let known = |name: &str| name == ROPE_FREQUENCIES || names.iter().any(|(stored, _)| stored == name);
        match file.names().filter(|&name| !known(name)).min() {
            Some(name) => Err(Error::input(format!("holds `{name}`, which has no place in the model"))),
            None => Ok(Tensors { file, names }),
        }
    }

    /// The numbers of the `i`-th weight.
    pub fn values(&self, i: usize) -> Result<Vec<f32>> {
        let (name, heads) = &self.names[i];
        let values = self.file.values(name)?;
        match (heads, self.file.shape(name)) {
            (Some(heads), Some(&[rows, width])) => Ok(halves_of_heads(&values, rows / heads, width)),
            _ => Ok(values),
        }
    }
}

fn gguf_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return EMBEDDING.into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return HEAD.into(),
        _ => {}
    }
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let of_layer = layer.and_then(|(number, rest)| {
        let (part, kind) = rest.rsplit_once('.')?;
        let (_, stored) = PARTS.iter().find(|(ours, _)| *ours == part)?;
        Some(format!("blk.{number}.{stored}.{kind}"))
    });
    of_layer.unwrap_or_else(|| name.to_string())
}

/// Rows of heads of `dim` rows each, whose neighbouring rows were a pair: first the first of each pair, then the second.
fn halves_of_heads(values: &[f32], dim: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(dim * width) {
        for first in 0..2 {
            for pair in head.chunks_exact(2 * width) {
                out.extend_from_slice(&pair[first * width..(first + 1) * width]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_llama_cpp() {
        for (ours, theirs) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.12.self_attn.q_proj.bias", "blk.12.attn_q.bias"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(gguf_name(ours), theirs);
        }
    }

    #[test]
    fn pairs_of_rows_become_halves_of_heads() {
        // Two heads of four rows of one number.
        assert_eq!(
            halves_of_heads(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 4, 1),
            [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
        );
    }
}
