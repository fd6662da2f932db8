use proptest::prelude::*;

use super::connecting::MAX_CLIENT_INTERVAL;
use super::options::Rules;
use super::*;
use crate::codec::reply::{Advice, Reconnect};
use crate::protocol::queue::QueueLimits;

const SECOND: Duration = Duration::from_secs(1);

const RULES: Rules = Rules {
    timing: Timing {
        timeout: Duration::from_secs(30),
        interval: Duration::ZERO,
        max_interval: Duration::from_secs(10),
    },
    deliver_only: false,
    max_processing: None,
};

fn options() -> Options {
    Options {
        limits: QueueLimits { max_messages: 1000, max_bytes: 100_000 },
        websocket: RULES,
        long_polling: RULES,
        callback_polling: RULES,
        max_client_timeout: 600 * SECOND,
        activity: None,
        tells_max_interval: false,
    }
}

fn session(now: Instant) -> Session {
    Session::new(now, Arc::new(options()), Transport::LongPolling)
}

fn connect() -> ConnectRequest {
    ConnectRequest {
        id: None,
        transport: Transport::LongPolling,
        timeout: None,
        interval: None,
        has_advice: false,
        ack: None,
        timesync: None,
        alone: true,
        stamped: false,
    }
}

fn event(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn answer(step: ConnectStep) -> ConnectAnswer {
    match step {
        ConnectStep::Answer(answer) => *answer,
        ConnectStep::Hold { .. } => panic!("held"),
    }
}

fn hold(step: ConnectStep) -> (u64, Instant) {
    match step {
        ConnectStep::Hold { token, until } => (token, until),
        ConnectStep::Answer(answer) => panic!("{answer:?}"),
    }
}

/// A session whose first connect was answered.
fn connected(now: Instant) -> Session {
    let mut session = session(now);
    answer(session.handle_connect(now, connect()));
    session
}

#[test]
fn a_session_lives_interval_and_max_interval_after_an_answer() {
    let now = Instant::now();
    let mut session = connected(now);
    assert_eq!(session.poll_timeout(), Some(now + 10 * SECOND));
    let (token, until) = hold(session.handle_connect(now + SECOND, connect()));
    assert_eq!((session.poll_timeout(), until), (None, now + 31 * SECOND));
    assert!(matches!(session.poll_connect(until - SECOND, token), Held::Wait { .. }));
    assert!(matches!(session.poll_connect(until, token), Held::Answer(_)));
    assert_eq!(session.poll_timeout(), Some(until + 10 * SECOND));
    assert!(!session.handle_timeout(until + 9 * SECOND) && session.end().is_none());
    assert!(session.handle_timeout(until + 10 * SECOND));
    assert_eq!(session.end(), Some(End::Expired));
}

#[test]
fn while_its_reply_is_written_a_session_does_not_expire() {
    let now = Instant::now();
    let mut session = connected(now);
    session.begin_reply();
    assert_eq!(session.poll_timeout(), None);
    assert!(!session.handle_timeout(now + 60 * SECOND));
    let token = session.token();
    session.reply_written(now + 60 * SECOND, token);
    session.reply_written(now + 65 * SECOND, token);
    assert_eq!(session.poll_timeout(), Some(now + 70 * SECOND));
    // Of the replies to two connects the later one counts.
    answer(session.handle_connect(now, ConnectRequest { timeout: Some(Duration::ZERO), ..connect() }));
    session.begin_reply();
    session.reply_written(now + 61 * SECOND, token);
    assert_eq!(session.poll_timeout(), None);
    let (held, _) = hold(session.handle_connect(now + 62 * SECOND, connect()));
    session.reply_written(now + 63 * SECOND, held - 1);
    assert_eq!(session.poll_timeout(), None, "a connect is held");
    session.drop_connect(now + 64 * SECOND, held);
    assert_eq!(session.poll_timeout(), Some(now + 74 * SECOND));
    session.finish(now, End::Disconnected);
    session.begin_reply();
    assert_eq!(session.poll_timeout(), Some(now), "what is over stays over");
}

#[test]
fn another_message_moves_the_end() {
    let now = Instant::now();
    let mut session = connected(now);
    session.begin_request(now + 9 * SECOND);
    session.end_request(now + 9 * SECOND);
    assert_eq!(session.poll_timeout(), Some(now + 19 * SECOND));
}

#[test]
fn a_session_does_not_expire_while_a_request_of_it_is_in_progress() {
    let now = Instant::now();
    let mut session = connected(now);
    session.begin_request(now + 9 * SECOND);
    session.handle_timeout(now + 100 * SECOND);
    assert_eq!((session.end(), session.poll_timeout()), (None, None));
    session.end_request(now + 100 * SECOND);
    session.handle_timeout(now + 109 * SECOND);
    assert_eq!(session.end(), None);
    session.handle_timeout(now + 110 * SECOND);
    assert_eq!(session.end(), Some(End::Expired));
}

#[test]
fn a_request_in_progress_keeps_the_connect_asleep() {
    let now = Instant::now();
    let mut session = connected(now);
    let (token, _) = hold(session.handle_connect(now, connect()));
    session.begin_request(now);
    assert_eq!(session.handle_delivery(now, event("a"), None, None), Delivered::Queued);
    assert!(matches!(session.poll_connect(now, token), Held::Wait { .. }));
    assert_eq!(session.poll_events(now), [event("a")], "the reply carries it");
    session.end_request(now);
    assert!(!session.is_due(now));
    session.begin_request(now);
    session.handle_delivery(now, event("b"), None, None);
    session.end_request(now);
    assert!(session.is_due(now), "nobody carried it");
}

#[test]
fn a_dropped_connect_keeps_later_events_and_starts_the_clock() {
    let now = Instant::now();
    let mut session = connected(now);
    let (token, _) = hold(session.handle_connect(now, connect()));
    session.drop_connect(now + SECOND, token);
    assert_eq!(session.poll_timeout(), Some(now + 11 * SECOND));
    assert_eq!(session.handle_delivery(now + SECOND, event("a"), None, None), Delivered::Queued);
    assert_eq!(answer(session.handle_connect(now + 2 * SECOND, connect())).events, [event("a")]);
}

#[test]
fn an_overdue_connect_ends_the_session_if_so_configured() {
    let now = Instant::now();
    let options = Options { long_polling: Rules { max_processing: Some(5 * SECOND), ..RULES }, ..options() };
    let mut session = Session::new(now, Arc::new(options), Transport::LongPolling);
    answer(session.handle_connect(now, connect()));
    hold(session.handle_connect(now, connect()));
    assert_eq!(session.poll_timeout(), Some(now + 35 * SECOND));
    assert!(session.handle_timeout(now + 35 * SECOND));
    assert_eq!(session.end(), Some(End::Expired));
}

#[test]
fn credentials_end_a_session() {
    let now = Instant::now();
    let mut session = connected(now);
    session.limit_to(now + 3 * SECOND);
    let (token, _) = hold(session.handle_connect(now, connect()));
    assert!(session.handle_timeout(now + 3 * SECOND));
    let Held::Answer(answer) = session.poll_connect(now + 3 * SECOND, token) else { panic!("held") };
    let handshake = Advice {
        reconnect: Reconnect::Handshake,
        interval_ms: Some(0),
        timeout_ms: None,
        max_interval_ms: None,
        multiple_clients: false,
    };
    assert_eq!(answer.advice, Some(handshake));
}

#[test]
fn a_clients_timeout_and_interval_are_bounded() {
    let now = Instant::now();
    let mut session = connected(now);
    let day = Some(86_400 * SECOND);
    let request = ConnectRequest { timeout: day, interval: day, has_advice: true, ..connect() };
    let (token, until) = hold(session.handle_connect(now, request));
    assert_eq!(until, now + 600 * SECOND);
    session.drop_connect(now, token);
    assert_eq!(session.poll_timeout(), Some(now + MAX_CLIENT_INTERVAL + 10 * SECOND));
}

#[test]
fn a_refused_hold_comes_back_later_without_expiring() {
    let now = Instant::now();
    let mut session = connected(now);
    let (token, _) = hold(session.handle_connect(now, connect()));
    let answer = session.refuse_hold(now, token, Some(2 * SECOND)).unwrap();
    let advice = answer.advice.unwrap();
    assert!(advice.multiple_clients && advice.interval_ms == Some(2000));
    assert_eq!(session.poll_timeout(), Some(now + 12 * SECOND));
    assert!(session.refuse_hold(now, token, None).is_none(), "nothing is held any more");
}

/// What can happen to an acknowledging session and its client.
#[derive(Debug, Clone)]
enum Step {
    Deliver,
    /// A connect; its answer reaches the client or is lost.
    Connect {
        arrives: bool,
    },
    /// A held connect is looked at.
    Poll {
        arrives: bool,
    },
    Drop,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Deliver),
        3 => any::<bool>().prop_map(|arrives| Step::Connect { arrives }),
        2 => any::<bool>().prop_map(|arrives| Step::Poll { arrives }),
        1 => Just(Step::Drop),
        1 => Just(Step::Wait),
    ]
}

