//! A compressor for filtered photos: Huffman codes made for the data, and runs of one byte. That is what zlib calls
//! `Z_RLE`; after a PNG filter there is next to nothing else to be found in a photo (a full search for repetitions saves less
//! than half a percent and takes most of the time).
//!
//! Formats: RFC 1950 (zlib) and RFC 1951 (deflate).

use simd_adler32::adler32;

/// Bytes compressed with one set of codes.
const BLOCK_BYTES: usize = 64 << 10;
/// Shortest run worth a code of its own, not counting its first byte, which is a literal.
const MIN_RUN: usize = 4;
/// Longest run of one code.
const MAX_RUN: usize = 258;
/// The literal/length symbol that ends a block.
const END: usize = 256;
/// Literals, the end, and the codes of lengths.
const SYMBOLS: usize = 286;
/// Longest code of a literal or length, in bits. The format allows one more; of these, four and a byte fit 64 bits.
const MAX_BITS: usize = 14;
/// Longest code of a code length, in bits.
const MAX_LENGTH_BITS: usize = 7;
/// The order in which the lengths of the codes of code lengths are written.
const LENGTH_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Append `data` to `out` as a zlib stream.
pub fn zlib(data: &[u8], out: &mut Vec<u8>) {
    out.extend([0x78, 0x01]);
    let mut bits = Bits { out, held: 0, count: 0 };
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        let end = (at + BLOCK_BYTES).min(data.len());
        split(data, at, end, &mut pieces);
        block(&pieces, end == data.len(), &mut bits);
        at = end;
        if at == data.len() {
            break;
        }
    }
    bits.flush();
    out.extend(adler32(&data).to_be_bytes());
}

/// Literal bytes, and how often the last of them (or, at the start of a block, the last byte before it) comes again after them.
struct Piece<'a> {
    literals: &'a [u8],
    run: usize,
}

impl Piece<'_> {
    /// The run in the codes that write it: symbol, value and number of extra bits.
    fn run_symbols(&self) -> impl Iterator<Item = (usize, u64, u32)> {
        let mut left = self.run;
        std::iter::from_fn(move || {
            // No rest too short for a code.
            let taken = if left > MAX_RUN && left < MAX_RUN + MIN_RUN { left - MIN_RUN } else { left.min(MAX_RUN) };
            left -= taken;
            (taken > 0).then(|| length_symbol(taken))
        })
    }
}

/// The bytes from `at` to `end` as literals and runs.
fn split<'a>(data: &'a [u8], at: usize, end: usize, pieces: &mut Vec<Piece<'a>>) {
    pieces.clear();
    let repeats = |i: usize| i > 0 && data[i] == data[i - 1];
    let mut literals = at;
    // A run covers one of any `MIN_RUN` places in a row, so not every place need be looked at.
    let mut probe = at;
    while probe < end {
        if repeats(probe) {
            let start = probe - (literals..probe).rev().take_while(|&i| repeats(i)).count();
            let stop = probe + (probe..end).take_while(|&i| repeats(i)).count();
            if stop - start >= MIN_RUN {
                pieces.push(Piece { literals: &data[literals..start], run: stop - start });
                literals = stop;
            }
            probe = stop;
        }
        probe += MIN_RUN;
    }
    pieces.push(Piece { literals: &data[literals..end], run: 0 });
}

/// Write a block with codes of its own.
fn block(pieces: &[Piece], last: bool, bits: &mut Bits) {
    let lengths = code_lengths(&symbol_counts(pieces), MAX_BITS);
    bits.put(u64::from(last), 1);
    bits.put(2, 2); // codes made for this block
    header(&lengths, bits);
    let codes = codes(&lengths);
    let mut literals = [Code::default(); END];
    literals.copy_from_slice(&codes[..END]);
    for piece in pieces {
        bits.put_all(piece.literals, &literals);
        for (symbol, extra, extra_bits) in piece.run_symbols() {
            bits.put_code(codes[symbol]);
            bits.put(extra, extra_bits);
            bits.put(0, 1); // distance 1
        }
    }
    bits.put_code(codes[END]);
}

