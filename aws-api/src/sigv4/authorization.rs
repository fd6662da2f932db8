//! The header `Authorization`.

use crate::error::AwsError;

/// What `Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authorization<'a> {
    /// Whose secret was used.
    pub access_key: &'a str,
    /// The day of the signing key, `YYYYMMDD`.
    pub day: &'a str,
    /// For which region.
    pub region: &'a str,
    /// For which service.
    pub service: &'a str,
    /// Names of the header fields that were signed, joined by `;`.
    pub signed_headers: &'a str,
    /// The signature.
    pub signature: [u8; 32],
}

/// The one algorithm that is known.
pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What ends each scope.
pub(super) const TERMINATOR: &str = "aws4_request";

impl<'a> Authorization<'a> {
    /// Reads the header's value.
    ///
    /// # Errors
    /// `IncompleteSignatureException`, with what is missing or cannot be read.
    pub fn parse(value: &'a str) -> Result<Self, AwsError> {
        let incomplete = |message: &'static str| AwsError::incomplete_signature(message);
        let parameters = value
            .trim()
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with([' ', '\t']))
            .ok_or_else(|| incomplete("Authorization does not begin with AWS4-HMAC-SHA256"))?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for parameter in parameters.split(',') {
            let (name, value) = parameter
                .trim()
                .split_once('=')
                .ok_or_else(|| incomplete("Authorization holds a parameter without `=`"))?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(incomplete("Authorization holds an unknown parameter")),
            };
            if place.replace(value).is_some() {
                return Err(incomplete("Authorization holds a parameter twice"));
            }
        }
        let credential = credential.ok_or_else(|| incomplete("Authorization needs Credential"))?;
        let signed_headers = signed_headers.ok_or_else(|| incomplete("Authorization needs SignedHeaders"))?;
        let signature = signature.ok_or_else(|| incomplete("Authorization needs Signature"))?;
        let mut parts = credential.rsplitn(5, '/');
        let (Some(TERMINATOR), Some(service), Some(region), Some(day), Some(access_key)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(incomplete("Credential is not KEY/DAY/REGION/SERVICE/aws4_request"));
        };
        if access_key.is_empty() || signed_headers.is_empty() {
            return Err(incomplete("Credential names no key, or SignedHeaders nothing"));
        }
        let signature = hex(signature).ok_or_else(|| incomplete("Signature is not 64 hexadecimal digits"))?;
        Ok(Self { access_key, day, region, service, signed_headers, signature })
    }
}

/// 32 bytes from 64 digits.
fn hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    #[test]
    fn what_sdks_send_is_read() {
        for gap in [", ", ","] {
            let value = [
                "AWS4-HMAC-SHA256 Credential=AK/ID/20261129/us-east-1/iotdata/aws4_request",
                "SignedHeaders=host;x-amz-date",
                &format!("Signature={SIGNATURE}"),
            ]
            .join(gap);
            let read = Authorization::parse(&value).unwrap();
            assert_eq!((read.access_key, read.day), ("AK/ID", "20261129"));
            assert_eq!(
                (read.region, read.service, read.signed_headers),
                ("us-east-1", "iotdata", "host;x-amz-date")
            );
            assert_eq!(read.signature[..3], [0, 0x11, 0x22]);
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let credential = "Credential=A/20261129/r/s/aws4_request";
        for value in [
            "",
            "Bearer x",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256-X a=b",
            &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host"),
            &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=00"),
            &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature={}", "+".repeat(64)),
            &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=, Signature={SIGNATURE}"),
            &format!("AWS4-HMAC-SHA256 {credential}, {credential}, SignedHeaders=h, Signature={SIGNATURE}"),
            &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=h, Signature={SIGNATURE}, X=1"),
            &format!("AWS4-HMAC-SHA256 Credential=A/20261129/r/s, SignedHeaders=h, Signature={SIGNATURE}"),
            &format!(
                "AWS4-HMAC-SHA256 Credential=/20261129/r/s/aws4_request, SignedHeaders=h, Signature={SIGNATURE}"
            ),
        ] {
            let error = Authorization::parse(value).unwrap_err();
            assert_eq!(error.kind, "IncompleteSignatureException", "{value}");
        }
    }
}
