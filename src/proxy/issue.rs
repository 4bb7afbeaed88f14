//! Handing a session to a client, and to nobody else.

use crate::message::Fields;
use crate::message::name::{CACHE_CONTROL, SET_COOKIE};
use crate::upstream::list::members;

/// Adds an issued cookie to an answer and keeps shared caches from storing it: one that did would
/// hand one session to everybody.
///
/// What the upstream says about private caches stays, and `no-store` above all.
pub fn issue(fields: &mut Fields, cookie: &[u8]) {
    fields.append(&SET_COOKIE, cookie);
    if let Some(value) = kept_from_others(fields) {
        fields.insert(&CACHE_CONTROL, &value);
    }
}

/// The `Cache-Control` with which no shared cache stores the answer, if it is another than its own.
fn kept_from_others(fields: &Fields) -> Option<Vec<u8>> {
    let lines = fields.get_all(&CACHE_CONTROL);
    let lines = lines.filter(|line| line.is_ascii());
    let directives = lines.flat_map(members);
    let is_kept = |directive: &[u8]| {
        // `private="field"` lets a shared cache store the rest, so only the bare word counts.
        directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store")
    };
    let is_for_others = |directive: &[u8]| {
        let name = directive.split(|byte| *byte == b'=').next();
        let name = name.unwrap_or(directive).trim_ascii();
        name.eq_ignore_ascii_case(b"public") || name.eq_ignore_ascii_case(b"s-maxage")
    };
    let mut value = b"private".to_vec();
    for directive in directives {
        if is_kept(directive) {
            return None;
        }
        if !is_for_others(directive) {
            value.extend_from_slice(b", ");
            value.extend_from_slice(directive);
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&'static str]) -> Vec<String> {
        let mut fields = Fields::default();
        for line in lines {
            fields.append(&CACHE_CONTROL, line.as_bytes());
        }
        issue(&mut fields, b"a=b");
        assert_eq!(fields.get(&SET_COOKIE), Some(&b"a=b"[..]));
        let lines = fields.get_all(&CACHE_CONTROL);
        lines
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn no_shared_cache_may_store_a_session() {
        assert_eq!(after(&[]), ["private"]);
        assert_eq!(
            after(&["public, max-age=60", "s-maxage=600"]),
            ["private, max-age=60"]
        );
        assert_eq!(
            after(&["private=\"set-cookie\", max-age=1"]),
            ["private, private=\"set-cookie\", max-age=1"]
        );
    }

    #[test]
    fn what_nobody_may_store_stays_so() {
        for lines in [
            &["no-cache, No-Store, must-revalidate"][..],
            &["no-cache", "no-store"],
            &["private, max-age=0"],
        ] {
            assert_eq!(after(lines), lines);
        }
    }
}
