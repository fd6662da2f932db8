//! Request bodies that come compressed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::error::BoxError;
use super::fields::Fields;

/// The codings that [`Decoded`] undoes, for the `Accept-Encoding` of a 415 (RFC 9110 §15.5.16).
pub(crate) const ACCEPTED_CODINGS: HeaderValue = HeaderValue::from_static("gzip, deflate, identity");

/// A body has a coding, or several, that are not undone here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("content coding {0:?} is not accepted here, send gzip, deflate or none")]
pub struct UnknownCoding(pub String);

/// Why compressed data cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Corrupt {
    #[error("the compressed data makes no sense")]
    Nonsense,
    #[error("the compressed data ended early")]
    Truncated,
    #[error("something follows the compressed data")]
    Trailing,
    #[error("the compressed data is not what its checksum says")]
    Checksum,
}

pin_project! {
    /// A request body without its `Content-Encoding`: what is read of it is what the client meant.
    ///
    /// Nothing is kept beyond one piece of at most 16 KiB, so that [`read_body`](crate::read_body) bounds what comes
    /// out; what goes in may not be much more than that. Memory for inflating is taken when the first byte comes.
    pub struct Decoded<B> {
        #[pin]
        inner: Inner<B>,
    }
}

pin_project! {
    #[project = Which]
    enum Inner<B> {
        Plain {
            #[pin]
            body: B,
        },
        Coded {
            coded: Box<Coded<B>>,
        },
    }
}

struct Coded<B> {
    body: Pin<Box<B>>,
    /// Of the last frame, what was not looked at yet.
    rest: Bytes,
    stage: Stage,
    /// The last piece was full: more may be inside.
    is_full: bool,
    taken: usize,
    given: usize,
}

/// Where in the compressed data it is.
enum Stage {
    /// gzip's header (RFC 1952 §2.3), as far as it came.
    GzipHeader(Vec<u8>),
    /// Nothing came of `deflate` data yet.
    Deflate,
    Inflating {
        inflate: Decompress,
        checksum: Option<Crc>,
    },
    /// gzip's trailer, as far as it came.
    GzipTrailer {
        checksum: Crc,
        came: Vec<u8>,
    },
    Ended,
}

/// What comes out at once, at most.
const PIECE_BYTES: usize = 16 << 10;

/// Longest header of gzip data that is read: it may hold a file's name and a comment.
const MAX_GZIP_HEADER_BYTES: usize = 4 << 10;

/// How much more may go in than came out twice over: an empty block of compressed data has five bytes and gives none.
const MAX_SURPLUS_BYTES: usize = 64 << 10;

impl<B> Decoded<B> {
    /// Undoes what `headers` say was done to `body`.
    ///
    /// # Errors
    /// A coding that is not known, or more than one.
    pub fn new(headers: &HeaderMap, body: B) -> Result<Self, UnknownCoding> {
        let mut fields = headers.get_all(header::CONTENT_ENCODING).iter();
        let decoded = Self::of_field(fields.next(), body)?;
        fields.next().map_or(Ok(decoded), |second| Err(UnknownCoding::of(second)))
    }

    /// As [`new`](Self::new), where the fields are found already: most requests have none of this name.
    ///
    /// # Errors
    /// A coding that is not known, or more than one.
    pub fn found(fields: &Fields<'_>, headers: &HeaderMap, body: B) -> Result<Self, UnknownCoding> {
        match fields.content_encoding {
            None => Self::of_field(None, body),
            Some(_) => Self::new(headers, body),
        }
    }

    /// As [`new`](Self::new), where the one field `Content-Encoding` is found already.
    ///
    /// # Errors
    /// A coding that is not known, or more than one.
    pub fn of_field(field: Option<&HeaderValue>, body: B) -> Result<Self, UnknownCoding> {
        let Some(field) = field else { return Ok(Decoded { inner: Inner::Plain { body } }) };
        let is = |name: &str| field.as_bytes().trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        let stage = if is("gzip") || is("x-gzip") {
            Stage::GzipHeader(Vec::new())
        } else if is("deflate") {
            Stage::Deflate
        } else if is("identity") || is("") {
            return Ok(Decoded { inner: Inner::Plain { body } });
        } else {
            return Err(UnknownCoding::of(field));
        };
        let body = Box::pin(body);
        let coded = Coded { body, rest: Bytes::new(), stage, is_full: false, taken: 0, given: 0 };
        Ok(Decoded { inner: Inner::Coded { coded: Box::new(coded) } })
    }
}

impl UnknownCoding {
    fn of(field: &HeaderValue) -> Self {
        UnknownCoding(String::from_utf8_lossy(field.as_bytes()).into_owned())
    }
}

