//! A status badge as SVG: which image, and how its newest run ended.
//!
//! The same text for the local console and for the function URL, and nothing linked: no fonts are
//! measured, so that widths are those of Verdana, which browsers have or have something like.

use std::fmt;

/// What is served as, for the `Content-Type` header.
pub const MEDIA_TYPE: &str = "image/svg+xml; charset=utf-8";

/// Longer labels are cut, in characters: a badge stands in a line of text.
const LABEL_CHARS_MAX: usize = 64;
/// The height, in pixels.
const HEIGHT: u32 = 20;
/// What stands left and right of a text, in pixels.
const PADDING: u32 = 6;
/// The mark before the status, and the gap after it, in pixels.
const MARK: u32 = 14;

/// How the newest run of an image stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is published.
    Published,
    /// It failed, or ran out of time.
    Failed,
    /// It was stopped.
    Stopped,
    /// No run is over yet, and one is on its way.
    Running,
    /// There was none.
    NoRuns,
    /// There is no such image.
    Unknown,
}

impl State {
    /// What the badge says.
    pub fn text(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::NoRuns => "no runs",
            Self::Unknown => "unknown image",
        }
    }

    /// White text on each of these has a contrast of at least 4.5 to 1, as WCAG 2.2 wants it.
    fn color(self) -> &'static str {
        match self {
            Self::Published => "#1a7f37",
            Self::Failed => "#c5221f",
            Self::Running => "#0b63c4",
            Self::Stopped | Self::NoRuns | Self::Unknown => "#5f6670",
        }
    }

    /// A shape beside the colour, for those who do not see that: a path in a box of 10 by 10.
    fn mark(self) -> &'static str {
        match self {
            Self::Published => "M1.5 5.5l2.5 2.5 4.5-6",
            Self::Failed => "M2 2l6 6M8 2l-6 6",
            Self::Stopped => "M2 2h6v6h-6z",
            Self::Running => "M5 1a4 4 0 1 0 4 4",
            Self::NoRuns | Self::Unknown => "M2 5h6",
        }
    }
}

/// A badge; its `Display` is the SVG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Badge {
    label: String,
    state: State,
}

impl Badge {
    /// The badge of an image, and of one of its branches or tags where it is asked for.
    pub fn new(image: &str, git_ref: Option<&str>, state: State) -> Self {
        let label = match git_ref {
            Some(git_ref) => format!("{image} {git_ref}"),
            None => image.to_owned(),
        };
        // Control characters are no XML, whatever they are escaped as.
        let label = label.chars().map(|it| if it.is_control() { ' ' } else { it });
        let mut label: String = label.take(LABEL_CHARS_MAX + 1).collect();
        if label.chars().count() > LABEL_CHARS_MAX {
            label = label.chars().take(LABEL_CHARS_MAX - 1).chain(['…']).collect();
        }
        Self { label, state }
    }
}

impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (label, text) = (escaped(&self.label), self.state.text());
        let (label_length, text_length) = (width(&self.label), width(text));
        let left = label_length + 2 * PADDING;
        let right = MARK + text_length + 2 * PADDING;
        let (total, color, mark) = (left + right, self.state.color(), self.state.mark());
        let (mark_x, text_x) = (left + PADDING, left + PADDING + MARK);
        write!(
            f,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{HEIGHT}" role="img" aria-label="{label}: {text}"><title>{label}: {text}</title><clipPath id="r"><rect width="{total}" height="{HEIGHT}" rx="3"/></clipPath><g clip-path="url(#r)"><rect width="{left}" height="{HEIGHT}" fill="#3a4048"/><rect x="{left}" width="{right}" height="{HEIGHT}" fill="{color}"/></g><path transform="translate({mark_x} 5)" d="{mark}" fill="none" stroke="#fff" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"/><g fill="#fff" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11"><text x="{PADDING}" y="14" textLength="{label_length}">{label}</text><text x="{text_x}" y="14" textLength="{text_length}">{text}</text></g></svg>"##
        )
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The width of a text in Verdana at 11 pixels, roughly; `textLength` makes it exact.
fn width(text: &str) -> u32 {
    let tenths: u32 = text
        .chars()
        .map(|character| match character {
            'i' | 'j' | 'l' | '\'' | '|' => 31,
            'f' | 't' | 'r' | ' ' | '.' | ',' | ':' | ';' | '!' | '(' | ')' | '/' | '-' | 'I' => 45,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 101,
            'A'..='Z' | '_' | '…' => 78,
            _ if character.is_ascii() => 67,
            _ => 110,
        })
        .sum();
    tenths.div_ceil(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_image_ref_and_state_to_eyes_and_to_screen_readers() {
        let svg = Badge::new("hello", Some("main"), State::Failed).to_string();
        for part in [
            r#"role="img" aria-label="hello main: failed""#,
            "<title>hello main: failed</title>",
            ">hello main</text>",
            ">failed</text>",
            "#c5221f",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
    }

    #[test]
    fn a_name_from_git_is_text_and_never_markup() {
        let svg = Badge::new("a", Some("\"><script>&'\u{0}\n"), State::NoRuns).to_string();
        assert!(svg.contains("a &quot;&gt;&lt;script&gt;&amp;&#39;  "), "{svg}");
        assert!(!svg.contains("<script"), "{svg}");
        assert!(!svg.chars().any(char::is_control), "{svg}");
    }

    #[test]
    fn a_long_name_is_cut_and_the_widths_follow_the_texts() {
        let long = Badge::new(&"n".repeat(500), None, State::Running);
        assert_eq!(long.label.chars().count(), LABEL_CHARS_MAX);
        assert!(long.label.ends_with('…'));
        assert!(long.to_string().len() < 2_000);
        assert!(width("iii") < width("mmm"));
        let svg = Badge::new("hello", None, State::Published).to_string();
        let total = width("hello") + width("published") + 4 * PADDING + MARK;
        assert!(svg.contains(&format!(r#"width="{total}" height="20""#)), "{svg}");
    }

    #[test]
    fn every_state_has_a_text_and_a_shape_of_its_own_meaning() {
        let states = [
            State::Published,
            State::Failed,
            State::Stopped,
            State::Running,
            State::NoRuns,
            State::Unknown,
        ];
        for (index, state) in states.iter().enumerate() {
            for other in states.iter().skip(index + 1) {
                assert_ne!(state.text(), other.text());
            }
        }
        for (index, state) in states[..4].iter().enumerate() {
            assert!(states.iter().skip(index + 1).all(|other| other.mark() != state.mark()));
        }
    }
}
