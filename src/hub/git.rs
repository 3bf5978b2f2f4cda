//! The name that git has for a content: SHA-1 of its length and itself. The Hub says it of small files, and it is good enough to see damage; it
//! is no protection against somebody who wants to deceive.

use crate::io::hex;
use sha1::{Digest as _, Sha1};

/// The name that git has for a file of this content, in hexadecimal digits.
pub fn git_blob_hash(content: &[u8]) -> String {
    let mut name = GitHasher::begin(content.len() as u64);
    name.update(content);
    name.finish()
}

/// Git's name of a content that is given piece by piece.
#[derive(Clone)]
pub(super) struct GitHasher(Sha1);

impl GitHasher {
    fn begin(size: u64) -> GitHasher {
        GitHasher(Sha1::new_with_prefix(format!("blob {size}\0")))
    }

    /// Of a content of `size` bytes; `None` where the size is not cached_snapshot.
    pub fn of(size: Option<u64>) -> Option<GitHasher> {
        size.map(GitHasher::begin)
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The name, in hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_git_says() {
        // What `git hash-object` says.
        assert_eq!(git_blob_hash(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(git_blob_hash(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        let mut name = GitHasher::of(Some(6)).unwrap();
        name.update(b"hel");
        name.update(b"lo\n");
        assert_eq!(name.finish(), git_blob_hash(b"hello\n"));
    }
}
