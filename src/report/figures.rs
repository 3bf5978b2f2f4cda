//! The figures of a page, each as an SVG file that stands alone: with its styles, its legend and a white background.

use super::chart::{COLOURS, escape};
use super::page::PAGE;
use serde_json::Value;
use std::fmt::Write;

/// Begins every file, so that a figure is never mistaken for a file of the user's.
pub const MARK: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" data-from=\"jigsaw report\"";
/// Most entries of a legend.
const MAX_LEGEND: usize = 24;
/// Height of a line of a legend, rough width of a letter in it, and the width of a swatch with the space around it.
const LINE: f64 = 20.0;
const LETTER: f64 = 7.0;
const SWATCH: f64 = 40.0;
/// Space around a figure.
const MARGIN: f64 = 8.0;
const FONT: &str = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

/// A name in a legend, with the number of its colour.
type Entry = (String, u64);

/// Name (without ending) and text of each figure in the values of a page. Names are made of titles, and unique.
pub fn figures(values: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let styles = Styles::of_page();
    collect(values, &[], &mut |title: &str, svg: &str, legend: &[Entry]| {
        let Some(text) = standing_alone(svg, legend, &styles) else { return };
        let plain = title.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
        let plain = plain.collect::<String>().split_whitespace().collect::<Vec<_>>().join("-");
        let is_free = |name: &String| !found.iter().any(|(other, _)| other == name);
        let names = (1..).map(|n| if n == 1 { plain.clone() } else { format!("{plain}-{n}") });
        if let Some(name) = names.into_iter().find(is_free) {
            found.push((name, text));
        }
    });
    found
}

/// Call `each` with every figure (an object with a title and an `svg`) and the nearest legend above it: that of all runs, or the regimes of a study.
fn collect(value: &Value, legend: &[Entry], each: &mut dyn FnMut(&str, &str, &[Entry])) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| collect(one, legend, each)),
        Value::Object(fields) => {
            let own = ["legend", "regimes"].iter().find_map(|key| fields.get(*key).and_then(named_colours));
            let legend = own.as_deref().unwrap_or(legend);
            if let (Some(Value::String(title)), Some(Value::String(svg))) = (fields.get("title"), fields.get("svg")) {
                each(title, svg, legend);
            }
            fields.values().for_each(|one| collect(one, legend, each));
        }
        _ => {}
    }
}

/// A list of objects with a name and a colour.
fn named_colours(value: &Value) -> Option<Vec<Entry>> {
    let entry =
        |one: &Value| Some((one.get("name")?.as_str()?.to_string(), one.get("colour")?.as_u64()? % COLOURS as u64));
    let all = value.as_array().filter(|all| !all.is_empty())?;
    all.iter().map(entry).collect()
}

/// The styles of charts on the page: its rules, and the light value of each variable.
struct Styles {
    rules: String,
    variables: Vec<(String, String)>,
}

impl Styles {
    fn of_page() -> Styles {
        let mut styles = Styles { rules: String::new(), variables: Vec::new() };
        let sheet =
            PAGE.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).map_or("", |(sheet, _)| sheet);
        let root = sheet.split_once(":root {").and_then(|(_, rest)| rest.split_once('}')).map_or("", |(root, _)| root);
        for (name, value) in root.split(';').filter_map(|one| one.trim().strip_prefix("--")?.split_once(':')) {
            // `light-dark(LIGHT, DARK)` has both.
            let value = value.trim();
            let light = value.strip_prefix("light-dark(").and_then(|both| both.split(',').next()).unwrap_or(value);
            styles.variables.push((format!("var(--{})", name.trim()), light.trim().to_string()));
        }
        for line in sheet.lines().filter(|line| line.starts_with(".chart ") || line.starts_with(".chart.")) {
            styles.rules += line;
            styles.rules.push('\n');
        }
        styles.rules = styles.resolved(&styles.rules).replace("fill: revert-layer;", "");
        styles
    }

    /// `text` with the light value in place of each variable.
    fn resolved(&self, text: &str) -> String {
        self.variables.iter().fold(text.to_string(), |text, (name, value)| text.replace(name, value))
    }
}

/// A chart as a file of its own; `None` for what is no chart of [`super::chart`].
fn standing_alone(svg: &str, legend: &[Entry], styles: &Styles) -> Option<String> {
    let (head, body) = svg.strip_prefix("<svg ")?.split_once('>')?;
    let attribute = |name: &str| Some(head.split_once(&format!("{name}=\""))?.1.split_once('"')?.0);
    let size: Vec<f64> = attribute("viewBox")?.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[_, _, width, height] = size.as_slice() else { return None };
    let (drawn, below) = draw_legend(&drawn(svg, legend), width);
    let (all_width, all_height) = (width + 2.0 * MARGIN, height + below + 2.0 * MARGIN);
    let class = attribute("class")?;
    let label = attribute("aria-label").unwrap_or_default();
    Some(styles.resolved(&format!(
        "{MARK} viewBox=\"0 0 {all_width} {all_height}\" width=\"{all_width}\" height=\"{all_height}\" role=\"img\" aria-label=\"{label}\" \
         font-family=\"{FONT}\">\n<style>\n{}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <g class=\"{class}\" transform=\"translate({MARGIN} {MARGIN})\">\n{drawn}<g transform=\"translate(0 {below})\">{}</g>\n</g>\n</svg>\n",
        styles.rules,
        with_coloured_names(body.strip_suffix("</svg>")?)
    )))
}

