//! `ptx/<crate>/survivors.toml`: mutants that no test can notice, each with the reason.

use crate::mutate::Mutant;
use serde::Deserialize;

/// The file: rules by which mutants are the kernel itself in other words, and single survivors.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survivors {
    /// Mutants that compute the same; they are counted apart.
    #[serde(default)]
    pub equivalent: Vec<Survivor>,
    /// Mutants that compute something else where no test looks, or fault where no test goes.
    #[serde(default)]
    pub survivor: Vec<Survivor>,
}

/// Mutants of one kind, and why they live.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survivor {
    /// Kernels; a `*` at the end stands for any rest.
    pub entries: Vec<String>,
    /// The operator's name.
    pub operator: String,
    /// How the instruction begins before the change; empty for all.
    #[serde(default)]
    pub line: String,
    /// Why nothing notices them.
    pub reason: String,
}

impl Survivors {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let survivors: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for survivor in survivors.equivalent.iter().chain(&survivors.survivor) {
            if survivor.reason.trim().is_empty() {
                return Err(format!("{}: a reason is needed", survivor.operator));
            }
            if !crate::mutate::operators().any(|known| known.name == survivor.operator) {
                return Err(format!("no operator is called `{}`", survivor.operator));
            }
        }
        Ok(survivors)
    }
}

impl Survivor {
    /// Whether this speaks of the mutant of the kernel with that entry.
    pub fn holds(&self, entry: &str, mutant: &Mutant) -> bool {
        let is_entry = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => entry.starts_with(beginning),
            None => entry == pattern,
        };
        self.operator == mutant.operator.name
            && self.entries.iter().any(is_entry)
            && words(&mutant.before).starts_with(&words(&self.line))
    }
}

/// The text with runs of blanks made one.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::mutants;

    const FILE: &str = "[[equivalent]]\nentries = [\"gemm_f16*\"]\noperator = \"fma to mul and add\"\nline = \"fma.rn.f32 sum\"\n\
                        reason = \"the product of two halves is exact\"\n";

    #[test]
    fn a_rule_holds_for_its_kernels_operator_and_line() {
        let rule = &Survivors::parse(FILE).unwrap().equivalent[0];
        let text = "{\n    fma.rn.f32    sum0, a, b, sum0;\n    fma.rn.f32    a, a, b, sum0;\n}\n";
        let held: Vec<(usize, &str)> = mutants(text)
            .iter()
            .filter(|mutant| rule.holds("gemm_f16_nk", mutant))
            .map(|mutant| (mutant.line, mutant.operator.name))
            .collect();
        assert_eq!(held, [(2, "fma to mul and add")]);
        assert!(
            !mutants(text)
                .iter()
                .any(|mutant| rule.holds("gemm_f32_nk", mutant))
        );
    }

    #[test]
    fn a_rule_without_reason_or_with_an_unknown_operator_is_refused() {
        let unreasoned = FILE.replace("the product of two halves is exact", " ");
        assert!(
            Survivors::parse(&unreasoned)
                .unwrap_err()
                .contains("reason")
        );
        let unknown = FILE.replace("fma to mul", "fma to mad");
        assert!(
            Survivors::parse(&unknown)
                .unwrap_err()
                .contains("fma to mad")
        );
        let misspelt = FILE.replace("entries", "entry");
        assert!(Survivors::parse(&misspelt).is_err());
    }
}
