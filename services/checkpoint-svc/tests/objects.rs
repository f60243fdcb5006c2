//! The content store as its callers use it: what they are promised holds for the real store and for the
//! one in memory, which stands for it in their tests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use checkpoint_svc::{CheckpointService, Config, Room};
use futures::stream;
use sovereign_bus::Bus;
use sovereign_model::Digest;
use sovereign_objects::memory::MemoryStore;
use sovereign_objects::{
    MAP, ObjectClass, Objects, ObjectsError, PinChange, PinStrength, PutPictureError, UNREAD,
};
use sovereign_proto::checkpoint::v1::objects_client::ObjectsClient;
use sovereign_proto::checkpoint::v1::put_object_request::Part;
use sovereign_proto::checkpoint::v1::{
    GetObjectRequest, GetUsageRequest, ListObjectsRequest, ObjectInfo, PinChange as WirePinChange,
    PutObjectEnd, PutObjectHeader, PutObjectRequest, StatObjectRequest, UpdatePinsRequest,
};
use sovereign_service::{Channel, Code, Context, HasCode, Service};
use tempfile::TempDir;
use tonic::Code as Grpc;

const LIMIT: u64 = 64 << 20;
const MIB: usize = 1 << 20;

/// A store and what keeps it alive.
struct Backend {
    name: &'static str,
    channel: Channel,
    _alive: Option<(CheckpointService, TempDir)>,
}

impl Backend {
    async fn real(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bus = Bus::memory(&dir.path().join("journal.redb"), "test").unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let context = Context::for_tests(CheckpointService::NAME, bus, &data);
        let settings = CheckpointService::settings(config).unwrap();
        let service = CheckpointService::build(settings, (), context)
            .await
            .unwrap();
        Self {
            name: "filesystem",
            channel: Channel::local(service.routes()),
            _alive: Some((service, dir)),
        }
    }

    async fn both() -> [Self; 2] {
        let memory = Self {
            name: "memory",
            channel: MemoryStore::new().channel(),
            _alive: None,
        };
        [memory, Self::real(Config::default()).await]
    }

    fn objects(&self) -> Objects {
        Objects::new(self.channel.clone())
    }

    fn wire(&self) -> ObjectsClient<Channel> {
        ObjectsClient::new(self.channel.clone())
    }

    async fn stat(&self, digest: Digest) -> Result<ObjectInfo, tonic::Status> {
        let digest = Bytes::copy_from_slice(digest.as_bytes());
        let answer = self.wire().stat(StatObjectRequest { digest }).await?;
        Ok(answer.into_inner().object.unwrap())
    }

    async fn pins(&self, digest: Digest) -> Vec<(String, PinStrength)> {
        let pins = self.stat(digest).await.unwrap().pins;
        pins.iter()
            .map(|pin| (pin.name.clone(), pin.strength()))
            .collect()
    }

    async fn put(
        &self,
        class: ObjectClass,
        pin: &str,
        bytes: Bytes,
    ) -> Result<Digest, ObjectsError> {
        let mut upload = self.objects().put(class, pin);
        upload.push(bytes).await?;
        Ok(upload.finish().await?.digest)
    }

    async fn put_parts(&self, parts: Vec<Part>) -> Result<(), Grpc> {
        let parts = parts
            .into_iter()
            .map(|part| PutObjectRequest { part: Some(part) });
        let answer = self.wire().put(stream::iter(parts)).await;
        answer.map(|_| ()).map_err(|status| status.code())
    }
}

