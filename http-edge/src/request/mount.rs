//! Where a front is in the paths of the requests that it is given: one rule for all fronts.

/// What the requests show to a front that are handed to it.
///
/// A front answers at the path of its configuration and below, and nowhere else, in paths as it is given them:
/// [`Whole`](Self::Whole). A router that nests a service takes the prefix off; a front's `nested()` is for that:
/// [`Rest`](Self::Rest).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Paths {
    /// The whole path. The front is at the path of its configuration.
    #[default]
    Whole,
    /// What is behind the place where it is nested. The front is at `/`, whatever its configuration says.
    Rest,
}

impl Paths {
    /// Where a front is whose configuration says `path`.
    pub fn mount(self, path: &str) -> &str {
        match self {
            Paths::Whole => path,
            Paths::Rest => "/",
        }
    }
}

/// What stands behind `mount` in `path`, without the slash between; `None` if the path is elsewhere. A mount is a path
/// like `/sse`, of any number of segments; slashes at its ends do not matter, and one without a segment has all paths.
///
/// ```
/// use http_edge::below;
///
/// assert_eq!(below("/sse/chat/room1", "/sse"), Some("chat/room1"));
/// assert_eq!(below("/sse", "/sse"), Some(""));
/// assert_eq!(below("/sserver", "/sse"), None);
/// assert_eq!(below("/chat/room1", "/"), Some("chat/room1"));
/// ```
#[inline]
pub fn below<'a>(path: &'a str, mut mount: &str) -> Option<&'a str> {
    // Each request comes by here several times: a byte at an end is looked at for less than a pattern.
    while let Some(rest) = mount.strip_prefix('/') {
        mount = rest;
    }
    while let Some(rest) = mount.strip_suffix('/') {
        mount = rest;
    }
    let path = path.strip_prefix('/')?;
    if mount.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(mount)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_itself_and_what_is_below() {
        for (path, mount, expected) in [
            ("/v1/publish/a", "/v1", Some("publish/a")),
            ("/v1/publish/a", "v1/", Some("publish/a")),
            ("/v1", "/v1", Some("")),
            ("/v1/", "/v1", Some("")),
            ("/v1//a", "/v1", Some("/a")),
            ("/v1a", "/v1", None),
            ("/", "/v1", None),
            ("/a/b/c", "/a/b", Some("c")),
            ("/a/bc", "/a/b", None),
            ("/", "/", Some("")),
            ("/a/b", "", Some("a/b")),
            ("//a", "/", Some("/a")),
            ("*", "/", None),
            ("", "/", None),
        ] {
            assert_eq!(below(path, mount), expected, "{path} at {mount}");
        }
    }
}
