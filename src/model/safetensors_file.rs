//! Tensors on disk: safetensors files, written and read in pieces, so that no tensor is ever held a second time.

use crate::io::files::{self, FileChecksum};
use crate::io::plain::json_fault;
use crate::{Error, Result, nn};
use candle_core::Tensor;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Numbers converted at a time: they fit in a core's cache.
const PIECE: usize = 1 << 16;
/// Numbers of a tensor brought to main memory and to f32 at a time.
const TENSOR_PIECE: usize = 1 << 20;
/// Bytes of a safetensors file before its header: the header's length.
const LENGTH_BYTES: usize = 8;
/// Longest header that is read, as in the safetensors library.
const MAX_HEADER: u64 = 100_000_000;
/// How a text begins that stands for a file which Git LFS has not brought.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// A tensor to be written.
pub struct Source<'a> {
    /// Name in the file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Values<'a>,
}

/// Where the numbers of a tensor are.
pub enum Values<'a> {
    /// In main memory.
    Slice(&'a [f32]),
    /// In a tensor, maybe of another device or another type.
    Tensor(&'a Tensor),
    /// Nowhere yet: made when they are written, and then forgotten.
    Computed(&'a dyn Fn() -> Result<Vec<f32>>),
}

/// Write a safetensors file, whole or not at all; every tensor as `dtype`, which is f32, bf16 or f16. Returns what the file
/// should hold.
pub fn write(
    path: &Path,
    mut sources: Vec<Source<'_>>,
    dtype: Dtype,
    about: &[(&str, String)],
) -> Result<FileChecksum> {
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let header =
        header(&sources, dtype, about).map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))?;
    files::write_with_checksum(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        let mut bytes = Vec::new();
        for source in &sources {
            match source.values {
                Values::Slice(values) => write_values(out, values, dtype, &mut bytes)?,
                Values::Tensor(tensor) => pieces(tensor, |values| write_values(out, values, dtype, &mut bytes))?,
                Values::Computed(make) => {
                    let values = make().map_err(io::Error::other)?;
                    if values.len() != source.shape.iter().product::<usize>() {
                        return Err(io::Error::other(format!(
                            "{} numbers were made for {}",
                            values.len(),
                            source.name
                        )));
                    }
                    write_values(out, &values, dtype, &mut bytes)?;
                }
            }
        }
        Ok(())
    })
}

/// The header as the safetensors library writes it: in the order of the data, padded to a multiple of 8 bytes.
fn header(sources: &[Source<'_>], dtype: Dtype, about: &[(&str, String)]) -> std::result::Result<Vec<u8>, String> {
    let (mut tensors, mut offset) = (Vec::with_capacity(sources.len()), 0);
    for Source { name, shape, .. } in sources {
        let end = offset + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        tensors.push((name.clone(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (offset, end) }));
        offset = end;
    }
    let about: HashMap<String, String> = about.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    let metadata = Metadata::new(Some(about), tensors).map_err(|e| e.to_string())?;
    let mut text = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    text.resize(text.len().next_multiple_of(LENGTH_BYTES), b' ');
    Ok(text)
}

/// Give the numbers of a tensor to `each` in order, as f32 in main memory, at most [`TENSOR_PIECE`] of them at a time.
fn pieces(tensor: &Tensor, mut each: impl FnMut(&[f32]) -> io::Result<()>) -> io::Result<()> {
    let all = tensor.contiguous().and_then(|t| t.flatten_all()).map_err(io::Error::other)?;
    for start in (0..all.elem_count()).step_by(TENSOR_PIECE) {
        let piece = all.narrow(0, start, TENSOR_PIECE.min(all.elem_count() - start)).map_err(io::Error::other)?;
        each(&nn::numbers(&piece).map_err(io::Error::other)?)?;
    }
    Ok(())
}

fn write_values(out: &mut dyn Write, values: &[f32], dtype: Dtype, bytes: &mut Vec<u8>) -> io::Result<()> {
    for piece in values.chunks(PIECE) {
        bytes.clear();
        match dtype {
            Dtype::F32 => piece.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Dtype::BF16 => piece.iter().for_each(|&x| bytes.extend(bf16::from_f32(x).to_le_bytes())),
            Dtype::F16 => piece.iter().for_each(|&x| bytes.extend(f16::from_f32(x).to_le_bytes())),
            other => return Err(io::Error::other(format!("tensors are not written as {other:?}"))),
        }
        out.write_all(bytes)?;
    }
    Ok(())
}

/// A safetensors file whose header has been read and checked against the file's length.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    header: Metadata,
    /// Where the numbers begin.
    start: u64,
}

