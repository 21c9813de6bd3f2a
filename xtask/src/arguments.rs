//! Flags of a command: one table from which both the parser and the help are made.

use std::collections::BTreeMap;

use crate::failure::{Failure, Result};

/// A command of `cargo xtask`.
pub struct Command {
    /// What the user types.
    pub name: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// What follows the flags in the help.
    pub details: &'static str,
    /// Every flag that the command takes.
    pub flags: &'static [Flag],
    /// Does the work.
    pub run: fn(&Flags) -> Result<()>,
}

/// A flag of a command.
pub struct Flag {
    /// With its dashes: `--only`.
    pub name: &'static str,
    /// The placeholder of its value, or `None` for a switch.
    pub value: Option<&'static str>,
    /// One line for the help.
    pub help: &'static str,
}

/// The flags that were given.
#[derive(Debug)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// Whether the switch was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value that was given to the flag.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The comma-separated value of the flag, each part one of `allowed`; all of `allowed` without the flag.
    pub fn choice<'a>(&self, name: &str, allowed: &[&'a str]) -> Result<Vec<&'a str>> {
        let Some(value) = self.value(name) else {
            return Ok(allowed.to_vec());
        };
        value
            .split(',')
            .map(|part| {
                allowed
                    .iter()
                    .find(|known| **known == part)
                    .copied()
                    .ok_or_else(|| {
                        Failure::usage(format!(
                            "{name}: expected one or more of {}; found `{part}`",
                            allowed.join(", ")
                        ))
                    })
            })
            .collect()
    }
}

impl Command {
    /// Reads the words after the command's name.
    pub fn parse(&self, words: &[String]) -> Result<Flags> {
        let mut given = BTreeMap::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
                return Err(Failure::usage(self.unknown(word)));
            };
            let value = match (flag.value, inline) {
                (None, None) => String::new(),
                (None, Some(value)) => {
                    return Err(Failure::usage(format!(
                        "{name} takes no value; found `{value}`"
                    )));
                }
                (Some(_), Some(value)) => value,
                (Some(placeholder), None) => match words.next() {
                    Some(value) if !value.starts_with("--") => value.clone(),
                    _ => {
                        return Err(Failure::usage(format!(
                            "{name} needs a value: {name} {placeholder}"
                        )));
                    }
                },
            };
            if given.insert(flag.name, value).is_some() {
                return Err(Failure::usage(format!("{name} was given twice")));
            }
        }
        Ok(Flags(given))
    }

    /// The page that `--help` prints.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\nUsage: cargo xtask {}", self.summary, self.name);
        for flag in self.flags {
            text.push_str(&format!(" [{}]", flag.usage()));
        }
        text.push('\n');
        if !self.flags.is_empty() {
            text.push_str("\nFlags:\n");
        }
        for flag in self.flags {
            text.push_str(&format!("  {:<18}{}\n", flag.usage(), flag.help));
        }
        if !self.details.is_empty() {
            text.push_str(&format!("\n{}", self.details));
        }
        text.trim_end().to_owned()
    }

    fn unknown(&self, word: &str) -> String {
        let allowed: Vec<&str> = self
            .flags
            .iter()
            .map(|flag| flag.name)
            .chain(["--help"])
            .collect();
        format!(
            "cargo xtask {}: unknown flag `{word}`; allowed: {}",
            self.name,
            allowed.join(", ")
        )
    }
}

impl Flag {
    fn usage(&self) -> String {
        match self.value {
            Some(placeholder) => format!("{} {placeholder}", self.name),
            None => self.name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Command = Command {
        name: "sample",
        summary: "A sample.",
        details: "",
        flags: &[
            Flag {
                name: "--only",
                value: Some("NAME"),
                help: "which",
            },
            Flag {
                name: "--full",
                value: None,
                help: "all of it",
            },
        ],
        run: |_| Ok(()),
    };

    fn parse(words: &[&str]) -> Result<Flags> {
        SAMPLE.parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    fn message(words: &[&str]) -> String {
        let failure = parse(words).expect_err("the words are wrong");
        assert_eq!(failure.exit_code(), 2);
        failure.to_string()
    }

    #[test]
    fn a_value_may_follow_or_be_joined() {
        for words in [&["--full", "--only", "a,b"][..], &["--only=a,b", "--full"]] {
            let flags = parse(words).unwrap();
            assert!(flags.has("--full"));
            assert_eq!(
                flags.choice("--only", &["a", "b", "c"]).unwrap(),
                ["a", "b"]
            );
        }
        assert_eq!(
            parse(&[]).unwrap().choice("--only", &["a", "b"]).unwrap(),
            ["a", "b"]
        );
    }

    #[test]
    fn a_wrong_flag_is_named_with_the_allowed_ones() {
        assert_eq!(
            message(&["--fulll"]),
            "cargo xtask sample: unknown flag `--fulll`; allowed: --only, --full, --help"
        );
        assert!(message(&["stray"]).contains("`stray`"));
        assert_eq!(message(&["--only"]), "--only needs a value: --only NAME");
        assert_eq!(
            message(&["--only", "--full"]),
            "--only needs a value: --only NAME"
        );
        assert_eq!(
            message(&["--full=yes"]),
            "--full takes no value; found `yes`"
        );
        assert_eq!(message(&["--full", "--full"]), "--full was given twice");
    }

    #[test]
    fn a_wrong_choice_is_named_with_the_allowed_ones() {
        let failure = parse(&["--only", "a,z"])
            .unwrap()
            .choice("--only", &["a", "b"])
            .unwrap_err();
        assert_eq!(
            failure.to_string(),
            "--only: expected one or more of a, b; found `z`"
        );
    }

    #[test]
    fn the_help_lists_every_flag() {
        let help = SAMPLE.help();
        for flag in SAMPLE.flags {
            assert!(help.contains(flag.name) && help.contains(flag.help));
        }
    }
}
