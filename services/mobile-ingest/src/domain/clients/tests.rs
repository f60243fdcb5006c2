use super::*;
use sovereign_model::geo::Position;

type Table = ClientTable<()>;

fn id(text: &str) -> SensorId {
    SensorId::parse(text).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_nanos(seconds * 1_000_000_000)
}

fn on(stream: Stream, seconds: i64) -> Accepted {
    Accepted {
        order: Some((stream, at(seconds))),
        place: None,
        simulated: false,
    }
}

fn place(latitude_deg: f64) -> Place {
    Place {
        position: Some(Position {
            latitude_deg,
            longitude_deg: 1.0,
            altitude_m: None,
        }),
        accuracy_m: None,
        heading_deg: None,
    }
}

fn code(result: Result<(), Reject>) -> Option<RejectCode> {
    result.err().map(|reject| reject.code)
}

#[test]
fn order_is_kept_per_stream_and_only_of_what_was_accepted() {
    let phone = id("p");
    let mut table = Table::new();
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(5), at(7))),
        Some(RejectCode::ClientNotRegistered)
    );
    table
        .register(phone.clone(), Announcement::default(), at(1))
        .unwrap();
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(5), at(7))),
        None
    );
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(5), at(7))),
        None,
        "a sample that was only checked may come again"
    );
    table.accept(&phone, on(Stream::Gps, 5), at(6));
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(5), at(7))),
        Some(RejectCode::DuplicateFrame)
    );
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(4), at(7))),
        Some(RejectCode::OutOfOrderFrame)
    );
    assert_eq!(
        code(table.check_order(&phone, Stream::Camera, at(5), at(7))),
        None,
        "another stream has its own order"
    );
    table
        .register(phone.clone(), Announcement::default(), at(7))
        .unwrap();
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(5), at(7))),
        Some(RejectCode::DuplicateFrame),
        "registering again does not forget the order"
    );
}

#[test]
fn a_time_that_is_left_to_the_arrival_is_in_order_whatever_was_accepted() {
    let phone = id("p");
    let mut table = Table::new();
    let next = |table: &Table, now| {
        table.next_observed(&phone, Stream::Gps, Timestamp::from_unix_nanos(now))
    };
    assert_eq!(
        next(&table, 5).unwrap_err().code,
        RejectCode::ClientNotRegistered
    );
    table
        .register(phone.clone(), Announcement::default(), at(1))
        .unwrap();
    assert_eq!(next(&table, 5), Ok(Timestamp::from_unix_nanos(5)));
    table.accept(&phone, on(Stream::Gps, 9), at(9));
    for (now, expected) in [
        (8_500_000_000, 9_000_000_001),
        (9_000_000_000, 9_000_000_001),
        (9_000_000_002, 9_000_000_002),
        (7_000_000_000, 7_000_000_000),
    ] {
        let observed = next(&table, now).unwrap();
        assert_eq!(observed, Timestamp::from_unix_nanos(expected));
    }
}

#[test]
fn a_server_clock_that_is_set_back_refuses_nobody_for_it() {
    let phone = id("p");
    let mut table = Table::new();
    table
        .register(phone.clone(), Announcement::default(), at(1000))
        .unwrap();
    let with_place = |seconds, latitude| Accepted {
        place: Some((place(latitude), at(seconds))),
        ..on(Stream::Gps, seconds)
    };
    table.accept(&phone, with_place(1000, 50.0), at(1000));
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(998), at(999))),
        Some(RejectCode::OutOfOrderFrame),
        "a second is disorder, not a clock that was set back"
    );
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(500), at(500))),
        None
    );
    table.accept(&phone, with_place(500, 40.0), at(500));
    assert_eq!(
        table.get(&phone).unwrap().place,
        Some((place(40.0), at(500)))
    );
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(499), at(501))),
        Some(RejectCode::OutOfOrderFrame),
        "order is kept from there"
    );
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(501), at(501))),
        None
    );
    // A sample that turns out to have been queued before moves the order as well.
    table.remember_order(&phone, Some((Stream::Gps, at(300))), at(300));
    assert_eq!(
        code(table.check_order(&phone, Stream::Gps, at(300), at(300))),
        Some(RejectCode::DuplicateFrame)
    );
}

