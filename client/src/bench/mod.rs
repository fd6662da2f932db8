//! `fanwire bench`: publishers and subscribers of one channel, how long a message takes between them, and whether all
//! came.

mod publisher;
mod subscriber;
mod tally;

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::publisher::Publisher;
use self::subscriber::Subscriber;
use self::tally::{Clock, Tally};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::{Bench, tell};

/// How long all streams may take to be opened.
const OPENING: Duration = Duration::from_secs(30);

/// How long what is under way may take after the last publish.
const REST: Duration = Duration::from_secs(5);

pub(crate) async fn run(arguments: Bench) -> Result<(), Failure> {
    let streams = usize::try_from(arguments.subscribers).unwrap_or(usize::MAX);
    let publishers = usize::try_from(arguments.publishers).unwrap_or(usize::MAX);
    let context = arguments.server.resolve()?;
    let endpoint = Endpoint::for_many(&context, streams.saturating_add(publishers))?;
    // Of its own, so that nobody else's messages are counted, and nobody else gets ours.
    let channel = format!("{}/{:016x}", arguments.channel, fastrand::u64(..));
    let clock = Clock::new();
    let tally = Arc::new(Tally::default());

    let mut reading = JoinSet::new();
    for _ in 0..streams {
        let (endpoint, channel, tally) = (endpoint.clone(), channel.clone(), Arc::clone(&tally));
        reading.spawn(async move { Subscriber::open(&endpoint, &channel).await?.read(clock, &tally).await });
    }
    listening(&mut reading, &tally, streams as u64).await?;
    tell(format_args!("{streams} subscribers listen to {channel} at {}", endpoint.url));

    let begun = Instant::now();
    let end = begun + arguments.duration;
    let mut publishing = JoinSet::new();
    for number in 0..publishers {
        let publisher = Publisher::new(&endpoint, &channel, &arguments, number)?;
        let tally = Arc::clone(&tally);
        publishing.spawn(async move { publisher.run(clock, &tally, end).await });
    }
    let progress = tokio::spawn(show_progress(Arc::clone(&tally), begun, arguments.duration));
    let mut outcome = Ok(());
    while let Some(ended) = publishing.join_next().await {
        outcome = outcome.and(ended.map_err(|error| Failure::Local(error.into()))?);
    }
    let took = begun.elapsed();
    let expected = tally.published().saturating_mul(streams as u64);
    let all = async {
        while tally.delivered() < expected {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(REST, all).await;
    progress.abort();
    clear_progress();
    reading.abort_all();
    outcome?;
    let report = tally.report(streams as u64, took);
    let mut out = stdout().lock();
    if arguments.json {
        writeln!(out, "{}", report.json())?
    } else {
        report.print(&mut out)?
    }
    out.flush()?;
    if report.missing > 0 {
        return Err(Failure::NotAll("not all messages came to all subscribers"));
    }
    Ok(())
}

/// Waits until all streams are open; the first that cannot be says why.
async fn listening(
    reading: &mut JoinSet<Result<(), Failure>>,
    tally: &Tally,
    wanted: u64,
) -> Result<(), Failure> {
    let begun = Instant::now();
    while tally.listening() < wanted {
        if let Some(ended) = reading.try_join_next() {
            ended.map_err(|error| Failure::Local(error.into()))??;
            return Err(Failure::NotAll("the server ended a stream"));
        }
        if begun.elapsed() > OPENING {
            return Err(Failure::NotAll("not all streams could be opened in 30 s"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn show_progress(tally: Arc<Tally>, begun: Instant, duration: Duration) {
    const WIDTH: usize = 30;
    if !stderr().is_terminal() {
        return;
    }
    loop {
        sleep(Duration::from_millis(250)).await;
        let part = (begun.elapsed().as_secs_f64() / duration.as_secs_f64().max(0.001)).min(1.0);
        let done = (part * WIDTH as f64) as usize;
        let bar = format!("{}{}", "#".repeat(done), "-".repeat(WIDTH - done.min(WIDTH)));
        let (published, delivered) = (tally.published(), tally.delivered());
        let _ = write!(stderr(), "\r[{bar}] {published} published, {delivered} delivered\u{1b}[K");
    }
}

fn clear_progress() {
    if stderr().is_terminal() {
        let _ = write!(stderr(), "\r\u{1b}[K");
    }
}
