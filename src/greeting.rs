//! What somebody who has just started a server may try: addresses that can be opened, channels that the rights allow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fanwire::{Action, Channel, Rights};

/// A line for the browser, one for listening, one for publishing. `everybody` is what who shows no credentials may do.
pub(crate) fn lines(http: SocketAddr, everybody: &Rights) -> Vec<String> {
    let http = to_open(http);
    let path = |action| everybody.example(action).and_then(|channel| in_path(&channel));
    let (listen, publish) = (path(Action::Subscribe), path(Action::Publish));
    let mut lines = Vec::new();
    lines.push(match &listen {
        Some(channel) => {
            format!("open http://{http}/ in a browser, or listen: curl -N http://{http}/sse/{channel}")
        }
        None => format!(
            "open http://{http}/ in a browser and give it a key or a token, or listen: \
             curl -N -H 'Authorization: Bearer KEY' http://{http}/sse/CHANNEL"
        ),
    });
    let (key, channel) = match &publish {
        Some(channel) => ("", channel.as_str()),
        None => ("-H 'Authorization: Bearer KEY' ", listen.as_deref().unwrap_or("CHANNEL")),
    };
    lines.push(format!(
        "and publish: curl -d '{{\"hello\":\"world\"}}' -H 'Content-Type: application/json' {key}\
         http://{http}/v1/publish/{channel}"
    ));
    lines
}

/// What libraries of GRIP are told, if anything is set up for them; keys are not said.
#[cfg(feature = "grip")]
pub(crate) fn grip(http: SocketAddr, settings: &fanwire::gateway_grip::Settings) -> Option<String> {
    use fanwire::gateway_grip::config::Dialect;
    let credentials = match settings.control_keys.first() {
        // Only what stands in a URL as it is.
        Some(key) if key.iss.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) => {
            format!("?iss={}&key=KEY", key.iss)
        }
        Some(_) => "?iss=ISS&key=KEY".to_owned(),
        None if settings.routes.iter().any(|route| route.dialect == Dialect::Grip) => String::new(),
        None => return None,
    };
    Some(format!("backends publish with GRIP_URL='http://{}/grip{credentials}'", to_open(http)))
}

/// An address of this machine that reaches a listener on all of them.
fn to_open(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The channel as it stands in an address; `None` if a shell or a URL would want more than the name.
fn in_path(channel: &Channel) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    channel.as_str().bytes().all(is_plain).then(|| channel.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use fanwire::Rule;

    use super::*;

    fn allow(rights: Rights, action: Action, filter: &str) -> Rights {
        rights.allow(Rule::new([action], filter.parse().unwrap()))
    }

    #[test]
    fn addresses_can_be_opened() {
        for (listening, expected) in [
            ("0.0.0.0:80", "http://127.0.0.1:80/"),
            ("[::]:80", "http://[::1]:80/"),
            ("192.0.2.7:8080", "http://192.0.2.7:8080/"),
        ] {
            let lines = lines(listening.parse().unwrap(), &Rights::all());
            assert!(lines.iter().all(|line| line.contains(expected)), "{lines:?}");
        }
    }

    #[cfg(feature = "grip")]
    #[test]
    fn backends_of_grip_are_told_where_to_publish_and_no_key() {
        use fanwire::gateway_grip::settings::{Written, WrittenGrip, read};
        let told = |routes: serde_json::Value, grip: serde_json::Value| {
            let routes: Vec<Written> = serde_json::from_value(routes).unwrap();
            let grip: WrittenGrip = serde_json::from_value(grip).unwrap();
            let settings = read(&routes, &grip, std::path::Path::new("/"), |_| false).unwrap();
            grip_line(&settings)
        };
        let key = |iss: &str| serde_json::json!({"control_keys": [{"iss": iss, "key": "secret", "channels": ["**"]}]});
        let route = serde_json::json!([{"id": "a", "dialect": "grip", "path": "/a", "origin": "http://a"}]);
        let nothing = serde_json::json!([]);
        assert_eq!(told(nothing.clone(), serde_json::json!({})), None);
        for (routes, keys, url) in [
            (&route, serde_json::json!({}), "'http://127.0.0.1:80/grip'"),
            (&route, key("app"), "'http://127.0.0.1:80/grip?iss=app&key=KEY'"),
            (&nothing, key("a&b"), "'http://127.0.0.1:80/grip?iss=ISS&key=KEY'"),
        ] {
            let line = told(routes.clone(), keys).unwrap();
            assert!(line.ends_with(url), "{line}");
        }
    }

    #[cfg(feature = "grip")]
    fn grip_line(settings: &fanwire::gateway_grip::Settings) -> Option<String> {
        grip("0.0.0.0:80".parse().unwrap(), settings)
    }

    #[test]
    fn channels_are_some_that_everybody_may_use_or_a_key_is_asked_for() {
        let public = allow(Rights::none(), Action::Subscribe, "public/**");
        let both = allow(public.clone(), Action::Publish, "in box/*");
        let both = allow(both, Action::Publish, "inbox/*");
        for (rights, listen, publish) in [
            (Rights::all(), "-N http://127.0.0.1:1/sse/demo", "json' http://127.0.0.1:1/v1/publish/demo"),
            (
                public,
                "-N http://127.0.0.1:1/sse/public/demo",
                "-H 'Authorization: Bearer KEY' http://127.0.0.1:1/v1/publish/public/demo",
            ),
            (
                both,
                "/sse/public/demo",
                "-H 'Authorization: Bearer KEY' http://127.0.0.1:1/v1/publish/public/demo",
            ),
            (
                Rights::none(),
                "-H 'Authorization: Bearer KEY' http://127.0.0.1:1/sse/CHANNEL",
                "-H 'Authorization: Bearer KEY' http://127.0.0.1:1/v1/publish/CHANNEL",
            ),
        ] {
            let lines = lines("127.0.0.1:1".parse().unwrap(), &rights);
            assert!(lines[0].ends_with(listen), "{}", lines[0]);
            assert!(lines[1].ends_with(publish), "{}", lines[1]);
        }
    }
}