#[test]
fn silent_phones_are_forgotten_and_make_room() {
    let mut table = Table::new();
    for index in 0..MAX_CLIENTS {
        table
            .register(id(&format!("p{index}")), Announcement::default(), at(0))
            .unwrap();
    }
    assert_eq!(
        table.register(id("late"), Announcement::default(), at(1)),
        Err(TableFull)
    );
    table.accept(&id("p7"), on(Stream::Gps, 2), at(2));
    let next_day = at(24 * 3600 + 1);
    table
        .register(id("late"), Announcement::default(), next_day)
        .unwrap();
    let known: Vec<_> = table.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(known, ["late", "p7"]);
}

#[test]
fn arrival_times_of_pictures_grow_whatever_the_clock_does() {
    let phone = id("p");
    let mut table = Table::new();
    table
        .register(phone.clone(), Announcement::default(), at(1))
        .unwrap();
    let first = table.next_received(&phone, at(10));
    let second = table.next_received(&phone, at(9));
    let third = table.next_received(&phone, at(11));
    assert!(first < second && second < third);
    assert_eq!(third, at(11));
}

#[test]
fn the_newest_place_is_shown_and_change_is_told_once() {
    let phone = id("p");
    let mut table = Table::new();
    table
        .register(phone.clone(), Announcement::default(), at(1))
        .unwrap();
    assert_eq!(table.take_changed().len(), 1);
    assert!(table.take_changed().is_empty());
    let with_place = |seconds, latitude| Accepted {
        place: Some((place(latitude), at(seconds))),
        ..on(Stream::Gps, seconds)
    };
    table.accept(&phone, with_place(5, 50.0), at(5));
    table.accept(&phone, with_place(4, 40.0), at(6));
    table.accept(&phone, on(Stream::Barometer, 7), at(7));
    let client = table.get(&phone).unwrap();
    assert_eq!(client.place, Some((place(50.0), at(5))));
    assert_eq!(client.accepted, 3);
    assert_eq!(client.last_seen, Some(at(7)));
    assert_eq!(client.newest(), Some(at(7)));
    assert_eq!(table.take_changed().len(), 1);
}

#[test]
fn a_clock_that_is_ahead_keeps_no_later_place_out() {
    let phone = id("p");
    let mut table = Table::new();
    table
        .register(phone.clone(), Announcement::default(), at(1))
        .unwrap();
    let with_place = |observed, latitude| Accepted {
        order: None,
        place: Some((place(latitude), at(observed))),
        simulated: false,
    };
    table.accept(&phone, with_place(9, 50.0), at(5));
    assert_eq!(table.get(&phone).unwrap().place, Some((place(50.0), at(5))));
    table.accept(&phone, with_place(6, 40.0), at(6));
    assert_eq!(table.get(&phone).unwrap().place, Some((place(40.0), at(6))));
}

#[test]
fn an_announcement_has_bounds() {
    let streams = |count: usize, length: usize| Announcement {
        device_model: String::new(),
        streams: vec!["x".repeat(length); count],
    };
    assert!(streams(16, 128).check().is_ok());
    assert!(streams(17, 1).check().unwrap_err().contains("streams"));
    assert!(streams(1, 129).check().unwrap_err().contains("streams"));
    let long = Announcement {
        device_model: "x".repeat(129),
        streams: Vec::new(),
    };
    assert!(long.check().unwrap_err().contains("device_model"));
    let escape = Announcement {
        device_model: "Phone\u{1b}[2J".to_owned(),
        streams: Vec::new(),
    };
    assert!(escape.check().unwrap_err().contains("device_model"));
    let newline = Announcement {
        device_model: String::new(),
        streams: vec!["gps\n".to_owned()],
    };
    assert!(newline.check().unwrap_err().contains("streams"));
}
