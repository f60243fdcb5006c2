//! Orderly ends: a request to stop that everyone can wait for, and tasks that are owned.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::RunError;

/// A request to stop, as seen by those who have to.
#[derive(Debug, Clone)]
pub struct Stop {
    token: CancellationToken,
}

impl Stop {
    /// Completes when stopping was requested, at once when it already was.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether stopping was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }
}

/// The owner's end of a [`Stop`].
#[derive(Debug, Clone, Default)]
pub struct StopSource {
    token: CancellationToken,
}

impl StopSource {
    /// A source that has not been asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A source that is also asked when `stop` is.
    #[must_use]
    pub fn under(stop: &Stop) -> Self {
        Self {
            token: stop.token.child_token(),
        }
    }

    /// The end to hand out.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop {
            token: self.token.clone(),
        }
    }

    /// Asks everyone to stop. Asking twice changes nothing.
    pub fn request(&self) {
        self.token.cancel();
    }
}

/// The background tasks of one service.
///
/// The first task that fails or panics asks the others to stop through the [`Stop`] they share, and
/// [`Tasks::wait`] returns its error once all have ended. Dropping `Tasks` aborts what still runs.
#[derive(Debug)]
pub struct Tasks {
    stop: Stop,
    set: JoinSet<Result<(), RunError>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    /// No tasks yet; they are to watch `stop`, which is the stop of one service and not shared wider.
    #[must_use]
    pub fn new(stop: Stop) -> Self {
        Self {
            stop,
            set: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Starts `task` under a name that errors and panics are reported with.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), RunError>> + Send + 'static,
    ) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name.into());
    }

    /// Waits until every task has ended.
    ///
    /// # Errors
    /// The first error, under the name of its task.
    pub async fn wait(mut self) -> Result<(), RunError> {
        let mut first = Ok(());
        while let Some(ended) = self.set.join_next_with_id().await {
            let (id, result) = match ended {
                Ok((id, result)) => (id, result),
                Err(error) => (error.id(), Err(error_from_join(error))),
            };
            let name = self.names.remove(&id).unwrap_or_default();
            if let Err(error) = result {
                self.stop.token.cancel();
                if first.is_ok() {
                    first = Err(RunError::new(format!("task {name}"), error));
                } else {
                    tracing::warn!(task = name, error = %crate::chain(&error), "a task failed while stopping");
                }
            }
        }
        first
    }
}

fn error_from_join(error: JoinError) -> RunError {
    match error.try_into_panic() {
        Ok(payload) => RunError::new("panicked", text_from_panic(&*payload)),
        Err(error) => RunError::new("was aborted", error),
    }
}

pub(crate) fn text_from_panic(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain;

    #[tokio::test]
    async fn the_first_error_stops_the_others_and_names_its_task() {
        let source = StopSource::new();
        let stop = StopSource::under(&source.stop()).stop();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("reader", async {
            Err(RunError::new("read the socket", "gone"))
        });
        let waiting = stop.clone();
        tasks.spawn("writer", async move {
            waiting.requested().await;
            Ok(())
        });
        let error = tasks.wait().await.unwrap_err();
        assert_eq!(chain(&error), "task reader: read the socket: gone");
        assert!(stop.is_requested());
        assert!(!source.stop().is_requested(), "only this service stops");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_that_names_the_task() {
        let mut tasks = Tasks::new(StopSource::new().stop());
        tasks.spawn("painter", async { panic!("no paint") });
        let error = tasks.wait().await.unwrap_err();
        assert_eq!(chain(&error), "task painter: panicked: no paint");
    }

    #[tokio::test]
    async fn tasks_that_end_well_are_no_error() {
        let source = StopSource::new();
        let mut tasks = Tasks::new(source.stop());
        for name in ["a", "b"] {
            let stop = source.stop();
            tasks.spawn(name, async move {
                stop.requested().await;
                Ok(())
            });
        }
        source.request();
        tasks.wait().await.unwrap();
    }
}