impl<B> HttpBody for Decoded<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().inner.project() {
            Which::Plain { body } => body.poll_frame(cx).map_err(Into::into),
            Which::Coded { coded } => coded.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Plain { body } => body.is_end_stream(),
            Inner::Coded { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Plain { body } => body.size_hint(),
            // Nobody knows before it is done.
            Inner::Coded { .. } => SizeHint::default(),
        }
    }
}

impl<B> Coded<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            while self.is_full || !self.rest.is_empty() {
                match self.step() {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
            }
            let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(self.end()),
            };
            if let Ok(data) = frame.into_data() {
                self.rest = data;
            }
        }
    }

    /// The body has no more. Whatever its coding, no bytes at all are no bytes.
    fn end(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        let is_whole = self.taken == 0 || matches!(self.stage, Stage::Ended);
        self.stage = Stage::Ended;
        (!is_whole).then(|| Err(Corrupt::Truncated.into()))
    }

    /// Takes some of what is there; the next piece that comes out, or nothing if more is needed for one.
    fn step(&mut self) -> Result<Bytes, Corrupt> {
        match &mut self.stage {
            Stage::GzipHeader(came) => {
                let before = came.len();
                let room = MAX_GZIP_HEADER_BYTES - before.min(MAX_GZIP_HEADER_BYTES);
                came.extend(self.rest.iter().take(room));
                match gzip_header(came)? {
                    Some(length) => {
                        self.take(length.saturating_sub(before));
                        let checksum = Some(Crc::new());
                        self.stage = Stage::Inflating { inflate: Decompress::new(false), checksum };
                    }
                    None if room <= self.rest.len() => return Err(Corrupt::Nonsense),
                    None => self.take(self.rest.len()),
                }
            }
            Stage::Deflate => {
                // RFC 9110 §8.4.1.2 says zlib, whose first byte has an 8 in its low four bits. Some send the bare data,
                // where those would begin a stored block with bits that every encoder leaves zero.
                let has_zlib_header = self.rest.first().is_some_and(|first| first & 0x0f == 8);
                self.stage = Stage::Inflating { inflate: Decompress::new(has_zlib_header), checksum: None };
            }
            Stage::Inflating { .. } => return self.inflate(),
            Stage::GzipTrailer { checksum, came } => {
                let missing = GZIP_TRAILER_BYTES.saturating_sub(came.len()).min(self.rest.len());
                came.extend(self.rest.iter().take(missing));
                if came.len() == GZIP_TRAILER_BYTES {
                    let said = [checksum.sum().to_le_bytes(), checksum.amount().to_le_bytes()].concat();
                    if *came != said {
                        return Err(Corrupt::Checksum);
                    }
                    self.stage = Stage::Ended;
                }
                self.take(missing);
            }
            Stage::Ended => return Err(Corrupt::Trailing),
        }
        Ok(Bytes::new())
    }

    fn inflate(&mut self) -> Result<Bytes, Corrupt> {
        let Stage::Inflating { inflate, checksum } = &mut self.stage else { return Ok(Bytes::new()) };
        let mut piece = BytesMut::zeroed(PIECE_BYTES);
        let before = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(&self.rest, &mut piece, FlushDecompress::None);
        let count = |now: u64, before: u64| usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX);
        let taken = count(inflate.total_in(), before.0);
        let was_full = std::mem::take(&mut self.is_full);
        piece.truncate(count(inflate.total_out(), before.1));
        if let Some(checksum) = checksum {
            checksum.update(&piece);
        }
        match status {
            Err(_) => return Err(Corrupt::Nonsense),
            Ok(Status::StreamEnd) => {
                self.stage = match checksum.take() {
                    Some(checksum) => Stage::GzipTrailer { checksum, came: Vec::new() },
                    None => Stage::Ended,
                };
            }
            // Input and room and yet no progress: it would be asked for ever.
            Ok(_) if taken == 0 && piece.is_empty() && !was_full => return Err(Corrupt::Nonsense),
            Ok(_) => self.is_full = piece.len() == PIECE_BYTES,
        }
        self.take(taken);
        self.given = self.given.saturating_add(piece.len());
        if self.taken > self.given.saturating_mul(2).saturating_add(MAX_SURPLUS_BYTES) {
            return Err(Corrupt::Nonsense);
        }
        Ok(piece.freeze())
    }

    fn take(&mut self, bytes: usize) {
        let bytes = bytes.min(self.rest.len());
        self.rest.advance(bytes);
        self.taken = self.taken.saturating_add(bytes);
    }
}

/// Checksum and length of the data, 32 bits each.
const GZIP_TRAILER_BYTES: usize = 8;

