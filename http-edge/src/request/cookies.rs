//! The cookies of a request.

use http::{HeaderMap, header};

/// The values of the cookies of that name, in the order of the request: a browser that has the name for several paths
/// or domains sends each.
///
/// They are bytes: other cookies of the same header may be in any encoding, and one that cannot be read does not spoil
/// the others.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(|value| {
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            value.strip_suffix(b"\"").unwrap_or(value)
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_beside_any_others_and_each_of_its_name_is() {
        for (lines, expected) in [
            (&[&b"name=J\xFCrgen; fw=KEY"[..]][..], &[&b"KEY"[..]][..]),
            (&["name=Jürgen; fw=KEY".as_bytes()], &[b"KEY"]),
            (&[b"fw=KEY; name=J\xFCrgen"], &[b"KEY"]),
            (&[b"alone; =; fw2=no; fw = no;fw=\"KEY\""], &[b"KEY"]),
            (&[b"fw=K\xFC"], &[b"K\xFC"]),
            (&[b"fw="], &[b""]),
            (&[b"fw=a=b"], &[b"a=b"]),
            (&[b"FW=KEY; f\xFC=x; fw"], &[]),
            (&[b"fw=1; x; fw=2", b"\xFF", b"fw=3"], &[b"1", b"2", b"3"]),
            (&[], &[]),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_bytes(line).unwrap());
            }
            assert_eq!(cookies(&headers, "fw").collect::<Vec<_>>(), expected, "{lines:?}");
        }
    }
}
