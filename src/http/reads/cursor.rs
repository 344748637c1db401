//! Pages of a list: how many rows, behind which one. The place is a cursor, which means something here only.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ReadError;

/// Some rows, and where the next ones are.
#[derive(Clone, Debug)]
pub struct Page<Row> {
    /// In the list's order.
    pub rows: Vec<Row>,
    /// The cursor of the next page; none behind the last row.
    pub next: Option<String>,
}

impl<Row> Page<Row> {
    /// Of one row more than `limit`, if there are so many: that one only tells that there is a next page.
    pub(super) fn cut<Key: Serialize>(mut rows: Vec<Row>, limit: u32, key: impl Fn(&Row) -> Key) -> Page<Row> {
        let limit = limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(|last| encoded(&key(last)));
        Page { rows, next }
    }
}

/// Hexadecimal text of the key as JSON: it needs no escaping in a URL, and nobody takes it for something to write.
fn encoded(key: &impl Serialize) -> String {
    let json = serde_json::to_vec(key).unwrap_or_default();
    json.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key in a cursor, if there is one.
///
/// # Errors
/// It is no cursor of such a key.
pub(super) fn decoded<Key: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<Key>, ReadError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let pairs = cursor.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2 && !pair.starts_with('+')))
        .map(|pair| u8::from_str_radix(pair?, 16).ok())
        .collect();
    let key = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    // What goes into a question as text must be text for PostgreSQL, too.
    let is_clean = !cursor.contains("5c7530303030") && !cursor.contains("5C7530303030");
    key.filter(|_| is_clean).map(Some).ok_or_else(|| ReadError::Cursor(cursor.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_key_of_the_last_row_and_the_last_page_has_none() {
        let key = |row: &i64| (*row, format!("user-{row}"));
        let page = Page::cut(vec![1, 2, 3], 2, key);
        assert_eq!(page.rows, [1, 2]);
        let next = page.next.unwrap();
        assert!(next.bytes().all(|byte| byte.is_ascii_hexdigit()), "{next}");
        assert_eq!(decoded(Some(&next)).unwrap(), Some((2, "user-2".to_owned())));
        assert_eq!(Page::cut(vec![1, 2], 2, key).next, None);
        assert_eq!(decoded::<(i64, String)>(None).unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused() {
        let with_null = encoded(&(1, "a\0b"));
        for cursor in ["", "0", "zz", "+1+1", "7b7d", "é", "5b312c32", with_null.as_str()] {
            let error = decoded::<(i64, String)>(Some(cursor)).unwrap_err();
            assert!(matches!(error, ReadError::Cursor(_)), "{cursor}");
        }
    }
}
