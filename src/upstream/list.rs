//! Field values that are lists, such as `Connection` and `X-Forwarded-For`.
//!
//! Whoever reads one for themselves forgets that empty members count as absent, that the white space
//! around a member is none of it, or that a list may begin and end with a comma (RFC 9110 §5.6.1).
//! Here it is read once. Quotes mean nothing here: no list that the proxy decides by has any.

/// The members of a list, in their order.
pub fn members(list: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let members = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// Whether `wanted` is a member of a list, in whatever case.
pub fn has_member(list: &[u8], wanted: &[u8]) -> bool {
    members(list).any(|member| member.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_between_commas_and_empty_ones_are_absent() {
        for (list, expected) in [
            ("", &[][..]),
            (" ,\t,, ", &[]),
            ("close", &["close"]),
            (",close ,\tTE,, X-Mine , ", &["close", "TE", "X-Mine"]),
            ("a b,c;q=1", &["a b", "c;q=1"]),
        ] {
            let found: Vec<&[u8]> = members(list.as_bytes()).collect();
            let expected: Vec<&[u8]> = expected.iter().map(|member| member.as_bytes()).collect();
            assert_eq!(found, expected, "{list:?}");
            let mut backwards: Vec<&[u8]> = members(list.as_bytes()).rev().collect();
            backwards.reverse();
            assert_eq!(backwards, expected, "{list:?} from the right");
        }
    }

    #[test]
    fn a_member_is_found_whole_and_in_whatever_case() {
        assert!(has_member(b"keep-alive, Upgrade", b"upgrade"));
        assert!(!has_member(b"keep-alive, Upgrades", b"upgrade"));
        assert!(!has_member(b"", b""));
        assert!(!has_member(b",", b""));
    }
}
