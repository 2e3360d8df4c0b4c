//! Unpacking one compressed piece of a disk into a buffer of known size.
//!
//! Knows: deflate, zlib and zstd, and that no more is written than the buffer holds, whatever the
//! compressed bytes claim. Refuses to know: where the pieces lie.

use base::{Error, Result};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// The largest window a zstd frame may ask for, as a power of two: four times the largest piece.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a piece is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compression {
    /// Deflate without a header.
    Deflate,
    /// Deflate with the zlib header and checksum.
    Zlib,
    /// One zstd frame.
    Zstd,
}

/// Fills all of `output` from `input`. Bytes of `input` after the end of the stream are ignored:
/// formats round lengths up.
///
/// # Errors
/// `Corrupt` where the stream is broken or unpacks to less than `output`.
pub(crate) fn inflate(how: Compression, input: &[u8], output: &mut [u8]) -> Result<()> {
    let written = match how {
        Compression::Deflate => deflate(Decompress::new(false), input, output),
        Compression::Zlib => deflate(Decompress::new(true), input, output),
        Compression::Zstd => unzstd(input, output),
    }?;
    if written < output.len() {
        return Err(Error::corrupt(
            "disk.inflate.short",
            format!(
                "a compressed piece holds {written} bytes instead of {}",
                output.len()
            ),
        ));
    }
    Ok(())
}

fn deflate(mut stream: Decompress, input: &[u8], output: &mut [u8]) -> Result<usize> {
    let (mut read, mut written) = (0, 0);
    while written < output.len() {
        let (read_before, written_before) = (stream.total_in(), stream.total_out());
        let status = stream
            .decompress(
                &input[read..],
                &mut output[written..],
                FlushDecompress::None,
            )
            .map_err(broken)?;
        let (took, gave) = (
            stream.total_in() - read_before,
            stream.total_out() - written_before,
        );
        read += took as usize;
        written += gave as usize;
        if status == Status::StreamEnd || (took == 0 && gave == 0) {
            break;
        }
    }
    Ok(written)
}

fn unzstd(input: &[u8], output: &mut [u8]) -> Result<usize> {
    let mut stream = Decoder::new().map_err(broken)?;
    stream
        .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
        .map_err(broken)?;
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around(output);
    loop {
        let (read, written) = (input.pos(), output.pos());
        let hint = stream.run(&mut input, &mut output).map_err(broken)?;
        let stuck = input.pos() == read && output.pos() == written;
        if hint == 0 || stuck || output.pos() == output.capacity() {
            return Ok(output.pos());
        }
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::corrupt("disk.inflate.broken", "a compressed piece is damaged").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(how: Compression, bytes: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::new(6);
        match how {
            Compression::Deflate => {
                let mut stream = flate2::write::DeflateEncoder::new(Vec::new(), level);
                stream.write_all(bytes).unwrap();
                stream.finish().unwrap()
            }
            Compression::Zlib => {
                let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), level);
                stream.write_all(bytes).unwrap();
                stream.finish().unwrap()
            }
            Compression::Zstd => zstd::bulk::compress(bytes, 3).unwrap(),
        }
    }

    #[test]
    fn every_way_gives_the_bytes_and_never_more_or_less() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n / 7 % 251) as u8).collect();
        for how in [Compression::Deflate, Compression::Zlib, Compression::Zstd] {
            let mut input = packed(how, &bytes);
            input.extend_from_slice(&[0xaa; 300]);
            let mut output = vec![0; bytes.len()];
            inflate(how, &input, &mut output).unwrap();
            assert_eq!(output, bytes, "{how:?}");
            inflate(how, &input, &mut output[..1000]).unwrap();
            let mut long = vec![0; bytes.len() + 1];
            assert!(inflate(how, &input, &mut long).is_err(), "{how:?}");
            assert!(inflate(how, &input[..50], &mut output).is_err(), "{how:?}");
            assert!(inflate(how, &[0xff; 64], &mut output).is_err(), "{how:?}");
        }
    }
}
