//! Pushpin's routes file as routes of ours: text to text, and what cannot be said here by line. Pure.

use std::fmt::Write as _;

/// What became of a routes file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// A configuration in TOML. What was lost is said in comments, at its route.
    pub toml: String,
    /// What could not be mapped.
    pub lost: Vec<Lost>,
}

/// Something of a routes file that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The line, from 1.
    pub line: usize,
    /// What, and what to do about it, in a sentence without an end.
    pub what: String,
}

/// A word of a line: what stands first in it, and its parameters.
#[derive(Debug, Default)]
struct Word {
    value: String,
    parameters: Vec<(String, String)>,
}

/// One route, while it is being read.
#[derive(Debug, Default)]
struct Read {
    id: Option<String>,
    path: Option<String>,
    removed: Option<usize>,
    keys: Vec<(&'static str, String)>,
    response_headers: Vec<(String, String)>,
    is_plain: bool,
    origins: Vec<String>,
    /// What is said at targets, and holds for the route here.
    of_targets: Vec<Vec<(&'static str, String)>>,
    lost: Vec<String>,
}

/// Paths of Fanwire's own, which no route is for.
const OWN: [&str; 9] =
    ["/v1", "/sse", "/cometd", "/mqtt", "/grip", "/page", "/healthz", "/readyz", "/metrics"];

/// Reads a routes file: one route a line, a condition and then targets, each with parameters.
pub fn routes(text: &str) -> Imported {
    let mut imported = Imported::default();
    let mut taken: Vec<String> = Vec::new();
    let mut same: Vec<(String, String, Vec<String>)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line_number = at + 1;
        let words = match words(line) {
            Ok(words) if words.is_empty() => continue,
            Ok(words) => words,
            Err(what) => {
                imported.leave_out(line_number, vec![what.to_owned()]);
                continue;
            }
        };
        let mut read = Read::default();
        let mut words = words.into_iter();
        let condition = words.next().unwrap_or_default();
        read.condition(&condition);
        for target in words {
            read.target(target);
        }
        let path = read.path();
        let is_own = OWN.iter().any(|own| {
            path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '*']))
        });
        if is_own {
            read.lost.push(format!("{path:?} is a path of Fanwire's own"));
        }
        let host = match &*condition.value {
            "" => "*".to_owned(),
            host => host.to_ascii_lowercase(),
        };
        if host.parse::<crate::pattern::HostPattern>().is_err() {
            read.lost.push(format!("{host:?} is no host here: a name, \"*.example.org\" and \"*\" are"));
            read.origins.clear();
        }
        let of_requests = read.keys.iter().filter(|(key, _)| ["scheme", "protocol"].contains(key));
        let of_requests: Vec<_> = of_requests.map(|(key, value)| format!("{key}={value}")).collect();
        let place = (host.clone(), path.clone(), of_requests);
        if same.contains(&place) {
            read.lost
                .push("a route before it has this host and path, and would have its requests".to_owned());
            read.origins.clear();
        }
        if is_own || read.origins.is_empty() {
            imported.leave_out(line_number, read.lost);
            continue;
        }
        same.push(place);
        let id = read.id(line_number, &taken);
        read.write(line_number, &id, &host, &path, &mut imported);
        taken.push(id);
    }
    imported
}

impl Imported {
    /// A line of which nothing becomes a route, and why.
    fn leave_out(&mut self, line: usize, mut why: Vec<String>) {
        if why.is_empty() {
            why.push("it has no target".to_owned());
        }
        for what in why {
            _ = writeln!(self.toml, "# line {line}, which is left out: {what}");
            self.lost.push(Lost { line, what });
        }
        self.toml.push('\n');
    }
}

