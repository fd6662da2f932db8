//! An answer that is there already, or comes later.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What somebody is asked who may have to ask others: a service, a disk, another node. A future that may have its
/// answer already, which then costs no allocation.
pub struct Answer<'a, T>(Kind<'a, T>);

enum Kind<'a, T> {
    Now(Option<T>),
    Later(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

impl<'a, T> Answer<'a, T> {
    /// The answer is known.
    pub fn now(answer: T) -> Self {
        Self(Kind::Now(Some(answer)))
    }

    /// The answer takes time.
    pub fn later(answer: impl Future<Output = T> + Send + 'a) -> Self {
        Self(Kind::Later(Box::pin(answer)))
    }

    /// The answer if it is known, else whoever has to be waited for.
    ///
    /// # Errors
    /// The same answer, if it comes later.
    pub fn if_now(self) -> Result<T, Self> {
        match self.0 {
            Kind::Now(Some(answer)) => Ok(answer),
            kind => Err(Self(kind)),
        }
    }
}

impl<'a, T: Unpin + Send + 'a> Answer<'a, T> {
    /// What is made of the answer, as soon as it is there.
    pub fn map<U: Unpin + Send + 'a>(self, make: impl FnOnce(T) -> U + Send + 'a) -> Answer<'a, U> {
        match self.if_now() {
            Ok(answer) => Answer::now(make(answer)),
            Err(later) => Answer::later(async move { make(later.await) }),
        }
    }

    /// The answer to another question, which is asked as soon as this one is answered.
    pub fn then<U: Unpin + Send + 'a>(
        self,
        ask: impl FnOnce(T) -> Answer<'a, U> + Send + 'a,
    ) -> Answer<'a, U> {
        match self.if_now() {
            Ok(answer) => ask(answer),
            Err(later) => Answer::later(async move { ask(later.await).await }),
        }
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = T;

    /// # Panics
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Kind::Now(answer) => Poll::Ready(answer.take().expect("not polled after it was ready")),
            Kind::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Now(_) => "Answer(now)",
            Kind::Later(_) => "Answer(later)",
        })
    }
}
