//! Git's hash of a file: SHA-1 of its length and content. The Hub names it for small files. It reveals damage, but does not protect against
//! an attacker.

use crate::io::hex;
use sha1::{Digest as _, Sha1};

/// Git's hash of a file with this content, in hexadecimal digits.
pub fn git_blob_hash(content: &[u8]) -> String {
    let mut name = GitHasher::begin(content.len() as u64);
    name.update(content);
    name.finish()
}

/// Git's hash of a content that is given piece by piece.
#[derive(Clone)]
pub(super) struct GitHasher(Sha1);

impl GitHasher {
    fn begin(size: u64) -> GitHasher {
        GitHasher(Sha1::new_with_prefix(format!("blob {size}\0")))
    }

    /// For a content of `size` bytes; `None` where the size is not known.
    pub fn of(size: Option<u64>) -> Option<GitHasher> {
        size.map(GitHasher::begin)
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash, in hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_git_computes() {
        // What `git hash-object` says.
        assert_eq!(git_blob_hash(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(git_blob_hash(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        let mut name = GitHasher::of(Some(6)).unwrap();
        name.update(b"hel");
        name.update(b"lo\n");
        assert_eq!(name.finish(), git_blob_hash(b"hello\n"));
    }
}
