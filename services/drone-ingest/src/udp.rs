//! The socket. *receive* drains it, as many datagrams as there are for each wake, and merges MAVLink at
//! once; JSON goes through a bounded queue to *samples*, which reads it and never waits: it puts each
//! sample in the lane of its drone. A *lane* takes its samples one after the other and may have to wait
//! for the disk.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use sovereign_model::Timestamp;
use sovereign_service::{RunError, Stop, Tasks};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::domain::door::Heard;
use crate::domain::reject::Reject;
use crate::domain::sample::{self, Sample};
use crate::intake::{Intake, LANES, lane_of};
use crate::metrics::Metrics;

/// Kernel buffer asked for. At 200,000 datagrams of 60 bytes a second it bridges some 50 ms without a
/// reader; the kernel may grant less (`net.core.rmem_max`), which is logged.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
const MAX_DATAGRAM_BYTES: usize = 65_536;
/// Datagrams taken for one wake before others on the runtime get their turn.
const DATAGRAMS_A_WAKE: usize = 512;
/// JSON datagrams that wait to be read; a further one is refused as `BUFFER_FULL`.
const SAMPLE_QUEUE: usize = 256;
/// Samples that wait in one lane; a further one is refused as `BUFFER_FULL`.
pub(crate) const LANE_DEPTH: usize = 16;

#[derive(Debug)]
pub(crate) struct Udp {
    socket: UdpSocket,
    pub(crate) address: SocketAddr,
    /// Kernel buffer that it was granted, bytes.
    pub(crate) buffer: usize,
}

impl Udp {
    pub(crate) fn bind(listen: SocketAddr) -> std::io::Result<Self> {
        let domain = Domain::for_address(listen);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind(&listen.into())?;
        let buffer = socket.recv_buffer_size()?;
        tracing::info!(
            asked = RECEIVE_BUFFER_BYTES,
            granted = buffer,
            "receive buffer of the UDP socket"
        );
        let socket = UdpSocket::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            address,
            buffer,
        })
    }

    pub(crate) fn spawn(
        self,
        intake: &Arc<Intake>,
        metrics: Metrics,
        tasks: &mut Tasks,
        stop: Stop,
    ) {
        let (queue, datagrams) = mpsc::channel(SAMPLE_QUEUE);
        let receiving = receive(Arc::clone(intake), self.socket, metrics, queue, stop);
        tasks.spawn("receive", receiving);
        let lanes = std::array::from_fn(|number| {
            let (lane, samples) = mpsc::channel(LANE_DEPTH);
            // Ends when the lane is empty and *samples* is gone.
            let task = take_samples(Arc::clone(intake), samples);
            tasks.spawn(format!("lane {number}"), task);
            lane
        });
        // Ends when the queue is empty and *receive* is gone.
        tasks.spawn(
            "samples",
            read_samples(Arc::clone(intake), datagrams, lanes),
        );
    }
}

#[derive(Debug)]
struct Json {
    bytes: Box<[u8]>,
    arrived: Timestamp,
}

#[derive(Debug)]
struct Arrived {
    sample: Sample,
    at: Timestamp,
}

async fn receive(
    intake: Arc<Intake>,
    socket: UdpSocket,
    metrics: Metrics,
    queue: mpsc::Sender<Json>,
    stop: Stop,
) -> Result<(), RunError> {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES].into_boxed_slice();
    let stopping = stop.requested();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => return Ok(()),
            ready = socket.readable() => {
                ready.map_err(|e| RunError::new("wait for the UDP socket", e))?;
            }
        }
        let mut heard = Heard::default();
        let mut drained = false;
        for _ in 0..DATAGRAMS_A_WAKE {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let one = take_datagram(&intake, &buffer[..length], from, &queue);
                    heard.telemetry |= one.telemetry;
                    heard.newly_due |= one.newly_due;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    drained = true;
                    break;
                }
                Err(error) if passes(error.kind()) => {
                    metrics.receive_errors.inc();
                }
                Err(error) => return Err(RunError::new("receive from the UDP socket", error)),
            }
        }
        intake.wake(heard);
        if !drained {
            tokio::task::yield_now().await;
        }
    }
}

fn take_datagram(
    intake: &Intake,
    datagram: &[u8],
    from: SocketAddr,
    queue: &mpsc::Sender<Json>,
) -> Heard {
    let arrived = intake.now();
    let mut door = intake.door();
    let stats = door.stats_mut();
    stats.datagrams += 1;
    stats.bytes += datagram.len() as u64;
    // In the middle of a frame a brace is a byte like any other.
    let is_json = sample::looks_like_json(datagram)
        && (sample::is_whole_json(datagram) || !door.is_amid_frame(from));
    if !is_json {
        return door.hear_mavlink(arrived, from, datagram);
    }
    let refusal = if !door.admits_unsigned() {
        Some(Reject::Unsigned)
    } else {
        let json = Json {
            bytes: Box::from(datagram),
            arrived,
        };
        // Closed only while stopping: then nobody is left to take it either.
        queue.try_send(json).err().map(|_| Reject::BufferFull)
    };
    if let Some(reason) = refusal {
        door.stats_mut().reject(reason);
    }
    Heard::default()
}

/// Errors that belong to one datagram, or to a peer that went away, and not to the socket.
fn passes(kind: ErrorKind) -> bool {
    [
        ErrorKind::Interrupted,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::HostUnreachable,
        ErrorKind::NetworkUnreachable,
        ErrorKind::OutOfMemory,
    ]
    .contains(&kind)
}

async fn read_samples(
    intake: Arc<Intake>,
    mut datagrams: mpsc::Receiver<Json>,
    lanes: [mpsc::Sender<Arrived>; LANES],
) -> Result<(), RunError> {
    while let Some(json) = datagrams.recv().await {
        let put = sample::parse(&json.bytes).and_then(|sample| {
            let lane = &lanes[lane_of(&sample.drone_id)];
            let at = json.arrived;
            // Closed only after a panic, which ends the service.
            lane.try_send(Arrived { sample, at })
                .map_err(|_| Reject::BufferFull)
        });
        if let Err(reason) = put {
            intake.refuse_sample(reason);
        }
    }
    Ok(())
}

async fn take_samples(
    intake: Arc<Intake>,
    mut lane: mpsc::Receiver<Arrived>,
) -> Result<(), RunError> {
    while let Some(Arrived { sample, at }) = lane.recv().await {
        if let Err(reason) = intake.take_sample(&sample, at).await {
            intake.refuse_sample(reason);
        }
    }
    Ok(())
}
