//! The option letter that a free-form answer gives: the letters that stand alone in it, and which of them is the answer.
//!
//! A letter is announced by what stands before it (`the answer is B`, `答案是B`, `答えはB`, `"answer": "B"`, `so B`) or after it (`B is
//! correct`, `Bが正解`), ruled out likewise (`not A`, `A is wrong`), or just stands there. In order:
//!
//! 1. what follows a correction (`C. Wait, no, the answer is B.`), if it gives a letter;
//! 2. the announced letter, if all announced ones agree;
//! 3. the only letter that is not ruled out;
//! 4. the letter that the answer begins with, if an explanation follows (`B because A and C are cats`).
//!
//! Nothing is guessed: `A or B`, a list of all options, letters within words, units and names (`25 °C`, `A-frame`, `U.S.A.`,
//! `维生素C`) give none. Texts come folded ([`super::forms::fold`]).

use super::forms::is_cjk;
use super::negation::negated;
use crate::tasks::response::choice_letter;

/// A word of Latin or other letters and digits, or a run of Chinese, Japanese or Korean.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

impl Word<'_> {
    fn is(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.text.eq_ignore_ascii_case(word))
    }
}

/// A letter of an option, standing alone.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Mention {
    /// Number of its word.
    word: usize,
    option: usize,
    announced: bool,
    /// Ruled out by what follows it.
    dismissed: bool,
}

fn latin(c: char) -> bool {
    c.is_alphanumeric() && !is_cjk(c)
}

/// The words of a text. Marks between letters belong to the word where they make it another one (`A-frame`, `I'm`, `N/A`, `D.C`, `C++`, `°C`).
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut open: Option<(usize, bool)> = None;
    let (mut before, mut part) = ('\0', 0); // the last character, and the length of the last part of the word
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map_or('\0', |&(_, next)| next);
        let after_next = text[at..].chars().nth(2).unwrap_or('\0');
        let cjk = is_cjk(c) && c.is_alphanumeric();
        let goes_on = match open {
            Some((_, true)) => cjk,
            Some((_, false)) if latin(c) || matches!(c, '+' | '#') => true,
            Some((_, false)) if latin(before) => match c {
                '\'' | '\u{2019}' | '-' | '/' | '&' | '_' | '@' => latin(next),
                '.' => {
                    before.is_ascii_digit() && next.is_ascii_digit() || part == 1 && latin(next) && !latin(after_next)
                }
                _ => false,
            },
            _ => false,
        };
        if !goes_on {
            if let Some((start, _)) = open.take() {
                words.push(Word { text: &text[start..at], start, end: at });
            }
            if cjk || latin(c) || c == '\u{b0}' && latin(next) {
                open = Some((at, cjk));
            }
        }
        part = if latin(c) { part + 1 } else { 0 };
        before = c;
    }
    if let Some((start, _)) = open {
        words.push(Word { text: &text[start..], start, end: text.len() });
    }
    words
}

const NOUNS: [&str; 8] = ["answer", "ans", "option", "choice", "solution", "one", "selection", "pick"];
const VERBS: [&str; 8] = ["is", "are", "be", "was", "seems", "would", "should", "must"];
const CHOOSING: [&str; 8] = ["choose", "chose", "chosen", "select", "selected", "pick", "picked", "prefer"];
const ADVERBS: [&str; 17] = [
    "most",
    "likely",
    "probably",
    "definitely",
    "clearly",
    "therefore",
    "thus",
    "indeed",
    "simply",
    "actually",
    "then",
    "just",
    "be",
    "the",
    "surely",
    "obviously",
    "certainly",
];
const RIGHT: [&str; 8] = ["correct", "right", "answer", "best", "better", "true", "accurate", "fits"];
const WRONG: [&str; 13] = [
    "wrong",
    "incorrect",
    "false",
    "not",
    "isn't",
    "isn\u{2019}t",
    "cannot",
    "can't",
    "impossible",
    "excluded",
    "eliminated",
    "ruled",
    "inaccurate",
];
const CONCLUDING: [&str; 6] = ["so", "thus", "therefore", "hence", "finally", "conclusion"];
const EXPLAINING: [&str; 12] = [
    "because",
    "since",
    "as",
    "due",
    "explanation",
    "reason",
    "reasoning",
    "rationale",
    "analysis",
    "justification",
    "explained",
    "given",
];
const EXPLAINING_CJK: [&str; 9] = ["因为", "因為", "理由", "解析", "解释", "解釋", "説明", "なぜなら", "왜냐하면"];
/// What makes a second letter a second answer.
const HEDGING: [&str; 9] = ["or", "maybe", "perhaps", "could", "might", "possibly", "either", "both", "also"];
const CORRECTING: [&str; 9] =
    ["wait", "correction", "sorry", "oops", "actually", "rather", "reconsider", "reconsidering", "hmm"];
