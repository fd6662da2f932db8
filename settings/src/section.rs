//! The two shapes that a piece of configuration has.

/// Makes a section of a configuration: the written form of those fields of a config that can be set.
///
/// ```
/// # #[derive(Default)]
/// # pub struct Config { max_streams: usize, max_request_bytes: usize }
/// settings::section!(
///     /// `[streams]`
///     pub Streams: Config {
///         max_streams: usize,
///         max_request_bytes: settings::Size,
///     } beside {
///         /// Where it listens.
///         pub address: String = "127.0.0.1:8080".to_owned(),
///     }
/// );
/// assert_eq!(Streams::default().address, "127.0.0.1:8080");
/// ```
///
/// Each field comes with the type of its written form, a [`Setting`](crate::Setting) of the field; what is not written
/// has the config's default. Fields `beside` them are the section's alone. A key that is neither is refused. An
/// attribute of a field is passed on, e.g. `#[serde(rename = "…")]`.
///
/// The section is a [`Setting`](crate::Setting) of the config, so it can be a field of another one, and has a method
/// `apply(self, &mut Config)`, which leaves the other fields as they are. The config needs `Default`, and the crate
/// that calls the macro needs `serde` with its derives.
#[macro_export]
macro_rules! section {
    (
        $(#[$about:meta])*
        $vis:vis $name:ident: $config:ty { $($(#[$attribute:meta])* $field:ident: $written:ty),* $(,)? }
        $(beside { $($(#[$of_own:meta])* $own_vis:vis $own:ident: $type:ty = $default:expr),* $(,)? })?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        $vis struct $name {
            $($($(#[$of_own])* $own_vis $own: $type,)*)?
            $($(#[$attribute])* $field: $written),*
        }

        impl $name {
            /// Sets the fields of `config` that the section has.
            $vis fn apply(self, config: &mut $config) {
                $(config.$field = $crate::Setting::into_value(self.$field);)*
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $crate::Setting::from_value(<$config>::default())
            }
        }

        impl $crate::Setting<$config> for $name {
            fn from_value(value: $config) -> Self {
                Self {
                    $($($own: $default,)*)?
                    $($field: $crate::Setting::from_value(value.$field)),*
                }
            }
            fn into_value(self) -> $config {
                let mut value = <$config>::default();
                self.apply(&mut value);
                value
            }
        }
    };
}

/// Makes the written form of an enum without fields.
///
/// ```
/// #[derive(Debug, PartialEq)]
/// enum Full { Close, DropOldest }
///
/// settings::choice!(
///     /// What happens when a queue is full.
///     WhenFull: Full { Close = "close", DropOldest = "drop_oldest" }
/// );
///
/// let written: WhenFull = serde_json::from_str("\"drop_oldest\"").unwrap();
/// assert_eq!(settings::Setting::<Full>::into_value(written), Full::DropOldest);
/// ```
///
/// All variants must be there: that is how a new one is not forgotten. Of an enum that another crate may add to
/// (`#[non_exhaustive]`), what is not named cannot be written, and is kept as it is:
/// `Full: non_exhaustive OutboxPolicy { … }`. The crate that calls the macro needs `serde` with its derives.
#[macro_export]
macro_rules! choice {
    ($(#[$about:meta])* $vis:vis $name:ident: $config:ty { $($variant:ident = $written:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, serde::Deserialize, serde::Serialize)]
        $vis enum $name { $(#[serde(rename = $written)] $variant),* }

        impl $crate::Setting<$config> for $name {
            fn from_value(value: $config) -> Self {
                match value { $(<$config>::$variant => Self::$variant),* }
            }
            fn into_value(self) -> $config {
                match self { $(Self::$variant => <$config>::$variant),* }
            }
        }
    };
    ($(#[$about:meta])* $vis:vis $name:ident: non_exhaustive $config:ty {
        $($variant:ident = $written:literal),* $(,)?
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, serde::Deserialize, serde::Serialize)]
        $vis enum $name {
            $(#[serde(rename = $written)] $variant,)*
            /// One that came later.
            #[serde(skip)]
            Other($config),
        }

        impl $crate::Setting<$config> for $name {
            fn from_value(value: $config) -> Self {
                match value { $(<$config>::$variant => Self::$variant,)* other => Self::Other(other) }
            }
            fn into_value(self) -> $config {
                match self { $(Self::$variant => <$config>::$variant,)* Self::Other(other) => other }
            }
        }
    };
}