fn bytes(size: u32) -> Bytes {
    (0..size).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn what_was_put_comes_back_whole_and_in_parts() {
    for backend in Backend::both().await {
        for size in [1, 100_000, 3_000_000] {
            let (objects, bytes) = (backend.objects(), bytes(size));
            let half = bytes.len() / 2;
            let mut upload = objects.put(ObjectClass::Picture, UNREAD);
            upload.push(bytes.slice(..half)).await.unwrap();
            upload.push(bytes.slice(half..)).await.unwrap();
            let stored = upload.finish().await.unwrap();
            assert_eq!(stored.digest, Digest::of(&bytes), "{}", backend.name);
            assert_eq!((stored.size_bytes, stored.known), (u64::from(size), false));
            assert_eq!(
                backend.pins(stored.digest).await,
                [(UNREAD.to_owned(), PinStrength::Keep)]
            );
            assert_eq!(objects.get(stored.digest, LIMIT).await.unwrap(), bytes);
            for (offset, length) in [(0, 7), (u64::from(size) / 3, 700_000), (u64::from(size), 1)] {
                let part = objects.range(stored.digest, offset, length).await.unwrap();
                let from = offset as usize;
                let to = bytes.len().min(from + length as usize);
                assert_eq!(part, bytes.slice(from..to), "{length} from {offset}");
            }
            let mut again = objects.put(ObjectClass::Picture, "");
            again.push(bytes).await.unwrap();
            assert!(again.finish().await.unwrap().known);
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_given_up_stores_nothing() {
    for backend in Backend::both().await {
        let bytes = bytes(3_000_000);
        let mut upload = backend.objects().put(ObjectClass::Picture, "");
        upload.push(bytes.clone()).await.unwrap();
        drop(upload);
        let error = backend.stat(Digest::of(&bytes)).await.unwrap_err();
        assert_eq!(error.code(), Grpc::NotFound, "{}", backend.name);
    }
}

#[tokio::test]
async fn what_is_not_here_or_too_large_says_so() {
    for backend in Backend::both().await {
        let (objects, unknown) = (backend.objects(), Digest::of(b"unknown"));
        assert!(matches!(
            objects.get(unknown, LIMIT).await,
            Err(ObjectsError::Missing(digest)) if digest == unknown
        ));
        let digest = backend.put(ObjectClass::Scan, "", bytes(3_000_000)).await;
        let error = objects.get(digest.unwrap(), 1_000).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{}", backend.name);
    }
}

#[tokio::test]
async fn pins_are_set_replaced_and_removed() {
    for backend in Backend::both().await {
        let digest = backend.put(ObjectClass::Picture, "", bytes(100)).await;
        let digest = digest.unwrap();
        let change = |digest, name, strength| PinChange {
            digest,
            name,
            strength,
        };
        let changes = [
            change(digest, UNREAD, Some(PinStrength::Keep)),
            change(digest, MAP, Some(PinStrength::Prefer)),
            change(digest, UNREAD, None),
            change(Digest::of(b"gone"), MAP, None),
        ];
        let missing = backend.objects().update_pins(&changes).await.unwrap();
        assert_eq!(missing, 1, "{}", backend.name);
        let pins = backend.pins(digest).await;
        assert_eq!(pins, [(MAP.to_owned(), PinStrength::Prefer)]);
    }
}

#[tokio::test]
async fn a_full_class_refuses_what_finds_no_room_and_the_others_go_on() {
    let pictures = Room {
        max_bytes: 2 * MIB as u64,
        ..Room::default()
    };
    let backend = Backend::real(Config {
        pictures,
        ..Config::default()
    })
    .await;
    let kept = backend
        .put(ObjectClass::Picture, UNREAD, bytes(MIB as u32))
        .await;
    let large = backend
        .put(ObjectClass::Picture, "", bytes(2 * MIB as u32))
        .await;
    assert!(matches!(large.unwrap_err(), ObjectsError::NoRoom(_)));
    let scan = backend
        .put(ObjectClass::Scan, "", bytes(2 * MIB as u32))
        .await;
    scan.unwrap();
    backend.stat(kept.unwrap()).await.unwrap();
    let usage = backend.wire().get_usage(GetUsageRequest {}).await;
    let usage = usage.unwrap().into_inner();
    assert_eq!(usage.backend, "filesystem");
    let sizes: Vec<_> = usage
        .classes
        .iter()
        .map(|c| (c.objects, c.size_bytes))
        .collect();
    let mib = MIB as u64;
    assert_eq!(sizes, [(1, mib), (1, 2 * mib), (0, 0)]);
}

#[tokio::test]
async fn a_call_that_breaks_the_contract_is_refused_and_stores_nothing() {
    let backend = Backend::real(Config::default()).await;
    let header = |pin: &str| {
        Part::Header(PutObjectHeader {
            class: ObjectClass::Picture.into(),
            pin: pin.to_owned(),
        })
    };
    let chunk = || Part::Chunk(Bytes::from_static(b"x"));
    let end = |size_bytes| Part::End(PutObjectEnd { size_bytes });
    for parts in [
        vec![],
        vec![chunk(), end(1)],
        vec![header(""), header(""), chunk(), end(1)],
        vec![Part::Header(PutObjectHeader::default()), chunk(), end(1)],
        vec![header("no blanks"), chunk(), end(1)],
        vec![header(""), chunk()],
        vec![header(""), chunk(), end(2)],
        vec![header(""), end(0)],
        vec![header(""), Part::Chunk(vec![0; MIB + 1].into())],
    ] {
        assert_eq!(backend.put_parts(parts).await, Err(Grpc::InvalidArgument));
    }
    let class = ObjectClass::Picture.into();
    let list = |after: &'static [u8], class| ListObjectsRequest {
        class,
        after: Bytes::from_static(after),
        limit: 0,
    };
    let all = backend.wire().list(list(b"", class)).await.unwrap();
    assert!(all.into_inner().objects.is_empty());
    for request in [list(b"short", class), list(b"", 0)] {
        let error = backend.wire().list(request).await.unwrap_err();
        assert_eq!(error.code(), Grpc::InvalidArgument);
    }
    let error = backend.wire().get(GetObjectRequest::default()).await;
    assert_eq!(error.unwrap_err().code(), Grpc::InvalidArgument);
    let change = WirePinChange {
        digest: Bytes::copy_from_slice(Digest::of(b"x").as_bytes()),
        name: MAP.to_owned(),
        strength: PinStrength::Keep.into(),
    };
    for changes in [
        vec![WirePinChange {
            name: String::new(),
            ..change.clone()
        }],
        vec![WirePinChange {
            digest: Bytes::new(),
            ..change.clone()
        }],
        vec![change; 10_001],
    ] {
        let error = backend
            .wire()
            .update_pins(UpdatePinsRequest { changes })
            .await;
        assert_eq!(error.unwrap_err().code(), Grpc::InvalidArgument);
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let backend = Backend::real(Config::default()).await;
    let mut put = Vec::new();
    for size in 1..=5 {
        put.push(
            backend
                .put(ObjectClass::Scan, "", bytes(size))
                .await
                .unwrap(),
        );
    }
    backend
        .put(ObjectClass::Picture, "", bytes(6))
        .await
        .unwrap();
    put.sort();
    let (mut listed, mut after) = (Vec::new(), Bytes::new());
    loop {
        let request = ListObjectsRequest {
            class: ObjectClass::Scan.into(),
            after: after.clone(),
            limit: 2,
        };
        let page = backend.wire().list(request).await.unwrap().into_inner();
        let Some(last) = page.objects.last() else {
            break;
        };
        after = last.digest.clone();
        listed.extend(
            page.objects
                .iter()
                .map(|o| Digest::from_slice(&o.digest).unwrap()),
        );
    }
    assert_eq!(listed, put);
}

/// A picture of rough pixels, as an encoder writes it.
fn picture() -> Bytes {
    let rough = |x: u32, y: u32| image::Rgb([(x * y) as u8, (x ^ y) as u8, (x * 31) as u8]);
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100)
        .encode_image(&image::RgbImage::from_fn(640, 480, rough))
        .unwrap();
    bytes.into()
}

fn pieces(bytes: &Bytes) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    let bytes = bytes.clone();
    let starts = (0..bytes.len()).step_by(10_000);
    stream::iter(starts.map(move |start| Ok(bytes.slice(start..(start + 10_000).min(bytes.len())))))
}

#[tokio::test]
async fn a_picture_is_looked_at_while_it_passes() {
    for backend in Backend::both().await {
        let objects = backend.objects();
        let whole = picture();
        let stored = objects.put_picture(pieces(&whole)).await.unwrap();
        assert_eq!(stored.object.digest, Digest::of(&whole), "{}", backend.name);
        assert_eq!(
            (stored.header.width_px, stored.header.height_px),
            (640, 480)
        );
        let unread = [(UNREAD.to_owned(), PinStrength::Keep)];
        assert_eq!(backend.pins(stored.object.digest).await, unread);

        let cut = whole.slice(..whole.len() - 2);
        let refused = objects.put_picture(pieces(&cut)).await.unwrap_err();
        assert_eq!(refused.to_string(), "the picture is cut off");
        let broken = stream::iter([
            Ok(whole.slice(..50_000)),
            Err(std::io::Error::other("away")),
        ]);
        let failed = objects.put_picture(broken).await.unwrap_err();
        assert!(matches!(failed, PutPictureError::Source(_)), "{failed}");
        for absent in [Digest::of(&cut), Digest::of(&whole.slice(..50_000))] {
            let status = backend.stat(absent).await.unwrap_err();
            assert_eq!(status.code(), Grpc::NotFound, "{}", backend.name);
        }
    }
}