/// How often each symbol occurs in the block, its end included.
fn symbol_counts(pieces: &[Piece]) -> [u32; SYMBOLS] {
    // Equal bytes close together would wait for each other's count; four tables have them wait less.
    let mut tables = [[0u32; END]; 4];
    let mut counts = [0; SYMBOLS];
    for piece in pieces {
        let (fours, rest) = piece.literals.as_chunks::<4>();
        for four in fours {
            for (table, &byte) in tables.iter_mut().zip(four) {
                table[usize::from(byte)] += 1;
            }
        }
        for &byte in rest {
            tables[0][usize::from(byte)] += 1;
        }
        for (symbol, _, _) in piece.run_symbols() {
            counts[symbol] += 1;
        }
    }
    for table in tables {
        for (count, n) in counts.iter_mut().zip(table) {
            *count += n;
        }
    }
    counts[END] = 1;
    counts
}

/// Symbol of a run's length (3 to 258), and value and number of its extra bits.
fn length_symbol(run: usize) -> (usize, u64, u32) {
    match run - 3 {
        255 => (SYMBOLS - 1, 0, 0),
        length @ 0..8 => (END + 1 + length, 0, 0),
        length => {
            // Four symbols for each power of two.
            let bits = length.ilog2() - 2;
            let symbol = END + 1 + 4 * bits as usize + (length >> bits);
            (symbol, (length & ((1 << bits) - 1)) as u64, bits)
        }
    }
}

/// The lengths of the codes of the block: of literals and lengths, and of two distances, one of which is used.
fn header(lengths: &[u8], bits: &mut Bits) {
    let used = lengths.iter().rposition(|&n| n > 0).map_or(0, |i| i + 1).max(END + 1);
    let sequence = [&lengths[..used], &[1, 1]].concat();
    let packed = pack_lengths(&sequence);
    let mut counts = [0u32; 19];
    for &(symbol, _, _) in &packed {
        counts[symbol] += 1;
    }
    let meta = code_lengths(&counts, MAX_LENGTH_BITS);
    let meta_used = LENGTH_ORDER.iter().rposition(|&i| meta[i] > 0).map_or(0, |i| i + 1).max(4);
    bits.put(used as u64 - 257, 5);
    bits.put(1, 5);
    bits.put(meta_used as u64 - 4, 4);
    for &i in &LENGTH_ORDER[..meta_used] {
        bits.put(u64::from(meta[i]), 3);
    }
    let codes = codes(&meta);
    for (symbol, extra, extra_bits) in packed {
        bits.put_code(codes[symbol]);
        bits.put(extra as u64, extra_bits);
    }
}

/// Code lengths with their repetitions: symbol, and value and number of its extra bits.
fn pack_lengths(mut lengths: &[u8]) -> Vec<(usize, usize, u32)> {
    let mut packed = Vec::with_capacity(lengths.len());
    while let Some(&length) = lengths.first() {
        let run = lengths.iter().take_while(|&&n| n == length).count();
        let taken = match (length, run) {
            (0, 11..) => {
                let taken = run.min(138);
                packed.push((18, taken - 11, 7));
                taken
            }
            (0, 3..) => {
                packed.push((17, run - 3, 3));
                run
            }
            (1.., 4..) => {
                let repeated = (run - 1).min(6);
                packed.push((usize::from(length), 0, 0));
                packed.push((16, repeated - 3, 2));
                repeated + 1
            }
            _ => {
                packed.push((usize::from(length), 0, 0));
                1
            }
        };
        lengths = &lengths[taken..];
    }
    packed
}

/// Lengths of the codes that write symbols of these counts in few bits, none longer than `limit`; 0 for what never occurs.
/// At least two symbols get a code.
fn code_lengths(counts: &[u32], limit: usize) -> Vec<u8> {
    let mut order: Vec<(u32, usize)> =
        counts.iter().enumerate().filter(|&(_, &n)| n > 0).map(|(i, &n)| (n, i)).collect();
    let absent = (0..counts.len()).filter(|&i| counts[i] == 0);
    order.extend(absent.take(2usize.saturating_sub(order.len())).map(|i| (0, i)));
    order.sort_unstable();
    let mut of_length = depths(&order);
    shorten(&mut of_length, limit);
    let mut lengths = vec![0; counts.len()];
    let mut symbols = order.iter().rev();
    for (length, &n) in of_length.iter().enumerate() {
        for &(_, symbol) in symbols.by_ref().take(n) {
            lengths[symbol] = length as u8;
        }
    }
    lengths
}

