//! What groups of several processes have to do, of engines that share it.

use std::time::Duration;

use broker_core::{Message, Task, Terms, Work};

use super::{Life, On, filter, publish, soon, text_of};

/// A member that may be back after minutes.
fn terms() -> Terms {
    Terms::new(Duration::from_secs(600), None)
}

async fn open(life: &Life) -> std::sync::Arc<dyn Work> {
    let work = life.broker.work("g", &filter("work/*"), terms()).expect("it shares what it keeps");
    soon(work).await.expect("there is room")
}

/// The next so many messages.
async fn take(work: &dyn Work, count: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let all = async {
        while tasks.len() < count {
            tasks.append(&mut work.next(count - tasks.len()).await);
        }
    };
    soon(all).await;
    tasks
}

fn offset(message: &Message) -> u64 {
    message.id().expect("it is kept").offset()
}

fn texts(tasks: &[Task]) -> Vec<String> {
    let mut texts: Vec<_> = tasks.iter().map(|task| text_of(task.message.payload())).collect();
    texts.sort_unstable();
    texts
}

async fn publish_all(life: &Life, channel: &str, range: std::ops::Range<u8>) {
    for number in range {
        let text = char::from(b'a' + number).to_string();
        life.publish(publish(channel, &text), &format!("{channel} {text}")).await;
    }
}

/// Each message of the group's filter is given once, and again only if it is given back.
pub async fn a_groups_message_is_given_until_it_is_finished(ground: On) {
    let life = Life::on(&ground);
    assert!(life.broker.work("g", &filter("memory/*"), terms()).is_none(), "it keeps nothing of that");
    publish_all(&life, "work/1", 0..2).await;
    let work = open(&life).await;
    publish_all(&life, "other/1", 0..2).await;
    publish_all(&life, "work/1", 2..8).await;
    let tasks = take(&*work, 6).await;
    assert_eq!(texts(&tasks), ["c", "d", "e", "f", "g", "h"], "those from now on, in any order");
    assert!(tasks.iter().all(|task| !task.is_late));
    for (at, task) in tasks.iter().enumerate() {
        let offset = offset(&task.message);
        if at % 2 == 0 {
            work.finish(offset)
        } else {
            work.give_back(offset)
        }
        // What is not held any more is nobody's business.
        work.finish(offset);
        work.give_back(offset);
    }
    let again = take(&*work, 3).await;
    let given_back: Vec<_> = tasks.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(texts(&again), texts(&given_back));
    assert!(again.iter().all(|task| task.is_late), "they were given before");
    again.iter().for_each(|task| work.finish(offset(&task.message)));
    publish_all(&life, "work/2", 8..9).await;
    assert_eq!(texts(&take(&*work, 1).await), ["i"]);
    assert!(soon(work.next(0)).await.is_empty(), "nothing is on its way");
    life.end().await;
}

/// What a life has not finished is for the next one, and so is what came while there was none.
pub async fn a_groups_place_outlives_a_life(ground: On) {
    let life = Life::on(&ground);
    let work = open(&life).await;
    publish_all(&life, "work/1", 0..4).await;
    let tasks = take(&*work, 4).await;
    let (held, done): (Vec<_>, Vec<_>) =
        tasks.into_iter().partition(|task| text_of(task.message.payload()) == "c");
    done.iter().for_each(|task| work.finish(offset(&task.message)));
    // They are told of by the time that this is stored.
    publish_all(&life, "other/1", 0..1).await;
    assert_eq!(texts(&held), ["c"]);
    drop((work, held));
    life.crash();

    let life = Life::on(&ground);
    publish_all(&life, "work/1", 4..6).await;
    let work = open(&life).await;
    let tasks = take(&*work, 3).await;
    assert_eq!(texts(&tasks), ["c", "e", "f"]);
    life.end().await;
}