const CORRECTING_CJK: [&str; 10] = ["不对", "不對", "等等", "等一下", "更正", "いや", "訂正", "待って", "잠깐", "아니"];
/// After a correction, a letter that is not announced stands within so many words.
const SOON: usize = 4;

const LEADS_CJK: [&str; 25] = [
    "答案是",
    "答案为",
    "答案為",
    "应为",
    "應為",
    "答案",
    "选",
    "選",
    "选择",
    "選擇",
    "是",
    "答えは",
    "答は",
    "正解は",
    "解答は",
    "回答は",
    "のは",
    "なく",
    "答え",
    "正解",
    "解答",
    "정답은",
    "답은",
    "정답",
    "답",
];
/// `and` and `or`.
const JOINING_CJK: [&str; 7] = ["还是", "還是", "或", "或者", "和", "と", "か"];
const NAMES_CJK: [&str; 7] = ["选项", "選項", "選択肢", "オプション", "선택지", "보기", "项"];
const AFTER_CJK: [&str; 22] = [
    "项",
    "項",
    "选项",
    "選項",
    "是",
    "为",
    "為",
    "对",
    "對",
    "正确",
    "正確",
    "で",
    "だ",
    "が",
    "を",
    "に",
    "と思",
    "입니다",
    "이다",
    "이",
    "가",
    "번",
];
const RIGHT_CJK: [&str; 8] = ["が正", "は正", "是正确", "是正確", "是对", "正确", "正確", "对"];
const WRONG_CJK: [&str; 12] =
    ["不", "ではな", "じゃな", "ではあり", "错", "錯", "是错", "是錯", "は違", "は間違", "が間違", "는 아니"];

/// The option (from 0, of `options`) whose letter this folded text gives.
pub fn named(text: &str, options: usize) -> Option<usize> {
    let reading = Reading { text, words: words(text), options };
    let mentions = reading.mentions();
    let last = mentions.last()?.word;
    let all = reading.words.iter().enumerate().take(last).rev();
    for (i, _) in all.filter(|&(i, _)| i > 0 && reading.corrects(i)).take(3) {
        let tail: Vec<Mention> = mentions.iter().copied().filter(|mention| mention.word > i).collect();
        let announced = agreed(tail.iter().filter(|mention| mention.announced));
        let soon = tail.first().is_some_and(|first| first.word <= i + SOON);
        if let Some(option) = announced.or_else(|| agreed(tail.iter()).filter(|_| soon)) {
            return Some(option);
        }
    }
    reading.decide(&mentions)
}

/// The option of these mentions, if they name one only.
fn agreed<'m>(mut mentions: impl Iterator<Item = &'m Mention>) -> Option<usize> {
    let first = mentions.next()?.option;
    mentions.all(|mention| mention.option == first).then_some(first)
}

struct Reading<'a> {
    text: &'a str,
    words: Vec<Word<'a>>,
    options: usize,
}

