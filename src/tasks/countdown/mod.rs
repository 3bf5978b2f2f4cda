//! Countdown: reach a target with given numbers and `+ - * /`. Text only; an answer is right if it evaluates to the target, whatever the
//! expression. `docs/countdown.md` states the rule, the reward and the chance level.

mod chance;
mod expression;
mod generate;
mod puzzle;
mod question;
mod scorer;
mod settings;

pub use generate::generate;
pub use question::NAME;
pub use scorer::CountdownScorer;
pub use settings::{CountdownSettings, NumberCount};
