//! The fields of a message, as they were received.
//!
//! A map of fields forgets how names were spelled and in which order they stood, and building one
//! costs more than anything else that a proxy does with a head. Here the text is kept as it came,
//! with a note of where each field stands in it; what is handed on unchanged is copied in one piece.
//!
//! Each line of the text that a field refers to reads `Name: value` and ends with CRLF. A line that
//! was received otherwise (more white space, a lone line feed) is written again behind the others,
//! so nothing behind this module meets an unusual one.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::name::{Known, Name, make_title_case};

/// The fields of a message, in their order.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// The bits of all names that may be among them: most that are looked for are not.
    seen: u64,
}

/// Where a field stands: its name begins at `start`, its value behind a colon and a space.
#[derive(Clone, Copy)]
struct Line {
    start: u32,
    name_length: u32,
    value_length: u32,
    known: Known,
}

impl Line {
    const fn start(self) -> usize {
        self.start as usize
    }

    const fn value(self) -> usize {
        (self.start + self.name_length) as usize + SEPARATOR.len()
    }

    const fn end(self) -> usize {
        self.value() + self.value_length as usize + END.len()
    }
}

const SEPARATOR: &[u8] = b": ";
const END: &[u8] = b"\r\n";

/// Fields that the proxy may add: the request's id, an arm, a cookie.
const OWN_FIELDS: usize = 4;
/// Bytes of them.
const OWN_BYTES: usize = 128;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'fields> {
    /// What its name was recognised as.
    pub known: Known,
    /// Its name, as spelled by its sender.
    pub name: &'fields [u8],
    /// Its value, without white space around it.
    pub value: &'fields [u8],
}

