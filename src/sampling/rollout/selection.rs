//! Which sampled responses a training set is made of. Pure: scored texts in, texts out.
//!
//! For each prompt, in this order: drop refusals of a server; drop responses cut off by the length limit (training would append the
//! closing token and teach the model to stop in the middle); drop empty texts; apply the filter; replace the answer by the right one, if
//! asked for; drop texts that contain a special token (training refuses them); drop duplicates; keep the first `cap` of the rest. Samples
//! have no order, so the first are as good as any.

use crate::tasks::{NoAnswer, Score};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

const THINK: &str = "<think>";
const THINK_END: &str = "</think>";
const TAGS: [&str; 4] = [THINK, THINK_END, "<answer>", "</answer>"];

/// Which scored responses are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Those whose whole answer is right and whose form is as asked
    Correct,
    /// Those whose form is as asked, whatever they answer
    WellFormed,
    /// All that end by themselves
    All,
}

impl Keep {
    fn keeps(self, score: &Score) -> bool {
        match self {
            Keep::Correct => score.correct && score.well_formed,
            Keep::WellFormed => score.well_formed,
            Keep::All => true,
        }
    }
}

/// Where the answer of a kept response is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FinalAnswer {
    /// The response as it was sampled
    Sampled,
    /// The sampled reasoning, and the right answer after it
    Gold,
}

/// What makes a training set out of scored responses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSelection {
    /// Filter by score.
    pub keep: Keep,
    /// Most responses to one prompt; `None` for no limit.
    pub max_per_prompt: Option<usize>,
    /// Whose answer they end with.
    pub answer: FinalAnswer,
}

/// One sampled response with its score.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The text as sampled, without special tokens.
    pub text: &'a str,
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
    /// The task's verdict.
    pub score: &'a Score,
}

/// How many responses were kept, and why the others were dropped: each is counted for the first reason that applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelectionCounts {
    /// Prompts.
    pub prompts: usize,
    /// Prompts without a single kept response.
    pub prompts_without_kept: usize,
    /// Responses sampled.
    pub samples: usize,
    /// Refused by the server that was asked, as too long too.
    pub refused: usize,
    /// Cut off by the length limit.
    pub truncated: usize,
    /// Without any text.
    pub empty: usize,
    /// Dropped by the filter ([`Keep`]).
    pub filtered: usize,
    /// Without a readable thought to put the right answer after ([`FinalAnswer::Gold`]).
    pub no_reasoning: usize,
    /// Contains the text of a special token, which a tokenizer does not read as text.
    pub special: usize,
    /// The same text as another one kept for the same prompt.
    pub duplicates: usize,
    /// Beyond the cap.
    pub over_cap: usize,
    /// KeptResponse.
    pub kept: usize,
}

impl RolloutSelection {
    /// The kept responses to one prompt: index among `candidates` and text. `gold` is the right answer, `special` are texts that no kept
    /// response may contain.
    pub fn choose<'a>(
        &self,
        gold: &str,
        special: &[String],
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        tally: &mut SelectionCounts,
    ) -> Vec<(usize, String)> {
        tally.prompts += 1;
        let mut kept = Vec::new();
        let mut seen = HashSet::new();
        for (i, candidate) in candidates.into_iter().enumerate() {
            tally.samples += 1;
            if matches!(candidate.score.unanswered(), Some(NoAnswer::Refused | NoAnswer::TooLong)) {
                tally.refused += 1;
                continue;
            }
            if !candidate.finished {
                tally.truncated += 1;
                continue;
            }
            if candidate.text.trim().is_empty() {
                tally.empty += 1;
                continue;
            }
            if !self.keep.keeps(candidate.score) {
                tally.filtered += 1;
                continue;
            }
            let text = match self.answer {
                FinalAnswer::Sampled => Some(candidate.text.to_string()),
                FinalAnswer::Gold => with_answer(candidate.text, gold),
            };
            let Some(text) = text else {
                tally.no_reasoning += 1;
                continue;
            };
            if special.iter().any(|token| text.contains(token)) {
                tally.special += 1;
            } else if !seen.insert(text.trim().to_string()) {
                tally.duplicates += 1;
            } else if self.max_per_prompt.is_some_and(|cap| kept.len() >= cap) {
                tally.over_cap += 1;
            } else {
                kept.push((i, text));
            }
        }
        tally.kept += kept.len();
        tally.prompts_without_kept += usize::from(kept.is_empty());
        kept
    }
}

