//! `ptx/<crate>/resources.lock`: what each kernel takes on each architecture by each assembler, to the number.

use super::assemble::Resources;
use super::occupancy::Occupancy;

/// One row of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The kernel.
    pub entry: String,
    /// The number behind `sm_`.
    pub architecture: String,
    /// The assembler's major and minor version.
    pub release: String,
    /// The rest of the line.
    pub figures: String,
}

impl Row {
    /// The row of one assembly.
    pub fn new(
        entry: &str,
        architecture: &str,
        release: &str,
        resources: Resources,
        occupancy: Option<Occupancy>,
    ) -> Self {
        let Resources {
            registers,
            shared,
            barriers,
            stack,
            spills,
        } = resources;
        let mut figures = format!("registers = {registers}, shared = {shared}");
        if let Some(barriers) = barriers {
            figures.push_str(&format!(", barriers = {barriers}"));
        }
        figures.push_str(&format!(", stack = {stack}, spills = {spills}"));
        if let Some(Occupancy { blocks, limit }) = occupancy {
            figures.push_str(&format!(", blocks = {blocks}, limit = \"{limit}\""));
        }
        Self {
            entry: entry.to_owned(),
            architecture: architecture.to_owned(),
            release: release.to_owned(),
            figures,
        }
    }

    fn line(&self) -> String {
        format!(
            "\"sm_{} {}\" = {{ {} }}",
            self.architecture, self.release, self.figures
        )
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.entry, &self.architecture, &self.release)
            == (&other.entry, &other.architecture, &other.release)
    }
}

/// The file's text: rows of one kernel follow each other.
pub fn write(rows: &[Row]) -> String {
    let mut text = String::from(
        "# Written by `cargo xtask kernels --bless`: per kernel, architecture and release of ptxas, the registers a thread, the bytes\n\
         # of shared memory, stack and spills, the barriers, and the blocks that fit on a multiprocessor with what stops the next one.\n",
    );
    let mut entry = "";
    for row in rows {
        if row.entry != entry {
            text.push_str(&format!("\n[{}]\n", row.entry));
            entry = &row.entry;
        }
        text.push_str(&row.line());
        text.push('\n');
    }
    text
}

/// The rows of a file that [`write()`] wrote; other lines are passed over, and then the rows differ.
pub fn read(text: &str) -> Vec<Row> {
    let mut entry = String::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            name.clone_into(&mut entry);
        }
        let parts = line.strip_prefix("\"sm_").and_then(|rest| {
            let (key, figures) = rest.split_once("\" = { ")?;
            let (architecture, release) = key.split_once(' ')?;
            Some((architecture, release, figures.strip_suffix(" }")?))
        });
        if let Some((architecture, release, figures)) = parts {
            rows.push(Row {
                entry: entry.clone(),
                architecture: architecture.to_owned(),
                release: release.to_owned(),
                figures: figures.to_owned(),
            });
        }
    }
    rows
}

/// What differs between the file's rows and those of now, a line for each kernel.
pub fn differences(locked: &[Row], now: &[Row]) -> Vec<String> {
    let mut found: Vec<(&str, String, usize)> = Vec::new();
    for row in now {
        let what = match locked.iter().find(|locked| locked.is_of(row)) {
            Some(locked) if locked.figures == row.figures => continue,
            Some(locked) => format!("expected {}, found {}", locked.figures, row.figures),
            None => "expected a row, found none".to_owned(),
        };
        match found.last_mut().filter(|(entry, ..)| *entry == row.entry) {
            Some((_, _, more)) => *more += 1,
            None => {
                let on = format!("sm_{} ptxas {}", row.architecture, row.release);
                found.push((&row.entry, format!("{} {on}: {what}", row.entry), 0));
            }
        }
    }
    let shown = |(_, what, more): (&str, String, usize)| match more {
        0 => what,
        more => format!("{what}; and {more} rows more"),
    };
    found.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let resources = Resources {
            registers: 18,
            shared: 2048,
            barriers: Some(1),
            ..Resources::default()
        };
        let occupancy = Some(Occupancy {
            blocks: 8,
            limit: "warps",
        });
        let old = Resources {
            barriers: None,
            ..resources
        };
        vec![
            Row::new("a_f32", "80", "12.2", old, occupancy),
            Row::new("a_f32", "120", "13.5", resources, None),
            Row::new("b_f32", "80", "13.5", resources, occupancy),
        ]
    }

    #[test]
    fn the_file_is_toml_and_reads_back() {
        let text = write(&rows());
        assert_eq!(read(&text), rows());
        let table: toml::Table = toml::from_str(&text).unwrap();
        let row = &table["b_f32"]["sm_80 13.5"];
        assert_eq!(row["registers"].as_integer(), Some(18));
        assert_eq!(row["limit"].as_str(), Some("warps"));
    }

    #[test]
    fn a_changed_figure_and_a_missing_row_are_named() {
        let mut now = rows();
        assert_eq!(differences(&rows(), &now), [] as [String; 0]);
        now[0].figures = now[0].figures.replace("18", "20");
        let found = differences(&rows()[..1], &now);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("a_f32 sm_80 ptxas 12.2: expected registers = 18,"));
        assert!(found[0].contains("found registers = 20,"));
        assert!(found[0].ends_with("; and 1 rows more"));
        assert_eq!(
            found[1],
            "b_f32 sm_80 ptxas 13.5: expected a row, found none"
        );
    }
}
