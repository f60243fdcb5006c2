//! What was not sent, and why.

use std::path::Path;

use serde::Serialize;

/// Files that are named; of more only the number is kept.
const MAX_NAMED: usize = 1_000;

/// Files and parts of files that were left out.
#[derive(Debug, Default, Clone, Serialize)]
pub struct LeftOuts {
    /// How many.
    pub total: u64,
    /// The first thousand, by name.
    pub named: Vec<LeftOut>,
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The file.
    pub file: String,
    /// Why; completes a sentence that begins with the file.
    pub reason: String,
}

impl LeftOut {
    /// A file and what completes the sentence.
    pub fn of(file: &Path, reason: impl Into<String>) -> Self {
        Self {
            file: file.display().to_string(),
            reason: reason.into(),
        }
    }
}

impl LeftOuts {
    /// One more.
    pub fn add(&mut self, file: &Path, reason: impl Into<String>) {
        self.total += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(LeftOut::of(file, reason));
        }
    }

    /// A line for each, for people; nothing when nothing was left out.
    pub fn for_people(&self) -> String {
        let mut text = String::new();
        for LeftOut { file, reason } in &self.named {
            text.push_str(&format!("left out          {file}: {reason}\n"));
        }
        let unnamed = self.total - self.named.len() as u64;
        if unnamed > 0 {
            text.push_str(&format!("left out          {unnamed} more\n"));
        }
        text
    }
}
