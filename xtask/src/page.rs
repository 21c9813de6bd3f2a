//! The report page: one self-contained HTML file made of every system's JSON.

use std::fmt::Write;

use serde_json::Value;

use crate::failure::Result;
use crate::plot;
use crate::report::{Plot, Report, Row, number};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn html(reports: &[Report]) -> Result<String> {
    let mut body = String::new();
    for report in reports {
        body.push_str(&section(report)?);
    }
    let links: String = reports
        .iter()
        .map(|report| format!("<a href=\"#{0}\">{0}</a>", escape(&report.system)))
        .collect();
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>whittle: measured</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>whittle: measured</h1>\n\
         <p class=\"soft\">Written by <code>cargo xtask bench</code>. Every ratio is against a peer or a bound measured in the \
         same run; the JSON beside this page has the same figures.</p>\n<nav>{links}</nav>\n</header>\n\
         <main>\n{body}</main>\n</body>\n</html>\n"
    ))
}

fn section(report: &Report) -> Result<String> {
    let system = escape(&report.system);
    let mut text = format!("<section id=\"{system}\">\n<h2>{system}</h2>\n<dl>\n");
    let mut facts = vec![(
        "commit".to_owned(),
        format!("<code>{}</code>", escape(&report.commit)),
    )];
    match &report.machine {
        Value::Object(properties) => {
            facts.extend(
                properties
                    .iter()
                    .map(|(name, value)| (escape(name), escape(&plain(value)))),
            );
        }
        machine => facts.push(("machine".to_owned(), escape(&plain(machine)))),
    }
    let shared = Shared::of(&report.rows);
    if let Some(command) = shared.command {
        facts.push((
            "command".to_owned(),
            format!("<code>{}</code>", escape(command)),
        ));
    }
    if let Some(seed) = shared.seed {
        facts.push(("seed".to_owned(), escape(&plain(seed))));
    }
    for (name, value) in facts {
        let _ = writeln!(text, "<dt>{name}</dt><dd>{value}</dd>");
    }
    text.push_str("</dl>\n");
    for plot in &report.plots {
        text.push_str(&figure(plot)?);
    }
    text.push_str(&table(&report.rows, &shared));
    text.push_str("</section>\n");
    Ok(text)
}

fn figure(plot: &Plot) -> Result<String> {
    let mut legend = String::new();
    for (i, series) in plot.series.iter().enumerate() {
        let _ = writeln!(
            legend,
            "<li><span style=\"background:{}\"></span>{}</li>",
            plot::colour(i),
            escape(&series.name)
        );
    }
    Ok(format!(
        "<figure>\n<figcaption>{}</figcaption>\n<ul class=\"legend\">\n{legend}</ul>\n{}\n</figure>\n",
        escape(&plot.title),
        plot::svg(plot)?
    ))
}

/// What all rows have in common, said once above the table.
struct Shared<'a> {
    command: Option<&'a str>,
    seed: Option<&'a Value>,
}

impl<'a> Shared<'a> {
    fn of(rows: &'a [Row]) -> Self {
        let first = rows.first();
        let command = first
            .map(|row| row.command.as_str())
            .filter(|command| !command.is_empty());
        let seed = first.map(|row| &row.seed).filter(|seed| !seed.is_null());
        Self {
            command: command.filter(|command| rows.iter().all(|row| row.command == *command)),
            seed: seed.filter(|seed| rows.iter().all(|row| row.seed == **seed)),
        }
    }
}

fn table(rows: &[Row], shared: &Shared) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let with_seed = shared.seed.is_none() && rows.iter().any(|row| !row.seed.is_null());
    let with_command = shared.command.is_none() && rows.iter().any(|row| !row.command.is_empty());
    let mut head = String::from(
        "<th>measured</th><th class=\"n\">value</th><th>peer</th><th class=\"n\">peer's value</th>\
         <th class=\"n\">ratio</th><th>parameters</th>",
    );
    if with_seed {
        head.push_str("<th>seed</th>");
    }
    if with_command {
        head.push_str("<th>command</th>");
    }
    let mut text = format!(
        "<h3>Figures</h3>\n<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
    );
    for row in rows {
        let ratio = row.ratio.as_f64().map_or_else(
            || escape(&plain(&row.ratio)),
            |ratio| format!("{}×", number(ratio)),
        );
        let _ = write!(
            text,
            "<tr><td>{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{ratio}</td>\
             <td class=\"small\"><details><summary>show</summary>{}</details></td>",
            escape(&row.name),
            quantity(&row.value, &row.unit),
            escape(&plain(&row.peer)),
            quantity(&row.peer_value, &row.unit),
            escape(&plain(&row.parameters)),
        );
        if with_seed {
            let _ = write!(
                text,
                "<td class=\"small\">{}</td>",
                escape(&plain(&row.seed))
            );
        }
        if with_command {
            let _ = write!(text, "<td class=\"small\">{}</td>", escape(&row.command));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table></div>\n");
    text
}

/// A figure with its unit; words stand alone.
fn quantity(value: &Value, unit: &str) -> String {
    match value.as_f64() {
        Some(value) => format!(
            "{} <span class=\"unit\">{}</span>",
            number(value),
            escape(unit)
        ),
        None => escape(&plain(value)),
    }
}

/// JSON as a person writes it: `name value, name value`.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(found) => found.as_f64().map_or_else(|| found.to_string(), number),
        Value::Bool(yes) => yes.to_string(),
        Value::Array(parts) => parts.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(parts) => parts
            .iter()
            .map(|(name, value)| format!("{name} {}", plain(value)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        serde_json::from_value(serde_json::json!({
            "system": "kivi", "commit": "abc<1>", "machine": {"cores": 2, "model": "a & b"},
            "rows": [
                {"name": "KL, window A", "value": 0.03215, "unit": "nats", "peer": "stock", "peer_value": 0.1537,
                 "ratio": 0.209, "parameters": {"bits": 3, "window": "slide128"}, "seed": 0, "command": "run me"},
                {"name": "llama.cpp", "value": "peer not installed", "seed": 0, "command": "run me"}
            ],
            "plots": [{"title": "quality", "x_label": "bits", "y_label": "KL", "y_log": true,
                       "series": [{"name": "ours", "points": [[3, 0.03, "compact"]]}]}]
        }))
        .unwrap()
    }

    #[test]
    fn every_figure_is_on_the_page_and_escaped() {
        let page = html(&[sample()]).unwrap();
        for part in [
            "abc&lt;1&gt;",
            "a &amp; b",
            "0.03215 <span class=\"unit\">nats</span>",
            "0.1537",
            "0.209×",
            "bits 3, window slide128",
            "peer not installed",
            "<figcaption>quality</figcaption>",
            "compact",
        ] {
            assert!(page.contains(part), "{part} is not on the page");
        }
    }

    #[test]
    fn what_all_rows_share_is_said_once() {
        let mut report = sample();
        let page = html(std::slice::from_ref(&report)).unwrap();
        assert_eq!(page.matches("run me").count(), 1);
        report.rows[0].command = "another".into();
        let page = html(&[report]).unwrap();
        assert_eq!(
            page.matches("run me").count() + page.matches("another").count(),
            2
        );
        assert!(page.contains("<th>command</th>"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        let page = html(&[sample()])
            .unwrap()
            .replace("http://www.w3.org/2000/svg", "");
        for part in ["http:", "https:", "<script", "<link", "src="] {
            assert!(!page.contains(part), "{part} is on the page");
        }
    }
}
