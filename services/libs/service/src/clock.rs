//! The clock of a service: the machine's, or one that a test moves.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use sovereign_model::Timestamp;

/// Says what time it is; cheap to clone.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// One that stands still until it is [set](Clock::set).
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(start.as_unix_nanos().into())))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::from_system_time(SystemTime::now()),
            Source::Manual(nanos) => Timestamp::from_unix_nanos(nanos.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; the machine's is not ours to set.
    pub fn set(&self, time: Timestamp) {
        if let Source::Manual(nanos) = &self.0 {
            nanos.store(time.as_unix_nanos(), Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Manual(_) => "Clock(manual)",
        })
    }
}
