//! Timestamps as the states language has them.
//!
//! <https://states-language.net/spec.html#timestamps>

use jiff::Timestamp;

/// Reads an RFC 3339 timestamp. The `T` between date and time has to be there, in upper case,
/// which `jiff` alone does not insist on.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    (text.as_bytes().get(10) == Some(&b'T')).then(|| text.parse().ok()).flatten()
}

/// A time as the context object has it, to the millisecond.
pub(crate) fn format(timestamp: Timestamp) -> String {
    timestamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::{format, parse};

    #[test]
    fn reads_what_aws_reads_and_refuses_what_it_refuses() {
        for text in
            ["2016-03-14T01:59:00Z", "2016-03-05T21:29:29.243167252Z", "2016-03-14T01:59:00+01:00"]
        {
            assert!(parse(text).is_some(), "{text}");
        }
        for text in [
            "2016-12-05 21:29:29Z",
            "2016-12-05T25:29:29Z",
            "05-12-2016T21:29:29Z",
            "2016-12-05",
            "",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn writes_milliseconds() {
        let timestamp = parse("2016-03-05T21:29:29.243167252Z").unwrap();
        assert_eq!(format(timestamp), "2016-03-05T21:29:29.243Z");
        assert_eq!(format(parse("2016-03-05T21:29:29Z").unwrap()), "2016-03-05T21:29:29.000Z");
    }
}
