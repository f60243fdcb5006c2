//! What the mesh's two topics are called.

use crate::domain::envelope::Topic;

/// Name of the topic that carries tile changes.
pub const MAP_TOPIC: &str = "map.tiles";

#[derive(Debug, Clone)]
pub(crate) struct TopicNames {
    rounds: String,
}

impl TopicNames {
    pub(crate) fn new(rounds: String) -> Self {
        Self { rounds }
    }

    pub(crate) fn name(&self, topic: Topic) -> &str {
        match topic {
            Topic::Rounds => &self.rounds,
            Topic::Map => MAP_TOPIC,
        }
    }

    pub(crate) fn named(&self, name: &str) -> Option<Topic> {
        Topic::ALL
            .into_iter()
            .find(|topic| self.name(*topic) == name)
    }

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
    fn names_and_topics_agree_both_ways() {
        let names = TopicNames::new("fl.rounds".to_owned());
        for topic in Topic::ALL {
            assert_eq!(names.named(names.name(topic)), Some(topic));
        }
        assert_eq!(names.named("fl.other"), None);
        assert_eq!(names.all(), ["fl.rounds", "map.tiles"]);
    }
}
