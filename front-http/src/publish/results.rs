//! How what became of messages is written.

use envelope::{write_string, write_timestamp};
use http_edge::Problem;
use intake::{Outcome, Published};

use crate::error::Error;
use crate::stats::Counters;

/// Appends `{"channel","id","time","receivers","duplicate"}`.
pub(crate) fn write_published(published: &Published, out: &mut Vec<u8>) {
    let Published { channel, receipt, duplicate, .. } = published;
    out.extend_from_slice(b"{\"channel\":");
    write_string(channel.as_str(), out);
    out.extend_from_slice(b",\"id\":");
    match receipt.id {
        // Neither an id nor a time has anything to escape.
        Some(id) => {
            out.push(b'"');
            id.write_to(out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"time\":\"");
    write_timestamp(receipt.time_ms, out);
    out.extend_from_slice(b"\",\"receivers\":");
    out.extend_from_slice(itoa::Buffer::new().format(receipt.receivers).as_bytes());
    out.extend_from_slice(if *duplicate { b",\"duplicate\":true}" } else { b",\"duplicate\":false}" });
}

/// Appends `{"error": …}`, and counts it.
pub(super) fn write_error(error: Error, counters: &Counters, out: &mut Vec<u8>) {
    Counters::add(&counters.failed_items);
    out.extend_from_slice(b"{\"error\":");
    out.extend_from_slice(Problem::from(error).to_json().as_bytes());
    out.push(b'}');
}

/// Results gathered in the order of the items.
pub(crate) struct Batch<'c> {
    counters: &'c Counters,
    results: Vec<u8>,
    errors: usize,
}

impl<'c> Batch<'c> {
    pub(crate) fn new(counters: &'c Counters) -> Self {
        Batch { counters, results: Vec::new(), errors: 0 }
    }

    /// The result of one item, which has results of its own if it was for several channels.
    pub(crate) fn take(&mut self, outcome: Result<Outcome, impl Into<Error>>) {
        match outcome {
            Ok(Outcome::One(published)) => self.take_one(Ok(published)),
            Ok(Outcome::Several(results)) => {
                let inner = Batch::of(results, self.counters);
                self.errors += inner.errors;
                self.separate();
                inner.finish_into(&mut self.results);
            }
            Err(error) => self.take_one(Err(error.into())),
        }
    }

    /// The results of one item for several channels.
    pub(super) fn of(results: Vec<Result<Published, intake::Error>>, counters: &'c Counters) -> Self {
        let mut batch = Batch::new(counters);
        for result in results {
            batch.take_one(result.map_err(Error::from));
        }
        batch
    }

    fn take_one(&mut self, result: Result<Published, Error>) {
        self.separate();
        match result {
            Ok(published) => write_published(&published, &mut self.results),
            Err(error) => {
                self.errors += 1;
                write_error(error, self.counters, &mut self.results);
            }
        }
    }

    fn separate(&mut self) {
        if !self.results.is_empty() {
            self.results.push(b',');
        }
    }

    /// Appends `{"errors","results"}`.
    pub(super) fn finish_into(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"errors\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.errors).as_bytes());
        out.extend_from_slice(b",\"results\":[");
        out.extend_from_slice(&self.results);
        out.extend_from_slice(b"]}");
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.results.len() + 48);
        self.finish_into(&mut out);
        out
    }
}
