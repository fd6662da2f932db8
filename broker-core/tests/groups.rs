//! Groups are known in the core: who is in one, what a front keeps with it, and who is woken for it.

mod support;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use broker_core::{
    Broker, Class, Config, Deliver, Delivery, Outbox, OutboxConfig, Room, Signal, Sink, Subscriber,
};
use support::*;

struct Plain;

impl Deliver for Plain {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(delivery.message().payload(), Class::Droppable);
    }
}

/// A member of `g` with a connection.
fn member(broker: &Broker, text: &str, tag: u32) -> (Subscriber, Arc<Room>) {
    let subscriber = broker.attach(Arc::new(Plain), OutboxConfig::default());
    let room = Arc::new(Room::default());
    room.connect(&subscriber.outbox());
    subscriber.join_group("g", &filter(text), tag, &room).unwrap();
    (subscriber, room)
}

/// Whether its connection was told to look, since it was last asked.
async fn is_woken(outbox: &Arc<Outbox>) -> bool {
    poll_fn(|cx| Poll::Ready(matches!(outbox.poll_signal(cx), Poll::Ready(Signal::Woken)))).await
}

#[tokio::test]
async fn who_is_in_a_group_is_known_by_its_name_and_filter() {
    let broker = Broker::new(Config::default());
    for text in ["a/b", "a/*", "a/#"] {
        let of = |name: &str, text: &str| broker.group(name, &filter(text));
        assert!(of("g", text).is_none());
        let (one, room) = member(&broker, text, 1);
        let (other, _) = member(&broker, text, 2);
        let group = of("g", text).expect("it has members");
        assert!(of("h", text).is_none() && of("g", "a/c").is_none() && of("g", "a/**").is_none());
        room.shut();
        other.set_online(false);
        let shown: Vec<_> = group
            .members()
            .iter()
            .map(|member| (member.key, member.tag, member.is_online, member.has_room))
            .collect();
        assert_eq!(shown, [(one.key(), 1, true, false), (other.key(), 2, false, true)], "{text}");
        assert!(one.leave_group("g", &filter(text), 1) && !one.leave_group("g", &filter(text), 1));
        assert!(!group.is_empty() && of("g", text).is_some());
        drop(other);
        assert!(group.is_empty() && of("g", text).is_none(), "{text}");
        // Whoever comes now is in another one.
        let (_third, _) = member(&broker, text, 3);
        assert!(group.is_empty() && !Arc::ptr_eq(&group, &of("g", text).unwrap()));
    }
    assert_eq!(broker.stats().subscriptions, 0);
}

#[tokio::test]
async fn what_fronts_keep_with_a_group_is_there_once_for_each_and_goes_with_it() {
    let broker = Broker::new(Config::default());
    let (subscriber, _) = member(&broker, "a/*", 0);
    let group = || broker.group("g", &filter("a/*")).unwrap();
    let kept = group().attached(|| Arc::new("one front's".to_owned()));
    assert!(Arc::ptr_eq(&kept, &group().attached(|| Arc::new("not made".to_owned()))));
    assert_eq!(*group().attached(|| Arc::new(7_u64)), 7);
    let weak = Arc::downgrade(&kept);
    drop(kept);
    assert_eq!(weak.upgrade().as_deref().map(String::as_str), Some("one front's"));
    drop(subscriber);
    assert!(weak.upgrade().is_none());
}

#[tokio::test]
async fn members_with_room_and_a_connection_are_woken_in_turn() {
    let broker = Broker::new(Config::default());
    let members: Vec<_> = (0..4).map(|tag| member(&broker, "a", tag)).collect();
    let group = broker.group("g", &filter("a")).unwrap();
    for (_, room) in &members {
        assert!(room.take_wanted(), "something may have waited before it came");
    }
    members[1].1.shut();
    members[2].1.disconnect();
    for expected in [0, 3, 0] {
        group.call();
        for (at, (subscriber, room)) in members.iter().enumerate() {
            assert!(room.take_wanted() && !room.is_wanted());
            assert_eq!(is_woken(&subscriber.outbox()).await, at == expected, "{at} {expected}");
        }
    }
    members[2].1.open();
    members[2].1.connect(&members[2].0.outbox());
    for expected in [2, 3] {
        group.wake_one();
        for (at, (subscriber, _)) in members.iter().enumerate() {
            assert_eq!(is_woken(&subscriber.outbox()).await, at == expected, "{at} {expected}");
        }
    }
    for (_, room) in &members {
        room.shut();
    }
    group.wake_one();
    for (subscriber, _) in &members {
        assert!(!is_woken(&subscriber.outbox()).await);
    }
}