/// CometD's client: it takes a reply's events and remembers its number, both or neither.
#[derive(Default)]
struct Client {
    ack: u64,
    got: Vec<Bytes>,
}

impl Client {
    fn receive(&mut self, answer: ConnectAnswer, arrives: bool) {
        if arrives {
            self.ack = answer.ack.unwrap_or(self.ack);
            self.got.extend(answer.events);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_events_arrive_once_and_in_order(steps in proptest::collection::vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut session = session(now);
        session.enable_ack();
        let (mut client, mut sent, mut held) = (Client::default(), Vec::new(), None);
        for step in steps {
            match step {
                Step::Deliver => {
                    let text = Bytes::from(sent.len().to_string());
                    sent.push(text.clone());
                    session.handle_delivery(now, text, None, None);
                }
                Step::Connect { arrives } => {
                    let request = ConnectRequest { ack: Some(client.ack), ..connect() };
                    held = None;
                    match session.handle_connect(now, request) {
                        ConnectStep::Answer(answer) => client.receive(*answer, arrives),
                        ConnectStep::Hold { token, .. } => held = Some(token),
                    }
                }
                Step::Poll { arrives } => {
                    if let Some(token) = held
                        && let Held::Answer(answer) = session.poll_connect(now, token)
                    {
                        held = None;
                        client.receive(*answer, arrives);
                    }
                }
                Step::Drop => {
                    if let Some(token) = held.take() {
                        session.drop_connect(now, token);
                    }
                }
                Step::Wait => now += SECOND,
            }
            prop_assert!(sent.starts_with(&client.got), "{:?}", client.got);
        }
        let request = ConnectRequest { ack: Some(client.ack), timeout: Some(Duration::ZERO), ..connect() };
        client.receive(answer(session.handle_connect(now, request)), true);
        prop_assert_eq!(client.got, sent);
    }

    #[test]
    fn without_acknowledgement_nothing_comes_twice(steps in proptest::collection::vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut session = session(now);
        let (mut client, mut sent, mut held) = (Client::default(), 0_u64, None);
        for step in steps {
            match step {
                Step::Deliver => {
                    session.handle_delivery(now, Bytes::from(format!("{sent:04}")), None, None);
                    sent += 1;
                }
                Step::Connect { .. } => match session.handle_connect(now, connect()) {
                    ConnectStep::Answer(answer) => client.receive(*answer, true),
                    ConnectStep::Hold { token, .. } => held = Some(token),
                },
                Step::Poll { .. } => {
                    if let Some(token) = held
                        && let Held::Answer(answer) = session.poll_connect(now, token)
                    {
                        client.receive(*answer, true);
                    }
                }
                Step::Drop => {
                    if let Some(token) = held.take() {
                        session.drop_connect(now, token);
                    }
                }
                Step::Wait => now += SECOND / 10,
            }
        }
        let request = ConnectRequest { timeout: Some(Duration::ZERO), ..connect() };
        client.receive(answer(session.handle_connect(now, request)), true);
        let expected: Vec<Bytes> = (0..sent).map(|number| Bytes::from(format!("{number:04}"))).collect();
        prop_assert_eq!(client.got, expected, "a dropped connect had taken nothing");
    }
}
