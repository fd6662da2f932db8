//! Bodies that come compressed, in any pieces.

use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::HeaderValue;
use http_body::{Body, Frame};

use crate::request::Decoded;

/// Longest result that is looked at.
const MAX_BYTES: usize = 1 << 20;

/// The first byte says which coding, the second in which pieces; the rest is the data, as it came and compressed. What
/// was compressed comes out again, what is nonsense is an error, in whatever pieces, and what is taken is what the
/// library makes of all of it.
pub fn bodies(bytes: &[u8]) {
    let Some((&[which, pieces], data)) = bytes.split_first_chunk::<2>() else { return };
    let pieces = usize::from(pieces) + 1;
    let (coding, compressed) = match which % 3 {
        0 => ("gzip", written(GzEncoder::new(Vec::new(), Compression::fast()), data, GzEncoder::finish)),
        1 => {
            ("deflate", written(ZlibEncoder::new(Vec::new(), Compression::fast()), data, ZlibEncoder::finish))
        }
        _ => (
            "deflate",
            written(DeflateEncoder::new(Vec::new(), Compression::fast()), data, DeflateEncoder::finish),
        ),
    };
    assert_eq!(decoded(coding, &compressed, pieces).as_deref(), Some(data));
    // Nothing may follow it, and nothing of it may be missing.
    assert_eq!(decoded(coding, &[&compressed[..], b"x"].concat(), pieces), None);
    let cut = compressed.len() * usize::from(which) / 256;
    if cut > 0 {
        assert_eq!(decoded(coding, compressed.get(..cut).unwrap_or_default(), pieces), None, "{cut}");
    }

    let whole = decoded(coding, data, usize::MAX);
    assert_eq!(decoded(coding, data, pieces), whole);
    assert_eq!(decoded(coding, data, 1), whole);
    if let Some(out) = whole
        && coding == "deflate"
        && !data.is_empty()
    {
        let mut theirs = Vec::new();
        let read = match data.first() {
            Some(first) if first & 0x0f == 8 => ZlibDecoder::new(data).read_to_end(&mut theirs),
            _ => DeflateDecoder::new(data).read_to_end(&mut theirs),
        };
        assert!(read.is_ok());
        assert_eq!(out, theirs);
    }
}

fn written<W: std::io::Write>(
    mut encoder: W,
    data: &[u8],
    finish: fn(W) -> std::io::Result<Vec<u8>>,
) -> Vec<u8> {
    encoder.write_all(data).expect("into memory");
    finish(encoder).expect("into memory")
}

/// All of a body; `None` if it makes no sense.
fn decoded(coding: &'static str, data: &[u8], pieces: usize) -> Option<Vec<u8>> {
    let pieces = data.chunks(pieces).map(Bytes::copy_from_slice).collect();
    let coding = HeaderValue::from_static(coding);
    let mut body =
        Box::pin(Decoded::of_field(Some(&coding), Pieces(pieces)).expect("a coding that is known"));
    let mut context = Context::from_waker(Waker::noop());
    let mut out = Vec::new();
    loop {
        match body.as_mut().poll_frame(&mut context) {
            Poll::Ready(None) => return Some(out),
            Poll::Ready(Some(Ok(frame))) => out.extend_from_slice(&frame.into_data().expect("no trailers")),
            Poll::Ready(Some(Err(_))) => return None,
            Poll::Pending => panic!("all is there"),
        }
        if out.len() > MAX_BYTES {
            return None;
        }
    }
}

struct Pieces(std::collections::VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}
