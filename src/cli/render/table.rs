//! Tables: columns padded with spaces, no borders.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

/// The styles that Docker Compose prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `ls`, `images`: cells at least 20 wide, the last one padded as well.
    Wide,
    /// `ps`, `volumes`, `stats`: cells at least 10 wide.
    Formatter,
    /// `top`: cells at least 4 wide.
    Narrow,
}

/// A table under construction.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    style: Style,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles.
    pub(crate) fn new(style: Style, titles: &[&str]) -> Self {
        Self { style, rows: vec![titles.iter().map(|t| (*t).to_owned()).collect()] }
    }

    /// Adds a row; a missing cell is empty.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The whole text, each row ended by a line feed.
    pub(crate) fn render(&self) -> String {
        let (least, gap) = match self.style {
            Style::Wide => (20, 3),
            Style::Formatter => (10, 3),
            Style::Narrow => (4, 2),
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![least; columns];
        for row in &self.rows {
            for (i, cell) in row.iter().enumerate() {
                widths[i] = widths[i].max(cell.width() + gap);
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            for (i, width) in widths.iter().enumerate() {
                let cell = row.get(i).map_or("", String::as_str);
                out.push_str(cell);
                if i + 1 < columns {
                    let pad = width.saturating_sub(cell.width());
                    // Writing to a String cannot fail.
                    let _ = write!(out, "{:pad$}", "");
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_the_longest_cell() {
        let mut table = Table::new(Style::Formatter, &["NAME", "IMAGE"]);
        table.row(vec!["a-very-long-name-1".into(), "busybox".into()]);
        table.row(vec!["ä".into(), "x".into()]);
        assert_eq!(
            table.render(),
            "NAME                 IMAGE\na-very-long-name-1   busybox\nä                    x\n"
        );
    }
}
