//! What `scripts/instructions` counts inside one process: a fixed number of the same operation, on one thread.
//!
//! `instructions ROW` prepares the row, runs [`counted_span`] and prints how many operations that were; callgrind
//! counts between the entry of that function and its end (`--toggle-collect`). `instructions` alone lists the rows.
//! What has a random seed (hash maps) is met often enough for its mean to stand still.

mod broker;
mod codecs;
mod fronts;

use std::hint::black_box;
use std::process::ExitCode;

/// One row: prepares, calls [`counted_span`] once, and says how many operations that were.
type Row = fn() -> u64;

const ROWS: [(&str, Row); 10] = [
    ("publish-log", broker::publish_recorded),
    ("publish-no-log", broker::publish_unrecorded),
    ("publish-matched", broker::publish_matched),
    ("match", broker::matching),
    ("mqtt-decode", codecs::mqtt_decode),
    ("mqtt-encode", codecs::mqtt_encode),
    ("websocket-frame", codecs::websocket_frame),
    ("envelope", codecs::envelope),
    ("bayeux-batch", fronts::bayeux_batch),
    ("sse-event", fronts::sse_event),
];

/// Runs `operation` so many times, with the number of the run. Counting is on in here and nowhere else.
#[inline(never)]
fn counted_span(times: u64, operation: &mut dyn FnMut(u64)) {
    for number in 0..times {
        operation(number);
    }
    // No tail call: callgrind must see the end of this function.
    black_box(());
}

fn counted(times: u64, mut operation: impl FnMut(u64)) -> u64 {
    counted_span(black_box(times), &mut operation);
    times
}

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        for (name, _) in ROWS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let Some((_, row)) = ROWS.iter().find(|(name, _)| *name == wanted) else {
        eprintln!("no row is called `{wanted}`");
        return ExitCode::FAILURE;
    };
    println!("{}", row());
    ExitCode::SUCCESS
}
