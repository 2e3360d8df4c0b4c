//! A line of the prompt as words.
//!
//! Knows: blanks, both kinds of quotes, backslashes and `#` for remarks. Refuses to know: what the
//! words mean; nothing is expanded.

use base::{Error, Result};

/// The words of a line.
///
/// # Errors
/// `Invalid` (`mover.client.quote`) for a quote that is not closed.
pub fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(letter),
            (_, '\\') => word.get_or_insert_default().extend(letters.next()),
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(letter);
            }
            (None, '#') if word.is_none() => break,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(
            "mover.client.quote",
            "a quote is not closed",
        ));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_words() {
        let split = |line| words(line).unwrap();
        assert_eq!(split("  ls -l\n"), ["ls", "-l"]);
        assert_eq!(
            split(r#"cat "a b" 'c "d"' e\ f '' # remark"#),
            ["cat", "a b", "c \"d\"", "e f", ""]
        );
        assert_eq!(split("a#b"), ["a#b"]);
        assert_eq!(split("# all"), Vec::<String>::new());
        assert!(words("open \"x").is_err());
    }
}
