//! YAML as written: every node with its place, no scalar interpreted yet.
//!
//! A general loader turns `no`, `1.10` and `${TOKEN}` into values before anyone knows what was
//! wanted there, and keeps no place for what it dropped. So the tree is built from the parser's
//! events and keeps the text; what a scalar means is decided where the schema says what is wanted.
//!
//! A hostile file is bounded: its size, its depth, and its number of nodes with aliases expanded.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

/// Bytes of a file; a thousand splits need a tenth of it.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Mappings and lists within each other. The deepest key of a real file is at eight.
const MAX_DEPTH: usize = 32;
/// Nodes with aliases expanded, so that ten lines of aliases cannot fill the memory.
const MAX_NODES: usize = 100_000;

/// A place in the file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the file's order, duplicates included.
    Mapping(Vec<Entry>),
}

/// A key, its place, and its value.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Node,
}

/// Text between collections.
#[derive(Clone)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Neither quoted nor a block: the text may mean a number, a truth value or nothing.
    pub(crate) plain: bool,
}

/// The text is no YAML that a configuration could be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) remedy: &'static str,
}

/// The same place, or the text's end: at that, and where a lone carriage return stands in a text, the
/// parser counts lines that nobody sees.
fn within(text: &str, at: Position) -> Position {
    let last = text.split('\n').count();
    if at.line <= last {
        return at;
    }
    let end = text.split('\n').next_back().unwrap_or_default();
    Position {
        line: last,
        column: end.chars().count() + 1,
    }
}

/// Builds the tree of the single document in `text`.
///
/// # Errors
/// The first place that cannot be read; nothing after it can be judged.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let start = Position { line: 1, column: 1 };
    if text.len() > MAX_BYTES {
        return Err(SyntaxError {
            at: start,
            message: format!("the file is larger than {MAX_BYTES} bytes"),
            remedy: "put long lists of pinned keys into a `pins.file`",
        });
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| SyntaxError {
            at: within(text, position(*error.marker())),
            message: format!("this is not YAML: {}", error.info()),
            remedy: "look at the indentation, the quotes and the brackets here and on the line \
                     before",
        })?;
        builder.handle_event(event, position(span.start))?;
    }
    builder.root.ok_or(SyntaxError {
        at: start,
        message: "the file is empty".to_owned(),
        remedy: "write at least `listeners`, `backends` and `routes`; see config/quickstart.yaml",
    })
}

fn position(marker: Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// Collects events into nodes without recursion, so that depth is a number and not a stack.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Collection>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// A mapping or list whose end has not been seen.
struct Collection {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        key: Option<(String, Position)>,
    },
}

impl Builder {
    fn handle_event(&mut self, event: Event<'_>, at: Position) -> Result<(), SyntaxError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => Err(SyntaxError {
                at,
                message: "a second document begins here".to_owned(),
                remedy: "keep one document per file: remove `---` and what follows",
            }),
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err(SyntaxError {
                at,
                message: "tags such as `!name` mean nothing here".to_owned(),
                remedy: "remove the tag; quote the value if it is meant as text",
            }),
            Event::Scalar(text, style, anchor, None) => {
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                let value = Value::Scalar(scalar);
                self.finish_node(Node { at, value }, anchor)
            }
            Event::SequenceStart(anchor, None) => {
                self.open_collection(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, None) => {
                let (entries, key) = (Vec::new(), None);
                self.open_collection(at, anchor, Content::Mapping { entries, key })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(collection) = self.open.pop() else {
                    return Ok(());
                };
                let node = Node {
                    at: collection.at,
                    value: match collection.content {
                        Content::List(items) => Value::List(items),
                        Content::Mapping { entries, .. } => Value::Mapping(entries),
                    },
                };
                self.finish_node(node, collection.anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(SyntaxError {
                        at,
                        message: "the alias names an anchor that is not complete yet".to_owned(),
                        remedy: "an alias can only repeat what was written before it",
                    });
                };
                // What it stands for keeps its own place: that is where a mistake is mended.
                self.nodes = self.nodes.saturating_add(count(&node));
                self.finish_node(node, 0)
            }
        }
    }

    fn open_collection(
        &mut self,
        at: Position,
        anchor: usize,
        content: Content,
    ) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(SyntaxError {
                at,
                message: format!("more than {MAX_DEPTH} levels within each other"),
                remedy: "no setting is that deep; look at the brackets and the indentation",
            });
        }
        self.open.push(Collection {
            at,
            anchor,
            content,
        });
        Ok(())
    }

    fn finish_node(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES {
            return Err(SyntaxError {
                at: node.at,
                message: format!("more than {MAX_NODES} values, with aliases expanded"),
                remedy: "put long lists of pinned keys into a `pins.file`",
            });
        }
        if anchor > 0 {
            // A copy under an anchor costs as much as an alias.
            self.nodes = self.nodes.saturating_add(count(&node));
            self.anchors.insert(anchor, node.clone());
        }
        match self
            .open
            .last_mut()
            .map(|collection| &mut collection.content)
        {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Mapping { entries, key }) => match key.take() {
                Some((key, at)) => entries.push(Entry {
                    key,
                    at,
                    value: node,
                }),
                None => {
                    let Value::Scalar(scalar) = node.value else {
                        return Err(SyntaxError {
                            at: node.at,
                            message: "a key must be a name".to_owned(),
                            remedy: "write `name: value`; quote the name if it begins with a \
                                     bracket",
                        });
                    };
                    *key = Some((scalar.text, node.at));
                }
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    // Depth is bounded when the node was built, so this recursion is as well.
    1 + match &node.value {
        Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(count).sum(),
        Value::Mapping(entries) => entries.iter().map(|entry| 1 + count(&entry.value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> SyntaxError {
        parse(text).err().expect("must be refused")
    }

    #[test]
    fn every_node_knows_its_place() {
        let root = parse("a: 1\nlist:\n  - x\n  - {b: no}\n").expect("valid");
        let Value::Mapping(entries) = &root.value else {
            panic!("a mapping")
        };
        assert_eq!(entries[1].at, Position { line: 2, column: 1 });
        let Value::List(items) = &entries[1].value.value else {
            panic!("a list")
        };
        let Value::Mapping(inner) = &items[1].value else {
            panic!("a mapping")
        };
        assert_eq!(inner[0].value.at, Position { line: 4, column: 9 });
    }

    #[test]
    fn a_mistake_stands_on_a_line_that_the_text_has() {
        for text in ["a: [{b: '", "a:\r [{b: '", "a: 1\n\rb: [{c: '\n"] {
            let line = refusal(text).at.line;
            assert!(line <= text.split('\n').count(), "{text:?}: {line}");
        }
    }

    #[test]
    fn aliases_cannot_fill_the_memory() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*a{}, ", level - 1).repeat(9);
            text.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        assert!(refusal(&text).message.contains("aliases expanded"));
    }

    #[test]
    fn depth_is_bounded_also_through_aliases() {
        assert!(refusal(&"[".repeat(40)).message.contains("levels"));
        assert!(parse(&"[".repeat(100_000)).is_err());
        let mut text = "a0: &a0 [x]\n".to_owned();
        for level in 1..2_000 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(parse(&text).is_err());
    }

    #[test]
    fn tags_second_documents_and_empty_files_are_refused_with_a_remedy() {
        for text in [
            "a: !secret x",
            "a: 1\n---\nb: 2",
            "",
            "# only a comment",
            "? [a]\n: b",
        ] {
            assert!(!refusal(text).remedy.is_empty(), "{text}");
        }
    }
}
