//! Tables in Markdown, and the numbers in them.

use std::fmt::{self, Write};

/// A table in Markdown, its columns aligned to be read as it is.
#[derive(Debug)]
pub(crate) struct Table {
    /// The columns of text, which begin on the left.
    text: &'static [usize],
    rows: Vec<Vec<String>>,
}

// ===== impl Table =====

impl Table {
    pub(crate) fn new(heads: &[&str], text: &'static [usize]) -> Self {
        Self { text, rows: vec![heads.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |at: usize| {
            self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (nth, row) in self.rows.iter().enumerate() {
            let mut line = String::from("|");
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match self.text.contains(&at) {
                    true => write!(line, " {cell:<width$} |")?,
                    false => write!(line, " {cell:>width$} |")?,
                }
            }
            writeln!(f, "{line}")?;
            if nth == 0 {
                let mut rule = String::from("|");
                for (at, &width) in widths.iter().enumerate() {
                    let end = if self.text.contains(&at) { '-' } else { ':' };
                    write!(rule, "-{:-<width$}{end}|", "")?;
                }
                writeln!(f, "{rule}")?;
            }
        }
        Ok(())
    }
}

// ===== Numbers =====

/// As many digits as mean something.
pub(crate) fn number(value: f64) -> String {
    match value {
        whole if whole.fract().abs() < 0.005 || whole >= 100.0 => grouped(whole.round()),
        small => format!("{small:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// To the second digit, or the fourth where there is nothing before it.
pub(crate) fn ratio(value: f64) -> String {
    match value {
        tiny if tiny < 0.01 => format!("{tiny:.4}"),
        value => format!("{value:.2}"),
    }
}

/// With its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        for (value, text) in [
            (0.0, "0"),
            (2.0, "2"),
            (2.345, "2.35"),
            (54.5, "54.5"),
            (89.998, "90"),
            (123.4, "123"),
            (71_234.0, "71 234"),
            (1_000_000.0, "1 000 000"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(ratio(0.254), "0.25");
        assert_eq!(ratio(0.0012), "0.0012");
    }

    #[test]
    fn columns_of_numbers_end_together() {
        let mut table = Table::new(&["", "ns"], &[0]);
        table.row(["bare".to_owned(), "2.3".to_owned()]);
        table.row(["a breaker".to_owned(), "1 234".to_owned()]);
        let expected = "\
|           |    ns |
|-----------|------:|
| bare      |   2.3 |
| a breaker | 1 234 |
";
        assert_eq!(table.to_string(), expected);
    }
}
