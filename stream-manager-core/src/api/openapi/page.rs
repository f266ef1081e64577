//! The description as a page for people, without scripts.

use serde_json::Value;
use std::fmt::Write;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;\
    background:#fff}h1{margin-bottom:.2em}h2{border-bottom:1px solid #ccc;margin-top:2em}details{margin:.4em 0;border:1px \
    solid #ddd;border-radius:.3em}summary{padding:.4em .6em;cursor:pointer}details>div{padding:0 1em 1em}code,pre{font:14px \
    ui-monospace,monospace}pre{background:#f5f5f5;padding:.6em;overflow:auto}table{border-collapse:collapse}td,th{border:1px \
    solid #ddd;padding:.2em .6em;text-align:left;vertical-align:top}.m{display:inline-block;width:4.5em;font-weight:bold}\
    @media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#252525}a{color:#8bf}details,td,th\
    {border-color:#444}}";

/// The page.
pub(super) fn render(description: &Value) -> String {
    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(&mut page, description);
    page
}

fn write_page(page: &mut String, description: &Value) -> std::fmt::Result {
    let info = &description["info"];
    write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{0} API</title><style>{STYLE}</style><h1>{0} API</h1><p>Version {1} · \
         <a href=\"openapi.json\">openapi.json</a></p>",
        escape(&info["title"]),
        escape(&info["version"])
    )?;
    for paragraph in info["description"].as_str().unwrap_or_default().split("\n\n") {
        write!(page, "<p>{}</p>", words(paragraph))?;
    }
    for tag in description["tags"].as_array().into_iter().flatten() {
        write!(page, "<h2>{}</h2><p>{}</p>", escape(&tag["name"]), escape(&tag["description"]))?;
        for (path, methods) in description["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                if operation["tags"][0] == tag["name"] {
                    write_operation(page, path, method, operation)?;
                }
            }
        }
    }
    write!(page, "<h2>schemas</h2>")?;
    for (name, schema) in description["components"]["schemas"].as_object().into_iter().flatten() {
        let shown = serde_json::to_string_pretty(schema).unwrap_or_default();
        write!(
            page,
            "<details id=\"{0}\"><summary><code>{0}</code></summary><div><pre>{1}</pre></div></details>",
            text(name),
            text(&shown)
        )?;
    }
    Ok(())
}

fn write_operation(page: &mut String, path: &str, method: &str, operation: &Value) -> std::fmt::Result {
    write!(
        page,
        "<details id=\"{}\"><summary><code><span class=\"m\">{}</span> {}</code> — {}</summary><div>",
        escape(&operation["operationId"]),
        text(&method.to_uppercase()),
        text(path),
        escape(&operation["summary"])
    )?;
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        write!(page, "<table><tr><th>Parameter<th>In<th>Shape<th>Meaning")?;
        for parameter in parameters {
            let needed = if parameter["required"] == true { " (needed)" } else { "" };
            write!(
                page,
                "<tr><td><code>{}</code>{needed}<td>{}<td><code>{}</code><td>{}",
                escape(&parameter["name"]),
                escape(&parameter["in"]),
                text(&parameter["schema"].to_string()),
                escape(&parameter["description"])
            )?;
        }
        write!(page, "</table>")?;
    }
    for (media, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        write!(page, "<p>Body: <code>{}</code> {}</p>", text(media), reference(&body["schema"]))?;
    }
    write!(page, "<table><tr><th>Answer<th>Meaning<th>Body")?;
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        if status == "default" {
            write!(page, "<tr><td>others<td>What is wrong (RFC 9457)<td><a href=\"#Problem\">Problem</a>")?;
            continue;
        }
        let content = answer["content"].as_object().and_then(|c| c.iter().next());
        let body = content
            .map(|(media, body)| format!("<code>{}</code> {}", text(media), reference(&body["schema"])));
        write!(
            page,
            "<tr><td>{}<td>{}<td>{}",
            text(status),
            escape(&answer["description"]),
            body.unwrap_or_default()
        )?;
    }
    write!(page, "</table></div></details>")
}

/// Names of the schemas that a schema leads to, as links.
fn reference(schema: &Value) -> String {
    let own = std::iter::once(schema);
    let all = own.chain(schema["anyOf"].as_array().into_iter().flatten());
    let names = all.filter_map(|s| s["$ref"].as_str()?.rsplit('/').next());
    let links: Vec<String> = names.map(|name| format!("<a href=\"#{0}\">{0}</a>", text(name))).collect();
    links.join(" or ")
}

/// Text in which code stands between backticks.
fn words(paragraph: &str) -> String {
    let parts = paragraph.split('`').map(text).enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{part}</code>") } else { part }).collect()
}

fn escape(value: &Value) -> String {
    text(value.as_str().unwrap_or_default())
}

fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
