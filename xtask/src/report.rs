//! The JSON that a benchmark writes, one file a system: `target/whittle/report/<system>.json`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::failure::{Context, Result};

/// What one system's benchmark measured.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// The system's short name: `kivi`.
    pub system: String,
    /// The commit of the sources, with `-dirty` where files were changed.
    pub commit: String,
    /// The machine: a line of text, or an object of properties.
    pub machine: Value,
    /// The measured figures.
    pub rows: Vec<Row>,
    /// What is drawn.
    #[serde(default)]
    pub plots: Vec<Plot>,
}

/// One figure.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure: a number, or words such as `peer not installed`.
    pub value: Value,
    /// The figure's unit.
    #[serde(default)]
    pub unit: String,
    /// What it is compared with in the same run.
    #[serde(default)]
    pub peer: Value,
    /// The peer's figure.
    #[serde(default)]
    pub peer_value: Value,
    /// The figure over the peer's.
    #[serde(default)]
    pub ratio: Value,
    /// Everything that the figure depends on.
    #[serde(default)]
    pub parameters: Value,
    /// The seed of the random numbers.
    #[serde(default)]
    pub seed: Value,
    /// The command that measures it again.
    #[serde(default)]
    pub command: String,
}

/// One chart.
#[derive(Debug, Deserialize)]
pub struct Plot {
    /// Says what is seen.
    pub title: String,
    /// The horizontal axis, with its unit.
    pub x_label: String,
    /// The vertical axis, with its unit.
    pub y_label: String,
    /// Whether the horizontal axis is logarithmic.
    #[serde(default)]
    pub x_log: bool,
    /// Whether the vertical axis is logarithmic.
    #[serde(default)]
    pub y_log: bool,
    /// The point sets, one colour each.
    pub series: Vec<Series>,
}

/// The points of one colour: joined by a line, unless a point carries a label of its own.
#[derive(Debug, Deserialize)]
pub struct Series {
    /// The line in the legend.
    pub name: String,
    /// The points.
    pub points: Vec<Point>,
}

/// `[x, y]` or `[x, y, label]` in JSON.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Vec<Value>")]
pub struct Point {
    /// Along the horizontal axis.
    pub x: f64,
    /// Along the vertical axis.
    pub y: f64,
    /// Written beside the point.
    pub label: Option<String>,
}

impl TryFrom<Vec<Value>> for Point {
    type Error = String;

    fn try_from(parts: Vec<Value>) -> Result<Self, String> {
        let wrong = || {
            format!(
                "a point: expected [x, y] or [x, y, \"label\"]; found {}",
                Value::Array(parts.clone())
            )
        };
        let (x, y, label) = match parts.as_slice() {
            [x, y] | [x, y, Value::Null] => (x, y, None),
            [x, y, Value::String(label)] => (x, y, Some(label.clone())),
            _ => return Err(wrong()),
        };
        let (x, y) = x.as_f64().zip(y.as_f64()).ok_or_else(wrong)?;
        Ok(Self { x, y, label })
    }
}

impl Report {
    /// Reads a report, with errors that name the file and the field.
    pub fn read(path: &Path) -> Result<Self> {
        serde_json::from_str(&fs::read_to_string(path).context(path.display())?)
            .context(path.display())
    }
}

/// A number with four significant digits: thousands in groups, very small and very large ones with an exponent.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..12.0).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let decimals = (3 - magnitude as i32).clamp(0, 9) as usize;
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = whole
        .strip_prefix('-')
        .map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 && digits.len() > 4 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_whole() {
        let text = r#"{"system": "kivi", "commit": "abc", "machine": "2 cores", "rows":
            [{"name": "KL", "value": 0.03, "unit": "nats", "peer": "stock", "peer_value": 0.15, "ratio": 0.2,
              "parameters": {"bits": 2}, "seed": 0, "command": "cargo xtask bench"}],
            "plots": [{"title": "t", "x_label": "x", "y_label": "y", "y_log": true, "series":
            [{"name": "s", "points": [[1, 2], [3, 4.5, "here"], [5, 6, null]]}]}]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        let points = &report.plots[0].series[0].points;
        assert_eq!(
            points[1],
            Point {
                x: 3.0,
                y: 4.5,
                label: Some("here".into())
            }
        );
        assert_eq!(points[2].label, None);
        assert!(report.plots[0].y_log && !report.plots[0].x_log);
    }

    #[test]
    fn a_wrong_field_is_named() {
        let wrong = serde_json::from_str::<Point>("[1, \"two\"]")
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains("expected [x, y]") && wrong.contains("[1,\"two\"]"),
            "{wrong}"
        );
        let wrong = serde_json::from_str::<Report>("{\"system\": \"kivi\"}")
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("`commit`"), "{wrong}");
    }

    #[test]
    fn numbers_keep_four_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.03215, "0.03215"),
            (0.0016, "0.0016"),
            (15.0, "15"),
            (15.064_9, "15.06"),
            (8192.0, "8192"),
            (98_362_432.0, "98,362,432"),
            (-123_456.7, "-123,457"),
            (1.5e-7, "1.500e-7"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