/// How long the header is with which these bytes begin; `None` if it is not whole yet.
fn gzip_header(bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
    const CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let magic = [0x1f, 0x8b, 8];
    if bytes.iter().zip(magic).any(|(is, should)| *is != should) {
        return Err(Corrupt::Nonsense);
    }
    let Some(fixed) = bytes.first_chunk::<10>() else { return Ok(None) };
    let flags = fixed[3];
    let mut at = fixed.len();
    if flags & EXTRA != 0 {
        let Some([low, high]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([*low, *high]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0));
            let Some(end) = end else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & CRC != 0 {
        at += 2;
    }
    Ok((at <= bytes.len()).then_some(at))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;
    use crate::request::{BodyError, read_body};

    /// A body in pieces of so many bytes.
    struct Pieces(Bytes, usize);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let length = self.1.min(self.0.len());
            let piece = self.0.split_to(length);
            Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
        }
    }

    fn encoded(coding: &str, data: &[u8]) -> Vec<u8> {
        match coding {
            "gzip" => {
                let header = flate2::GzBuilder::new().filename("a name").comment("why").extra(*b"extra");
                let mut encoder: GzEncoder<_> = header.write(Vec::new(), Compression::best());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            "x-gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            "Deflate" => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            _ => data.to_vec(),
        }
    }

    async fn decoded(coding: &str, sent: Vec<u8>, piece: usize, max: usize) -> Result<Bytes, BodyError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, coding.parse().unwrap())]);
        read_body(Decoded::new(&headers, Pieces(sent.into(), piece)).unwrap(), max).await
    }

    const CODINGS: [&str; 6] = ["gzip", "x-gzip", "deflate", "Deflate", "identity", ""];

    #[tokio::test]
    async fn every_accepted_coding_is_undone_however_it_comes_in_pieces() {
        let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for data in [&b""[..], b"x", b"hello, hello, hello", &noise, &[b'a'; 100_000]] {
            for coding in CODINGS {
                let sent = encoded(coding, data);
                for piece in [1, 7, 1 << 20] {
                    let read = decoded(coding, sent.clone(), piece, 100_000).await;
                    assert_eq!(read.unwrap(), data, "{coding} {piece} {}", data.len());
                }
            }
        }
    }

    #[tokio::test]
    async fn what_comes_out_is_bounded_and_what_goes_in_too() {
        for coding in ["gzip", "deflate", "Deflate"] {
            let bomb = encoded(coding, &vec![0; 4 << 20]);
            assert!(bomb.len() < 1 << 16);
            let read = decoded(coding, bomb, 1 << 20, 1 << 20).await;
            assert!(matches!(read, Err(BodyError::TooLarge { max: 0x10_0000 })), "{coding} {read:?}");
        }
        // Empty blocks give nothing for ever.
        let nothing = [0, 0, 0, 0xff, 0xff].repeat(100_000);
        let read = decoded("deflate", nothing, 1 << 20, 1 << 20).await;
        assert!(matches!(read, Err(BodyError::Io(_))), "{read:?}");
        let mut name = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0];
        name.resize(1 << 20, b'n');
        let read = decoded("gzip", name, 1000, 1 << 20).await;
        assert!(matches!(read, Err(BodyError::Io(_))), "{read:?}");
    }

    #[tokio::test]
    async fn half_of_it_more_than_it_and_anything_else_are_errors() {
        for coding in ["gzip", "x-gzip", "deflate", "Deflate"] {
            let whole = encoded(coding, b"hello, hello, hello");
            for length in 1..whole.len() {
                let read = decoded(coding, whole[..length].to_vec(), 7, 1000).await;
                assert!(read.is_err(), "{coding} {length} of {}", whole.len());
            }
            let more = [&whole[..], b"x"].concat();
            assert!(decoded(coding, more, 7, 1000).await.is_err(), "{coding}");
            assert!(
                decoded(coding, b"{\"not\":\"compressed\"}".to_vec(), 7, 1000).await.is_err(),
                "{coding}"
            );
            assert_eq!(decoded(coding, Vec::new(), 7, 1000).await.unwrap(), "", "{coding}");
        }
        let mut wrong = encoded("gzip", b"hello");
        let end = wrong.len() - 5;
        wrong[end] ^= 1;
        assert!(decoded("gzip", wrong, 100, 1000).await.is_err(), "the checksum");
    }

    #[test]
    fn unknown_codings_and_several_are_refused_by_name() {
        for (lines, named) in [
            (&["br"][..], "br"),
            (&["gzip, gzip"], "gzip, gzip"),
            (&["gzip", "deflate"], "deflate"),
            (&["zstd"], "zstd"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(Decoded::new(&headers, ()).err(), Some(UnknownCoding(named.to_owned())));
        }
        assert!(Decoded::new(&HeaderMap::new(), ()).is_ok());
    }
}