impl<'a> Reading<'a> {
    /// The text between word `i - 1` (or the beginning) and word `i` (or the end).
    fn gap(&self, i: usize) -> &'a str {
        let end = |before: usize| self.word(before).map_or(self.text.len(), |word| word.end);
        let start = i.checked_sub(1).map_or(0, end);
        &self.text[start..self.words.get(i).map_or(self.text.len(), |word| word.start)]
    }

    fn word(&self, i: usize) -> Option<&Word<'a>> {
        self.words.get(i)
    }

    /// The letters that stand alone and are not ruled out by what stands before them.
    fn mentions(&self) -> Vec<Mention> {
        let mut mentions: Vec<Mention> = (0..self.words.len()).filter_map(|i| self.mention(i)).collect();
        for i in 1..mentions.len() {
            // `the answer is A or B` announces both
            mentions[i].announced |= mentions[i - 1].announced && self.joined(mentions[i - 1].word, mentions[i].word);
        }
        mentions
    }

    /// Do these two words stand side by side in a list, as in `A, B and C`?
    fn joined(&self, a: usize, b: usize) -> bool {
        b <= a + 2
            && self.words[a + 1..b].iter().all(|word| word.is(&["and", "or"]) || JOINING_CJK.contains(&word.text))
            && (a + 1..=b).all(|at| !self.gap(at).contains(['.', ';', '\n', '(', ':', '!', '?']))
    }

    fn mention(&self, i: usize) -> Option<Mention> {
        let word = self.words[i];
        let option = choice_letter(word.text, self.options).ok()?;
        let (before, after) = (self.gap(i), self.gap(i + 1));
        if after.starts_with('?') && self.word(i + 1).is_some_and(|next| next.is(&["no"])) {
            return None; // `B? No.`
        }
        let announced = self.announced(i) || self.confirmed(i);
        // A letter that touches Chinese, Japanese or Korean may be a part of a word.
        let neighbour = |near: Option<&Word<'a>>, gap: &str| {
            near.filter(|w| gap.is_empty() && w.text.starts_with(is_cjk)).map(|w| w.text)
        };
        let glued_before = neighbour(i.checked_sub(1).and_then(|before| self.word(before)), before)
            .is_some_and(|near| !NAMES_CJK.iter().chain(&JOINING_CJK).any(|name| near.ends_with(name)));
        let glued_after = neighbour(self.word(i + 1), after).is_some_and(|near| {
            !AFTER_CJK.iter().chain(&WRONG_CJK).chain(&JOINING_CJK).any(|word| near.starts_with(word))
        });
        if !announced && (glued_before || glued_after) {
            return None;
        }
        let lower = word.text.as_bytes()[0].is_ascii_lowercase();
        let enclosed = before.ends_with(['(', '[', '{', '"', '\'', '`', '*', '\u{201c}', '\u{2018}', '$', '_'])
            && after.starts_with([')', ']', '}', '"', '\'', '`', '*', '\u{201d}', '\u{2019}', '$', '_']);
        let leads = i == 0 && after.starts_with([')', '.', ':']);
        let called = i > 0 && self.words[i - 1].is(&["option", "choice", "letter"]);
        let plain = !(announced || enclosed || leads || called || self.words.len() == 1);
        if lower && plain || negated(self.text, word.start) {
            return None;
        }
        let marked =
            enclosed || after.starts_with(|c: char| !c.is_whitespace()) || before.ends_with(['(', '*', '"', '`']);
        let before = i.checked_sub(1).and_then(|before| self.word(before)).map_or("", |word| word.text);
        let article = self.word(i + 1).is_some_and(|next| is_article(before, word.text, next.text));
        if article && !(marked || self.confirmed(i)) {
            return None;
        }
        Some(Mention { word: i, option, announced, dismissed: self.dismissed(i) })
    }

    /// Is this letter announced by what stands before it?
    fn announced(&self, i: usize) -> bool {
        let Some(mut at) = i.checked_sub(1) else { return false };
        let gap = self.gap(i);
        let word = &self.words[at];
        if word.text.starts_with(is_cjk) {
            let ends = |words: &[&str]| words.iter().any(|end| word.text.ends_with(end));
            return ends(&LEADS_CJK) && !ends(&JOINING_CJK) && !gap.contains(['.', ',', '\n', ';']);
        }
        if gap.contains(['.', ';', '!', '?']) && !word.is(&["ans"]) {
            return false;
        }
        if word.is(&CONCLUDING) {
            return self.ends_clause(i + 1);
        }
        let noun = |at: usize| self.words[at].is(&NOUNS);
        if self.chosen(at) {
            return true;
        }
        if noun(at) {
            let named = self.words[at].is(&["answer", "ans", "solution"]);
            let colon = gap.contains([':', '=', '>', '\u{2192}']);
            if colon || named && !gap.contains(',') {
                return true;
            }
            // `the answer is option B`: the word before counts
            let Some(before) = at.checked_sub(1) else { return false };
            at = before;
        } else if self.words[at].is(&["letter"]) {
            let Some(before) = at.checked_sub(1) else { return false };
            at = before;
        }
        if self.chosen(at) {
            return true;
        }
        let mut steps = 0;
        while at > 0 && steps < 4 && self.words[at].is(&ADVERBS) {
            at -= 1;
            steps += 1;
        }
        while at > 0 && steps < 6 && self.words[at].is(&VERBS) {
            at -= 1;
            if noun(at) || at > 0 && self.words[at].is(&["therefore", "thus", "here"]) && noun(at - 1) {
                return true;
            }
            steps += 1;
        }
        false
    }

    /// Is word `at` the end of `I choose`, `I'd go with`?
    fn chosen(&self, at: usize) -> bool {
        let going = |at: usize| self.words[at].is(&["go", "going", "opt", "opted"]);
        self.words[at].is(&CHOOSING) || self.words[at].is(&["with", "for"]) && at.checked_sub(1).is_some_and(going)
    }

    /// Is this letter announced by what follows it (`B is the correct answer`)?
    fn confirmed(&self, i: usize) -> bool {
        if !self.gap(i + 1).trim().chars().all(|c| ")]}*\"'`_$\u{201d}".contains(c)) {
            return false;
        }
        let Some(next) = self.word(i + 1) else { return false };
        if next.text.starts_with(is_cjk) {
            return RIGHT_CJK.iter().any(|word| next.text.starts_with(word));
        }
        if !next.is(&["is", "seems", "looks", "must", "would", "should"]) {
            return false;
        }
        let skipped =
            ["the", "my", "be", "most", "likely", "a", "best", "clearly", "definitely", "only", "final", "therefore"];
        let mut at = i + 2;
        while at < i + 6 && self.word(at).is_some_and(|word| word.is(&skipped) && !word.is(&RIGHT)) {
            at += 1;
        }
        self.word(at).is_some_and(|word| word.is(&RIGHT)) && !self.gap(at).contains(['.', ',', ';'])
    }

    /// Is this letter ruled out by what follows it (`A is wrong`)?
    fn dismissed(&self, i: usize) -> bool {
        let near = (i + 1..i + 5).take_while(|&at| !self.gap(at).contains(['.', ',', ';', '!', '?', '\n', ':']));
        for word in near.filter_map(|at| self.word(at)) {
            if word.text.starts_with(is_cjk) {
                return WRONG_CJK.iter().any(|wrong| word.text.starts_with(wrong));
            }
            if word.is(&WRONG) {
                return true;
            }
            if !word.is(&["is", "was", "seems", "would", "be", "can", "could", "looks", "clearly", "must"]) {
                return false;
            }
        }
        false
    }

    /// Does a clause end before word `i`?
    fn ends_clause(&self, i: usize) -> bool {
        i >= self.words.len() || self.gap(i).contains(['.', ',', ';', '!', ':', '\n'])
    }

    /// Does word `i` take back what stands before it?
    fn corrects(&self, i: usize) -> bool {
        let word = &self.words[i];
        if word.text.starts_with(is_cjk) {
            return CORRECTING_CJK.iter().any(|start| word.text.starts_with(start));
        }
        let apart = self.gap(i).contains(['.', ',', ';', '!', '?', '\n', '(', '-', '\u{2013}', '\u{2014}', ':']);
        let apart = apart || i > 0 && self.words[i - 1].is(&["no", "oh", "but", "ah", "hmm"]);
        apart && (word.is(&CORRECTING) || word.is(&["no", "not"]) && self.ends_clause(i + 1)) || self.second_thought(i)
    }

    fn second_thought(&self, i: usize) -> bool {
        let pair = |first: &str, second: &[&str]| self.words[i].is(second) && i > 0 && self.words[i - 1].is(&[first]);
        pair("second", &["thought", "thoughts"]) || pair("scratch", &["that"]) || pair("i", &["mean", "meant"])
    }

    fn decide(&self, mentions: &[Mention]) -> Option<usize> {
        let upheld: Vec<Mention> = mentions.iter().copied().filter(|mention| !mention.dismissed).collect();
        let live = if upheld.is_empty() { mentions } else { &upheld };
        let announced = || live.iter().filter(|mention| mention.announced);
        if announced().next().is_some() {
            return agreed(announced());
        }
        agreed(live.iter()).or_else(|| self.explained(live))
    }

    /// The letter that begins the answer, if other letters occur in its explanation alone.
    fn explained(&self, live: &[Mention]) -> Option<usize> {
        let first = live.first()?;
        let begins = first.word == 0 || first.word == 1 && self.words[0].is(&NOUNS);
        let other = live.iter().find(|mention| mention.option != first.option)?;
        let between = &self.words[first.word + 1..other.word];
        if !begins || between.iter().any(|word| word.is(&HEDGING)) {
            return None;
        }
        let explains =
            |word: &Word| word.is(&EXPLAINING) || EXPLAINING_CJK.iter().any(|start| word.text.starts_with(start));
        if between.iter().any(explains) {
            return Some(first.option);
        }
        // `B. It shows a dog, A and C are cats.`; not a list: no second letter begins a line or a sentence, or has the mark of a list.
        let ended = self.ends_clause(first.word + 1) || self.gap(first.word + 1).contains(')');
        let embedded = |mention: &Mention| {
            let (before, after) = (self.gap(mention.word), self.gap(mention.word + 1));
            !before.contains(['.', ';', '\n', ':', '(']) && !after.starts_with(['.', ')', ':'])
                || self.word(mention.word - 1).is_some_and(|word| word.is(&["option", "options", "choice", "choices"]))
        };
        let rest = live.iter().filter(|mention| mention.option != first.option);
        let said = between.iter().filter(|word| word.text.len() > 1 && !word.is(&["and"])).count();
        (ended && said > 1 && rest.clone().all(embedded)).then_some(first.option)
    }
}

