//! A future beside another one in a task, polled only when it was woken itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use pin_project_lite::pin_project;

pin_project! {
    /// Wraps a future that is rarely ready, such as a timer or a signal to stop, so that the task's other wake-ups do
    /// not poll it: a connection pays for that with every request.
    ///
    /// Once ready it may be polled again if the wrapped future may, and is then polled at once.
    pub(crate) struct Seldom<F> {
        #[pin]
        future: F,
        signal: Arc<Signal>,
        // The one that `signal` has.
        task: Option<Waker>,
    }
}

struct Signal {
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }
}

impl<F> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        let signal = Arc::new(Signal { woken: AtomicBool::new(true), task: Mutex::new(None) });
        Seldom { future, signal, task: None }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Before the look at `woken`: whoever sets it afterwards finds this task to wake.
        if !this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *this.task = Some(cx.waker().clone());
            this.signal.task.lock().clone_from(this.task);
        }
        if !this.signal.woken.load(Ordering::Relaxed) || !this.signal.woken.swap(false, Ordering::Acquire) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(this.signal));
        let outcome = this.future.poll(&mut Context::from_waker(&waker));
        if outcome.is_ready() {
            this.signal.woken.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_polled_when_it_was_woken_and_wakes_the_task_that_polled_last() {
        let (polls, waker, ready) = (AtomicUsize::new(0), Mutex::new(None), AtomicBool::new(false));
        let mut seldom = Box::pin(Seldom::new(poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            *waker.lock() = Some(cx.waker().clone());
            if ready.swap(false, Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        })));
        let tasks = [Arc::new(Count::default()), Arc::new(Count::default())];
        let wakers = tasks.each_ref().map(|task| Waker::from(Arc::clone(task)));
        let mut poll = |task: usize| seldom.as_mut().poll(&mut Context::from_waker(&wakers[task]));
        let wake = || waker.lock().clone().expect("polled").wake();
        let counts =
            || (polls.load(Ordering::Relaxed), tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed)));

        assert_eq!([poll(0), poll(0), poll(1)], [Poll::Pending; 3]);
        assert_eq!(counts(), (1, [0, 0]), "nothing has woken it");
        wake();
        assert_eq!(poll(1), Poll::Pending);
        assert_eq!(counts(), (2, [0, 1]));
        ready.store(true, Ordering::Relaxed);
        wake();
        assert_eq!([poll(0), poll(0), poll(0)], [Poll::Ready(()), Poll::Pending, Poll::Pending]);
        assert_eq!(counts(), (4, [0, 2]), "once more after it was ready");
    }
}