/// How many symbols Huffman's tree has at each depth; `order` is sorted by count.
fn depths(order: &[(u32, usize)]) -> Vec<usize> {
    // Nodes are the symbols, then the inner nodes in the order of their making, which is that of their counts.
    let leaves = order.len();
    let mut counts: Vec<u32> = order.iter().map(|&(n, _)| n).collect();
    let mut parents = vec![0; 2 * leaves - 1];
    let (mut leaf, mut inner) = (0, leaves);
    for node in leaves..2 * leaves - 1 {
        let mut sum = 0;
        for _ in 0..2 {
            let next =
                if leaf < leaves && (inner >= node || counts[leaf] <= counts[inner]) { &mut leaf } else { &mut inner };
            sum += counts[*next];
            parents[*next] = node;
            *next += 1;
        }
        counts.push(sum);
    }
    let mut depth = vec![0usize; 2 * leaves - 1];
    let mut of_depth = vec![0; leaves];
    for node in (0..2 * leaves - 2).rev() {
        depth[node] = depth[parents[node]] + 1;
        if node < leaves {
            of_depth[depth[node]] += 1;
        }
    }
    of_depth
}

/// Move the codes that are longer than `limit` up to it, and others down, until they are a complete code again.
fn shorten(of_length: &mut Vec<usize>, limit: usize) {
    let longer: usize = of_length.iter().skip(limit + 1).sum();
    of_length.resize(limit + 1, 0);
    of_length[limit] += longer;
    let space =
        |of_length: &[usize]| of_length.iter().enumerate().map(|(length, n)| n << (limit - length)).sum::<usize>();
    let mut excess = space(of_length).saturating_sub(1 << limit);
    while excess > 0 {
        // A code of the longest length moves under another leaf, which goes down a step: both then have one length.
        of_length[limit] -= 1;
        if let Some(length) = (1..limit).rev().find(|&length| of_length[length] > 0) {
            of_length[length] -= 1;
            of_length[length + 1] += 2;
        }
        excess -= 1;
    }
}

/// A code, its first bit lowest.
#[derive(Clone, Copy, Default)]
struct Code {
    bits: u16,
    length: u16,
}

/// The codes of these lengths.
fn codes(lengths: &[u8]) -> Vec<Code> {
    let mut of_length = [0u16; MAX_BITS + 1];
    for &length in lengths.iter().filter(|&&n| n > 0) {
        of_length[usize::from(length)] += 1;
    }
    let mut next = [0u16; MAX_BITS + 1];
    for length in 2..next.len() {
        next[length] = (next[length - 1] + of_length[length - 1]) << 1;
    }
    let take = |&length: &u8| {
        if length == 0 {
            return Code::default();
        }
        let code = next[usize::from(length)];
        next[usize::from(length)] += 1;
        Code { bits: code.reverse_bits() >> (16 - length), length: u16::from(length) }
    };
    lengths.iter().map(take).collect()
}

