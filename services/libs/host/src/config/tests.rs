use super::*;
use serde::Deserialize;
use sovereign_service::Listen;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tile {
    cache_bytes: u64,
    label: String,
    nested: Nested,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Nested {
    on: bool,
    names: Vec<String>,
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Merges all sources and reads both sections.
fn read(
    text: &str,
    variables: &[(&str, &str)],
    assignments: &[&str],
) -> Result<(HostConfig, Tile), ConfigError> {
    let environment = environment(variables);
    let mut settings = Settings::new(&["tile-svc"]);
    settings.merge_file(file(text).path())?;
    settings.merge_environment(&environment)?;
    for assignment in assignments {
        settings.merge_assignment(assignment)?;
    }
    Ok((
        HostConfig::read(&settings, &environment)?,
        settings.section("tile-svc")?,
    ))
}

#[test]
fn nothing_written_means_defaults() {
    let (host, tile) = read("", &[("XDG_DATA_HOME", "/srv/data")], &[]).unwrap();
    assert_eq!(host.grpc_listen.to_string(), "127.0.0.1:50051");
    assert_eq!(host.admin_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(host.data_dir, Path::new("/srv/data/sovereign-map"));
    assert_eq!(
        host.addresses_file,
        Path::new("/srv/data/sovereign-map/addresses.json")
    );
    assert_eq!(host.bus, host::BusConfig::Memory);
    assert_eq!(tile, Tile::default());
}

#[test]
fn a_later_source_wins_key_by_key() {
    let text = "[tile-svc]\ncache_bytes = 1\nlabel = 'file'\nnested.on = true\n";
    for (variables, assignments, cache_bytes, label) in [
        (vec![], vec![], 1, "file"),
        (
            vec![("SOVEREIGN__TILE_SVC__CACHE_BYTES", "2")],
            vec![],
            2,
            "file",
        ),
        (
            vec![("SOVEREIGN__TILE_SVC__CACHE_BYTES", "2")],
            vec!["tile-svc.cache_bytes=3"],
            3,
            "file",
        ),
        (
            vec![("SOVEREIGN__TILE_SVC__LABEL", "a b=c")],
            vec!["tile-svc.cache_bytes = 4"],
            4,
            "a b=c",
        ),
    ] {
        let (_, tile) = read(text, &variables, &assignments).unwrap();
        assert_eq!(
            (tile.cache_bytes, tile.label.as_str(), tile.nested.on),
            (cache_bytes, label, true)
        );
    }
}

#[test]
fn text_that_looks_like_another_type_is_read_as_the_key_wants_it() {
    for text in ["123", "true", "1979-05-27", "[1, 2]", "nats://x:1", ""] {
        let (_, tile) = read("", &[("SOVEREIGN__TILE_SVC__LABEL", text)], &[]).unwrap();
        assert_eq!(tile.label, text);
    }
    let (_, tile) = read("", &[], &["tile-svc.nested.names=['a', 'b']"]).unwrap();
    assert_eq!(tile.nested.names, ["a", "b"]);
    let (host, _) = read("", &[("SOVEREIGN__HOST__NODE_ID", "42")], &[]).unwrap();
    assert_eq!(host.node_id, "42");
}

#[test]
fn services_to_call_are_named_in_every_source() {
    let (host, _) = read(
        "[host.calls]\nslam-svc = 'http://a:1'\n",
        &[("SOVEREIGN__HOST__CALLS__MESH_GATEWAY", "http://b:2")],
        &["host.calls.camera-svc=http://c:3"],
    )
    .unwrap();
    let calls: Vec<_> = host.calls.iter().collect();
    assert_eq!(
        calls
            .iter()
            .map(|(name, url)| format!("{name}={url}"))
            .collect::<Vec<_>>(),
        [
            "camera-svc=http://c:3",
            "mesh-gateway=http://b:2",
            "slam-svc=http://a:1"
        ]
    );
}

#[test]
fn what_cannot_be_used_is_refused_by_its_full_name() {
    type Case<'a> = (
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a [&'a str],
        &'a str,
        &'a str,
    );
    let cases: &[Case<'_>] = &[
        (
            "[tile-svc]\ncash = 1",
            &[],
            &[],
            "tile-svc.cash",
            "unknown field",
        ),
        ("[tile]\na = 1", &[], &[], "tile", "unknown section"),
        ("tile-svc = 1", &[], &[], "tile-svc", "is a section"),
        (
            "[tile-svc.nested]\nof = true",
            &[],
            &[],
            "tile-svc.nested.of",
            "unknown field",
        ),
        (
            "[tile-svc]\ncache_bytes = 'many'",
            &[],
            &[],
            "tile-svc.cache_bytes",
            "invalid type",
        ),
        (
            "",
            &[("SOVEREIGN__TILE_SVC__CACHE_BYTES", "many")],
            &[],
            "tile-svc.cache_bytes",
            "invalid type",
        ),
        (
            "",
            &[("SOVEREIGN__TILES__CACHE_BYTES", "1")],
            &[],
            "tiles",
            "unknown section",
        ),
        ("", &[("SOVEREIGN__HOST", "1")], &[], "host", "names no key"),
        ("", &[], &["host.grpc=1"], "host.grpc", "unknown field"),
        ("", &[], &["host.bus=rabbit"], "host.bus", "is no bus"),
        ("", &[], &["host.log=a=b=c"], "host.log", "is no log filter"),
        (
            "",
            &[],
            &["host.grace_secs=0"],
            "host.grace_secs",
            "at least 1",
        ),
        (
            "",
            &[],
            &["host.node_id=a b"],
            "host.node_id",
            "is no node name",
        ),
        (
            "",
            &[],
            &["host.grpc_listen=localhost"],
            "host.grpc_listen",
            "socket address",
        ),
        (
            "",
            &[],
            &["host.otlp_endpoint=collector:4317"],
            "host.otlp_endpoint",
            "is no endpoint",
        ),
        (
            "",
            &[],
            &["host.nats_credentials_file=/a"],
            "host.nats_credentials_file",
            "only applies",
        ),
        (
            "",
            &[],
            &["host.bus=nats://x:1", "host.nats_credentials_file=/nowhere"],
            "host.nats_credentials_file",
            "/nowhere cannot be read",
        ),
        (
            "",
            &[],
            &["host.bus=nats://x:1", "host.nats_replicas=0"],
            "host.nats_replicas",
            "must be 1 to 5",
        ),
        (
            "",
            &[],
            &["host.bus=nats://x:1", "host.nats_partitions=0"],
            "host.nats_partitions",
            "must be 1 to 1024",
        ),
        ("", &[], &["grace"], "grace", "is not an assignment"),
    ];
    for (text, variables, assignments, key, what) in cases {
        let error = read(text, variables, assignments).unwrap_err();
        assert_eq!(error.key_path(), Some(*key), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn an_error_says_where_the_value_was_written() {
    let error = read("", &[("SOVEREIGN__HOST__BUS", "x")], &[]).unwrap_err();
    assert!(
        error.to_string().contains("SOVEREIGN__HOST__BUS"),
        "{error}"
    );
    let written = file("[host]\n\nbus = \n");
    let mut settings = Settings::new(&[]);
    let error = settings.merge_file(written.path()).unwrap_err().to_string();
    assert!(
        error.contains(&written.path().display().to_string()),
        "{error}"
    );
    assert!(error.contains("line 3"), "{error}");
    let error = settings
        .merge_file(Path::new("/nowhere/config.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/config.toml: cannot be read"),
        "{error}"
    );
}

#[test]
fn two_doors_with_one_port_are_refused() {
    let mut settings = Settings::new(&["tile-svc"]);
    settings
        .merge_assignment("host.admin_listen=127.0.0.1:50051")
        .unwrap();
    let host = HostConfig::read(&settings, &Environment::default()).unwrap();
    let error = host.refuse_shared_ports([]).unwrap_err().to_string();
    let expected = "`host.admin_listen`: 127.0.0.1:50051 is where host.grpc_listen listens";
    assert_eq!(error, expected);

    let host = HostConfig::read(&Settings::new(&[]), &Environment::default()).unwrap();
    let door = |address: &str| Listen::tcp("listen", address.parse().unwrap());
    let tile = |address: &str| host.refuse_shared_ports([("tile-svc", door(address))]);
    assert!(tile("127.0.0.1:8443").is_ok());
    let error = tile("0.0.0.0:9464").unwrap_err().to_string();
    let expected = "`tile-svc.listen`: 0.0.0.0:9464 is where host.admin_listen listens";
    assert_eq!(error, expected);
}

#[test]
fn what_is_secret_in_an_address_is_not_repeated() {
    for (address, shown) in [
        ("nats://me:secret@host:4222", "nats://host:4222"),
        ("nats:me:secret@host", "nats://host"),
        ("me@host", "host"),
        ("nats://host:4222", "nats://host:4222"),
        ("memory", "memory"),
    ] {
        assert_eq!(without_credentials(address), shown);
    }
}