impl TensorFile {
    /// Read the header.
    ///
    /// # Errors
    /// An input error that names the file if it cannot be read, is no safetensors file, or is not as long as it says.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let fail = |what: &dyn std::fmt::Display| Error::input(format!("cannot read {}: {what}", path.display()));
        let mut file = files::open_regular(path).map_err(|e| fail(&e))?;
        let length = file.metadata().map_err(|e| fail(&e))?.len();
        let mut bytes = [0; LENGTH_BYTES];
        file.read_exact(&mut bytes).map_err(|_| fail(&"not a safetensors file (is a file incomplete?)"))?;
        if bytes == LFS_POINTER[..LENGTH_BYTES] {
            let mut rest = [0; LFS_POINTER.len() - LENGTH_BYTES];
            if file.read_exact(&mut rest).is_ok() && rest == LFS_POINTER[LENGTH_BYTES..] {
                return Err(fail(
                    &"a Git LFS pointer, not the file itself; `git lfs pull` in its repository brings it",
                ));
            }
            file.seek(SeekFrom::Start(LENGTH_BYTES as u64)).map_err(|e| fail(&e))?;
        }
        let size = u64::from_le_bytes(bytes);
        let start = LENGTH_BYTES as u64 + size.min(MAX_HEADER);
        if size > MAX_HEADER || start > length {
            return Err(fail(&format!("its header would have {size} bytes (is a file incomplete?)")));
        }
        let mut text = vec![0; size as usize];
        file.read_exact(&mut text).map_err(|e| fail(&e))?;
        let header: Metadata =
            serde_json::from_slice(&text).map_err(|e| fail(&format!("its header is broken: {}", json_fault(&e))))?;
        let expected = start + header.data_len() as u64;
        if expected != length {
            return Err(fail(&format!("{length} bytes where {expected} belong (is a file incomplete?)")));
        }
        Ok(TensorFile { path: path.to_owned(), header, start })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name, type and shape of every tensor, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &TensorInfo)> {
        self.header.offset_keys().into_iter().filter_map(|name| self.header.info(&name).map(|info| (name, info)))
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// What the file says about itself under `key`.
    pub fn about(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Read the numbers of a bf16 tensor of this file as they are.
    ///
    /// # Errors
    /// As [`TensorFile::read`]; also if the tensor is of another type.
    pub fn read_bf16(&self, tensor: &TensorInfo) -> Result<Vec<bf16>> {
        let fail = |what: &dyn std::fmt::Display| Error::input(format!("cannot read {}: {what}", self.path.display()));
        if tensor.dtype != Dtype::BF16 {
            return Err(fail(&format!("a tensor is {:?}, not bf16", tensor.dtype)));
        }
        let (begin, end) = tensor.data_offsets;
        let mut file = File::open(&self.path).map_err(|e| fail(&e))?;
        file.seek(SeekFrom::Start(self.start + begin as u64)).map_err(|e| fail(&e))?;
        let mut values = Vec::with_capacity((end - begin) / 2);
        let mut bytes = vec![0; 2 * PIECE];
        while 2 * values.len() < end - begin {
            let bytes = &mut bytes[..(2 * PIECE).min(end - begin - 2 * values.len())];
            file.read_exact(bytes).map_err(|e| fail(&e))?;
            values.extend(bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b)));
        }
        Ok(values)
    }

    /// Read the numbers of an f32, bf16 or f16 tensor of this file, in pieces. May be called by several threads at once.
    ///
    /// # Errors
    /// An input error that names the file; also if `into` has another length than the tensor.
    pub fn read(&self, tensor: &TensorInfo, into: &mut [f32]) -> Result<()> {
        let fail = |what: &dyn std::fmt::Display| Error::input(format!("cannot read {}: {what}", self.path.display()));
        let (begin, end) = tensor.data_offsets;
        let width = tensor.dtype.bitsize() / 8;
        if into.len() * width != end - begin {
            return Err(fail(&format!("a tensor has {} bytes where {} numbers belong", end - begin, into.len())));
        }
        let convert: fn(&[u8], &mut [f32]) = match tensor.dtype {
            Dtype::F32 => |from, to| each(from, to, f32::from_le_bytes),
            Dtype::BF16 => |from, to| each(from, to, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => |from, to| each(from, to, |b| f16::from_le_bytes(b).to_f32()),
            other => return Err(fail(&format!("a tensor is {other:?}; only f32, bf16 and f16 can be read"))),
        };
        // Opened once more, because threads that share a file also share its position.
        let mut file = File::open(&self.path).map_err(|e| fail(&e))?;
        file.seek(SeekFrom::Start(self.start + begin as u64)).map_err(|e| fail(&e))?;
        let mut bytes = vec![0; width * into.len().min(PIECE)];
        for piece in into.chunks_mut(PIECE) {
            let bytes = &mut bytes[..width * piece.len()];
            file.read_exact(bytes).map_err(|e| fail(&e))?;
            convert(bytes, piece);
        }
        Ok(())
    }
}

