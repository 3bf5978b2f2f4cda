//! The segment structure of a JPEG file. The decoder fills the missing part of a truncated file with grey and reports nothing, so this
//! module checks that the file is complete and reads the properties that decide whether it is usable.

/// Fields of the frame header, and whether the file is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JpegHeader {
    /// Bits a channel.
    pub precision: u8,
    /// Width in pixels, as stored.
    pub width: u16,
    /// Height in pixels, as stored.
    pub height: u16,
    /// 1 for grey, 3 for colour, 4 for CMYK.
    pub components: u8,
    /// Whether the end-of-image marker was found.
    pub complete: bool,
}

/// Walk the segments from start to end of image. `None` if there is no frame header.
pub fn inspect(bytes: &[u8]) -> Option<JpegHeader> {
    let mut header = None;
    let mut complete = false;
    let mut at = 2; // after the start-of-image marker
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            0xD9 => {
                complete = true;
                break;
            }
            0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let Some(length) = bytes.get(at..at + 2).map(|b| usize::from(b[0]) << 8 | usize::from(b[1])) else { break };
        let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
        if let (true, Some(f)) = (is_frame && header.is_none(), bytes.get(at + 2..at + 8)) {
            header = Some(JpegHeader {
                precision: f[0],
                height: u16::from_be_bytes([f[1], f[2]]),
                width: u16::from_be_bytes([f[3], f[4]]),
                components: f[5],
                complete: false,
            });
        }
        at += length.max(2);
    }
    header.map(|h| JpegHeader { complete, ..h })
}

/// The next marker at or after `at` (entropy-coded data in between is passed over), leaving `at` behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        *at += bytes.get(*at..)?.iter().position(|&b| b == 0xFF)? + 1;
        match *bytes.get(*at)? {
            0x00 => *at += 1,        // an escaped data byte
            0xFF => {}               // fill before a marker
            0xD0..=0xD7 => *at += 1, // restart
            marker => {
                *at += 1;
                return Some(marker);
            }
        }
    }
}
