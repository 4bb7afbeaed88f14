//! Handing a session to a client, and to nobody else.

use http::{HeaderMap, HeaderValue, header};

/// Adds an issued cookie to an answer and keeps shared caches from storing it: one that did would
/// hand one session to everybody.
///
/// What the upstream says about private caches stays, and `no-store` above all.
pub fn issue(headers: &mut HeaderMap, cookie: HeaderValue) {
    headers.append(header::SET_COOKIE, cookie);
    let lines = headers.get_all(header::CACHE_CONTROL);
    let directives: Vec<String> = lines
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|directive| directive.trim().to_owned())
        .filter(|directive| !directive.is_empty())
        .collect();
    let is = |directive: &str, name: &str| {
        let named = directive.split('=').next().unwrap_or(directive).trim();
        named.eq_ignore_ascii_case(name)
    };
    // `private="field"` lets a shared cache store the rest, so only the bare word counts.
    let is_kept_from_others = directives.iter().any(|directive| {
        directive.eq_ignore_ascii_case("private") || directive.eq_ignore_ascii_case("no-store")
    });
    if is_kept_from_others {
        return;
    }
    let kept = directives
        .iter()
        .filter(|directive| !is(directive, "public") && !is(directive, "s-maxage"));
    let mut value = String::from("private");
    for directive in kept {
        value.push_str(", ");
        value.push_str(directive);
    }
    // Its parts were header values before, so the whole is one.
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&'static str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
        }
        issue(&mut headers, HeaderValue::from_static("a=b"));
        assert_eq!(headers[header::SET_COOKIE], "a=b");
        let lines = headers.get_all(header::CACHE_CONTROL).iter();
        lines
            .map(|line| line.to_str().unwrap().to_owned())
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