impl Read {
    fn condition(&mut self, word: &Word) {
        for (name, value) in &word.parameters {
            let value = value.as_str();
            match name.as_str() {
                "id" => self.id = Some(value.to_owned()),
                "path_beg" => self.path = Some(value.to_owned()),
                "path_rem" => match value.parse() {
                    Ok(removed) => self.removed = Some(removed),
                    Err(_) => self.lose(name, "is a number of characters"),
                },
                "replace_beg" => self.keys.push(("replace_prefix", quoted(value))),
                "prefix" => self.keys.push(("channel_prefix", quoted(value))),
                "sig_iss" => self.keys.push(("sig_iss", quoted(value))),
                "sig_key" => self.keys.push(("sig_key", quoted(value))),
                "debug" => self.keys.push(("debug", "true".to_owned())),
                "no_grip" => self.is_plain = true,
                "header" => match value.split_once(':') {
                    Some((name, value)) if !name.trim().is_empty() => {
                        self.response_headers.push((name.trim().to_owned(), value.trim().to_owned()));
                    }
                    _ => self.lose(name, "is a name, a colon and a value"),
                },
                "ssl" => match value {
                    "yes" => self.keys.push(("scheme", quoted("https"))),
                    "no" => self.keys.push(("scheme", quoted("http"))),
                    _ => self.lose(name, "is `yes` or `no`"),
                },
                "proto" => match value {
                    "http" => self.keys.push(("protocol", quoted("http"))),
                    "ws" => self.keys.push(("protocol", quoted("websocket"))),
                    _ => self.lose(name, "is `http` or `ws`"),
                },
                "aco" => self.keys.push(("cors", quoted("*"))),
                "session" => self.lose(name, "is not built"),
                name if name.starts_with("sockjs") => self.lose(name, "is not built: SockJS is not spoken"),
                name if name.starts_with("jsonp") => self.lose(name, "is not built: JSON-P is not spoken"),
                name => self.lose(name, "is not known here"),
            }
        }
    }

    fn target(&mut self, word: Word) {
        let target = word.value.as_str();
        if target == "test" {
            return self.lost.push("the target \"test\" is not here".to_owned());
        }
        if target.starts_with("zhttp") {
            return self.lost.push(format!("the target {target:?} is not built: there is no ZeroMQ"));
        }
        let (mut is_tls, mut is_over_http, mut keys) = (false, false, Vec::new());
        let mut subscribed: Vec<String> = Vec::new();
        for (name, value) in &word.parameters {
            match name.as_str() {
                "ssl" => is_tls = value != "no",
                "over_http" => is_over_http = true,
                "one_event" => keys.push(("max_events", "1".to_owned())),
                "host" => keys.push(("origin_host", quoted(value))),
                "insecure" => keys.push(("tls.insecure", "true".to_owned())),
                "client_cert" => {
                    keys.push(("tls.client_cert", quoted(&format!("{value}.crt"))));
                    keys.push(("tls.client_key", quoted(&format!("{value}.key"))));
                }
                "sub" => subscribed.push(quoted(value)),
                "trusted" => self.lose(name, "needs nothing here: origins of the file may be anywhere"),
                name => self.lose(name, "is not known here"),
            }
        }
        if !subscribed.is_empty() {
            match is_over_http && !self.is_plain {
                true => keys.push(("subscribe", format!("[{}]", subscribed.join(", ")))),
                false => {
                    self.lose("sub", "is of WebSockets by `over_http`: one that passes is on no channel")
                }
            }
        }
        // Without it a WebSocket goes to the origin as one.
        let scheme = match (is_over_http || self.is_plain, is_tls) {
            (true, false) => "http",
            (true, true) => "https",
            (false, false) => "ws",
            (false, true) => "wss",
        };
        let origin = format!("{scheme}://{target}");
        if origin.parse::<crate::config::Origin>().is_err() || !target.contains(':') {
            return self.lost.push(format!("{target:?} is no origin: a host and a port are"));
        }
        self.origins.push(origin);
        self.of_targets.push(keys);
    }

    fn lose(&mut self, name: &str, why: &str) {
        self.lost.push(format!("`{name}` {why}"));
    }

    /// As a pattern of ours. There `/a/**` is `/a` too.
    fn path(&mut self) -> String {
        let path = self.path.clone().unwrap_or_default();
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains(['?', '#', '*']);
        if path.is_empty() || path == "/" {
            return "/**".to_owned();
        }
        if !path.starts_with('/') || !is_plain {
            self.lost.push(format!("{path:?} is no beginning of a path"));
            self.origins.clear();
        }
        format!("{path}**")
    }

