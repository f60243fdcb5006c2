//! The client against the store in memory; the real store runs its own suite.

use bytes::Bytes;
use sovereign_model::Digest;
use sovereign_objects::memory::MemoryStore;
use sovereign_objects::{MAP, ObjectClass, Objects, ObjectsError, PinChange, PinStrength, UNREAD};
use sovereign_service::{Code, HasCode};

const LIMIT: u64 = 64 << 20;

fn three_megabytes() -> Bytes {
    (0..3_000_000u32).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn what_was_put_comes_back_whole_and_in_parts() {
    let store = MemoryStore::new();
    let objects = Objects::new(store.channel());
    let bytes = three_megabytes();

    let mut upload = objects.put(ObjectClass::Picture, UNREAD);
    upload.push(bytes.slice(..2_500_000)).await.unwrap();
    upload.push(bytes.slice(2_500_000..)).await.unwrap();
    let stored = upload.finish().await.unwrap();

    assert_eq!(stored.digest, Digest::of(&bytes));
    assert_eq!((stored.size_bytes, stored.known), (3_000_000, false));
    assert_eq!(
        store.pins(stored.digest),
        [(UNREAD.to_owned(), PinStrength::Keep)]
    );
    assert_eq!(objects.get(stored.digest, LIMIT).await.unwrap(), bytes);
    let part = objects.range(stored.digest, 1_000, 70_000).await.unwrap();
    assert_eq!(part, bytes.slice(1_000..71_000));
    let tail = objects.range(stored.digest, 2_999_999, 10).await.unwrap();
    assert_eq!(tail.len(), 1);
}

#[tokio::test]
async fn an_upload_that_is_given_up_stores_nothing() {
    let store = MemoryStore::new();
    let objects = Objects::new(store.channel());
    let mut upload = objects.put(ObjectClass::Picture, "");
    upload.push(three_megabytes()).await.unwrap();
    drop(upload);
    tokio::task::yield_now().await;
    assert_eq!(store.count(), 0);
}

#[tokio::test]
async fn refusals_say_what_they_are() {
    let store = MemoryStore::new();
    let objects = Objects::new(store.channel());
    let unknown = Digest::of(b"unknown");
    assert!(matches!(
        objects.get(unknown, LIMIT).await,
        Err(ObjectsError::Missing(digest)) if digest == unknown
    ));
    let digest = store.put(ObjectClass::Scan, three_megabytes());
    let error = objects.get(digest, 1_000).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);

    store.set_full(true);
    let error = objects
        .put(ObjectClass::Scan, "")
        .finish()
        .await
        .unwrap_err();
    assert!(matches!(error, ObjectsError::NoRoom(_)));
    store.set_away(true);
    let error = objects.get(digest, LIMIT).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn pins_are_set_replaced_and_removed() {
    let store = MemoryStore::new();
    let objects = Objects::new(store.channel());
    let digest = store.put(ObjectClass::Picture, three_megabytes());
    let change = |digest, name, strength| PinChange {
        digest,
        name,
        strength,
    };
    let missing = objects
        .update_pins(&[
            change(digest, UNREAD, Some(PinStrength::Keep)),
            change(digest, MAP, Some(PinStrength::Prefer)),
            change(digest, UNREAD, None),
            change(Digest::of(b"gone"), MAP, None),
        ])
        .await
        .unwrap();
    assert_eq!(missing, 1);
    assert_eq!(store.pins(digest), [(MAP.to_owned(), PinStrength::Prefer)]);
}
