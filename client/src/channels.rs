//! `fanwire channels` and `fanwire retained`: which channels are in use, and what they keep.

use std::io::{BufWriter, Write, stdout};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::name;
use crate::output::{Format, Printer};
use crate::pages::{MAX_PAGE_BYTES, Page};
use crate::table::Table;
use crate::{Channels, Retained};

#[derive(Deserialize)]
struct List {
    channels: Vec<Box<RawValue>>,
    next: Option<String>,
}

impl Page for List {
    type Item = Box<RawValue>;

    fn parts(self) -> (Vec<Box<RawValue>>, Option<String>) {
        (self.channels, self.next)
    }
}

#[derive(Deserialize)]
struct Channel {
    channel: String,
    subscribers: u64,
    messages: u64,
    retained: bool,
}

/// From here on the server counts no further.
const MAX_COUNTED: u64 = 1_000;

pub(crate) async fn list(arguments: Channels) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&arguments.server)?;
    let prefix = arguments.prefix.as_deref().map(|prefix| ("prefix", prefix));
    let mut out = BufWriter::new(stdout());
    if arguments.json {
        let line = |item: Box<RawValue>| Ok(writeln!(out, "{item}")?);
        endpoint.each::<List>("/v1/channels", prefix.as_slice(), line).await?;
        return Ok(out.flush()?);
    }
    let mut table = Table::new(&["CHANNEL", "SUBSCRIBERS", "MESSAGES", "RETAINED"]);
    let add = |item: Box<RawValue>| {
        let channel = serde_json::from_str::<Channel>(item.get())
            .map_err(|error| endpoint.foreign(format!("a channel is not as known ({error})")))?;
        let messages = match channel.messages {
            MAX_COUNTED.. => format!("{MAX_COUNTED}+"),
            few => few.to_string(),
        };
        let retained = if channel.retained { "yes" } else { "no" };
        table.row(vec![channel.channel, channel.subscribers.to_string(), messages, retained.to_owned()]);
        Ok(())
    };
    endpoint.each::<List>("/v1/channels", prefix.as_slice(), add).await?;
    Ok(table.print(&mut out)?)
}

/// One page of the channels that keep a message.
#[derive(Deserialize)]
struct Keepers {
    retained: Vec<Box<RawValue>>,
    next: Option<String>,
}

impl Page for Keepers {
    type Item = Box<RawValue>;

    fn parts(self) -> (Vec<Box<RawValue>>, Option<String>) {
        (self.retained, self.next)
    }
}

#[derive(Deserialize)]
struct Keeper {
    channel: String,
    time: String,
    bytes: u64,
    content_type: Option<String>,
}

pub(crate) async fn retained(arguments: Retained) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&arguments.server)?;
    let channel = match &arguments.channel {
        Some(channel) if is_channel(channel) => channel,
        Some(filter) if arguments.forget => {
            return Err(Failure::Arguments(format!(
                "`{filter}` is a filter; one channel's message is forgotten"
            )));
        }
        filter => return list_retained(&endpoint, filter.as_deref(), arguments.json).await,
    };
    let target = format!("/v1/retained/{}", name::channel(channel));
    if arguments.forget {
        let request = endpoint.request(Method::DELETE, &target).body(Bytes::new());
        let request = request.map_err(|error| Failure::Arguments(error.to_string()))?;
        return endpoint.ask(request, MAX_PAGE_BYTES).await.map(drop);
    }
    let envelope: Box<RawValue> = endpoint.get(&target).await?;
    let usual = if arguments.json { Format::Json } else { Format::Raw };
    let mut printer = Printer::new(arguments.format.unwrap_or(usual));
    printer.print(envelope.get().as_bytes()).map_err(|error| endpoint.foreign(error.to_string()))?;
    Ok(printer.flush()?)
}

fn is_channel(text: &str) -> bool {
    broker_core::Filter::parse(text).is_ok_and(|filter| filter.as_literal().is_some())
}

async fn list_retained(endpoint: &Endpoint, filter: Option<&str>, json: bool) -> Result<(), Failure> {
    let filter = filter.map(|filter| ("filter", filter));
    let mut out = BufWriter::new(stdout());
    if json {
        let line = |item: Box<RawValue>| Ok(writeln!(out, "{item}")?);
        endpoint.each::<Keepers>("/v1/retained", filter.as_slice(), line).await?;
        return Ok(out.flush()?);
    }
    let mut table = Table::new(&["CHANNEL", "SINCE", "BYTES", "TYPE"]);
    let add = |item: Box<RawValue>| {
        let Keeper { channel, time, bytes, content_type } = serde_json::from_str(item.get())
            .map_err(|error| endpoint.foreign(format!("a retained message is not as known ({error})")))?;
        table.row(vec![channel, time, bytes.to_string(), content_type.unwrap_or_default()]);
        Ok(())
    };
    endpoint.each::<Keepers>("/v1/retained", filter.as_slice(), add).await?;
    Ok(table.print(&mut out)?)
}
