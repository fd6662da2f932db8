//! Tables for people on standard output.

use std::io::{self, Write};

/// Longest cell, in characters; a longer one is cut.
const MAX_CELL: usize = 60;

/// Rows under a head, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Table { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| shown(cell)).collect());
    }

    /// Writes it: numbers, of which a column consists, to the right.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let is_number = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit());
        let right: Vec<bool> =
            (0..columns).map(|column| self.rows.len() > 1 && cells(column).skip(1).all(is_number)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&right) {
                let space = " ".repeat(width - cell.chars().count().min(*width));
                let parts = if *right { [space.as_str(), cell] } else { [cell, space.as_str()] };
                line.push_str(&parts.concat());
                line.push_str("  ");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        out.flush()
    }
}

/// What a peer may have chosen, without what would move a terminal's cursor.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_CELL + 1).collect();
    if shown.chars().count() > MAX_CELL {
        shown.pop();
        shown.pop();
        shown.push('…');
    }
    if shown.is_empty() { "-".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(head: &[&str], rows: &[&[&str]]) -> String {
        let mut table = Table::new(head);
        for row in rows {
            table.row(row.iter().map(|cell| (*cell).to_owned()).collect());
        }
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let text = printed(&["NAME", "COUNT"], &[&["a/long/name", "1"], &["é", "1000"]]);
        assert_eq!(text, "NAME         COUNT\na/long/name      1\né             1000\n");
        assert_eq!(printed(&["NAME", "COUNT"], &[]), "NAME  COUNT\n");
    }

    #[test]
    fn a_peer_can_neither_move_the_cursor_nor_fill_the_screen() {
        assert_eq!(shown("\u{1b}[2Jx\n"), "\u{fffd}[2Jx\u{fffd}");
        let long = shown(&"x".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_CELL, true));
        assert_eq!(shown(""), "-");
    }
}