impl Fields {
    /// None yet, with room for so many of so many bytes together, and a few of the proxy's own.
    fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(bytes + OWN_BYTES),
            lines: Vec::with_capacity(fields + OWN_FIELDS),
            seen: 0,
        }
    }

    /// None yet, of a head that was received as `text`.
    pub fn of_text(text: &[u8], fields: usize) -> Self {
        let mut of_text = Self::with_capacity(fields, text.len());
        of_text.text.extend_from_slice(text);
        of_text
    }

    /// Adds the field whose name and value, of so many bytes, begin at these places of the text that
    /// was received.
    pub fn add_received(&mut self, known: Known, name: (usize, usize), value: (usize, usize)) {
        let name_end = name.0 + name.1;
        let value_end = value.0 + value.1;
        let is_usual = value.0 == name_end + SEPARATOR.len()
            && self.text[name_end..value.0] == *SEPARATOR
            && self.text.get(value_end..value_end + END.len()) == Some(END);
        if is_usual {
            self.add_line(known, name.0, name.1, value.1);
        } else {
            self.write_again(known, name, value);
        }
    }

    #[cold]
    fn write_again(&mut self, known: Known, name: (usize, usize), value: (usize, usize)) {
        let start = self.text.len();
        self.text.extend_from_within(name.0..name.0 + name.1);
        self.text.extend_from_slice(SEPARATOR);
        self.text.extend_from_within(value.0..value.0 + value.1);
        self.text.extend_from_slice(END);
        self.add_line(known, start, name.1, value.1);
    }

    fn add_line(&mut self, known: Known, start: usize, name_length: usize, value_length: usize) {
        let short =
            |length: usize| u32::try_from(length).expect("a head is far shorter than 4 GiB");
        self.seen |= known.bit();
        self.lines.push(Line {
            start: short(start),
            name_length: short(name_length),
            value_length: short(value_length),
            known,
        });
    }

    /// Adds a field behind the others. `value` is a field's, or the proxy's own: it holds no line
    /// break.
    pub fn append(&mut self, name: &Name, value: &[u8]) {
        self.append_text(name.known(), name.as_str().as_bytes(), value);
    }

    fn append_text(&mut self, known: Known, name: &[u8], value: &[u8]) {
        debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(SEPARATOR);
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(END);
        self.add_line(known, start, name.len(), value.len());
    }

    /// Adds a field in place of all others of its name.
    pub fn insert(&mut self, name: &Name, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes all fields of a name.
    pub fn remove(&mut self, name: &Name) {
        if self.may_have(name.known()) {
            let text = &self.text;
            self.lines.retain(|line| !is_called(text, *line, name));
        }
    }

    /// Keeps the fields that `is_kept` says.
    pub fn retain(&mut self, mut is_kept: impl FnMut(Field<'_>) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| is_kept(field(text, *line)));
    }

    /// The value of the first field of a name.
    pub fn get(&self, name: &Name) -> Option<&[u8]> {
        if !self.may_have(name.known()) {
            return None;
        }
        let mut lines = self.lines.iter();
        let line = lines.find(|line| is_called(&self.text, **line, name))?;
        Some(field(&self.text, *line).value)
    }

    /// The same as text, where it is ASCII.
    pub fn get_str(&self, name: &Name) -> Option<&str> {
        let value = self.get(name)?;
        value.is_ascii().then(|| std::str::from_utf8(value).ok())?
    }

    /// The values of all fields of a name, in their order.
    pub fn get_all<'fields>(
        &'fields self,
        name: &'fields Name,
    ) -> impl DoubleEndedIterator<Item = &'fields [u8]> + Clone {
        let lines = match self.may_have(name.known()) {
            true => &self.lines[..],
            false => &[],
        };
        lines
            .iter()
            .filter(|line| is_called(&self.text, **line, name))
            .map(|line| field(&self.text, *line).value)
    }

    /// Whether there is a field of a name.
    pub fn contains(&self, name: &Name) -> bool {
        self.get(name).is_some()
    }

    /// All fields, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| field(&self.text, *line))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Writes the fields that `is_kept` says, as they were received.
    pub fn write(&self, out: &mut BytesMut, mut is_kept: impl FnMut(Field<'_>) -> bool) {
        // What stands together is copied together: of 12 fields usually 2 or 3 pieces.
        let (mut start, mut end) = (0, 0);
        for line in &self.lines {
            if !is_kept(field(&self.text, *line)) {
                continue;
            }
            if line.start() != end {
                out.put_slice(&self.text[start..end]);
                start = line.start();
            }
            end = line.end();
        }
        out.put_slice(&self.text[start..end]);
    }

    /// The same fields for who speaks HTTP/2.
    pub fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        let text = Bytes::from(self.text);
        for line in self.lines {
            let name = &text[line.start()..line.start() + line.name_length as usize];
            let value = text.slice(line.value()..line.end() - END.len());
            // They were read by the same rules, so both can be had.
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name),
                HeaderValue::from_maybe_shared(value),
            ) {
                map.append(name, value);
            }
        }
        map
    }

    const fn may_have(&self, known: Known) -> bool {
        self.seen & known.bit() != 0
    }
}

impl From<&HeaderMap> for Fields {
    /// Names are written in title case, as HTTP/1 programs have always seen them: HTTP/2 has only
    /// small letters.
    fn from(map: &HeaderMap) -> Self {
        let bytes = map
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + SEPARATOR.len() + END.len());
        let mut fields = Self::with_capacity(map.len(), bytes.sum());
        for (name, value) in map {
            let name = name.as_str().as_bytes();
            let start = fields.text.len();
            fields.append_text(Known::of(name), name, value.as_bytes());
            make_title_case(&mut fields.text[start..start + name.len()]);
        }
        fields
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        let fields = self
            .iter()
            .map(|field| (text(field.name), text(field.value)));
        formatter.debug_list().entries(fields).finish()
    }
}

fn field(text: &[u8], line: Line) -> Field<'_> {
    let (start, value) = (line.start(), line.value());
    Field {
        known: line.known,
        name: &text[start..start + line.name_length as usize],
        value: &text[value..value + line.value_length as usize],
    }
}

fn is_called(text: &[u8], line: Line, name: &Name) -> bool {
    line.known == name.known()
        && (!line.known.is_shared()
            || field(text, line)
                .name
                .eq_ignore_ascii_case(name.as_str().as_bytes()))
}
