//! What a repository on the Hub holds at a commit.

use super::git::GitHasher;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its path in the repository.
    pub name: String,
    /// Its length in bytes, if the Hub says it.
    pub size: Option<u64>,
    /// SHA-256 of its content, for a large file.
    pub sha256: Option<String>,
    /// Its name among the blobs of the cache: for a small file git's hash of its content, if the Hub says it.
    pub blob: String,
}

impl RepoFile {
    /// A hasher whose result is to be compared with `blob`, where that is a hash of git's.
    pub fn git_hasher(&self) -> Option<GitHasher> {
        let named_by_git =
            self.sha256.is_none() && self.blob.len() == 40 && self.blob.chars().all(|c| c.is_ascii_hexdigit());
        named_by_git.then(|| GitHasher::of(self.size)).flatten()
    }
}

/// The files of a repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoListing {
    /// The commit.
    pub commit: String,
    /// Its files.
    pub files: Vec<RepoFile>,
}

impl RepoListing {
    /// The paths of the files.
    pub fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }
}
