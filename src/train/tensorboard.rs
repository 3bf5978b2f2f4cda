//! TensorBoard event files: TFRecord framing around hand-encoded `tensorflow.Event` messages with scalar summaries.
//!
//! Why no crate: tensorboard-rs (0.5.9) brings 36 crates (protobuf 2.28 and image 0.23 among them) for the 80 lines below, and writes no
//! `SessionLog`, without which a resumed run shows its repeated steps twice.
//!
//! A record is `length: u64 | masked crc of length: u32 | data | masked crc of data: u32`, little endian, the crc being
//! CRC-32C (Castagnoli) rotated and offset. Of the messages only what a scalar needs is written:
//! `Event { wall_time = 1: double, step = 2: int64, file_version = 3: string, summary = 5: Summary, session_log = 7 }`,
//! `Summary.value = 1: Value { tag = 1: string, simple_value = 2: float }`, `SessionLog.status = 1: START (1)`.

use crate::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open event file.
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// A new file in `dir` for the steps after `from_step`. It supersedes what earlier files hold about those steps.
    pub fn create(dir: &Path, from_step: usize) -> Result<EventWriter> {
        let seconds = now() as u64;
        let path = dir.join(format!("events.out.tfevents.{seconds:010}.jigsaw.{}.{from_step}", std::process::id()));
        let file = File::create(&path).map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))?;
        let mut writer = EventWriter { file, path };
        let mut version = event(0);
        bytes_field(&mut version, 3, b"brain.Event:2");
        writer.record(&version)?;
        // TensorBoard drops events of earlier files from this step on: those of a killed run after its last checkpoint, or all of
        // them if it was killed before its first.
        let mut start = event(if from_step == 0 { 0 } else { from_step + 1 });
        bytes_field(&mut start, 7, &[0x08, 0x01]);
        writer.record(&start)?;
        Ok(writer)
    }

    /// Write one event with the finite ones among the `values` of a step.
    pub fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values.iter().filter(|(_, v)| v.is_finite()) {
            let mut entry = Vec::new();
            bytes_field(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &entry);
        }
        let mut message = event(step);
        bytes_field(&mut message, 5, &summary);
        self.record(&message)
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut framed = Vec::with_capacity(data.len() + 16);
        framed.extend(length);
        framed.extend(masked_crc(&length).to_le_bytes());
        framed.extend(data);
        framed.extend(masked_crc(data).to_le_bytes());
        self.file.write_all(&framed).map_err(|e| Error::failed(format!("cannot write {}: {e}", self.path.display())))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn event(step: usize) -> Vec<u8> {
    let mut message = vec![1 << 3 | 1];
    message.extend(now().to_le_bytes());
    message.push(2 << 3);
    varint(&mut message, step as u64);
    message
}

fn bytes_field(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, data.len() as u64);
    out.extend(data);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (polynomial 0x1EDC6F41, reflected); `crc32fast` computes CRC-32 only.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !data.iter().fold(!0, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_has_its_published_check_values() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// The records of a file, their checksums verified.
    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut at, mut out) = (0, Vec::new());
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            assert_eq!(word(at + 8), masked_crc(&bytes[at..at + 8]));
            let data = &bytes[at + 12..at + 12 + length];
            assert_eq!(word(at + 12 + length), masked_crc(data));
            out.push(data.to_vec());
            at += 16 + length;
        }
        out
    }

    #[test]
    fn a_file_reads_back_as_framed_events_with_steps_tags_and_values() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 300).unwrap();
        writer.scalars(301, &[("loss", 0.5), ("bad", f64::NAN)]).unwrap();
        let path = writer.path.clone();
        assert!(path.file_name().unwrap().to_string_lossy().contains("tfevents"));
        let records = records(&std::fs::read(path).unwrap());
        assert_eq!(records.len(), 3);
        assert_eq!(&records[0][9..], b"\x10\x00\x1a\x0dbrain.Event:2");
        // TensorBoard also drops the step of the start itself, so it is the one after the checkpoint's.
        assert_eq!(&records[1][9..], b"\x10\xad\x02\x3a\x02\x08\x01");
        let expected: Vec<u8> = [&b"\x10\xad\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15"[..], &0.5f32.to_le_bytes()].concat();
        assert_eq!(&records[2][9..], expected);
    }
}
