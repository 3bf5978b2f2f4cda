//! A file without answers: its questions are asked and nothing is scored. The responses are written beside the questions, for the server that
//! knows the answers.

use crate::data::tsv::TsvRow;
use crate::tasks::score::Score;
use crate::tasks::scorer::Scorer;
use crate::{Error, Result};
use csv::{QuoteStyle, WriterBuilder};

/// The name of the scorer that scores nothing.
pub const UNSCORED: &str = "none";
/// The column of the responses, as VLMEvalKit calls it.
const COLUMN: &str = "prediction";

/// In place of a scorer where there is no answer to score by.
pub(super) struct Unscored;

impl Scorer for Unscored {
    fn name(&self) -> &str {
        UNSCORED
    }

    fn version(&self) -> u32 {
        1
    }

    fn score(&self, _response: &str) -> Score {
        Score::nothing("not scored: the file has no answers")
    }
}

/// The questions of a file without answers, for the table of responses to them.
pub struct PredictionTable {
    rows: Vec<TsvRow>,
}

impl PredictionTable {
    pub(super) fn new(rows: Vec<TsvRow>) -> PredictionTable {
        PredictionTable { rows }
    }

    /// The columns of the file but for its images, and `prediction`: tab-separated, quoted as pandas quotes. One row for each response, which
    /// are those to the first rows.
    ///
    /// # Errors
    /// A failure to write a row.
    pub fn tsv(&self, responses: &[&str]) -> Result<Vec<u8>> {
        let failed = |e: String| Error::failed(format!("cannot write the predictions: {e}"));
        let mut csv = WriterBuilder::new().delimiter(b'\t').quote_style(QuoteStyle::Necessary).from_writer(Vec::new());
        let header = self.rows.first().into_iter().flat_map(TsvRow::texts).map(|(column, _)| column);
        csv.write_record(header.chain([COLUMN])).map_err(|e| failed(e.to_string()))?;
        for (row, response) in self.rows.iter().zip(responses) {
            let fields = row.texts().map(|(_, field)| field).chain([*response]);
            csv.write_record(fields).map_err(|e| failed(e.to_string()))?;
        }
        csv.into_inner().map_err(|e| failed(e.to_string()))
    }
}
