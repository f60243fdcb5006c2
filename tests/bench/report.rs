//! Rows of results: what was compared, the median of the pairwise ratios, and whether the target is met.

use std::io::Write as _;

use serde_json::{Value, json};

/// Which side of the target is good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// Results so far.
#[derive(Debug)]
pub(crate) struct Table {
    json: bool,
    notes: Vec<String>,
    rows: Vec<Value>,
}

impl Table {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            notes: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// A remark: settings, versions, a load that was not held.
    pub(crate) fn note(&mut self, text: String) -> anyhow::Result<()> {
        self.print(&text)?;
        self.notes.push(text);
        Ok(())
    }

    fn print(&self, text: &str) -> anyhow::Result<()> {
        if !self.json {
            writeln!(std::io::stdout(), "{text}")?;
        }
        Ok(())
    }

    /// One figure from its samples (ratios, or milliseconds): the median counts.
    pub(crate) fn row(
        &mut self,
        figure: &str,
        what: &str,
        unit: &str,
        samples: &[f64],
        target: Target,
    ) -> anyhow::Result<()> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let (met, wanted) = match target {
            Target::AtLeast(bound) => (median >= bound, format!(">= {bound}")),
            Target::AtMost(bound) => (median <= bound, format!("<= {bound}")),
        };
        let verdict = if met { "met" } else { "NOT MET" };
        self.print(&format!(
            "{figure:<4} {what:<58} {median:>9.3} {unit:<5} (min {least:.3}, max {most:.3}, n {})  \
             target {wanted}  {verdict}",
            samples.len()
        ))?;
        self.rows.push(json!({
            "figure": figure, "what": what, "unit": unit, "median": median, "min": least,
            "max": most, "samples": samples.len(), "target": wanted, "met": met,
        }));
        Ok(())
    }

    /// Prints what machines are given.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        if self.json {
            writeln!(
                std::io::stdout(),
                "{}",
                json!({ "notes": self.notes, "figures": self.rows })
            )?;
        }
        Ok(())
    }
}
