//! The services that run elsewhere, by name.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use sovereign_service::Channel;

use crate::ConfigError;

/// Addresses of `[host.calls]`, handed out as channels; what is never asked for is refused at the end.
#[derive(Debug)]
pub struct CallTable {
    addresses: BTreeMap<String, String>,
    asked: RefCell<BTreeSet<String>>,
}

impl CallTable {
    /// The table of a host.
    #[must_use]
    pub fn new(addresses: BTreeMap<String, String>) -> Self {
        Self {
            addresses,
            asked: RefCell::default(),
        }
    }

    /// A channel to `service`; it is connected with the first call.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// `host.calls.<service>` is missing or is no address.
    pub fn channel(&self, service: &str) -> Result<Channel, ConfigError> {
        self.optional(service)?.ok_or_else(|| {
            ConfigError::key(
                format!("host.calls.{service}"),
                format!("is missing, write where {service} runs, as http://host:port"),
            )
        })
    }

    /// The same for a service that the caller can do without; `None` when it has no address.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// `host.calls.<service>` is no address.
    pub fn optional(&self, service: &str) -> Result<Option<Channel>, ConfigError> {
        self.asked.borrow_mut().insert(service.to_owned());
        let connect = |address: &String| {
            Channel::connect(address).map_err(|error| {
                let key = format!("host.calls.{service}");
                ConfigError::key(key, sovereign_service::chain(&error))
            })
        };
        self.addresses.get(service).map(connect).transpose()
    }

    /// Refuses addresses that nothing asked for: they would have no effect.
    ///
    /// # Errors
    ///
    /// The first such key.
    pub fn refuse_unused(&self) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        match self.addresses.keys().find(|name| !asked.contains(*name)) {
            Some(unused) => Err(ConfigError::key(
                format!("host.calls.{unused}"),
                format!("has no effect, nothing in this process calls {unused} elsewhere"),
            )),
            None => Ok(()),
        }
    }
}
