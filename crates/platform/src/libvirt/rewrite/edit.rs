//! Changes to a text at known places.
//!
//! Knows: where an element's tags, attributes and text stand, and how to apply many changes at once.
//! Refuses to know: what the elements mean.

use crate::libvirt::xml::escape;
use base::{Error, Kind, Result};
use roxmltree::Node;
use std::cmp::Reverse;
use std::ops::Range;

/// Changes that wait to be applied. A change inside an element that is removed as a whole is dropped.
pub struct Edits<'a> {
    text: &'a str,
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    /// No changes yet.
    pub const fn new(text: &'a str) -> Self {
        Self {
            text,
            changes: Vec::new(),
        }
    }

    /// Another element in its place.
    pub fn replace(&mut self, node: Node<'_, '_>, xml: &str) {
        self.changes.push((node.range(), xml.to_owned()));
    }

    /// Nothing in its place, also not the white space before it.
    pub fn remove(&mut self, node: Node<'_, '_>) {
        let range = node.range();
        let start = self.text[..range.start]
            .trim_end_matches([' ', '\t', '\n', '\r'])
            .len();
        self.changes.push((start..range.end, String::new()));
    }

    /// The element's text instead of all it contains.
    pub fn set_text(&mut self, node: Node<'_, '_>, text: &str) {
        let (tag_end, closed) = self.start_tag(node);
        let range = node.range();
        if closed {
            let name = self.tag_name(node);
            let open = self.text[range.start..tag_end].trim_end_matches("/>");
            self.changes
                .push((range, format!("{open}>{}</{name}>", escape(text))));
        } else {
            let end = range.start + self.text[range.clone()].rfind("</").unwrap_or(range.len());
            self.changes.push((tag_end..end, escape(text)));
        }
    }

    /// The attribute with this value, whether it was there or not.
    pub fn set_attribute(&mut self, node: Node<'_, '_>, name: &str, value: &str) {
        match node.attribute_node(name) {
            Some(attribute) => self.changes.push((attribute.range_value(), escape(value))),
            None => {
                let at = node.range().start + 1 + self.tag_name(node).len();
                self.changes
                    .push((at..at, format!(" {name}='{}'", escape(value))));
            }
        }
    }

    /// The element without the attribute.
    pub fn remove_attribute(&mut self, node: Node<'_, '_>, name: &str) {
        if let Some(attribute) = node.attribute_node(name) {
            let range = attribute.range();
            let start = self.text[..range.start]
                .trim_end_matches([' ', '\t', '\n', '\r'])
                .len();
            self.changes.push((start..range.end, String::new()));
        }
    }

    /// One more child at the end of an element.
    pub fn insert_child(&mut self, node: Node<'_, '_>, xml: &str) -> Result<()> {
        let (tag_end, closed) = self.start_tag(node);
        let range = node.range();
        if closed {
            let name = self.tag_name(node);
            let open = self.text[range.start..tag_end].trim_end_matches("/>");
            self.changes.push((range, format!("{open}>{xml}</{name}>")));
            return Ok(());
        }
        let end = self.text[range.clone()].rfind("</").ok_or_else(misplaced)? + range.start;
        self.changes.push((end..end, xml.to_owned()));
        Ok(())
    }

    /// The text with all changes.
    pub fn apply(mut self) -> Result<String> {
        // Outer ones first; equal places in the order they were asked for.
        self.changes
            .sort_by_key(|(range, _)| (range.start, Reverse(range.end)));
        let mut result = String::with_capacity(self.text.len());
        let mut at = 0;
        for (range, new) in &self.changes {
            if range.start < at {
                continue;
            }
            result.push_str(self.text.get(at..range.start).ok_or_else(misplaced)?);
            result.push_str(new);
            at = range.end;
        }
        result.push_str(self.text.get(at..).ok_or_else(misplaced)?);
        Ok(result)
    }

    /// The name as written, with its prefix.
    fn tag_name(&self, node: Node<'_, '_>) -> &'a str {
        let rest = &self.text[node.range().start + 1..];
        let end = rest.find(|c: char| c.is_whitespace() || c == '>' || c == '/');
        &rest[..end.unwrap_or(rest.len())]
    }

    /// The end of the start tag, and whether the element ends with it.
    fn start_tag(&self, node: Node<'_, '_>) -> (usize, bool) {
        let range = node.range();
        let mut quote = None;
        let mut last = '<';
        for (at, character) in self.text[range.clone()].char_indices() {
            match (quote, character) {
                (Some(open), _) if open == character => quote = None,
                (None, '"' | '\'') => quote = Some(character),
                (None, '>') => return (range.start + at + 1, last == '/'),
                _ => {}
            }
            last = character;
        }
        (range.end, true)
    }
}

fn misplaced() -> Error {
    Error::new(
        Kind::Bug,
        "platform.xml.edit-misplaced",
        "a change to XML fell between characters",
    )
}
