//! An object on its way into the store.

use bytes::Bytes;
use futures::stream;
use sovereign_model::Digest;
use sovereign_proto::checkpoint::v1::objects_client::ObjectsClient;
use sovereign_proto::checkpoint::v1::put_object_request::Part;
use sovereign_proto::checkpoint::v1::{
    ObjectClass, PutObjectEnd, PutObjectHeader, PutObjectRequest, PutObjectResponse,
};
use sovereign_service::Channel;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ObjectsError;

/// Largest chunk sent; the contract's limit.
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// Chunks on their way; a faster sender waits.
const CHUNKS_AHEAD: usize = 2;

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name from now on.
    pub digest: Digest,
    /// Bytes.
    pub size_bytes: u64,
    /// True when it was there already.
    pub known: bool,
}

/// An object on its way. Dropped before [`Upload::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    parts: mpsc::Sender<PutObjectRequest>,
    /// The call; ends with its handle.
    call: Call,
    size_bytes: u64,
}

impl Upload {
    pub(crate) fn start(mut client: ObjectsClient<Channel>, class: ObjectClass, pin: &str) -> Self {
        let (parts, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let header = Part::Header(PutObjectHeader {
            class: class.into(),
            pin: pin.to_owned(),
        });
        let parts_after = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|part| (part, receiver))
        });
        let header = stream::iter([PutObjectRequest { part: Some(header) }]);
        let messages = futures::StreamExt::chain(header, parts_after);
        let mut call = JoinSet::new();
        call.spawn(async move { client.put(messages).await });
        Self {
            parts,
            call,
            size_bytes: 0,
        }
    }

    /// Sends the next bytes; waits while the store is slower.
    ///
    /// # Errors
    /// The store refused the object; the upload is over.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<(), ObjectsError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK_BYTES));
            self.size_bytes += chunk.len() as u64;
            self.send(Part::Chunk(chunk)).await?;
        }
        Ok(())
    }

    /// All was pushed: says so and waits until it is on disk.
    ///
    /// # Errors
    /// The store refused the object, or did not answer.
    pub async fn finish(mut self) -> Result<Stored, ObjectsError> {
        let end = Part::End(PutObjectEnd {
            size_bytes: self.size_bytes,
        });
        self.send(end).await?;
        let Self {
            parts, mut call, ..
        } = self;
        // The end of the stream follows the end part.
        drop(parts);
        let answer = answer(&mut call).await?;
        let object = answer.object.unwrap_or_default();
        let digest = Digest::from_slice(&object.digest).map_err(ObjectsError::Answer)?;
        Ok(Stored {
            digest,
            size_bytes: object.size_bytes,
            known: answer.known,
        })
    }

    async fn send(&mut self, part: Part) -> Result<(), ObjectsError> {
        let part = PutObjectRequest { part: Some(part) };
        match self.parts.send(part).await {
            Ok(()) => Ok(()),
            // The call is over before its end: only a refusal does that.
            Err(_) => match answer(&mut self.call).await {
                Ok(_) => Err(ObjectsError::HungUp),
                Err(error) => Err(error),
            },
        }
    }
}

type Call = JoinSet<Result<tonic::Response<PutObjectResponse>, tonic::Status>>;

async fn answer(call: &mut Call) -> Result<PutObjectResponse, ObjectsError> {
    match call.join_next().await {
        Some(Ok(Ok(answer))) => Ok(answer.into_inner()),
        Some(Ok(Err(status))) if status.code() == tonic::Code::ResourceExhausted => {
            Err(ObjectsError::NoRoom(status))
        }
        Some(Ok(Err(status))) => Err(ObjectsError::Call(status)),
        Some(Err(_)) | None => Err(ObjectsError::HungUp),
    }
}
