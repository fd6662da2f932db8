//! `fanwire connections` and `fanwire close`: who is there, and who should not be.

use std::io::{BufWriter, Write, stdout};

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::arguments::Scope;
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::name::segment;
use crate::pages::{MAX_PAGE_BYTES, Page, with_query};
use crate::table::Table;
use crate::{Close, Connections, tell};

/// Filters of one connection that are shown.
const MAX_FILTERS: usize = 3;

#[derive(Deserialize)]
struct List {
    connections: Vec<Box<RawValue>>,
    next: Option<String>,
    #[serde(default)]
    partial: bool,
}

impl Page for List {
    type Item = Box<RawValue>;

    fn parts(self) -> (Vec<Box<RawValue>>, Option<String>) {
        if self.partial {
            tell(format_args!("a node did not answer: its connections are missing"));
        }
        (self.connections, self.next)
    }
}

/// What of a connection stands in the table.
#[derive(Deserialize)]
struct Connection {
    id: String,
    user: Option<String>,
    protocol: String,
    transport: String,
    connected_at: String,
    remote: Option<Remote>,
    subscriptions: Vec<String>,
    queue: Queue,
    dropped: u64,
    node: Option<String>,
}

#[derive(Deserialize)]
struct Remote {
    ip: Option<String>,
}

#[derive(Deserialize)]
struct Queue {
    messages: u64,
}

pub(crate) async fn list(arguments: Connections) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&arguments.server)?;
    let wanted = [("user", &arguments.of), ("channel", &arguments.channel)];
    let mut parameters: Vec<(&str, &str)> =
        wanted.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let is_of_all = arguments.scope == Scope::Cluster;
    if is_of_all {
        parameters.push(("scope", "cluster"));
    }
    let mut out = BufWriter::new(stdout());
    if arguments.json {
        let line = |item: Box<RawValue>| Ok(writeln!(out, "{item}")?);
        endpoint.each::<List>("/v1/connections", &parameters, line).await?;
        return Ok(out.flush()?);
    }
    let mut head = vec!["ID", "PROTOCOL", "USER", "ADDRESS", "SINCE", "WAITING", "DROPPED", "SUBSCRIPTIONS"];
    if is_of_all {
        head.insert(1, "NODE");
    }
    let mut table = Table::new(&head);
    let add = |item: Box<RawValue>| {
        let connection = serde_json::from_str::<Connection>(item.get())
            .map_err(|error| endpoint.foreign(format!("a connection is not as known ({error})")))?;
        let node = connection.node.clone();
        let mut cells = connection.cells();
        if is_of_all {
            cells.insert(1, node.unwrap_or_default());
        }
        table.row(cells);
        Ok(())
    };
    endpoint.each::<List>("/v1/connections", &parameters, add).await?;
    Ok(table.print(&mut out)?)
}

impl Connection {
    fn cells(self) -> Vec<String> {
        let more = self.subscriptions.len().saturating_sub(MAX_FILTERS);
        let mut filters = self.subscriptions.into_iter().take(MAX_FILTERS).collect::<Vec<_>>().join(" ");
        if more > 0 {
            filters.push_str(&format!(" +{more}"));
        }
        vec![
            self.id,
            format!("{} {}", self.protocol, self.transport),
            self.user.unwrap_or_default(),
            self.remote.and_then(|remote| remote.ip).unwrap_or_default(),
            self.connected_at,
            self.queue.messages.to_string(),
            self.dropped.to_string(),
            filters,
        ]
    }
}

/// Closes each; one that is gone does not keep the others.
pub(crate) async fn close(arguments: Close) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&arguments.server)?;
    let mut query = Serializer::new(String::new());
    if let Some(reason) = &arguments.reason {
        query.append_pair("reason", reason);
    }
    let query = query.finish();
    let mut outcome = Ok(());
    for id in &arguments.ids {
        let target = with_query(&format!("/v1/connections/{}", segment(id)), &query);
        let request = endpoint.request(Method::DELETE, &target).body(Bytes::new());
        let request = request.map_err(|error| Failure::Arguments(error.to_string()))?;
        match endpoint.ask(request, MAX_PAGE_BYTES).await {
            Ok(_) => {}
            Err(failure @ Failure::Refused { status: http::StatusCode::GONE, .. }) => {
                if arguments.ids.len() > 1 {
                    tell(format_args!("{id}: {failure}"));
                    outcome = Err(Failure::NotAll("not all connections were there to be closed"));
                } else {
                    outcome = Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    outcome
}