/// A chart whose names at the ends of lines have their colours as styles: programs other than browsers let a rule win over an attribute.
fn with_coloured_names(chart: &str) -> String {
    let mut texts = chart.split("<text ");
    let mut out = texts.next().unwrap_or_default().to_string();
    for text in texts {
        out += "<text ";
        match text.starts_with("class=\"end\"") {
            true => out += &text.replacen(" fill=\"", " style=\"fill: ", 1),
            false => out += text,
        }
    }
    out
}

/// The entries that a chart draws: those that it names, else those whose colour it has.
fn drawn<'a>(svg: &str, legend: &'a [Entry]) -> Vec<&'a Entry> {
    let coloured: Vec<&Entry> =
        legend.iter().filter(|(_, colour)| svg.contains(&format!("var(--s{colour})"))).collect();
    let is_named = |(name, _): &&&Entry| {
        let name = escape(name);
        [format!(">{name}\n"), format!("\n{name}: "), format!(">{name}<")].iter().any(|text| svg.contains(text))
    };
    let named: Vec<&Entry> = coloured.iter().filter(is_named).copied().collect();
    if named.is_empty() { coloured } else { named }
}

/// The legend, and the height that it takes.
fn draw_legend(entries: &[&Entry], width: f64) -> (String, f64) {
    let (mut out, mut x, mut y) = (String::new(), 0.0, 0.0);
    for (i, (name, colour)) in entries.iter().take(MAX_LEGEND).enumerate() {
        let needs = SWATCH + LETTER * name.chars().count() as f64;
        if i > 0 && x + needs > width {
            (x, y) = (0.0, y + LINE);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"18\" height=\"4\" rx=\"2\" fill=\"var(--s{colour})\"/><text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x,
            y + 7.0,
            x + 24.0,
            y + 13.5,
            escape(name)
        );
        x += needs;
    }
    (out, if entries.is_empty() { 0.0 } else { y + LINE + 4.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chart(colours: &[usize], titles: &str) -> String {
        let marks =
            colours.iter().map(|colour| format!("<path class=\"line\" d=\"M0 0L1 1\" stroke=\"var(--s{colour})\"/>"));
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 640 330\" role=\"img\" aria-label=\"a over b\">{}<text class=\"end\" fill=\"var(--s0)\">e</text><circle class=\"dot\" cx=\"1\" cy=\"1\" r=\"2\" \
             fill=\"var(--s0)\"><title>{titles}</title></circle></svg>",
            marks.collect::<String>()
        )
    }

    #[test]
    fn every_figure_stands_alone_with_the_nearest_legend_and_a_name_of_its_own() {
        let legend = |names: &[(&str, usize)]| -> Value {
            names.iter().map(|(name, colour)| json!({"name": name, "colour": colour})).collect()
        };
        let figure = |svg: String| json!({"title": "Points lost (95 %)", "caption": "c", "svg": svg});
        let values = json!({
            "legend": legend(&[("one & two", 0), ("three", 1), ("four", 2)]),
            "charts": [figure(chart(&[0, 1], "one &amp; two\nx: 1")), figure(chart(&[1, 2], "other\nx: 1"))],
            "studies": [{"regimes": legend(&[("sft", 0)]), "figures": [figure(chart(&[0], "sft.seed-1"))], "rows": [1, "<svg>"]}],
        });
        let found = figures(&values);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["points-lost-95", "points-lost-95-2", "points-lost-95-3"]);
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        let entries = |text: &str| text.matches("width=\"18\"").count();
        // The first names one of two colours that it has; the second no entry, so its colours decide.
        assert_eq!([entries(texts[0]), entries(texts[1]), entries(texts[2])], [1, 3, 1]);
        assert!(texts[0].contains(">one &amp; two</text>") && texts[2].contains(">sft</text>"));
        for text in texts {
            assert!(text.starts_with(MARK) && !text.contains("var(--") && !text.contains("light-dark"), "{text}");
            assert!(
                text.contains("fill=\"#ffffff\"") && text.contains(".chart .line {") && text.contains("stroke=\"#"),
                "{text}"
            );
            assert!(text.contains("style=\"fill: #") && !text.contains("revert-layer"), "{text}");
            assert!(
                text.ends_with("</svg>\n")
                    && text.matches("<svg").count() == 1
                    && text.matches("<g ").count() == text.matches("</g>").count()
            );
        }
    }
}
