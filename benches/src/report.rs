//! The JSON report of one system.

use serde::Serialize;
use serde_json::Value;

/// All figures of one run.
#[derive(Serialize)]
pub struct Report {
    /// The method: `kivi`.
    pub system: String,
    /// The commit that was measured.
    pub commit: String,
    /// See [`machine::line`](crate::machine::line).
    pub machine: String,
    /// One figure each.
    pub rows: Vec<Row>,
    /// What the HTML report draws.
    pub plots: Vec<Plot>,
}

/// One figure.
#[derive(Serialize)]
pub struct Row {
    /// What was measured, and on what.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it is compared with in the same run.
    pub peer: Option<String>,
    /// The peer's figure.
    pub peer_value: Option<f64>,
    /// `value / peer_value`.
    pub ratio: Option<f64>,
    /// Everything that the figure depends on.
    pub parameters: Value,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Measures it again.
    pub command: String,
}

/// One plot.
#[derive(Serialize)]
pub struct Plot {
    /// Heading.
    pub title: String,
    /// With unit.
    pub x_label: String,
    /// With unit.
    pub y_label: String,
    /// Logarithmic abscissa.
    pub x_log: bool,
    /// Logarithmic ordinate.
    pub y_log: bool,
    /// Curves, or clouds of labelled points.
    pub series: Vec<Series>,
}

/// One curve.
#[derive(Serialize)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// `[x, y]`, or `[x, y, label]`.
    pub points: Vec<Vec<Value>>,
}