/// The thought of a response followed by this answer in its tags; the white space between them is the response's own. `None`
/// unless the response begins with one closed think block without tags in it and with something in it.
pub fn with_answer(response: &str, gold: &str) -> Option<String> {
    let (thought, after) = response.trim_ascii().strip_prefix(THINK)?.split_once(THINK_END)?;
    if thought.trim().is_empty() || TAGS.iter().any(|tag| thought.contains(tag)) {
        return None;
    }
    let gap = &after[..after.len() - after.trim_ascii_start().len()];
    let gap = if after.trim_ascii_start().starts_with("<answer>") { gap } else { "" };
    Some(format!("{THINK}{thought}{THINK_END}{gap}<answer>{gold}</answer>"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::jigsaw::{JigsawScorer, Permutation};
    use crate::tasks::{Scorer, Style};

    /// Gold `2 1 3`.
    fn select(selection: &RolloutSelection, responses: &[&str]) -> (Vec<(usize, String)>, SelectionCounts) {
        let scorer = JigsawScorer::new("1x3".parse().unwrap(), Permutation::new(vec![1, 0, 2]).unwrap(), Style::Think);
        let scores: Vec<Score> = responses.iter().map(|r| scorer.score(r)).collect();
        let candidate = |(text, score)| Candidate { text, finished: !str::ends_with(text, "..."), score };
        let mut tally = SelectionCounts::default();
        let special = ["<|im_end|>".to_string()];
        let kept =
            selection.choose("2 1 3", &special, responses.iter().copied().zip(&scores).map(candidate), &mut tally);
        (kept, tally)
    }

    const RESPONSES: [&str; 8] = [
        "<think>a</think><answer>2 1 3</answer>",
        "<think>b</think><answer>1 2 3</answer>",
        "<think>a</think><answer>2 1 3</answer>\n",
        "well: <think>c</think><answer>2 1 3</answer>",
        "<think>d</think>\n<answer>2 1 3</answer>",
        "<think>e",
        "<think>cut off...",
        "<think>b</think><answer>9</answer>",
    ];

    #[test]
    fn only_whole_right_answers_in_the_right_form_are_kept_once_each_up_to_the_cap() {
        let selection = RolloutSelection { keep: Keep::Correct, max_per_prompt: None, answer: FinalAnswer::Sampled };
        let (kept, tally) = select(&selection, &RESPONSES);
        assert_eq!(kept, [(0, RESPONSES[0].to_string()), (4, RESPONSES[4].to_string())]);
        let expected = SelectionCounts {
            prompts: 1,
            samples: 8,
            truncated: 1,
            filtered: 4,
            duplicates: 1,
            kept: 2,
            ..SelectionCounts::default()
        };
        assert_eq!(tally, expected);
        let (kept, tally) = select(&RolloutSelection { max_per_prompt: Some(1), ..selection.clone() }, &RESPONSES);
        assert_eq!((kept.len(), tally.over_cap, tally.duplicates), (1, 1, 1));
        let (kept, tally) = select(&selection, &RESPONSES[5..]);
        assert_eq!((kept.len(), tally.prompts_without_kept), (0, 1));
    }

    #[test]
    fn the_filter_may_ask_for_the_form_or_for_nothing_but_truncated_responses_are_never_kept() {
        let count = |keep| {
            select(&RolloutSelection { keep, max_per_prompt: None, answer: FinalAnswer::Sampled }, &RESPONSES).0.len()
        };
        assert_eq!(count(Keep::WellFormed), 4);
        assert_eq!(count(Keep::All), 6);
    }

    #[test]
    fn refusals_empty_texts_and_special_tokens_are_counted_and_never_kept() {
        let all = RolloutSelection { keep: Keep::All, max_per_prompt: None, answer: FinalAnswer::Sampled };
        let mark = "<think>a <|im_end|></think><answer>2 1 3</answer>";
        let (kept, tally) = select(&all, &["", " \n", mark, RESPONSES[0]]);
        assert_eq!(kept, [(3, RESPONSES[0].to_string())]);
        assert_eq!((tally.empty, tally.special, tally.kept, tally.truncated), (2, 1, 1, 0));
        // What is replaced is not learnt.
        let gold = RolloutSelection { answer: FinalAnswer::Gold, ..all.clone() };
        let (kept, tally) = select(&gold, &[mark, "<think>a</think><answer><|im_end|></answer>"]);
        assert_eq!((kept.len(), kept[0].0, tally.special), (1, 1, 1));

        let mut tally = SelectionCounts::default();
        let scores = [NoAnswer::Refused, NoAnswer::Empty].map(Score::without_answer);
        let candidates = [RESPONSES[0], ""].into_iter().zip(&scores);
        let candidates = candidates.map(|(text, score)| Candidate { text, finished: true, score });
        assert!(all.choose("2 1 3", &[], candidates, &mut tally).is_empty());
        assert_eq!((tally.refused, tally.empty, tally.samples), (1, 1, 2));
    }

    #[test]
    fn sampled_reasoning_gets_the_right_answer_whatever_was_answered() {
        let selection = RolloutSelection { keep: Keep::All, max_per_prompt: None, answer: FinalAnswer::Gold };
        let (kept, tally) = select(&selection, &RESPONSES);
        let texts: Vec<&str> = kept.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, [RESPONSES[0], "<think>b</think><answer>2 1 3</answer>", RESPONSES[4]]);
        assert_eq!((tally.no_reasoning, tally.duplicates, tally.truncated), (2, 2, 1));
    }

    #[test]
    fn a_thought_that_cannot_be_read_gets_no_answer() {
        for response in
            ["", "<think></think><answer>1</answer>", "<think> a <answer>1</answer></think>", "<think>a", "a"]
        {
            assert_eq!(with_answer(response, "2 1"), None, "{response}");
        }
        assert_eq!(with_answer("<think>a</think> so", "2 1").unwrap(), "<think>a</think><answer>2 1</answer>");
    }
}
