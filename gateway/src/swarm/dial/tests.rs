use libp2p::multiaddr::Protocol;

use super::*;

const WANTED: Wanted = Wanted {
    min_peers: 1,
    peers: 3,
};

fn addr(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

fn nobody(_: &PeerId) -> bool {
    false
}

#[test]
fn a_seed_is_dialled_for_ever_with_growing_waits() {
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![addr(1)]);
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let dials = book.due(now, 5, nobody);
        assert_eq!(dials.len(), 1);
        assert!(book.due(now, 5, nobody).is_empty(), "one dial at a time");
        book.failed(dials[0].target, now, 5);
        let next = book.next_due(5, nobody).unwrap();
        waits.push(next - now);
        now = next;
    }
    assert_eq!(waits[0], FIRST_WAIT);
    assert!(waits.is_sorted());
    assert_eq!(waits[19], LONGEST_WAIT);
}

#[test]
fn an_island_keeps_trying_at_a_short_interval() {
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![addr(1)]);
    let mut now = Duration::ZERO;
    for _ in 0..20 {
        let dials = book.due(now, 0, nobody);
        book.failed(dials[0].target, now, 0);
        let next = book.next_due(0, nobody).unwrap();
        assert!(next - now <= LONGEST_ISLAND_WAIT);
        now = next;
    }
}

#[test]
fn a_connected_seed_is_left_alone_until_it_is_lost() {
    let seed = PeerId::random();
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![addr(1)]);
    let dials = book.due(Duration::ZERO, 0, nobody);
    book.answered(dials[0].target, seed);
    assert!(book.due(Duration::ZERO, 1, |p| *p == seed).is_empty());
    assert_eq!(book.next_due(1, |p| *p == seed), None);
    book.lost(&seed, Duration::from_secs(9));
    assert!(book.due(Duration::from_secs(9), 0, nobody).is_empty());
    let next = book.next_due(0, nobody).unwrap();
    assert_eq!(next, Duration::from_secs(9) + FIRST_WAIT);
    assert_eq!(book.due(next, 0, nobody).len(), 1);
}

#[test]
fn learned_peers_are_dialled_only_while_peers_are_missing() {
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![]);
    for port in 1..=5 {
        book.learn(PeerId::random(), [addr(port)]);
    }
    assert!(book.due(Duration::ZERO, 3, nobody).is_empty());
    assert_eq!(book.next_due(3, nobody), None);
    assert_eq!(book.due(Duration::ZERO, 1, nobody).len(), 2);
}

#[test]
fn dials_that_run_count_against_what_is_missing() {
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![addr(1)]);
    for port in 2..=9 {
        book.learn(PeerId::random(), [addr(port)]);
    }
    let now = Duration::from_secs(1);
    let dials = book.due(now, 0, nobody);
    assert_eq!(dials.len(), 1 + WANTED.peers, "the seed and those wanted");
    assert!(book.due(now, 0, nobody).is_empty());
    assert_eq!(book.next_due(0, nobody), None, "nothing to wake up for");

    // Whoever fails makes room for one other.
    book.failed(dials[1].target, now, 0);
    assert_eq!(book.due(now, 0, nobody).len(), 1);
    // Whoever answers is connected and takes its place still.
    let TargetId::Learned(peer) = dials[2].target else {
        panic!("{:?} is no learned peer", dials[2]);
    };
    book.answered(dials[2].target, peer);
    assert!(book.due(now, 1, |p| *p == peer).is_empty());
}

#[test]
fn forgetting_peers_that_are_dialled_starts_no_further_dials() {
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![]);
    for round in 0..3 {
        for _ in 0..MAX_LEARNED.get() {
            book.learn(PeerId::random(), [addr(1)]);
        }
        let expected = if round == 0 { WANTED.peers } else { 0 };
        assert_eq!(book.due(Duration::ZERO, 0, nobody).len(), expected);
    }
}

#[test]
fn a_learned_peer_that_keeps_failing_is_forgotten() {
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![]);
    let peer = PeerId::random();
    book.learn(peer, [addr(1)]);
    for _ in 0..MAX_LEARNED_FAILURES {
        let now = book.next_due(0, nobody).unwrap();
        let dials = book.due(now, 0, nobody);
        book.failed(dials[0].target, now, 0);
    }
    assert_eq!(book.next_due(0, nobody), None);
}

#[test]
fn addresses_of_others_and_of_the_node_itself_are_not_dialled() {
    let (local, peer, other) = (PeerId::random(), PeerId::random(), PeerId::random());
    let own = addr(1).with(Protocol::P2p(local));
    let mut book = DialBook::new(local, WANTED, vec![own]);
    book.learn(local, [addr(2)]);
    book.learn(peer, [addr(3).with(Protocol::P2p(other))]);
    assert!(book.due(Duration::ZERO, 0, nobody).is_empty());
    book.learn(peer, [addr(3).with(Protocol::P2p(peer))]);
    let dials = book.due(Duration::ZERO, 0, nobody);
    assert_eq!(dials[0].peer, Some(peer));
    assert_eq!(dials[0].addrs, [addr(3)]);
}

#[test]
fn two_addresses_of_one_seed_are_one_dial() {
    let seed = PeerId::random();
    let with = |port| addr(port).with(Protocol::P2p(seed));
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![with(1), with(2)]);
    let dials = book.due(Duration::ZERO, 0, nobody);
    assert_eq!(dials.len(), 1);
    assert_eq!(dials[0].addrs, [addr(1), addr(2)]);
}

#[test]
fn an_address_where_another_answers_is_dropped_unless_it_is_the_last() {
    let [seed, peer] = [PeerId::random(), PeerId::random()];
    let with = |port| addr(port).with(Protocol::P2p(seed));
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![with(1), with(2)]);
    book.learn(peer, [addr(1), addr(3)]);
    for (target, kept) in [(TargetId::Seed(0), 2), (TargetId::Learned(peer), 3)] {
        book.answers_for_another(target, with(1));
        book.answers_for_another(target, addr(kept));
        let now = book.next_due(0, nobody).unwrap();
        let dials = book.due(now, 0, nobody);
        let dial = dials.iter().find(|dial| dial.target == target).unwrap();
        assert_eq!(dial.addrs, [addr(kept)]);
        for dial in dials {
            book.failed(dial.target, now, 0);
        }
    }
}

#[test]
fn the_peers_remembered_are_bounded() {
    let mut book = DialBook::new(PeerId::random(), WANTED, vec![]);
    for _ in 0..2 * MAX_LEARNED.get() {
        book.learn(PeerId::random(), [addr(1)]);
    }
    assert_eq!(book.learned.len(), MAX_LEARNED.get());
}
