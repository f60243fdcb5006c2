//! Configuration: what was written, merged from its sources, and what it means.
//!
//! Later wins: defaults of the program, the TOML file, the environment, `--set`, dedicated flags.
//! `SOVEREIGN__TILE_SVC__CACHE_BYTES=1` and `--set tile-svc.cache_bytes=1` mean what
//! `[tile-svc] cache_bytes = 1` means in the file. A value that is not valid TOML is a string.

mod host;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IntoDeserializer as _};
use sovereign_service::{BuildError, Service, chain};
use toml::{Table, Value};

use crate::ConfigError;
pub(crate) use host::{BusConfig, without_credentials};
pub use host::{HostConfig, LogFormat};

/// Name of the section of the process itself.
pub(crate) const HOST: &str = "host";
/// Prefix of the variables that are settings.
const VARIABLE: &str = "SOVEREIGN__";
/// Prefix of every variable that is meant for us.
const PREFIX: &str = "SOVEREIGN_";
/// How variables go on that Kubernetes sets for each service of its own.
const OF_KUBERNETES: [&str; 2] = ["SERVICE_", "PORT"];

/// Name of this machine, where the system says it.
pub(crate) fn machine_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

/// The part of the environment that concerns us, read once.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// What the process was started with.
    #[must_use]
    pub fn of_process() -> Self {
        Self::from_pairs(std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        }))
    }

    /// The variables of `pairs` that concern us.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours =
            |name: &str| name.starts_with(PREFIX) || ["XDG_DATA_HOME", "HOSTNAME"].contains(&name);
        Self {
            variables: pairs.into_iter().filter(|(name, _)| ours(name)).collect(),
        }
    }

    /// The configuration file named by `SOVEREIGN_CONFIG`.
    #[must_use]
    pub fn config_file(&self) -> Option<PathBuf> {
        self.variable("SOVEREIGN_CONFIG").map(PathBuf::from)
    }

    /// Default data folder: `$XDG_DATA_HOME/sovereign-map`, else `sovereign-data` in the working
    /// directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.variable("XDG_DATA_HOME").map_or_else(
            || PathBuf::from("sovereign-data"),
            |base| Path::new(base).join("sovereign-map"),
        )
    }

    /// Default node name: the name of this machine.
    #[must_use]
    pub fn host_name(&self) -> String {
        machine_name()
            .or_else(|| self.variable("HOSTNAME").map(ToOwned::to_owned))
            .unwrap_or_else(|| "node".to_owned())
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A variable with one underscore where a setting has two, and the setting that was meant.
    fn mistaken(&self, sections: &[&str]) -> Option<(&str, String)> {
        let names = self
            .variables
            .keys()
            .filter(|name| !name.starts_with(VARIABLE));
        names.into_iter().find_map(|name| {
            let rest = name.strip_prefix(PREFIX)?;
            sections.iter().find_map(|section| {
                let section = section.to_uppercase().replace('-', "_");
                let key = rest.strip_prefix(&section)?.strip_prefix('_')?;
                let key = key.trim_start_matches('_');
                let foreign = key.is_empty() || OF_KUBERNETES.iter().any(|of| key.starts_with(of));
                (!foreign).then(|| (name.as_str(), format!("{VARIABLE}{section}__{key}")))
            })
        })
    }

    fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .filter(|(name, _)| name.starts_with(VARIABLE))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Everything that was written, merged; not yet understood.
#[derive(Debug, Clone)]
pub struct Settings {
    sections: Vec<&'static str>,
    table: Table,
    /// Where each value came from, by its full path.
    origins: BTreeMap<String, String>,
    /// Values that came as text, by their full path: they are read as TOML, and where that has the
    /// wrong type, as a string.
    texts: BTreeMap<String, String>,
}

impl Settings {
    /// Nothing written; `services` are the sections that exist beside `[host]`.
    #[must_use]
    pub fn new(services: &[&'static str]) -> Self {
        Self {
            sections: std::iter::once(HOST)
                .chain(services.iter().copied())
                .collect(),
            table: Table::new(),
            origins: BTreeMap::new(),
            texts: BTreeMap::new(),
        }
    }

    /// Adds the sections of `table`, which was written at `origin`.
    ///
    /// # Errors
    /// A section that does not exist.
    pub fn merge_table(&mut self, origin: &str, table: Table) -> Result<(), ConfigError> {
        for (section, value) in table {
            if !self.sections.contains(&section.as_str()) {
                return Err(self.unknown_section(&section).at(Some(origin)));
            }
            if !value.is_table() {
                return Err(
                    ConfigError::key(section, "is a section, write its keys under it")
                        .at(Some(origin)),
                );
            }
            self.put(origin, &[section], value);
        }
        Ok(())
    }

    /// Adds a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, or has a section that does not exist.
    pub fn merge_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::file(path.display(), format!("cannot be read: {error}"))
        })?;
        let table = text.parse::<Table>().map_err(|error| {
            let line = error.span().map_or(1, |span| {
                1 + text[..span.start.min(text.len())].matches('\n').count()
            });
            ConfigError::file(
                path.display(),
                format!("line {line} is not valid TOML: {}", error.message()),
            )
        })?;
        self.merge_table(&path.display().to_string(), table)
    }

    /// Adds the variables `SOVEREIGN__SECTION__KEY`.
    ///
    /// # Errors
    /// A variable whose section does not exist or that has no key, and one that only looks like a setting.
    pub fn merge_environment(&mut self, environment: &Environment) -> Result<(), ConfigError> {
        if let Some((name, meant)) = environment.mistaken(&self.sections) {
            let why = format!("is no setting and would have no effect, write {meant}");
            return Err(ConfigError::key(name, why));
        }
        for (name, value) in environment.settings() {
            let mut parts = name[VARIABLE.len()..].split("__").map(str::to_lowercase);
            let section = parts.next().unwrap_or_default().replace('_', "-");
            let mut path = vec![section];
            path.extend(parts);
            // The keys of `host.calls` are names of services.
            if let [host, calls, service] = path.as_mut_slice()
                && host == HOST
                && calls == "calls"
            {
                *service = service.replace('_', "-");
            }
            self.put_text(name, &path, value)?;
        }
        Ok(())
    }

    /// Adds `section.key=value`, as given to `--set`.
    ///
    /// # Errors
    /// Text without `=`, a section that does not exist.
    pub fn merge_assignment(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let Some((path, value)) = assignment.split_once('=') else {
            return Err(ConfigError::key(
                assignment,
                "is not an assignment, write --set section.key=value",
            ));
        };
        let path: Vec<String> = path.trim().split('.').map(ToOwned::to_owned).collect();
        self.put_text("--set", &path, value)
    }

    /// Sets one value by its full path, as a flag does.
    pub fn set(&mut self, origin: &str, section: &str, key: &str, value: impl Into<Value>) {
        self.put(origin, &[section.to_owned(), key.to_owned()], value.into());
    }

    /// Reads the section of a service; a section that was not written has its defaults.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong type, by its full path and with its origin.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, ConfigError> {
        let mut texts: BTreeMap<&str, &str> = self
            .texts
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let Some(value) = self.table.get(name) else {
            return Ok(T::default());
        };
        let mut value = value.clone();
        loop {
            let deserializer = value.clone().into_deserializer();
            let error = match serde_path_to_error::deserialize(deserializer) {
                Ok(section) => return Ok(section),
                Err(error) => error,
            };
            let inner = error.path().to_string();
            let path = if inner == "." {
                name.to_owned()
            } else {
                format!("{name}.{inner}")
            };
            // Each turn takes one text away, so this ends.
            if let Some(text) = texts.remove(path.as_str()) {
                let keys: Vec<String> = inner.split('.').map(ToOwned::to_owned).collect();
                put_value(&mut value, &keys, Value::String(text.to_owned()));
                continue;
            }
            let origin = self.origin(&path);
            let what = error.inner().message().to_owned();
            return Err(ConfigError::key(path, what).at(origin));
        }
    }

    /// Reads and understands the section of a service.
    ///
    /// # Errors
    /// As [`Settings::section`], and what the service refuses by itself.
    pub fn service<S: Service>(&self) -> Result<S::Settings, ConfigError> {
        S::settings(self.section(S::NAME)?).map_err(|error| match error {
            BuildError::Config { field, why } => {
                let path = format!("{}.{field}", S::NAME);
                let origin = self.origin(&path);
                ConfigError::key(path, why).at(origin)
            }
            error @ BuildError::Operation { .. } => ConfigError::key(S::NAME, chain(&error)),
        })
    }

    pub(crate) fn origin(&self, path: &str) -> Option<&str> {
        self.origins
            .get(path)
            .or_else(|| {
                let below = format!("{path}.");
                let at = |(key, _): &(&String, &String)| key.starts_with(&below);
                self.origins.iter().find(at).map(|(_, origin)| origin)
            })
            .map(String::as_str)
    }

    fn put_text(&mut self, origin: &str, path: &[String], text: &str) -> Result<(), ConfigError> {
        let full = path.join(".");
        if path.len() < 2 || path.iter().any(String::is_empty) {
            return Err(ConfigError::key(full, "names no key, write section.key").at(Some(origin)));
        }
        if !self.sections.contains(&path[0].as_str()) {
            return Err(self.unknown_section(&path[0]).at(Some(origin)));
        }
        let value = format!("value = {text}")
            .parse::<Table>()
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(text.to_owned()));
        self.put(origin, path, value);
        self.texts.insert(full, text.to_owned());
        Ok(())
    }

    fn put(&mut self, origin: &str, path: &[String], value: Value) {
        match value {
            // Tables merge key by key, so that a later source changes only what it names. One without keys
            // is kept where there was nothing, so that a table that does not exist is refused.
            Value::Table(table) if table.is_empty() => {
                if path.len() > 1 && self.origin(&path.join(".")).is_none() {
                    self.put_value(origin, path, Value::Table(table));
                }
            }
            Value::Table(table) => {
                for (key, value) in table {
                    let mut path = path.to_vec();
                    path.push(key);
                    self.put(origin, &path, value);
                }
            }
            value @ (Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)) => self.put_value(origin, path, value),
        }
    }

    fn put_value(&mut self, origin: &str, path: &[String], value: Value) {
        let full = path.join(".");
        self.texts.remove(&full);
        self.origins.insert(full, origin.to_owned());
        let mut root = Value::Table(std::mem::take(&mut self.table));
        put_value(&mut root, path, value);
        if let Value::Table(table) = root {
            self.table = table;
        }
    }

    fn unknown_section(&self, section: &str) -> ConfigError {
        ConfigError::key(
            section,
            format!(
                "unknown section, expected one of {}",
                self.sections
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )
    }
}

/// Puts `value` at `path`, making tables on the way; what was no table there is replaced.
fn put_value(root: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *root = value;
        return;
    };
    if !root.is_table() {
        *root = Value::Table(Table::new());
    }
    if let Value::Table(table) = root {
        let next = table
            .entry(first.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        put_value(next, rest, value);
    }
}
