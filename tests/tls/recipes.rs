//! The recipes of `docs/deploy.md`, as they stand there, in the proxies that are installed here. A proxy that is not is
//! said to be skipped. Around the recipe they are told to wait a second at most, so that a timeout that the recipe forgets
//! ends the test; `scripts/soak` leaves them as they come, and is quiet for longer than the minute that is theirs.

use std::path::Path;

use crate::behind::{Behind, Named, impatient};

/// A block of the page by its language, the `index`th, with the ports of this test.
fn recipe(language: &str, index: usize, ports: &[(&str, String)]) -> String {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/deploy.md")).expect("the page");
    let block = page.split(&format!("```{language}\n")).nth(index + 1).expect("a recipe");
    let block = block.split("```").next().expect("an end");
    ports.iter().fold(block.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} in {text}");
        text.replace(from, to)
    })
}

fn installed(program: &str) -> Option<String> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(|folder| format!("{folder}/{program}"));
    let found = found.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

/// Envoy is not to be had here: what its file names of its own must be there, and each timeout that would end what is
/// quiet must be said.
#[test]
fn envoy() {
    let file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&recipe("yaml", 0, &[])).expect("YAML");
    let resources = &file["static_resources"];
    let list = |value: &serde_yaml_ng::Value| value.as_sequence().cloned().unwrap_or_default();
    let text = |value: &serde_yaml_ng::Value| value.as_str().unwrap_or_default().to_owned();
    let clusters: Vec<String> = list(&resources["clusters"]).iter().map(|one| text(&one["name"])).collect();
    assert_eq!(clusters, ["fanwire", "fanwire_mqtt"]);
    for cluster in list(&resources["clusters"]) {
        assert_eq!(cluster["load_assignment"]["cluster_name"], cluster["name"]);
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert!(endpoint["address"]["socket_address"]["port_value"].as_u64().is_some(), "{cluster:?}");
    }
    let filter = |listener: usize| {
        let filter = &resources["listeners"][listener]["filter_chains"][0]["filters"][0];
        let kind = text(&filter["typed_config"]["@type"]);
        (kind.rsplit('.').next().unwrap_or_default().to_owned(), filter["typed_config"].clone())
    };
    let (kind, http) = filter(0);
    assert_eq!(kind, "HttpConnectionManager");
    assert_eq!(http["use_remote_address"].as_bool(), Some(true), "it must say where clients come from");
    assert_eq!(text(&http["upgrade_configs"][0]["upgrade_type"]), "websocket");
    let route = &http["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    assert!(clusters.contains(&text(&route["cluster"])));
    // That of the whole answer, which is no end of a stream.
    assert_eq!(text(&route["timeout"]), "0s");
    let (kind, mqtt) = filter(1);
    assert_eq!(kind, "TcpProxy");
    assert!(clusters.contains(&text(&mqtt["cluster"])));
    for timeout in [&http["stream_idle_timeout"], &route["idle_timeout"], &mqtt["idle_timeout"]] {
        let seconds = text(timeout).trim_end_matches('s').parse::<u64>().expect("seconds");
        assert!(seconds > 60, "{timeout:?}");
    }
    let router = list(&http["http_filters"]).last().map(|filter| text(&filter["typed_config"]["@type"]));
    assert!(router.is_some_and(|kind| kind.ends_with(".http.router.v3.Router")));
    let proxied = &resources["clusters"][1]["transport_socket"]["typed_config"];
    assert!(text(&proxied["@type"]).ends_with("ProxyProtocolUpstreamTransport"));
    assert_eq!(text(&proxied["config"]["version"]), "V2");
}

#[tokio::test]
async fn nginx() {
    let Some(program) = installed("nginx") else { return };
    let mut it = Behind::start().await;
    let location = recipe("nginx", 0, &it.ports());
    let mqtt = recipe(
        "nginx",
        1,
        &[("127.0.0.1:11883", it.server.mqtt.to_string()), ("listen 1883", format!("listen {}", it.mqtt))],
    );
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let has_stream = Path::new(module).exists();
    let (load, stream) = match has_stream {
        true => (
            format!("load_module {module};"),
            format!("stream {{ {} {mqtt} }}", impatient("proxy_timeout 1s;")),
        ),
        false => {
            println!("SKIPPED: nginx has no module for streams here");
            (String::new(), String::new())
        }
    };
    let folder = it.folder.path().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .concat();
    let config = format!(
        "{load} daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}}\n\
         http {{ access_log off; {temporary} {} map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         server {{ listen {}; {location} }} }}\n{stream}\n",
        impatient("proxy_read_timeout 1s; proxy_send_timeout 1s; send_timeout 1s;"),
        it.web
    );
    it.proxy(&program, &config, &["-c"]).await;
    it.everything_of_http_passes(Named::Yes).await;
    if has_stream {
        it.mqtt_passes().await;
    }
}

#[tokio::test]
async fn haproxy() {
    let Some(program) = installed("haproxy") else { return };
    let mut it = Behind::start().await;
    let mut ports = it.ports().to_vec();
    ports.extend([
        ("127.0.0.1:11883", it.server.mqtt.to_string()),
        ("bind :80\n", format!("bind {}\n", it.web)),
        ("bind :1883", format!("bind {}", it.mqtt)),
    ]);
    let patience = impatient("    timeout client 1s\n    timeout server 1s\n    timeout tunnel 1s\n");
    let config = format!("defaults\n    timeout connect 5s\n{patience}{}", recipe("haproxy", 0, &ports));
    it.proxy(&program, &config, &["-db", "-f"]).await;
    it.everything_of_http_passes(Named::Yes).await;
    it.mqtt_passes().await;
}

#[tokio::test]
async fn apache() {
    let Some(program) = installed("apache2") else { return };
    let mut it = Behind::start().await;
    let mut ports = it.ports().to_vec();
    ports.push(("*:80", it.web.to_string()));
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "proxy_wstunnel", "rewrite", "headers"];
    let load = modules
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    let folder = it.folder.path().display();
    let config = format!(
        "{load}ServerName localhost\nServerRoot {folder}\nPidFile {folder}/pid\nErrorLog {folder}/error\n\
         Mutex file:{folder}\n{}Listen {}\n{}",
        impatient("Timeout 1\nProxyTimeout 1\n"),
        it.web,
        recipe("apache", 0, &ports)
    );
    it.proxy(&program, &config, &["-X", "-f"]).await;
    it.everything_of_http_passes(Named::Yes).await;
}

#[tokio::test]
async fn caddy() {
    let Some(program) = installed("caddy") else { return };
    let mut it = Behind::start().await;
    let mut ports = it.ports().to_vec();
    ports.push(("broker.example.org", format!("http://localhost:{}", it.web.port())));
    let config = format!("{{\n admin off\n}}\n{}", recipe("caddyfile", 0, &ports));
    it.proxy(&program, &config, &["run", "--adapter", "caddyfile", "--config"]).await;
    // Of clients that it does not trust it tells their own address, which is one of ours here.
    it.everything_of_http_passes(Named::No).await;
}
