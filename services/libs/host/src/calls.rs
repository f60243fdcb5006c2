//! The services that run elsewhere, by name.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use sovereign_service::{Called, Channel};

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

    /// Channels to services that run elsewhere, those without an address left out; each is connected with
    /// the first call.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `host.calls.<service>` is no address, or is missing for one that is required.
    pub fn channels(
        &self,
        called: &[Called],
    ) -> Result<BTreeMap<&'static str, Channel>, ConfigError> {
        let mut channels = BTreeMap::new();
        for Called { name, required } in called {
            let key = format!("host.calls.{name}");
            self.asked.borrow_mut().insert((*name).to_owned());
            match self.addresses.get(*name) {
                Some(address) => {
                    let channel = Channel::connect(address)
                        .map_err(|error| ConfigError::key(key, sovereign_service::chain(&error)))?;
                    channels.insert(*name, channel);
                }
                None if *required => {
                    let why = format!("is missing, write where {name} runs, as http://host:port");
                    return Err(ConfigError::key(key, why));
                }
                None => {}
            }
        }
        Ok(channels)
    }

    /// Refuses addresses that nothing asked for: they would have no effect.
    ///
    /// # Errors
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
