//! `fanwire dead`: events that were not delivered to webhooks.

use std::io::{BufWriter, Write, stdout};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::arguments::DeadCommand;
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::name::segment;
use crate::pages::{MAX_PAGE_BYTES, Page};
use crate::table::Table;
use crate::tell;

/// All dead letters.
const PATH: &str = "/v1/dead-letters";

#[derive(Deserialize)]
struct List {
    letters: Vec<Box<RawValue>>,
    next: Option<String>,
}

impl Page for List {
    type Item = Box<RawValue>;

    fn parts(self) -> (Vec<Box<RawValue>>, Option<String>) {
        (self.letters, self.next)
    }
}

/// What of a letter stands in the table.
#[derive(Deserialize)]
struct Letter {
    id: String,
    hook: String,
    cause: String,
    at: String,
    attempts: u64,
    last: Option<Last>,
    event: Box<RawValue>,
}

impl Letter {
    /// What happened, by the words of webhooks or of API Gateway; of a rule it is a message.
    fn kind(&self) -> String {
        let kind = serde_json::from_str::<Kind>(self.event.get()).ok();
        let kind = kind.and_then(|kind| kind.name.or(kind.request_context.map(|context| context.event_type)));
        kind.unwrap_or_else(|| "message".to_owned())
    }
}

#[derive(Deserialize)]
struct Last {
    error: String,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    name: Option<String>,
    #[serde(rename = "requestContext")]
    request_context: Option<Context>,
}

#[derive(Deserialize)]
struct Context {
    #[serde(rename = "eventType")]
    event_type: String,
}

pub(crate) async fn run(command: DeadCommand) -> Result<(), Failure> {
    match command {
        DeadCommand::List { which, json, server } => {
            let endpoint = Endpoint::new(&server)?;
            let mut out = BufWriter::new(stdout());
            if json {
                for (_, text) in letters(&endpoint, which.hook.as_deref(), which.since.as_deref()).await? {
                    writeln!(out, "{text}")?;
                }
                return Ok(out.flush()?);
            }
            let mut table = Table::new(&["ID", "HOOK", "EVENT", "CAUSE", "SINCE", "ATTEMPTS", "ERROR"]);
            for (letter, _) in letters(&endpoint, which.hook.as_deref(), which.since.as_deref()).await? {
                let kind = letter.kind();
                table.row(vec![
                    letter.id,
                    letter.hook,
                    kind,
                    letter.cause,
                    letter.at,
                    letter.attempts.to_string(),
                    letter.last.map(|last| last.error).unwrap_or_default(),
                ]);
            }
            Ok(table.print(&mut out)?)
        }
        DeadCommand::Show { id, server } => {
            let endpoint = Endpoint::new(&server)?;
            let letter: Box<RawValue> = endpoint.get(&format!("{PATH}/{}", segment(&id))).await?;
            Ok(writeln!(stdout(), "{letter}")?)
        }
        DeadCommand::Replay { ids, all, which, server } => {
            let endpoint = Endpoint::new(&server)?;
            let chosen = if all || which.hook.is_some() || which.since.is_some() {
                let found = letters(&endpoint, which.hook.as_deref(), which.since.as_deref()).await?;
                found.into_iter().map(|(letter, _)| letter.id).collect()
            } else {
                ids
            };
            if chosen.is_empty() && !all && which.hook.is_none() && which.since.is_none() {
                return Err(Failure::Arguments("name letters, or --hook, --since or --all".to_owned()));
            }
            replay(&endpoint, &chosen).await
        }
    }
}

/// Delivers each anew; one that is gone does not keep the others.
async fn replay(endpoint: &Endpoint, ids: &[String]) -> Result<(), Failure> {
    let mut outcome = Ok(());
    for id in ids {
        let request = endpoint.request(Method::POST, &format!("{PATH}/{}/replay", segment(id)));
        let request = request.body(Bytes::new()).map_err(|error| Failure::Arguments(error.to_string()))?;
        match endpoint.ask(request, MAX_PAGE_BYTES).await {
            Ok(_) => {}
            Err(failure @ Failure::Refused { status: StatusCode::NOT_FOUND, .. }) if ids.len() > 1 => {
                tell(format_args!("{id}: {failure}"));
                outcome = Err(Failure::NotAll("not all letters were there to be delivered"));
            }
            Err(failure) => return Err(failure),
        }
    }
    outcome
}

/// The letters of a webhook, or of all, that are no older than `since`.
async fn letters(
    endpoint: &Endpoint,
    hook: Option<&str>,
    since: Option<&str>,
) -> Result<Vec<(Letter, Box<RawValue>)>, Failure> {
    let oldest = since.map(|since| {
        let span = humantime::parse_duration(since)
            .map_err(|_| Failure::Arguments(format!("`{since}` is no duration such as \"1h\"")))?;
        let oldest = SystemTime::now().checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok::<_, Failure>(humantime::format_rfc3339_millis(oldest).to_string())
    });
    let oldest = oldest.transpose()?;
    let hook = hook.map(|hook| ("hook", hook));
    let mut found = Vec::new();
    let take = |item: Box<RawValue>| {
        let letter = serde_json::from_str::<Letter>(item.get())
            .map_err(|error| endpoint.foreign(format!("a letter is not as known ({error})")))?;
        // Times of one form and one zone are in the order of their texts.
        if oldest.as_ref().is_none_or(|oldest| letter.at >= *oldest) {
            found.push((letter, item));
        }
        Ok(())
    };
    endpoint.each::<List>(PATH, hook.as_slice(), take).await?;
    Ok(found)
}
