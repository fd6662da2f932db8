//! The two shapes that a piece of configuration has.

/// Makes a section of the configuration from the fields of `$config` that can be set, each with the form in which it is
/// written; the defaults are those of `$config`. Fields `beside` them are the section's alone.
macro_rules! section {
    (
        $(#[$about:meta])*
        $name:ident: $config:ty { $($(#[$serde:meta])* $field:ident: $written:ty),* $(,)? }
        $(beside { $($own:ident: $type:ty = $default:expr),* $(,)? })?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub(in crate::config) struct $name {
            $($(pub(in crate::config) $own: $type,)*)?
            $($(#[$serde])* pub(in crate::config) $field: $written),*
        }

        impl $name {
            /// Sets the fields of `config` that the section has.
            pub(in crate::config) fn apply(self, config: &mut $config) {
                $(config.$field = $crate::config::units::Setting::into_value(self.$field);)*
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $crate::config::units::Setting::from_value(<$config>::default())
            }
        }

        impl $crate::config::units::Setting<$config> for $name {
            fn from_value(value: $config) -> Self {
                Self {
                    $($($own: $default,)*)?
                    $($field: $crate::config::units::Setting::from_value(value.$field)),*
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
#[cfg(any(feature = "bayeux", feature = "mqtt", feature = "sse"))]
macro_rules! choice {
    ($(#[$about:meta])* $name:ident: $config:ty { $($variant:ident = $written:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, serde::Deserialize, serde::Serialize)]
        pub(in crate::config) enum $name { $(#[serde(rename = $written)] $variant),* }

        impl $crate::config::units::Setting<$config> for $name {
            fn from_value(value: $config) -> Self {
                match value { $(<$config>::$variant => Self::$variant),* }
            }
            fn into_value(self) -> $config {
                match self { $(Self::$variant => <$config>::$variant),* }
            }
        }
    };
}

#[cfg(any(feature = "bayeux", feature = "mqtt", feature = "sse"))]
pub(super) use choice;
pub(super) use section;
