//! `ptx/<crate>/variants.toml`: which kernels are made from which template, and the making.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Deserialize;

use super::class::Class;
use crate::failure::{Context, Failure, Result};
use crate::root::root;

/// The kernels of one crate.
pub struct Family {
    /// The folder's name under `ptx/` and `crates/`.
    pub name: String,
    /// In the order of the file.
    pub variants: Vec<Variant>,
}

/// One kernel: an entry made from a template.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The file in the family's folder.
    pub template: String,
    /// The entry, which is also the name of the file that is made.
    pub entry: String,
    /// The header class.
    pub class: Class,
    /// What the template's variables stand for.
    #[serde(default)]
    pub parameters: toml::Table,
    /// Bytes of dynamic shared memory that a launch asks for, which occupancy counts.
    #[serde(default)]
    pub dynamic_shared: u32,
    /// Machine instructions by name, and how many of them the newest assembler makes for the class's first target.
    #[serde(default)]
    pub sass: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kernel: Vec<Variant>,
}

impl Family {
    /// Every folder of `ptx/` that has a `variants.toml`.
    pub fn all() -> Result<Vec<Self>> {
        let folder = root().join("ptx");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).context("ptx")? {
            let path = entry.context("ptx")?.path();
            if path.join("variants.toml").exists() {
                names.extend(
                    path.file_name()
                        .map(|name| name.to_string_lossy().into_owned()),
                );
            }
        }
        names.sort_unstable();
        names.into_iter().map(Self::read).collect()
    }

    fn read(name: String) -> Result<Self> {
        let path = format!("ptx/{name}/variants.toml");
        let text = fs::read_to_string(root().join(&path)).context(&path)?;
        let variants = parse(&text).context(&path)?;
        Ok(Self { name, variants })
    }

    /// Where a kernel's template lies, from the root of the repository.
    pub fn template(&self, variant: &Variant) -> String {
        format!("ptx/{}/{}", self.name, variant.template)
    }

    /// Where the made file lies, from the root of the repository.
    pub fn place(&self, variant: &Variant) -> String {
        format!("{}/{}.ptx", self.folder(), variant.entry)
    }

    /// The folder of the made files, from the root of the repository.
    pub fn folder(&self) -> String {
        format!("crates/{}/src/ptx", self.name)
    }

    /// The text of a kernel.
    pub fn expand(&self, variant: &Variant) -> Result<String> {
        let path = self.template(variant);
        let text = fs::read_to_string(root().join(&path)).context(&path)?;
        let body = render(
            root().join("ptx").join(&self.name),
            &variant.template,
            &text,
            variant,
        )
        .map_err(|error| Failure::new(error.replacen(&variant.template, &path, 1)))?;
        Ok(format!("{}\n{body}", generated_line(&path)))
    }
}

/// The first line of a made file.
pub fn generated_line(template: &str) -> String {
    format!("// Generated from {template} by cargo xtask kernels; do not edit.")
}

fn parse(text: &str) -> Result<Vec<Variant>> {
    let variants = toml::from_str::<File>(text).context("TOML")?.kernel;
    let mut entries: Vec<&str> = variants
        .iter()
        .map(|variant| variant.entry.as_str())
        .collect();
    entries.sort_unstable();
    if let Some(pair) = entries.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::new(format!(
            "two kernels have the entry `{}`",
            pair[0]
        )));
    }
    Ok(variants)
}

/// Expands one template; the error says `<template>:<line>: <what>`.
fn render(
    folder: PathBuf,
    name: &str,
    text: &str,
    variant: &Variant,
) -> std::result::Result<String, String> {
    let shown = |error: minijinja::Error| {
        let name = error.name().unwrap_or(name);
        let line = error.line().unwrap_or(0);
        format!("{name}:{line}: template: {error} (entry {})", variant.entry)
    };
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .block_delimiters("<%", "%>")
        .variable_delimiters("${", "}")
        .comment_delimiters("<#", "#>")
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .map_err(shown)?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_loader(minijinja::path_loader(folder));
    let mut parameters: BTreeMap<String, Value> = variant
        .parameters
        .iter()
        .map(|(name, value)| (name.clone(), to_value(value)))
        .collect();
    parameters.insert("entry".to_owned(), Value::from(variant.entry.as_str()));
    environment
        .render_named_str(name, text, Value::from(parameters))
        .map_err(shown)
}

fn to_value(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(truth) => Value::from(*truth),
        toml::Value::Datetime(time) => Value::from(time.to_string()),
        toml::Value::Array(items) => Value::from(items.iter().map(to_value).collect::<Vec<_>>()),
        toml::Value::Table(table) => Value::from(
            table
                .iter()
                .map(|(name, value)| (name.clone(), to_value(value)))
                .collect::<BTreeMap<_, _>>(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIANT: &str = "[[kernel]]\ntemplate = \"t.ptx\"\nentry = \"f_f32\"\nclass = \"plain\"\n\
                           [kernel.parameters]\nn = 2\nnames = [\"a\", \"b\"]\nvector = true\n";

    fn expanded(text: &str) -> std::result::Result<String, String> {
        let variant = &parse(VARIANT).unwrap()[0];
        render(PathBuf::from("nowhere"), "t.ptx", text, variant)
    }

    #[test]
    fn loops_and_braces_expand_to_plain_ptx() {
        let text = "  <% for name in names %>\n  ld.v${ n }.f32 {%${ name }, x}, [p+${ loop.index0 * 4 }];\n  <% endfor %>\n\
                    <# a note #>\n.entry ${ entry }\n";
        assert_eq!(
            expanded(text).unwrap(),
            "  ld.v2.f32 {%a, x}, [p+0];\n  ld.v2.f32 {%b, x}, [p+4];\n.entry f_f32\n"
        );
    }

    #[test]
    fn an_unknown_variable_is_named_with_its_line() {
        let error = expanded("one\n${ missing }\n").unwrap_err();
        assert!(
            error.starts_with("t.ptx:2: template:") && error.contains("f_f32"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_list_is_refused() {
        let twice = format!("{VARIANT}{VARIANT}");
        assert!(parse(&twice).unwrap_err().to_string().contains("`f_f32`"));
        let misspelt = VARIANT.replace("class", "klass");
        assert!(parse(&misspelt).unwrap_err().to_string().contains("klass"));
        let unknown = VARIANT.replace("plain", "ancient");
        assert!(parse(&unknown).unwrap_err().to_string().contains("ancient"));
    }
}