/// Bits appended to bytes, lowest first. Less than a byte is held between calls.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Append the low `count` bits (at most 56) of `value`, which has no others.
    fn put(&mut self, value: u64, count: u32) {
        self.held |= value << self.count;
        self.count += count;
        let bytes = self.count / 8;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes as usize]);
        self.held = self.held.checked_shr(bytes * 8).unwrap_or(0);
        self.count %= 8;
    }

    fn put_code(&mut self, code: Code) {
        self.put(u64::from(code.bits), u32::from(code.length));
    }

    /// Append the codes of `bytes`.
    fn put_all(&mut self, bytes: &[u8], codes: &[Code; END]) {
        let (fours, rest) = bytes.as_chunks::<4>();
        let mut at = self.out.len();
        self.out.resize(at + fours.len() * 4 * MAX_BITS / 8 + 8, 0);
        let (mut held, mut count) = (self.held, self.count);
        for four in fours {
            for &byte in four {
                let code = codes[usize::from(byte)];
                held |= u64::from(code.bits) << count;
                count += u32::from(code.length);
            }
            // All eight bytes, whole or not: the next write begins where these have ended being whole.
            self.out[at..at + 8].copy_from_slice(&held.to_le_bytes());
            at += count as usize / 8;
            held >>= count / 8 * 8;
            count %= 8;
        }
        self.out.truncate(at);
        (self.held, self.count) = (held, count);
        for &byte in rest {
            self.put_code(codes[usize::from(byte)]);
        }
    }

    /// Fill the last byte with zeros and write it.
    fn flush(mut self) {
        let rest = self.count.next_multiple_of(8) - self.count;
        self.put(0, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use std::io::Read;

    fn round_trip(data: &[u8], what: &str) -> usize {
        let mut packed = Vec::new();
        zlib(data, &mut packed);
        let mut back = Vec::new();
        flate2::read::ZlibDecoder::new(packed.as_slice())
            .read_to_end(&mut back)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(back == data, "{what}: other bytes come back");
        packed.len()
    }

    #[test]
    fn what_is_packed_comes_back() {
        let mut rng = crate::rng::stream(1, "test", &[]);
        for length in
            (0..40).chain([255, 256, 257, 258, 259, 260, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 200_000])
        {
            for values in [1u32, 2, 3, 20, 256] {
                let even: Vec<u8> = (0..length).map(|_| rng.random_range(0..values) as u8).collect();
                round_trip(&even, &format!("{length} bytes of {values} values"));
                let skewed: Vec<u8> = even.iter().map(|&b| if rng.random_range(0..10) > 0 { 7 } else { b }).collect();
                round_trip(&skewed, &format!("{length} bytes, mostly one of {values} values"));
            }
        }
    }

    #[test]
    fn runs_of_every_length_come_back() {
        for run in 1..600 {
            let data = [&[1, 2, 3][..], &vec![9; run], &[4, 5], &vec![0; 600 - run], &[9]].concat();
            round_trip(&data, &format!("a run of {run}"));
        }
    }

    /// Counts like Fibonacci's numbers make the deepest trees.
    #[test]
    fn codes_too_long_are_shortened_and_stay_complete() {
        for symbols in 2..40 {
            let (mut a, mut b) = (1u32, 1u32);
            let mut counts = vec![0; SYMBOLS];
            for count in &mut counts[..symbols] {
                *count = a;
                (a, b) = (b, (a + b).min(1 << 24));
            }
            for limit in [MAX_LENGTH_BITS, MAX_BITS] {
                let lengths = code_lengths(&counts, limit);
                let space: f64 = lengths.iter().filter(|&&n| n > 0).map(|&n| 0.5f64.powi(i32::from(n))).sum();
                assert_eq!(space, 1.0, "{symbols} symbols, {limit} bits");
                assert!(lengths.iter().all(|&n| usize::from(n) <= limit));
            }
        }
        let mut data = Vec::new();
        let (mut a, mut b) = (1usize, 1usize);
        for value in 0..22u8 {
            data.extend(std::iter::repeat_n([value, 255 - value], a).flatten());
            (a, b) = (b, a + b);
        }
        round_trip(&data, "deep tree");
    }

    #[test]
    fn skewed_bytes_take_about_their_entropy_and_even_ones_hardly_more_than_themselves() {
        let mut rng = crate::rng::stream(2, "test", &[]);
        let even: Vec<u8> = (0..100_000).map(|_| rng.random_range(0..256) as u8).collect();
        assert!(round_trip(&even, "even") < 100_000 + 400);
        let four_bits: Vec<u8> = (0..100_000).map(|_| rng.random_range(0..16) as u8 * 10).collect();
        assert!(round_trip(&four_bits, "four bits") < 51_500);
        assert!(round_trip(&vec![3; 100_000], "flat") < 700);
    }
}
