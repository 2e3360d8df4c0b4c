//! XML from elsewhere, read with bounds.
//!
//! Knows: how large and how branched a document may be, that document types (and so entity bombs) are
//! refused, and how text is made safe inside XML. Refuses to know: what a document means.

use base::{Error, Kind, Result};
use roxmltree::{Document, Node, ParsingOptions};
use std::fmt::Write as _;

/// The longest document: libvirt's own bound on strings.
const LENGTH_MAX: usize = super::xdr::STRING_MAX;
/// The most nodes: a machine with a thousand disks has some twenty thousand.
const NODES_MAX: u32 = 400_000;

/// Parses a document.
///
/// # Errors
/// Kind `Invalid` for what is not XML or holds a document type; kind `Limit` for what is too large.
pub fn parse<'a>(what: &str, text: &'a str) -> Result<Document<'a>> {
    if text.len() > LENGTH_MAX {
        return Err(Error::new(
            Kind::Limit,
            "platform.xml.too-large",
            format!("the XML of {what} has {} bytes", text.len()),
        ));
    }
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: NODES_MAX,
        ..Default::default()
    };
    Document::parse_with_options(text, options).map_err(|error| {
        Error::invalid(
            "platform.xml.malformed",
            format!("the XML of {what} cannot be read"),
        )
        .caused_by(error)
    })
}

/// The first child element with this name.
pub fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children()
        .find(|child| child.is_element() && child.tag_name().name() == name)
}

/// All child elements with this name.
pub fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    name: &'a str,
) -> impl Iterator<Item = Node<'a, 'i>> + 'a {
    node.children()
        .filter(move |child| child.is_element() && child.tag_name().name() == name)
}

/// The text of the first child element with this name, trimmed; `None` where it is empty.
pub fn child_text(node: Node<'_, '_>, name: &str) -> Option<String> {
    let text = child(node, name)?.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// An attribute of the first child element with this name.
pub fn child_attribute(node: Node<'_, '_>, name: &str, attribute: &str) -> Option<String> {
    child(node, name)?.attribute(attribute).map(str::to_owned)
}

/// `text` as it may stand in an attribute or between tags.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' | '\n' | '\r' => {
                // Kept as a reference: a plain one would become a space in an attribute.
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            // XML has no way to write these.
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            character => escaped.push(character),
        }
    }
    escaped
}
