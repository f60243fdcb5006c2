//! A bus whose messages take their time to be read, as those of a backlog on disk do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sovereign_bus::transport::{
    BoxFuture, DurableSpec, Filter, MailboxSink, RawConsumer, RawDelivery, RawMessage, Receipt,
    SubscriptionGuard, Transport, TransportError,
};
use sovereign_bus::{Appended, Bus, Headers, Key};
use sovereign_proto::topics::SLAM_KEYFRAME;
use sovereign_service::{Channel, Context, Service, StopSource};
use tile_svc::{Calls, Config, TileService};
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::rig::LIMIT;

/// Verdicts that come while pictures are being read.
const VERDICTS: usize = 5;

#[derive(Default)]
struct Counts {
    /// Reads of pictures that were begun; none ends, and one that is given up is begun again.
    begun: AtomicUsize,
    /// Verdicts that were acknowledged.
    acked: AtomicUsize,
}

struct SlowTransport(Arc<Counts>);

impl Transport for SlowTransport {
    fn payload_limit(&self) -> usize {
        1 << 20
    }

    fn publish(&self, _: RawMessage) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async { Ok(()) })
    }

    fn subscribe(
        &self,
        _: Filter,
        _: MailboxSink,
    ) -> BoxFuture<'_, Result<SubscriptionGuard, TransportError>> {
        Box::pin(async { Err(TransportError::Closed) })
    }

    fn append<'a>(
        &'a self,
        _: &'a DurableSpec,
        _: Option<&'a Key>,
        _: RawMessage,
    ) -> BoxFuture<'a, Result<Appended, TransportError>> {
        Box::pin(async { Ok(Appended::Stored) })
    }

    fn consume<'a>(
        &'a self,
        topic: &'a DurableSpec,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn RawConsumer>, TransportError>> {
        Box::pin(async move {
            let counts = self.0.clone();
            let consumer: Box<dyn RawConsumer> = if topic.pattern == SLAM_KEYFRAME.pattern() {
                Box::new(Verdicts { counts, given: 0 })
            } else {
                Box::new(SlowPictures(counts))
            };
            Ok(consumer)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct SlowPictures(Arc<Counts>);

impl RawConsumer for SlowPictures {
    fn next(&mut self) -> BoxFuture<'_, Option<RawDelivery>> {
        Box::pin(async {
            self.0.begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        })
    }
}

/// Verdicts without a frame, which are acknowledged as they come: each when all pictures are being read.
struct Verdicts {
    counts: Arc<Counts>,
    given: usize,
}

impl RawConsumer for Verdicts {
    fn next(&mut self) -> BoxFuture<'_, Option<RawDelivery>> {
        Box::pin(async {
            if self.given == VERDICTS {
                return std::future::pending().await;
            }
            // Lets the other branches of whoever waits for this have their turn.
            tokio::task::yield_now().await;
            self.given += 1;
            Some(RawDelivery {
                message: RawMessage {
                    subject: "slam.d1.keyframe".into(),
                    headers: Headers::default(),
                    payload: Vec::new().into(),
                },
                redelivered: false,
                receipt: Box::new(Counted(self.counts.clone())),
            })
        })
    }
}

struct Counted(Arc<Counts>);

impl Receipt for Counted {
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), TransportError>> {
        self.0.acked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_verdict_that_comes_does_not_begin_the_reading_of_pictures_anew() {
    let dir = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::default());
    let bus = Bus::with_transport(Arc::new(SlowTransport(counts.clone())), "test-node");
    let context = Context::for_tests("tile-svc", bus, dir.path());
    let calls = Calls {
        slam: Channel::local(Routes::default()),
    };
    let service = TileService::build(
        TileService::settings(Config::default()).unwrap(),
        calls,
        context,
    )
    .await
    .unwrap();
    let stop = StopSource::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(service.run(stop.stop()));
    let done = async {
        while counts.acked.load(Ordering::SeqCst) < VERDICTS
            || counts.begun.load(Ordering::SeqCst) < 2
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, done).await.unwrap();
    stop.request();
    let ended = tokio::time::timeout(LIMIT, tasks.join_next());
    ended.await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(counts.begun.load(Ordering::SeqCst), 2, "one of each door");
}
