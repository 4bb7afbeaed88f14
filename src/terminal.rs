//! Text for people: tables, numbers that read like numbers, and colour only where it is wanted.
//!
//! Everything that the program prints for a person goes through here, so that the same number looks
//! the same in `status`, in a smoke test and in the demonstration.

use std::io::IsTerminal;

/// Whether text may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// A terminal that shows colours.
    Colour,
    /// A file, a pipe, or somebody who asked for none.
    Plain,
}

impl Ink {
    /// What suits stdout: colour only on a terminal, and not where `NO_COLOR` is set to anything
    /// (see no-color.org) or the terminal says that it cannot.
    pub(crate) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if std::io::stdout().is_terminal() && !unwanted {
            Ink::Colour
        } else {
            Ink::Plain
        }
    }

    /// `text` in its tone.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Ink::Plain, _) | (Ink::Colour, Tone::Normal) => return text.to_owned(),
            (Ink::Colour, Tone::Heading) => "1",
            (Ink::Colour, Tone::Good) => "32",
            (Ink::Colour, Tone::Warning) => "33",
            (Ink::Colour, Tone::Bad) => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// How a piece of text should strike the reader. Colour only repeats what the words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Normal,
    Heading,
    Good,
    Warning,
    Bad,
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: text.into().replace('\n', " "),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::toned(Tone::Normal, text)
    }
}

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        let headings = columns
            .iter()
            .map(|(heading, _)| Cell::toned(Tone::Heading, *heading));
        Self {
            rows: vec![headings.collect()],
            columns: columns.iter().map(|(_, align)| *align).collect(),
        }
    }

    /// Adds a row; the cells beyond the last column are not shown.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    pub(crate) fn render(&self, ink: Ink) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| width_of(&cell.text)).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, align), column_width) in row.iter().zip(&self.columns).zip(&widths) {
                let padding = " ".repeat(column_width - width_of(&cell.text));
                let painted = ink.paint(cell.tone, &cell.text);
                match align {
                    Align::Left => line.extend([painted.as_str(), &padding, "  "]),
                    Align::Right => line.extend([padding.as_str(), &painted, "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// A bar that is filled as far as `full` says, from 0 to 1.
pub(crate) fn meter(full: f64, width: usize) -> String {
    let filled = (full.clamp(0.0, 1.0) * width as f64).floor() as usize;
    "█".repeat(filled) + &"░".repeat(width - filled)
}

/// `text` in lines of at most `width` characters, each behind `indent`. Words are not cut; what is
/// longer than a line stands alone in one that is too long.
pub(crate) fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut wrapped = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let longer = width_of(indent) + width_of(&line) + 1 + width_of(word);
        if !line.is_empty() && longer > width {
            wrapped.extend([indent, line.as_str(), "\n"]);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    wrapped.extend([indent, line.as_str(), "\n"]);
    wrapped
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A ratio as a percentage with about three significant digits.
pub(crate) fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent == 0.0 {
        "0%".to_owned()
    } else if percent >= 10.0 {
        format!("{percent:.1}%")
    } else if percent >= 0.1 {
        format!("{percent:.2}%")
    } else {
        format!("{percent:.3}%")
    }
}

/// A time in the unit that suits it.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// Odds, which range from about 1 to astronomical.
pub(crate) fn odds(odds: f64) -> String {
    if odds < 10.0 {
        format!("{odds:.1}")
    } else if odds < 1e6 {
        format!("{odds:.0}")
    } else {
        format!("{odds:.0e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_numbers() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(percent(0.0), "0%");
        assert_eq!(percent(0.000_123), "0.012%");
        assert_eq!(percent(0.0512), "5.12%");
        assert_eq!(percent(1.0), "100.0%");
        assert_eq!(seconds(0.000_25), "250 µs");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(2.5), "2.50 s");
        assert_eq!(odds(1.04), "1.0");
        assert_eq!(odds(2000.0), "2000");
        assert_eq!(odds(1.5e12), "2e12");
    }

    #[test]
    fn a_meter_is_full_only_at_its_end() {
        assert_eq!(meter(0.0, 4), "░░░░");
        assert_eq!(meter(0.99, 4), "███░");
        assert_eq!(meter(1.0, 4), "████");
        assert_eq!(meter(f64::NAN, 2), "░░");
    }

    #[test]
    fn long_sentences_are_broken_between_words() {
        let text = "one two three incomprehensibilities four";
        let lines = "  one two\n  three\n  incomprehensibilities\n  four\n";
        assert_eq!(wrapped(text, 10, "  "), lines);
    }

    #[test]
    fn columns_line_up_whatever_the_colour() {
        let mut table = Table::new([("NAME", Align::Left), ("N", Align::Right)]);
        table.row(["ärger".into(), Cell::toned(Tone::Bad, "10")]);
        table.row(["b".into(), "7".into()]);
        let plain = "NAME    N\närger  10\nb       7\n";
        assert_eq!(table.render(Ink::Plain), plain);
        let coloured = table.render(Ink::Colour);
        let bare = coloured
            .replace("\u{1b}[1;31m", "")
            .replace("\u{1b}[1m", "")
            .replace("\u{1b}[0m", "");
        assert_eq!(bare, plain);
    }
}
