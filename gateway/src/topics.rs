//! The mesh's two topics: what each is called, and what may travel on it.

use crate::domain::envelope::Kind;

/// Name of the topic that carries tile changes.
pub const MAP_TOPIC: &str = "map.tiles";

/// A GossipSub topic of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// Rounds, checkpoints, hellos and published bytes; named by the configuration.
    Rounds,
    /// Tile changes, on [`MAP_TOPIC`].
    Map,
}

impl Topic {
    /// Every topic; a node joins all of them.
    pub(crate) const ALL: [Topic; 2] = [Topic::Rounds, Topic::Map];

    /// The allow-list: whether this kind of message may travel on this topic.
    pub(crate) fn carries(self, kind: Kind) -> bool {
        match (self, kind) {
            (Topic::Rounds, Kind::Payload | Kind::Checkpoint | Kind::Round | Kind::Hello)
            | (Topic::Map, Kind::TileChange) => true,
            (Topic::Rounds, Kind::TileChange)
            | (Topic::Map, Kind::Payload | Kind::Checkpoint | Kind::Round | Kind::Hello) => false,
        }
    }
}

/// The topics under the names they have in this network.
#[derive(Debug, Clone)]
pub(crate) struct TopicNames {
    rounds: String,
}

impl TopicNames {
    /// Topics of a network whose default topic is called `rounds`.
    pub(crate) fn new(rounds: String) -> Self {
        Self { rounds }
    }

    /// Name on the wire.
    pub(crate) fn name(&self, topic: Topic) -> &str {
        match topic {
            Topic::Rounds => &self.rounds,
            Topic::Map => MAP_TOPIC,
        }
    }

    /// The topic of that name, if this node joined it.
    pub(crate) fn named(&self, name: &str) -> Option<Topic> {
        Topic::ALL
            .into_iter()
            .find(|topic| self.name(*topic) == name)
    }

    /// Every name.
    pub(crate) fn all(&self) -> Vec<String> {
        Topic::ALL
            .into_iter()
            .map(|topic| self.name(topic).to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_travels_on_exactly_one_topic() {
        for kind in Kind::ALL {
            let carriers = Topic::ALL.into_iter().filter(|t| t.carries(kind)).count();
            assert_eq!(carriers, 1, "{kind:?}");
        }
    }

    #[test]
    fn names_and_topics_agree_both_ways() {
        let names = TopicNames::new("fl.rounds".to_owned());
        for topic in Topic::ALL {
            assert_eq!(names.named(names.name(topic)), Some(topic));
        }
        assert_eq!(names.named("fl.other"), None);
        assert_eq!(names.all(), ["fl.rounds", "map.tiles"]);
    }
}
