//! What a repository holds.

use super::git::GitHasher;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its path in the repository.
    pub name: String,
    /// Its length in bytes, if the Hub says it.
    pub size: Option<u64>,
    /// SHA-256 of its content, of a large file.
    pub sha256: Option<String>,
    /// Its name among the blobs of the cache: of a small file the one that git has for its content, if the Hub says it.
    pub blob: String,
}

impl RepoFile {
    /// What makes git's name of the content, to be compared with `blob`, where that is such a name.
    pub fn git_hasher(&self) -> Option<GitHasher> {
        let named_by_git =
            self.sha256.is_none() && self.blob.len() == 40 && self.blob.chars().all(|c| c.is_ascii_hexdigit());
        named_by_git.then(|| GitHasher::of(self.size)).flatten()
    }
}

/// What a repository holds at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFiles {
    /// The commit.
    pub commit: String,
    /// Its files.
    pub entries: Vec<RepoFile>,
}

impl RepoFiles {
    /// The names of all files.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }
}
