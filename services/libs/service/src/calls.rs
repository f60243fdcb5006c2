//! Which services one calls: said once, read by whoever composes a process.

use std::collections::BTreeMap;

use crate::Channel;

/// A service that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// Its name, as in `tile-svc`.
    pub name: &'static str,
    /// Whether the caller cannot do without it.
    pub required: bool,
}

/// Channels to the services that one calls; declared with [`calls!`](crate::calls), `()` for none.
pub trait Calls: Sized + Send {
    /// Who is called.
    const SERVICES: &'static [Called];

    /// Takes its channels out of all that there are.
    fn from_channels(channels: &BTreeMap<&'static str, Channel>) -> Result<Self, &'static str>;
}

impl Calls for () {
    const SERVICES: &'static [Called] = &[];

    fn from_channels(_: &BTreeMap<&'static str, Channel>) -> Result<Self, &'static str> {
        Ok(())
    }
}

/// Declares the [`Calls`] of a service: a field for each that it calls, `required` or `optional`.
#[macro_export]
macro_rules! calls {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* $field:ident: $need:ident $service:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[$doc])* pub $field: $crate::calls!(@type $need),)*
        }

        impl $crate::Calls for $name {
            const SERVICES: &'static [$crate::Called] = &[
                $($crate::Called { name: $service, required: $crate::calls!(@required $need) },)*
            ];

            fn from_channels(
                channels: &::std::collections::BTreeMap<&'static str, $crate::Channel>,
            ) -> Result<Self, &'static str> {
                Ok(Self {
                    $($field: $crate::calls!(@take $need channels $service),)*
                })
            }
        }
    };
    (@type required) => { $crate::Channel };
    (@type optional) => { Option<$crate::Channel> };
    (@required required) => { true };
    (@required optional) => { false };
    (@take required $channels:ident $service:literal) => {
        $channels.get($service).cloned().ok_or($service)?
    };
    (@take optional $channels:ident $service:literal) => { $channels.get($service).cloned() };
}

#[cfg(test)]
#[allow(unreachable_pub, reason = "the macro declares what a library exports")]
mod tests {
    use tonic::service::Routes;

    use super::*;

    calls! {
        /// Services that are called.
        pub struct Two {
            /// The map.
            tiles: required "tile-svc",
            /// Peers.
            mesh: optional "mesh-gateway",
        }
    }

    #[test]
    fn a_required_service_that_is_missing_is_named() {
        let mut channels = BTreeMap::new();
        assert_eq!(Two::from_channels(&channels).unwrap_err(), "tile-svc");
        channels.insert("tile-svc", Channel::local(Routes::default()));
        let calls = Two::from_channels(&channels).unwrap();
        assert!(calls.mesh.is_none());
        assert_eq!(format!("{:?}", calls.tiles), "Channel(local)");
        let names: Vec<_> = Two::SERVICES.iter().map(|called| called.name).collect();
        assert_eq!(names, ["tile-svc", "mesh-gateway"]);
    }
}