/// Words in lower case that follow a letter used as a letter, and hardly an article.
const AFTER_A_LETTER: [&str; 13] =
    ["is", "was", "because", "since", "as", "and", "or", "but", "for", "seems", "would", "isn't", "are"];

/// Is this letter, without marks around it, an article or a pronoun between these words?
pub fn is_article(before: &str, letter: &str, next: &str) -> bool {
    let named = ["option", "choice", "letter", "answer"].iter().any(|noun| before.eq_ignore_ascii_case(noun));
    let goes_on = next.starts_with(char::is_lowercase) && !AFTER_A_LETTER.contains(&next);
    goes_on && !named && matches!(letter, "A" | "I" | "a" | "i")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_in_a_word_a_unit_or_a_name_is_none() {
        let texts = |text| words(text).into_iter().map(|word| word.text).collect::<Vec<_>>();
        assert_eq!(texts("\"B\", `C` **D** (A) -B B? B-"), ["B", "C", "D", "A", "B", "B", "B"]);
        assert_eq!(
            texts("A-frame I'm N/A U.S.A. 2.5 C++ 25 \u{b0}C B.dog"),
            ["A-frame", "I'm", "N/A", "U.S.A", "2.5", "C++", "25", "\u{b0}C", "B", "dog"]
        );
        assert_eq!(texts("答案是B。Bです"), ["答案是", "B", "B", "です"]);
        assert!(words(" .!").is_empty());
    }
}
