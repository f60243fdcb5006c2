use super::*;

const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const CID: &str = "bafkreif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu";

fn claim(body: BodyClaim<'_>) -> Claim<'_> {
    Claim {
        message_id: "m-1",
        published_unix_nanos: 1,
        node_id: "north",
        body: Some(body),
    }
}

fn tiles(zxy: Option<(u32, u32, u32)>, digest: &[u8]) -> BodyClaim<'_> {
    BodyClaim::TileChange {
        sequence: 1,
        layer: "imagery",
        names: vec!["frame", "sys-1"],
        tiles: vec![TileClaim { zxy, digest }],
    }
}

fn round<'a>(id: &'a str, digest: &'a str, participants: u32, closes: i64) -> BodyClaim<'a> {
    BodyClaim::Round {
        round_id: id,
        phase: PhaseClaim::Known,
        model_digest: digest,
        min_participants: participants,
        opened_unix_nanos: 5,
        closes_unix_nanos: closes,
        node_id: "north",
    }
}

fn checkpoint<'a>(version: &'a str, digest: &'a str, cid: &'a str) -> BodyClaim<'a> {
    BodyClaim::Checkpoint {
        version,
        digest,
        cid,
    }
}

#[test]
fn what_the_contract_allows_is_admitted_on_its_topic() {
    let addrs = vec!["/ip4/10.0.0.1/tcp/4001".to_owned()];
    let hello = BodyClaim::Hello {
        mode: "join",
        listen_addrs: &addrs,
    };
    for (topic, body) in [
        (Topic::Rounds, BodyClaim::Payload),
        (Topic::Rounds, checkpoint("v1.0_a-b", HEX, CID)),
        (Topic::Rounds, round("r-1", HEX, 1, 6)),
        (Topic::Rounds, hello),
        (Topic::Map, tiles(Some((24, 0, (1 << 24) - 1)), &[7; 32])),
        (Topic::Map, tiles(Some((24, 0, 0)), &[])),
    ] {
        let kind = body.kind();
        assert_eq!(admit(topic, &claim(body)), Ok(kind));
    }
}

#[test]
fn a_body_on_the_wrong_topic_is_refused() {
    assert_eq!(
        admit(Topic::Map, &claim(BodyClaim::Payload)),
        Err(Refusal::Topic)
    );
    let change = claim(tiles(Some((0, 0, 0)), &[0; 32]));
    assert_eq!(admit(Topic::Rounds, &change), Err(Refusal::Topic));
}

#[test]
fn each_rule_refuses_with_its_own_reason() {
    let many: Vec<String> = vec![String::new(); MAX_HELLO_ADDRS + 1];
    let long = vec!["x".repeat(MAX_ADDR_BYTES + 1)];
    let hello = |mode, listen_addrs| BodyClaim::Hello { mode, listen_addrs };
    let cases = [
        (
            Topic::Map,
            tiles(Some((25, 0, 0)), &[0; 32]),
            Refusal::TileChange,
        ),
        (
            Topic::Map,
            tiles(Some((256, 0, 0)), &[0; 32]),
            Refusal::TileChange,
        ),
        (
            Topic::Map,
            tiles(Some((1, 2, 0)), &[0; 32]),
            Refusal::TileChange,
        ),
        (Topic::Map, tiles(None, &[0; 32]), Refusal::TileChange),
        (
            Topic::Map,
            tiles(Some((1, 1, 0)), &[0; 31]),
            Refusal::TileChange,
        ),
        (
            Topic::Rounds,
            checkpoint("../up", HEX, CID),
            Refusal::Checkpoint,
        ),
        (
            Topic::Rounds,
            checkpoint("v1", "00", CID),
            Refusal::Checkpoint,
        ),
        (
            Topic::Rounds,
            checkpoint("v1", HEX, "bafy"),
            Refusal::Checkpoint,
        ),
        (Topic::Rounds, round("a b", HEX, 1, 6), Refusal::Round),
        (Topic::Rounds, round("r", "nothex", 1, 6), Refusal::Round),
        (Topic::Rounds, round("r", HEX, 0, 6), Refusal::Round),
        (Topic::Rounds, round("r", HEX, 1, 5), Refusal::Round),
        (Topic::Rounds, hello("leave", &[]), Refusal::Hello),
        (Topic::Rounds, hello("join", &many), Refusal::Hello),
        (Topic::Rounds, hello("join", &long), Refusal::Hello),
    ];
    for (topic, body, refusal) in cases {
        let shown = format!("{body:?}");
        assert_eq!(admit(topic, &claim(body)), Err(refusal), "{shown}");
    }
}

#[test]
fn the_frame_around_the_body_has_rules_too() {
    let good = claim(BodyClaim::Payload);
    let long = "x".repeat(MAX_MESSAGE_ID_BYTES + 1);
    for id in ["", "a.b", long.as_str()] {
        let claim = Claim {
            message_id: id,
            ..good.clone()
        };
        assert_eq!(admit(Topic::Rounds, &claim), Err(Refusal::MessageId));
    }
    for published_unix_nanos in [0, -1] {
        let claim = Claim {
            published_unix_nanos,
            ..good.clone()
        };
        assert_eq!(admit(Topic::Rounds, &claim), Err(Refusal::PublishedTime));
    }
    let claim = Claim {
        node_id: "bell\u{7}",
        ..good.clone()
    };
    assert_eq!(admit(Topic::Rounds, &claim), Err(Refusal::NodeId));
    let claim = Claim { body: None, ..good };
    assert_eq!(admit(Topic::Rounds, &claim), Err(Refusal::Body));
}
