//! An outbox over a socket that takes a little at a time.

mod support;

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use broker_core::{
    Broker, Class, Config, Deliver, Delivery, Outbox, OutboxConfig, OutboxEnd, OutboxPolicy, Publish, Signal,
    Sink, Start, Subscriber, Wire,
};
use bytes::Bytes;
use proptest::prelude::*;
use support::*;

/// Takes as many bytes as it has been given room for.
#[derive(Default)]
struct Narrow(Mutex<(usize, Vec<u8>)>);

impl Narrow {
    fn give_room(&self, bytes: usize) {
        self.0.lock().unwrap().0 += bytes;
    }

    fn written(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
    }
}

impl Wire for Narrow {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let (room, written) = &mut *state;
        let mut taken = 0;
        for slice in slices {
            let part = slice.len().min(*room);
            written.extend_from_slice(&slice[..part]);
            *room -= part;
            taken += part;
        }
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }
}

/// Takes everything and counts the writes.
#[derive(Default)]
struct Counting(Mutex<(usize, Vec<u8>)>);

impl Wire for Counting {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        slices.iter().for_each(|slice| state.1.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

struct Payload;

impl Deliver for Payload {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(delivery.message().payload(), Class::Droppable);
    }
}

/// The same by the way of shared frames.
struct SharedPayload;

impl Deliver for SharedPayload {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {
        unreachable!("every delivery here is one shared frame");
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], _: &Arc<Outbox>) -> Option<&'d Bytes> {
        Some(delivery.message().payload())
    }
}

fn outbox(
    broker: &Broker,
    max_messages: usize,
    policy: OutboxPolicy,
) -> (Subscriber, Arc<Outbox>, Arc<Narrow>) {
    outbox_of(broker, Arc::new(Payload), max_messages, policy)
}

fn outbox_of(
    broker: &Broker,
    deliver: Arc<dyn Deliver>,
    max_messages: usize,
    policy: OutboxPolicy,
) -> (Subscriber, Arc<Outbox>, Arc<Narrow>) {
    let config = OutboxConfig::new(max_messages, 1_000, policy);
    let subscriber = broker.attach(deliver, config);
    subscriber.subscribe(&filter("a"), 0, Start::Live).unwrap();
    let (outbox, wire) = (subscriber.outbox(), Arc::new(Narrow::default()));
    outbox.attach_wire(Arc::<Narrow>::clone(&wire));
    (subscriber, outbox, wire)
}

fn signal(outbox: &Outbox) -> Option<Signal> {
    match outbox.poll_signal(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(signal) => Some(signal),
        Poll::Pending => None,
    }
}

fn droppable(outbox: &Outbox, text: &str) {
    assert!(outbox.send(Bytes::copy_from_slice(text.as_bytes()), Class::Droppable));
}

#[tokio::test]
async fn a_partly_written_frame_is_finished_whatever_the_policy_drops() {
    let broker = Broker::new(Config::default());
    let (_subscriber, outbox, wire) = outbox(&broker, 2, OutboxPolicy::DropOldest);
    wire.give_room(3);
    droppable(&outbox, "<first>");
    assert_eq!(signal(&outbox), Some(Signal::Flush));
    for text in ["<2>", "<3>", "<4>"] {
        droppable(&outbox, text);
    }
    wire.give_room(100);
    assert!(outbox.flush());
    assert_eq!(wire.written(), "<first><4>");
    assert_eq!(outbox.dropped(), 2);
    assert_eq!(signal(&outbox), None);
}

#[tokio::test]
async fn control_frames_are_never_dropped_and_close_when_they_alone_are_too_many() {
    let broker = Broker::new(Config::default());
    let (_subscriber, outbox, wire) = outbox(&broker, 3, OutboxPolicy::DropOldest);
    for number in 0..3 {
        droppable(&outbox, "<droppable>");
        assert!(outbox.send(format!("<{number}>").into(), Class::Control), "{number}");
    }
    assert!(!outbox.send(Bytes::from_static(b"<late>"), Class::Control) || outbox.closed().is_some());
    assert_eq!(outbox.closed(), Some(OutboxEnd::Overflow));
    assert_eq!(outbox.queued().messages, 0, "nobody will read it");
    assert_eq!(wire.written(), "");
}

#[tokio::test]
async fn a_burst_of_a_front_s_own_frames_is_one_write_and_never_too_long_for_a_reader_that_reads() {
    // The queue holds 10: the burst of 25 goes in pieces.
    for (burst, writes) in [(1, 1), (8, 1), (25, 3)] {
        let broker = Broker::new(Config::default());
        let (_subscriber, outbox, _) = outbox(&broker, 10, OutboxPolicy::DropOldest);
        let wire = Arc::new(Counting::default());
        outbox.attach_wire(Arc::<Counting>::clone(&wire));
        let mut expected = String::new();
        for number in 0..burst {
            let payload = format!("<{number}>");
            expected.push_str(&payload);
            publish(&broker, "a", payload);
        }
        broker.drained().await;
        let written = wire.0.lock().unwrap();
        assert_eq!(String::from_utf8_lossy(&written.1), expected);
        assert_eq!(written.0, writes, "a burst of {burst}");
        assert_eq!(outbox.dropped(), 0);
    }
}

