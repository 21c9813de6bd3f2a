//! The seconds that each phase of a task took.

use std::time::Instant;

/// Phases in the order in which they ran.
#[derive(Default)]
pub struct Clock {
    phases: Vec<(String, f64)>,
}

impl Clock {
    /// Runs a phase under a headline on standard error, and notes how long it took, also when it fails.
    pub fn phase<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("== {name}: {seconds:.1} s");
        self.phases.push((name.to_owned(), seconds));
        result
    }

    /// A table of the phases and their sum.
    pub fn table(&self) -> String {
        let width = self
            .phases
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0)
            .max("in all".len());
        let sum: f64 = self.phases.iter().map(|(_, seconds)| seconds).sum();
        let rows = self
            .phases
            .iter()
            .map(|(name, seconds)| (name.as_str(), *seconds))
            .chain([("in all", sum)]);
        rows.map(|(name, seconds)| format!("  {name:<width$}  {seconds:>7.1} s\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_and_the_sum_are_in_the_table() {
        let mut clock = Clock::default();
        assert_eq!(clock.phase("one", || 1), 1);
        assert!(clock.phase("two", || Err::<(), _>("no")).is_err());
        let table = clock.table();
        let names: Vec<&str> = table.lines().map(|line| &line[2..8]).collect();
        assert_eq!(names, ["one   ", "two   ", "in all"]);
    }
}