    /// Its own, if that can be one and is not taken, else one by its line.
    fn id(&mut self, line: usize, taken: &[String]) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let by_line = format!("line-{line}");
        let Some(id) = self.id.take() else { return by_line };
        if (1..=64).contains(&id.len()) && id.bytes().all(plain) && !taken.contains(&id) {
            return id;
        }
        self.lost.push(format!("{id:?} cannot be its id: it is called {by_line:?}"));
        by_line
    }

    fn write(mut self, line: usize, id: &str, host: &str, path: &str, imported: &mut Imported) {
        let mut keys = std::mem::take(&mut self.keys);
        if let Some(removed) = self.removed {
            let beginning = self.path.clone().unwrap_or_default();
            match beginning.get(..removed) {
                Some(prefix) if !prefix.is_empty() => keys.push(("strip_prefix", quoted(prefix))),
                _ => self.lose("path_rem", "takes off more than `path_beg` says"),
            }
        }
        let mut of_targets = std::mem::take(&mut self.of_targets).into_iter();
        let first = of_targets.next().unwrap_or_default();
        if of_targets.any(|other| other != first) {
            self.lost.push(
                "what its targets say differs, and holds for a route here: that of the first is taken"
                    .to_owned(),
            );
        }
        keys.extend(first);
        let speaks = |scheme: &str| self.origins.iter().any(|origin| origin.starts_with(scheme));
        if speaks("ws") && speaks("http") {
            self.lost.push(
                "some targets have `over_http` and some not: WebSockets go to all as WebSockets".to_owned(),
            );
        }
        if self.origins.len() > 16 {
            self.lost.push("a route has 16 origins at most: the others are left out".to_owned());
            self.origins.truncate(16);
        }
        if self.is_plain {
            let of_grip = ["sig_iss", "sig_key", "channel_prefix", "max_events"];
            keys.retain(|(key, _)| !of_grip.contains(key));
        }
        let out = &mut imported.toml;
        for what in &self.lost {
            _ = writeln!(out, "# line {line}: {what}");
        }
        let dialect = if self.is_plain { "proxy" } else { "grip" };
        _ = writeln!(out, "[[gateway.routes]]\nid = {}\ndialect = \"{dialect}\"", quoted(id));
        if host != "*" {
            _ = writeln!(out, "host = {}", quoted(host));
        }
        _ = writeln!(out, "path = {}", quoted(path));
        let origins: Vec<_> = self.origins.iter().map(|origin| quoted(origin)).collect();
        match &origins[..] {
            [one] => _ = writeln!(out, "origin = {one}"),
            all => _ = writeln!(out, "origin = [{}]", all.join(", ")),
        }
        let (mut written, mut tls): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
        for (key, value) in keys {
            // The last one would be a mistake here.
            if written.contains(&key) {
                continue;
            }
            written.push(key);
            match key.strip_prefix("tls.") {
                Some(key) => tls.push(format!("{key} = {value}")),
                None => _ = writeln!(out, "{key} = {value}"),
            }
        }
        if !tls.is_empty() {
            _ = writeln!(out, "tls = {{ {} }}", tls.join(", "));
        }
        if !self.response_headers.is_empty() {
            let mut headers: Vec<(String, String)> = Vec::new();
            for (name, value) in self.response_headers {
                match headers.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                    Some(known) => known.1 = value,
                    None => headers.push((name, value)),
                }
            }
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
            _ = writeln!(out, "response_headers = {{ {} }}", headers.join(", "));
        }
        out.push('\n');
        imported.lost.extend(self.lost.into_iter().map(|what| Lost { line, what }));
    }
}