#[tokio::test]
async fn a_goodbye_is_the_last_thing_written() {
    let broker = Broker::new(Config::default());
    let (_subscriber, outbox, wire) = outbox(&broker, 10, OutboxPolicy::DropOldest);
    droppable(&outbox, "<event>");
    outbox.send_last(Bytes::from_static(b"<bye>"));
    assert!(!outbox.send(Bytes::from_static(b"<more>"), Class::Control));
    assert_eq!(signal(&outbox), Some(Signal::Flush));
    wire.give_room(100);
    outbox.flush();
    assert_eq!(wire.written(), "<event><bye>");
    assert_eq!(signal(&outbox), Some(Signal::Closed(OutboxEnd::Finished)));
}

#[tokio::test]
async fn a_message_whose_time_is_over_is_not_written_from_the_queue() {
    for shared in [false, true] {
        let broker = Broker::new(Config::default());
        let deliver: Arc<dyn Deliver> = if shared { Arc::new(SharedPayload) } else { Arc::new(Payload) };
        let (_subscriber, outbox, wire) = outbox_of(&broker, deliver, 10, OutboxPolicy::DropOldest);
        wire.give_room(2);
        for (text, ttl_ms) in [("<half>", 20), ("<short>", 20), ("<long>", 60_000)] {
            let ttl = std::time::Duration::from_millis(ttl_ms);
            broker.publish(Publish::new(channel("a"), text).ttl(ttl)).unwrap();
            broker.drained().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        wire.give_room(100);
        assert!(outbox.flush());
        assert_eq!(wire.written(), "<half><long>");
    }
}

#[tokio::test]
async fn a_new_wire_discards_the_rest_of_a_half_written_frame() {
    let broker = Broker::new(Config::default());
    let (_subscriber, outbox, old) = outbox(&broker, 10, OutboxPolicy::DropOldest);
    old.give_room(3);
    droppable(&outbox, "<half>");
    droppable(&outbox, "<whole>");
    let new = Arc::new(Narrow::default());
    new.give_room(100);
    outbox.attach_wire(Arc::<Narrow>::clone(&new));
    assert_eq!(new.written(), "<whole>");
}

#[tokio::test]
async fn a_socket_that_fails_closes_and_leaves_what_was_not_begun() {
    struct Broken;
    impl Wire for Broken {
        fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let broker = Broker::new(Config::default());
    let (_subscriber, outbox, _) = outbox(&broker, 10, OutboxPolicy::DropOldest);
    droppable(&outbox, "x");
    outbox.attach_wire(Arc::new(Broken));
    assert_eq!(signal(&outbox), Some(Signal::Closed(OutboxEnd::Failed)));
    assert_eq!(outbox.take(usize::MAX), ["x"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Frames are `[1234]`; whatever is dropped and however small the writes, the wire carries whole frames in order.
    #[test]
    fn the_wire_carries_whole_frames_in_order(
        steps in proptest::collection::vec((0usize..12, any::<bool>(), any::<bool>()), 1..120),
        conflate in any::<bool>(),
        shared in any::<bool>(),
        max_messages in 2usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut config = Config::default(); config.lanes = Some(1);
let broker = Broker::new(config);
            let policy = if conflate { OutboxPolicy::Conflate } else { OutboxPolicy::DropOldest };
            let deliver: Arc<dyn Deliver> = if shared { Arc::new(SharedPayload) } else { Arc::new(Payload) };
            let (_subscriber, outbox, wire) = outbox_of(&broker, deliver, max_messages, policy);
            for (number, (room, by_lane, flush)) in steps.iter().enumerate() {
                wire.give_room(*room);
                let frame = format!("[{number:04}]");
                if *by_lane {
                    publish(&broker, "a", frame);
                    if number % 3 == 0 {
                        broker.drained().await;
                    }
                } else {
                    broker.drained().await;
                    droppable(&outbox, &frame);
                }
                if *flush {
                    outbox.flush();
                }
            }
            broker.drained().await;
            wire.give_room(10_000);
            outbox.flush();
            let written = wire.written();
            let numbers: Vec<usize> =
                written.split(['[', ']']).filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{written}");
            assert_eq!(written.len(), numbers.len() * 6);
            assert_eq!(numbers.len() as u64 + outbox.dropped(), steps.len() as u64);
        });
    }
}
