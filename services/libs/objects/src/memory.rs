//! A store in memory that answers the calls of the real one: for the tests of its callers.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use sovereign_model::Digest;
use sovereign_proto::checkpoint::v1::objects_server::{Objects, ObjectsServer};
use sovereign_proto::checkpoint::v1::{
    GetObjectRequest, GetObjectResponse, GetUsageRequest, GetUsageResponse, ListObjectsRequest,
    ListObjectsResponse, ObjectClass, ObjectInfo, Pin as WirePin, PinStrength, PutObjectRequest,
    PutObjectResponse, StatObjectRequest, StatObjectResponse, UpdatePinsRequest,
    UpdatePinsResponse, get_object_response, put_object_request,
};
use sovereign_service::{Channel, limited};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Size of the chunks that it answers with.
const CHUNK_BYTES: usize = 64 << 10;

/// The store; clones share what is in it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    objects: BTreeMap<Digest, Object>,
    full: bool,
    away: bool,
}

#[derive(Debug)]
struct Object {
    class: ObjectClass,
    bytes: Bytes,
    pins: BTreeMap<String, PinStrength>,
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls to it.
    #[must_use]
    pub fn channel(&self) -> Channel {
        Channel::local(Routes::new(limited!(ObjectsServer::new(self.clone()))))
    }

    /// Stores `bytes` without a pin.
    pub fn put(&self, class: ObjectClass, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let object = Object {
            class,
            bytes,
            pins: BTreeMap::new(),
        };
        self.held().objects.entry(digest).or_insert(object);
        digest
    }

    /// What is in an object that is here.
    #[must_use]
    pub fn bytes(&self, digest: Digest) -> Option<Bytes> {
        let held = self.held();
        held.objects.get(&digest).map(|object| object.bytes.clone())
    }

    /// Whether it is here.
    #[must_use]
    pub fn contains(&self, digest: Digest) -> bool {
        self.held().objects.contains_key(&digest)
    }

    /// Objects here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.held().objects.len()
    }

    /// Its pins, by name.
    #[must_use]
    pub fn pins(&self, digest: Digest) -> Vec<(String, PinStrength)> {
        let held = self.held();
        let pins = held.objects.get(&digest).map(|object| object.pins.clone());
        pins.into_iter().flatten().collect()
    }

    /// As retention would.
    pub fn remove(&self, digest: Digest) {
        self.held().objects.remove(&digest);
    }

    /// From now on nothing more is taken, or it is again.
    pub fn set_full(&self, full: bool) {
        self.held().full = full;
    }

    /// From now on every call is answered with UNAVAILABLE, or none is.
    pub fn set_away(&self, away: bool) {
        self.held().away = away;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> Result<MutexGuard<'_, Held>, Status> {
        let held = self.held();
        if held.away {
            return Err(Status::unavailable("the store is away"));
        }
        Ok(held)
    }
}

fn digest_of(bytes: &[u8]) -> Result<Digest, Status> {
    Digest::from_slice(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn info(digest: Digest, object: &Object) -> ObjectInfo {
    let pins = object.pins.iter().map(|(name, strength)| WirePin {
        name: name.clone(),
        strength: (*strength).into(),
    });
    ObjectInfo {
        digest: Bytes::copy_from_slice(digest.as_bytes()),
        size_bytes: object.bytes.len() as u64,
        class: object.class.into(),
        stored_unix_nanos: 0,
        pins: pins.collect(),
    }
}

#[tonic::async_trait]
impl Objects for MemoryStore {
    type GetStream = Pin<Box<dyn Stream<Item = Result<GetObjectResponse, Status>> + Send>>;

    async fn put(
        &self,
        request: Request<Streaming<PutObjectRequest>>,
    ) -> Result<Response<PutObjectResponse>, Status> {
        drop(self.reached()?);
        let mut parts = request.into_inner();
        let mut header = None;
        let mut bytes = BytesMut::new();
        let mut ended = false;
        while let Some(message) = parts.message().await? {
            match message.part {
                Some(put_object_request::Part::Header(first)) => header = Some(first),
                Some(put_object_request::Part::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
                Some(put_object_request::Part::End(_)) => ended = true,
                None => {}
            }
        }
        let header = header.ok_or_else(|| Status::invalid_argument("no header"))?;
        if !ended {
            return Err(Status::invalid_argument("no end"));
        }
        let bytes = bytes.freeze();
        let digest = Digest::of(&bytes);
        let mut held = self.reached()?;
        if held.full {
            return Err(Status::resource_exhausted("no room"));
        }
        let known = held.objects.contains_key(&digest);
        let object = held.objects.entry(digest).or_insert_with(|| Object {
            class: header.class(),
            bytes,
            pins: BTreeMap::new(),
        });
        if !header.pin.is_empty() {
            object.pins.insert(header.pin, PinStrength::Keep);
        }
        Ok(Response::new(PutObjectResponse {
            object: Some(info(digest, object)),
            known,
        }))
    }

    async fn get(
        &self,
        request: Request<GetObjectRequest>,
    ) -> Result<Response<Self::GetStream>, Status> {
        let request = request.into_inner();
        let digest = digest_of(&request.digest)?;
        let held = self.reached()?;
        let object = held.objects.get(&digest);
        let object = object.ok_or_else(|| Status::not_found("no such object"))?;
        let size = object.bytes.len();
        let start = usize::try_from(request.offset).unwrap_or(size).min(size);
        let end = match usize::try_from(request.length) {
            Ok(0) | Err(_) => size,
            Ok(length) => start.saturating_add(length).min(size),
        };
        let mut parts = vec![get_object_response::Part::Object(info(digest, object))];
        let mut rest = object.bytes.slice(start..end);
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            parts.push(get_object_response::Part::Chunk(chunk));
        }
        let parts = parts
            .into_iter()
            .map(|part| Ok(GetObjectResponse { part: Some(part) }));
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }

    async fn stat(
        &self,
        request: Request<StatObjectRequest>,
    ) -> Result<Response<StatObjectResponse>, Status> {
        let digest = digest_of(&request.into_inner().digest)?;
        let held = self.reached()?;
        let object = held.objects.get(&digest);
        let object = object.ok_or_else(|| Status::not_found("no such object"))?;
        Ok(Response::new(StatObjectResponse {
            object: Some(info(digest, object)),
        }))
    }

    async fn update_pins(
        &self,
        request: Request<UpdatePinsRequest>,
    ) -> Result<Response<UpdatePinsResponse>, Status> {
        let mut held = self.reached()?;
        let mut missing = 0;
        for change in request.into_inner().changes {
            let strength = change.strength();
            match held.objects.get_mut(&digest_of(&change.digest)?) {
                None => missing += 1,
                Some(object) if strength == PinStrength::Unspecified => {
                    object.pins.remove(&change.name);
                }
                Some(object) => {
                    object.pins.insert(change.name, strength);
                }
            }
        }
        Ok(Response::new(UpdatePinsResponse { missing }))
    }

    async fn list(
        &self,
        _: Request<ListObjectsRequest>,
    ) -> Result<Response<ListObjectsResponse>, Status> {
        let held = self.reached()?;
        let objects = held
            .objects
            .iter()
            .map(|(digest, object)| info(*digest, object));
        Ok(Response::new(ListObjectsResponse {
            objects: objects.collect(),
        }))
    }

    async fn get_usage(
        &self,
        _: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        drop(self.reached()?);
        Ok(Response::new(GetUsageResponse {
            classes: Vec::new(),
            backend: "memory".to_owned(),
        }))
    }
}
