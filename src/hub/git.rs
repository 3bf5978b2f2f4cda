//! The name that git has for a content: SHA-1 (FIPS 180-4) of its length and itself. The Hub says it of small files, and it is good enough to
//! see damage; it is no protection against somebody who wants to deceive.

/// Bytes that are taken in at a time.
const BLOCK: usize = 64;

/// The name that git has for a file of this content, in hexadecimal digits.
pub fn blob_name(content: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()).as_bytes());
    hash.update(content);
    hash.finish()
}

/// SHA-1 of what is given piece by piece.
#[derive(Clone)]
pub(super) struct Sha1 {
    state: [u32; 5],
    /// What is not yet a block.
    rest: Vec<u8>,
    bytes: u64,
}

impl Sha1 {
    fn new() -> Sha1 {
        Sha1 { state: [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0], rest: Vec::new(), bytes: 0 }
    }

    /// Begins git's name of a content of `size` bytes; `None` where the size is not known.
    pub fn of_blob(size: Option<u64>) -> Option<Sha1> {
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", size?).as_bytes());
        Some(hash)
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        let (blocks, rest) = self.rest.as_chunks::<BLOCK>();
        blocks.iter().for_each(|block| mix(&mut self.state, block));
        let taken = self.rest.len() - rest.len();
        self.rest.drain(..taken);
    }

    /// The hash, in hexadecimal digits.
    pub fn finish(mut self) -> String {
        let bits = self.bytes * 8;
        let zeros = (BLOCK + 56 - (self.rest.len() + 1) % BLOCK) % BLOCK;
        let mut end = vec![0; 1 + zeros];
        end[0] = 0x80;
        end.extend(bits.to_be_bytes());
        self.update(&end);
        self.state.iter().map(|word| format!("{word:08x}")).collect()
    }
}

fn mix(state: &mut [u32; 5], block: &[u8; BLOCK]) {
    let mut words = [0; 80];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for i in 16..80 {
        words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (i, word) in words.into_iter().enumerate() {
        let (f, k) = match i / 20 {
            0 => ((b & c) | (!b & d), 0x5A82_7999),
            1 => (b ^ c ^ d, 0x6ED9_EBA1),
            2 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
            _ => (b ^ c ^ d, 0xCA62_C1D6_u32),
        };
        let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(word);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d, e]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_git_says() {
        // What `git hash-object` and `sha1sum` say.
        let plain = |text: &[u8]| {
            let mut hash = Sha1::new();
            hash.update(text);
            hash.finish()
        };
        assert_eq!(plain(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(plain(&[b'a'; 1_000_000]), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
        assert_eq!(blob_name(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(blob_name(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        // In pieces of any length, over every length of the last block.
        let text: Vec<u8> = (0..200_u8).collect();
        for length in 0..text.len() {
            let mut hash = Sha1::of_blob(Some(length as u64)).unwrap();
            text[..length].chunks(7).for_each(|piece| hash.update(piece));
            assert_eq!(hash.finish(), blob_name(&text[..length]), "{length}");
        }
    }
}
