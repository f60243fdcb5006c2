//! Why a service could not be built, or could not go on.

use std::error::Error;

type Cause = Box<dyn Error + Send + Sync>;

/// A service could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A value of its configuration section cannot be used. The process exits with 78.
    #[error("`{field}` {why}")]
    Config {
        /// Key within the section of the service.
        field: String,
        /// What is wrong with it and what is accepted, as the rest of a sentence.
        why: String,
    },
    /// A resource could not be had.
    #[error("{operation}")]
    Operation {
        /// What was attempted.
        operation: String,
        /// Why it failed.
        #[source]
        cause: Cause,
    },
}

impl BuildError {
    /// `operation` failed because of `cause`.
    pub fn new(operation: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::Operation {
            operation: operation.into(),
            cause: cause.into(),
        }
    }

    /// The value of `field` cannot be used; `why` completes the sentence, as in "must be above 0".
    pub fn config(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Config {
            field: field.into(),
            why: why.into(),
        }
    }
}

/// A service could not go on.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct RunError {
    operation: String,
    #[source]
    cause: Cause,
}

impl RunError {
    /// `operation` failed because of `cause`.
    pub fn new(operation: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self {
            operation: operation.into(),
            cause: cause.into(),
        }
    }
}