fn each<const N: usize>(from: &[u8], to: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (groups, _) = from.as_chunks::<N>();
    to.iter_mut().zip(groups).for_each(|(value, bytes)| *value = convert(*bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use safetensors::tensor::{TensorView, serialize};

    fn sources<'a>(values: &'a [f32], tensor: &'a Tensor) -> Vec<Source<'a>> {
        let first = Source { name: "b".into(), shape: vec![values.len()], values: Values::Slice(values) };
        vec![first, Source { name: "a".into(), shape: tensor.dims().to_vec(), values: Values::Tensor(tensor) }]
    }

    #[test]
    fn a_file_is_the_one_that_the_library_writes_and_reads_back_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let values: Vec<f32> = (0..PIECE + 3).map(|i| i as f32 * 0.5).collect();
        let tensor =
            Tensor::from_vec(vec![1.5f32, -2.0, 0.0, 4.0, 5.0, 6.0], (2, 3), &Device::Cpu).unwrap().t().unwrap();
        let about = [("format", "pt".to_string())];
        let written = write(&path, sources(&values, &tensor), Dtype::F32, &about).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let raw = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let turned = [1.5, 4.0, -2.0, 5.0, 0.0, 6.0];
        let (b, a) = (raw(&values), raw(&turned));
        let views = [
            ("b", TensorView::new(Dtype::F32, vec![values.len()], &b).unwrap()),
            ("a", TensorView::new(Dtype::F32, vec![3, 2], &a).unwrap()),
        ];
        let about = HashMap::from([("format".to_string(), "pt".to_string())]);
        assert!(bytes == serialize(views, Some(about)).unwrap());
        assert_eq!((written.bytes, written.crc32), (bytes.len() as u64, crc32fast::hash(&bytes)));
        for (dtype, scale) in [(Dtype::F32, 1.0), (Dtype::BF16, 0.004), (Dtype::F16, 0.0005)] {
            write(&path, sources(&values[..2000], &tensor), dtype, &[]).unwrap();
            let file = TensorFile::open(&path).unwrap();
            assert_eq!(
                file.tensors().map(|(n, t)| (n, t.shape.clone())).collect::<Vec<_>>(),
                [("a".to_string(), vec![3, 2]), ("b".to_string(), vec![2000])]
            );
            let (mut a, mut b) = ([9.0; 6], vec![9.0; 2000]);
            file.read(file.tensor("a").unwrap(), &mut a).unwrap();
            file.read(file.tensor("b").unwrap(), &mut b).unwrap();
            assert_eq!(a, turned, "{dtype:?}");
            let far = |x: f32, y: f32| (x - y).abs() > if dtype == Dtype::F32 { 0.0 } else { scale * y };
            assert!(!b.iter().zip(&values).any(|(x, y)| far(*x, *y)), "{dtype:?}");
            assert!(file.read(file.tensor("b").unwrap(), &mut a).is_err());
        }
    }

    #[test]
    fn a_tensor_of_another_type_or_order_is_converted_and_written_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let (rows, columns) = (TENSOR_PIECE / 4 + 1, 6);
        let value = |i: usize| (i % 2039) as f32 * 0.37 - 300.0;
        let values: Vec<f32> = (0..rows * columns).map(value).collect();
        let f32s = Tensor::from_slice(&values, (rows, columns), &Device::Cpu).unwrap();
        let bf16s = f32s.to_dtype(DType::BF16).unwrap();
        let turned = |t: &Tensor| t.t().unwrap();
        // Part of a larger one, too.
        let part = bf16s.narrow(0, 1, rows - 2).unwrap();
        for (case, tensor) in [
            ("f32", f32s.clone()),
            ("bf16", bf16s.clone()),
            ("f32, turned", turned(&f32s)),
            ("bf16, turned", turned(&bf16s)),
            ("part", part.clone()),
            ("part, turned", turned(&part)),
        ] {
            let expected = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (mut seen, mut lengths) = (Vec::new(), Vec::new());
            pieces(&tensor, |piece| {
                seen.extend_from_slice(piece);
                lengths.push(piece.len());
                Ok(())
            })
            .unwrap();
            assert!(seen == expected, "{case}");
            assert_eq!(lengths.len(), 2, "{case}");
            assert_eq!(lengths[0], TENSOR_PIECE, "{case}");
            let file = |name: &str| dir.path().join(name);
            for dtype in [Dtype::F32, Dtype::BF16] {
                let source = |values| Source { name: "a".into(), shape: tensor.dims().to_vec(), values };
                write(&file("pieces"), vec![source(Values::Tensor(&tensor))], dtype, &[]).unwrap();
                write(&file("whole"), vec![source(Values::Slice(&expected))], dtype, &[]).unwrap();
                assert!(
                    std::fs::read(file("pieces")).unwrap() == std::fs::read(file("whole")).unwrap(),
                    "{case} as {dtype:?}"
                );
            }
        }
        for (shape, expected) in [(vec![], 1), (vec![0usize, 3], 0)] {
            let mut count = 0;
            pieces(&Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap(), |piece| {
                count += piece.len();
                Ok(())
            })
            .unwrap();
            assert_eq!(count, expected);
        }
    }

    #[test]
    fn a_pointer_of_git_lfs_is_called_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        for (text, expected) in [
            (pointer, "model.safetensors: a Git LFS pointer, not the file itself; `git lfs pull`"),
            ("version 2 of something", "incomplete?"),
            ("version ", "incomplete?"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = TensorFile::open(&path).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_cut_off_or_too_long_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let tensor = Tensor::new(&[1.0f32, 2.0], &Device::Cpu).unwrap();
        write(&path, sources(&[1.0; 10], &tensor), Dtype::F32, &[]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 5, 30, bytes.len() - 1, bytes.len() + 1] {
            let mut changed = bytes.clone();
            changed.resize(length, 0);
            std::fs::write(&path, changed).unwrap();
            let error = TensorFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("x.safetensors") && error.contains("incomplete?"), "{length}: {error}");
        }
    }
}
