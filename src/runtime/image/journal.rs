//! The journal of an unpacked layer: everything of its tar that is not file content.
//!
//! With it a layer directory turns back into exactly the tar it came from, so
//! that a saved or pushed layer keeps its diff ID although no blob is kept.
//!
//! Format, inside one zstd frame: records of a tag byte and little-endian numbers.
//! `0`, length u32, bytes: taken as they are. `1`, length u32, path, count u32,
//! count × (offset u64, length u64): these pieces of that file.
//!
//! A path that a later entry of the same layer replaces is renamed to
//! `shadow/<n>`; [`Shadow`] tells for which records it stands.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

/// Something replaced inside its own layer, kept as `shadow/<index>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shadow {
    /// File records before this number meant the replaced content.
    pub(crate) before: u64,
    /// Path, inside the layer; bytes, as names need not be UTF-8.
    pub(crate) path: Vec<u8>,
}

/// Writes a journal.
pub(crate) struct Writer {
    out: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    files: u64,
}

impl Writer {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create_new(path)?);
        Ok(Self { out: zstd::stream::write::Encoder::new(file, 1)?, files: 0 })
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(1 << 30) {
            self.out.write_all(&[0])?;
            self.number(part.len())?;
            self.out.write_all(part)?;
        }
        Ok(())
    }

    pub(crate) fn file(&mut self, path: &[u8], pieces: &[(u64, u64)]) -> io::Result<()> {
        self.out.write_all(&[1])?;
        self.number(path.len())?;
        self.out.write_all(path)?;
        self.number(pieces.len())?;
        for (offset, length) in pieces {
            self.out.write_all(&offset.to_le_bytes())?;
            self.out.write_all(&length.to_le_bytes())?;
        }
        self.files += 1;
        Ok(())
    }

    /// File records so far.
    pub(crate) fn files(&self) -> u64 {
        self.files
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.out.finish()?.flush()
    }

    fn number(&mut self, value: usize) -> io::Result<()> {
        let value = u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData)?;
        self.out.write_all(&value.to_le_bytes())
    }
}

/// Writes the tar of a layer directory (with `fs`, `journal`, `shadow`) to `out`.
pub(crate) fn replay(layer: &Path, shadows: &[Shadow], out: &mut dyn Write) -> io::Result<()> {
    let mut input = BufReader::new(zstd::stream::read::Decoder::new(File::open(layer.join("journal"))?)?);
    let root = rustix::fs::open(
        layer.join("fs"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut files = 0_u64;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut tag = [0];
        if input.read(&mut tag)? == 0 {
            return Ok(());
        }
        let length = u64::from(number(&mut input)?);
        match tag[0] {
            0 => {
                if io::copy(&mut (&mut input).take(length), out)? != length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            1 => {
                let mut path = Vec::new();
                if (&mut input).take(length).read_to_end(&mut path)? as u64 != length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let file = open(layer, &root, shadows, files, &path)?;
                files += 1;
                for _ in 0..number(&mut input)? {
                    let (mut offset, mut left) = (long(&mut input)?, long(&mut input)?);
                    while left > 0 {
                        let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                        let got = file.read_at(&mut buffer[..part], offset)?;
                        if got == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        out.write_all(&buffer[..got])?;
                        offset += got as u64;
                        left -= got as u64;
                    }
                }
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn open(
    layer: &Path,
    root: &impl std::os::fd::AsFd,
    shadows: &[Shadow],
    record: u64,
    path: &[u8],
) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // The earliest replacement after this record holds what the record meant.
    for (index, shadow) in shadows.iter().enumerate() {
        if shadow.before <= record {
            continue;
        }
        let below = if path == shadow.path {
            Some(&b""[..])
        } else {
            path.strip_prefix(&shadow.path[..]).and_then(|rest| rest.strip_prefix(b"/"))
        };
        if let Some(below) = below {
            let mut place: PathBuf = layer.join("shadow").join(index.to_string());
            if !below.is_empty() {
                place.push(std::ffi::OsStr::from_bytes(below));
            }
            return Ok(rustix::fs::openat(CWD, &place, flags, Mode::empty())?.into());
        }
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?.into())
}

fn number(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn long(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
