//! The name of a model on the Hub.

/// A model on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    /// `owner/name`.
    pub id: String,
    /// Branch, tag or commit; `main` when none is given.
    pub revision: String,
}

impl RepoId {
    /// Read `owner/name` or `owner/name@revision`; `None` for any other form.
    pub fn parse(text: &str) -> Option<RepoId> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let part = |part: &str| {
            part.len() <= 96
                && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(word)
        };
        let (owner, name) = id.split_once('/')?;
        let plain = part(owner) && part(name) && !id.contains("..") && !id.contains("--");
        let pinned = !revision.is_empty()
            && revision.chars().all(|c| word(c) || c == '/')
            && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
            && !revision.contains("..");
        (plain && pinned).then(|| RepoId { id: id.to_string(), revision: revision.to_string() })
    }

    /// Whether the revision is a whole commit hash, which always means the same files.
    pub fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.chars().all(|c| c.is_ascii_hexdigit())
    }
}

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}
