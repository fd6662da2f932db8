//! `fanwire history`: what the server remembers of a channel.

use std::io;

use form_urlencoded::Serializer;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::name;
use crate::output::{Format, Printer};
use crate::pages::with_query;
use crate::{History, tell};

#[derive(Deserialize)]
struct Page {
    gap: bool,
    messages: Vec<Box<RawValue>>,
    next: String,
}

pub(crate) async fn run(arguments: History) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&arguments.server)?;
    let format = arguments.format.unwrap_or_else(|| Format::usual(std::slice::from_ref(&arguments.filter)));
    let mut reader = Reader { printer: Printer::new(format), target: target(&arguments.filter), endpoint };
    if arguments.all || arguments.after.is_some() {
        reader.all_after(arguments.after).await?;
    } else {
        reader.last(arguments.last).await?;
    }
    Ok(reader.printer.flush()?)
}

fn target(filter: &str) -> String {
    format!("/v1/history/{}", name::channel(filter))
}

struct Reader {
    endpoint: Endpoint,
    target: String,
    printer: Printer,
}

impl Reader {
    async fn page(&self, parameters: &[(&str, &str)]) -> Result<Page, Failure> {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(parameters);
        self.endpoint.get(&with_query(&self.target, &query.finish())).await
    }

    /// All that came after an id, or all.
    async fn all_after(&mut self, mut after: Option<String>) -> Result<(), Failure> {
        loop {
            let after_this = after.as_deref().map(|id| ("after", id));
            let page = self.page(after_this.as_slice()).await?;
            if let (true, Some(id)) = (page.gap, &after) {
                tell(format_args!("gap: what followed {id} may be lost"));
            }
            self.print(page.messages.iter())?;
            // Messages that may not be read are left out: a page of these goes on, too.
            if page.messages.is_empty() && after.as_ref().is_none_or(|after| *after == page.next) {
                return Ok(());
            }
            if after.replace(page.next) == after {
                return Ok(());
            }
        }
    }

    /// The newest, oldest of them first.
    async fn last(&mut self, count: u64) -> Result<(), Failure> {
        let page = self.page(&[("order", "desc"), ("limit", &count.to_string())]).await?;
        self.print(page.messages.iter().rev())
    }

    fn print<'a>(&mut self, messages: impl Iterator<Item = &'a Box<RawValue>>) -> Result<(), Failure> {
        for message in messages {
            match self.printer.print(message.get().as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(self.endpoint.foreign(error.to_string()));
                }
                printed => printed?,
            }
        }
        Ok(self.printer.flush()?)
    }
}
