//! A bus whose messages take their time to be read, as those of a backlog on disk do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message as _;
use slam_svc::{Config, SlamService};
use sovereign_bus::transport::{
    BoxFuture, DurableSpec, Filter, MailboxSink, RawConsumer, RawDelivery, RawMessage, Receipt,
    SubscriptionGuard, Transport, TransportError,
};
use sovereign_bus::{Appended, Bus, Headers, Key};
use sovereign_proto::mobile::v1::{Sample, SampleType};
use sovereign_proto::topics::MOBILE_SAMPLE;
use sovereign_service::{Context, Service, StopSource};
use tokio::sync::Semaphore;

use crate::rig::LIMIT;

/// What the bus is asked for, and what it waits for.
struct Gates {
    /// Loads that were begun; a load that is given up is begun again.
    begun: AtomicUsize,
    /// Loads that may end.
    loads: Semaphore,
    /// Acknowledgements that may end.
    acks: Semaphore,
    /// Acknowledgements that were begun.
    acked: AtomicUsize,
}

struct SlowTransport(Arc<Gates>);

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
            let consumer: Box<dyn RawConsumer> = if topic.pattern == MOBILE_SAMPLE.pattern() {
                Box::new(SlowConsumer(self.0.clone()))
            } else {
                Box::new(Silent)
            };
            Ok(consumer)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct Silent;

impl RawConsumer for Silent {
    fn next(&mut self) -> BoxFuture<'_, Option<RawDelivery>> {
        Box::pin(std::future::pending())
    }
}

struct SlowConsumer(Arc<Gates>);

impl RawConsumer for SlowConsumer {
    fn next(&mut self) -> BoxFuture<'_, Option<RawDelivery>> {
        Box::pin(async {
            let number = self.0.begun.fetch_add(1, Ordering::SeqCst);
            self.0.loads.acquire().await.unwrap().forget();
            let sample = Sample {
                client_id: format!("phone-{number}"),
                r#type: SampleType::Accelerometer.into(),
                ..Sample::default()
            };
            Some(RawDelivery {
                message: RawMessage {
                    subject: format!("mobile.phone-{number}.sample").into(),
                    headers: Headers::default(),
                    payload: sample.encode_to_vec().into(),
                },
                redelivered: false,
                receipt: Box::new(SlowReceipt(self.0.clone())),
            })
        })
    }
}

struct SlowReceipt(Arc<Gates>);

impl Receipt for SlowReceipt {
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), TransportError>> {
        Box::pin(async move {
            self.0.acks.acquire().await.unwrap().forget();
            self.0.acked.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }
}

async fn reaches(counter: &AtomicUsize, count: usize) {
    let reached = async {
        while counter.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, reached).await.unwrap();
}

#[tokio::test]
async fn settling_one_delivery_does_not_begin_the_loading_of_the_next_anew() {
    const SAMPLES: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let gates = Arc::new(Gates {
        begun: AtomicUsize::new(0),
        loads: Semaphore::new(1),
        acks: Semaphore::new(0),
        acked: AtomicUsize::new(0),
    });
    let bus = Bus::with_transport(Arc::new(SlowTransport(gates.clone())), "test-node");
    let context = Context::for_tests(SlamService::NAME, bus, dir.path());
    let service = SlamService::build(
        SlamService::settings(Config::default()).unwrap(),
        (),
        context,
    )
    .await
    .unwrap();
    let stop = StopSource::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "the test owns the task and awaits it"
    )]
    let task = tokio::spawn(service.run(stop.stop()));
    for settled in 1..=SAMPLES {
        // One is held and waits to be acknowledged while the next one is being loaded.
        reaches(&gates.begun, settled + 1).await;
        gates.acks.add_permits(1);
        reaches(&gates.acked, settled).await;
        gates.loads.add_permits(1);
    }
    reaches(&gates.begun, SAMPLES + 2).await;
    assert_eq!(gates.begun.load(Ordering::SeqCst), SAMPLES + 2);
    stop.request();
    gates.acks.add_permits(SAMPLES);
    tokio::time::timeout(LIMIT, task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
