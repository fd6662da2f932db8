//! A value, and the form in which it is written.

/// How a `T` is written in a configuration. Numbers, texts and booleans are written as they are; an `Option` and a
/// `Vec` of what can be written can be, too.
pub trait Setting<T> {
    /// The written form of a value: how a default is shown.
    fn from_value(value: T) -> Self;
    /// The value that was written.
    fn into_value(self) -> T;
}

macro_rules! plain {
    ($($type:ty),*) => { $(
        impl Setting<$type> for $type {
            fn from_value(value: $type) -> Self { value }
            fn into_value(self) -> $type { self }
        }
    )* };
}

plain!(bool, i64, u8, u16, u32, u64, usize, String);

impl<T, S: Setting<T>> Setting<Option<T>> for Option<S> {
    fn from_value(value: Option<T>) -> Self {
        value.map(S::from_value)
    }
    fn into_value(self) -> Option<T> {
        self.map(S::into_value)
    }
}

impl<T, S: Setting<T>> Setting<Vec<T>> for Vec<S> {
    fn from_value(value: Vec<T>) -> Self {
        value.into_iter().map(S::from_value).collect()
    }
    fn into_value(self) -> Vec<T> {
        self.into_iter().map(S::into_value).collect()
    }
}