/// A line in its words, and these by commas; `"…"` and `\` take the meaning from a comma, a space and `#`.
fn words(line: &str) -> Result<Vec<Word>, &'static str> {
    let mut words: Vec<Word> = Vec::new();
    let mut parts: Vec<String> = Vec::new();
    let mut part: Option<String> = None;
    let (mut is_quoted, mut characters) = (false, line.chars());
    let close = |parts: &mut Vec<String>, part: &mut Option<String>, words: &mut Vec<Word>| {
        parts.extend(part.take());
        let mut parts = std::mem::take(parts).into_iter();
        let Some(value) = parts.next() else { return };
        let parameters = parts.map(|part| match part.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (part, String::new()),
        });
        words.push(Word { value, parameters: parameters.collect() });
    };
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next) => part.get_or_insert_default().push(next),
                None => return Err("it ends with a backslash"),
            },
            '"' => {
                is_quoted = !is_quoted;
                part.get_or_insert_default();
            }
            _ if is_quoted => part.get_or_insert_default().push(character),
            '#' => break,
            ',' => {
                parts.push(part.take().unwrap_or_default());
                part = Some(String::new());
            }
            space if space.is_whitespace() => close(&mut parts, &mut part, &mut words),
            other => part.get_or_insert_default().push(other),
        }
    }
    if is_quoted {
        return Err("a quotation mark is open");
    }
    close(&mut parts, &mut part, &mut words);
    Ok(words)
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            control if control.is_control() => _ = write!(out, "\\u{:04X}", u32::from(control)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without comments and empty lines.
    fn said(text: &str) -> Vec<String> {
        let imported = routes(text);
        let lines = imported.toml.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn each_parameter_has_its_key() {
        for (line, keys) in [
            ("* a:80", &["origin = \"ws://a:80\""][..]),
            ("* a:80,over_http", &["origin = \"http://a:80\""]),
            ("* a:80,ssl,over_http", &["origin = \"https://a:80\""]),
            ("* a:80 b:81", &["origin = [\"ws://a:80\", \"ws://b:81\"]"]),
            ("*,path_beg=/a a:80", &["path = \"/a**\"", "origin = \"ws://a:80\""]),
            ("*,path_beg=/a/b,path_rem=2 a:80", &["path = \"/a/b**\"", "strip_prefix = \"/a\""]),
            ("*,path_beg=/a,replace_beg=/c a:80", &["replace_prefix = \"/c\""]),
            ("*,prefix=p- a:80", &["channel_prefix = \"p-\""]),
            (
                "*,sig_iss=me,sig_key=base64:c2VjcmV0 a:80",
                &["sig_iss = \"me\"", "sig_key = \"base64:c2VjcmV0\""],
            ),
            ("*,debug a:80", &["debug = true"]),
            ("*,ssl=yes,proto=ws a:80", &["scheme = \"https\"", "protocol = \"websocket\""]),
            ("*,ssl=no,proto=http a:80", &["scheme = \"http\"", "protocol = \"http\""]),
            ("*,aco a:80", &["cors = \"*\""]),
            ("* a:80,over_http,sub=a,sub=b", &["subscribe = [\"a\", \"b\"]"]),
            ("*,no_grip,prefix=x a:80", &["dialect = \"proxy\"", "origin = \"http://a:80\""]),
            (
                "*,header=\"X-A: b, c\",header=X-D:e a:80",
                &["response_headers = { \"X-A\" = \"b, c\", \"X-D\" = \"e\" }"],
            ),
            ("* a:80,over_http,one_event,host=b.example", &["max_events = 1", "origin_host = \"b.example\""]),
            ("* a:80,ssl,insecure", &["tls = { insecure = true }"]),
            ("* a:80,ssl,client_cert=me", &["tls = { client_cert = \"me.crt\", client_key = \"me.key\" }"]),
            ("*.Example.org,id=shop a:80 # the shop", &["id = \"shop\"", "host = \"*.example.org\""]),
            (",id=all a:80", &["id = \"all\"", "path = \"/**\""]),
        ] {
            let (lines, lost) = (said(line), routes(line).lost);
            assert!(keys.iter().all(|key| lines.iter().any(|line| line == key)), "{line}: {lines:#?}");
            assert!(lost.is_empty(), "{line}: {lost:?}");
        }
        assert!(!said("*,no_grip,prefix=x a:80").iter().any(|line| line.starts_with("channel_prefix")));
    }

    #[test]
    fn what_is_not_here_is_said_with_its_line() {
        for (line, what) in [
            ("* zhttp/ipc:///tmp/a", "the target \"zhttp/ipc:///tmp/a\" is not built: there is no ZeroMQ"),
            ("* test", "the target \"test\" is not here"),
            ("*", "it has no target"),
            ("*,sockjs=/s a:80", "`sockjs` is not built: SockJS is not spoken"),
            ("*,jsonp_callback=x a:80", "`jsonp_callback` is not built: JSON-P is not spoken"),
            ("*,session a:80", "`session` is not built"),
            ("*,ssl=on a:80", "`ssl` is `yes` or `no`"),
            ("*,proto=wss a:80", "`proto` is `http` or `ws`"),
            ("*,path_beg=/a,path_rem=9 a:80", "`path_rem` takes off more than `path_beg` says"),
            ("*,new a:80", "`new` is not known here"),
            ("* a:80,sub=news", "`sub` is of WebSockets by `over_http`: one that passes is on no channel"),
            ("*,path_beg=/v1 a:80", "\"/v1**\" is a path of Fanwire's own"),
            ("*,path_beg=/sse/x a:80", "\"/sse/x**\" is a path of Fanwire's own"),
            ("* \"a:80", "a quotation mark is open"),
            ("* a", "\"a\" is no origin: a host and a port are"),
            ("a_b?c a:80", "\"a_b?c\" is no host here: a name, \"*.example.org\" and \"*\" are"),
        ] {
            let lost = routes(&format!("# a comment\n\n{line}\n")).lost;
            let found = lost.iter().any(|lost| lost.line == 3 && lost.what == what);
            assert!(found, "{line}: {lost:?}");
        }
        let twice = routes("* a:80\n*,id=x b:80\nc.example,id=x a:80\nd.example,id=x a:80\n");
        let lines: Vec<_> = twice.lost.iter().map(|lost| lost.line).collect();
        assert_eq!(lines, [2, 4], "{twice:?}");
        assert!(twice.toml.contains("id = \"line-4\""), "{}", twice.toml);
    }
}
