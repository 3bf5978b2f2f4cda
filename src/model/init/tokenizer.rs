//! The tokenizer of a fresh checkpoint: a byte-level BPE like Qwen's, trained on an embedded text.

use crate::{Error, Result};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// English sentences about images, puzzles and their answers: what the pieces of the vocabulary are made from.
const CORPUS: &str = include_str!("corpus.txt");

/// Pieces of the BPE: 256 bytes and the merges. The special tokens come after them.
const PIECES: usize = 1500;

/// How Qwen2's tokenizer splits text before merging; every digit stands alone.
const SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Special tokens of Qwen2.5-VL, in the order of their published ids.
pub(crate) const SPECIAL: [&str; 14] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// Train the tokenizer. The result depends on nothing but this program.
pub(super) fn train() -> Result<Tokenizer> {
    let failed = |e: tokenizers::Error| Error::failed(format!("cannot make the tokenizer: {e}"));
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split = Split::new(SplitPattern::Regex(SPLIT.into()), SplitDelimiterBehavior::Isolated, false);
    let steps: Vec<PreTokenizerWrapper> =
        vec![split.map_err(failed)?.into(), ByteLevel::new(false, false, false).into()];
    tokenizer.with_normalizer(Some(NFC)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer.with_post_processor(Some(ByteLevel::new(false, false, false)));
    tokenizer.with_decoder(Some(ByteLevelDecoder::new(false, false, false)));
    let trainer = BpeTrainer::builder()
        .vocab_size(PIECES)
        .min_frequency(1)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), CORPUS.split_inclusive('\n')).map_err(failed)?;
    tokenizer
        .add_special_tokens(SPECIAL.map(|token| AddedToken::from(token, true).normalized(false)))
        .map_err(failed)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_twice_gives_the_same_tokenizer() {
        let json = || train().unwrap().to_string(false).unwrap();
        assert_eq!(json(), json());
    }

    #[test]
    fn the_vocabulary_is_bytes_merges_and_special_tokens() {
        let tokenizer = train().unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), PIECES + SPECIAL.len());
        assert_eq!(tokenizer.token_to_id("<|endoftext|>"), Some(PIECES as u32));
        assert_eq!(tokenizer.token_to_id("<|video_pad|>"), Some((PIECES + 13) as u32));
    }

    #[test]
    fn digits_stand_alone_and_any_text_survives() {
        let tokenizer = train().unwrap();
        assert_eq!(tokenizer.encode("2024", false).unwrap().get_ids().len(), 4);
        for text in ["<answer>3 1 2 4</answer>", "naïve 你好 😀\n\n\tx", "  two  spaces "] {
            let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
    }

    #[test]
    fn the_words_of_the_puzzles_are_single_tokens() {
        let tokenizer = train().unwrap();
        for text in [
            "system",
            "user",
            "assistant",
            " helpful",
            " tile",
            " tiles",
            " picture",
            " belongs",
            " place",
            "answer",
            "think",
            "</",
            ".\n",
            " top",
        ] {
            assert_eq!(tokenizer.encode(text, false).unwrap().get_ids().len(), 1, "{text:?}");
        }
    }
}
