//! Reads the text of an HTML page, well enough to index it.
//!
//! Not a browser: tags go, and with them the contents of `script`, `style`, `nav`, `svg` and `template`; character
//! references become characters; everything else is text. Malformed markup is read as far as it makes sense and never
//! refused.
//!
//! Invariant: the text has as many line feeds as the page, at the same places, so a line of the text is the same line
//! of the page.

use super::layout::PARAGRAPH_SEPARATOR;

/// Elements whose contents are not the text of a page.
const SKIPPED: &[&str] = &["script", "style", "nav", "svg", "template"];

/// Elements that run on within a line of text; all others end one.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "code", "em", "i", "kbd", "mark", "q", "s", "samp", "small", "span", "strong", "sub",
    "sup", "u", "var", "wbr",
];

/// Returns the text of an HTML page. Block elements that share a line are separated by U+2029; a heading with a line to
/// itself is marked as in Markdown.
pub(crate) fn html_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len() / 2);
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = if rest.starts_with('&') { read_reference(rest, &mut text) } else { read_markup(rest, &mut text) };
    }
    text.push_str(rest);
    text
}

/// Returns the title of an HTML page, if its beginning has one.
pub(super) fn html_title(html: &str) -> Option<String> {
    /// How far a title is looked for, in bytes.
    const MAX_HEAD_BYTES: usize = 64 << 10;
    let head = &html.as_bytes()[..html.len().min(MAX_HEAD_BYTES)];
    let tag = head.windows(6).position(|bytes| bytes.eq_ignore_ascii_case(b"<title"))?;
    let start = tag + end_of_tag(&html[tag..]);
    let title = &html[start..end_of_element(html, start, "title")];
    let title = html_text(title).split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then_some(title)
}

/// Reads a comment or a tag, and all of an element whose contents are skipped. Returns what follows.
fn read_markup<'a>(markup: &'a str, text: &mut String) -> &'a str {
    if markup.starts_with("<!--") {
        return skip(markup, end_of(markup, "-->"), text);
    }
    let name_start = if markup.starts_with("</") { 2 } else { 1 };
    let name_len = markup[name_start..].bytes().take_while(u8::is_ascii_alphanumeric).count();
    let name = &markup[name_start..name_start + name_len];
    if name.is_empty() && !markup.starts_with("<!") && !markup.starts_with("<?") {
        // "a < b": not a tag.
        text.push('<');
        return &markup[1..];
    }
    let matches = |known: &&str| known.eq_ignore_ascii_case(name);
    let mut end = end_of_tag(markup);
    if name_start == 1 && SKIPPED.iter().any(&matches) && !markup[..end].ends_with("/>") {
        end = end_of_element(markup, end, name);
    }
    if name_start == 1
        && let Some(level) = heading_level(name)
        && has_line_to_itself(&markup[end..], text)
    {
        text.truncate(text.trim_end_matches([' ', '\t', PARAGRAPH_SEPARATOR]).len());
        text.extend(std::iter::repeat_n('#', level));
        text.push(' ');
    } else if !INLINE.iter().any(matches) && !text.ends_with(PARAGRAPH_SEPARATOR) {
        text.push(PARAGRAPH_SEPARATOR);
    }
    skip(markup, end, text)
}

fn heading_level(name: &str) -> Option<usize> {
    match name.as_bytes() {
        [b'h' | b'H', level @ b'1'..=b'6'] => Some(usize::from(level - b'0')),
        _ => None,
    }
}

/// Whether the heading that begins at `contents` begins a line of the text and ends one of the page.
fn has_line_to_itself(contents: &str, text: &str) -> bool {
    let before = text.trim_end_matches([' ', '\t', PARAGRAPH_SEPARATOR]);
    let line = contents.lines().next().unwrap_or("");
    let ends =
        line.find("</h").is_some_and(|at| line[at..].trim_end().find('>') == Some(line[at..].trim_end().len() - 1));
    (before.is_empty() || before.ends_with('\n')) && ends
}

/// Drops `markup[..end]` but for its line feeds.
fn skip<'a>(markup: &'a str, end: usize, text: &mut String) -> &'a str {
    let (skipped, rest) = markup.split_at(end);
    text.extend(skipped.matches('\n'));
    rest
}

fn end_of(markup: &str, closing: &str) -> usize {
    markup.find(closing).map_or(markup.len(), |at| at + closing.len())
}

/// Index after the `>` of the tag, ignoring those in quoted attributes.
fn end_of_tag(markup: &str) -> usize {
    let mut quote = None;
    for (at, byte) in markup.bytes().enumerate() {
        match (byte, quote) {
            (b'>', None) => return at + 1,
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            _ => {}
        }
    }
    markup.len()
}

/// Index of the next `</name`, which is read as a tag of its own.
fn end_of_element(markup: &str, from: usize, name: &str) -> usize {
    let mut at = from;
    while let Some(found) = markup[at..].find("</") {
        at += found;
        if markup.as_bytes().get(at + 2..at + 2 + name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes())) {
            return at;
        }
        at += 2;
    }
    markup.len()
}

/// Reads a character reference, or an ampersand that begins none. Returns what follows.
fn read_reference<'a>(rest: &'a str, text: &mut String) -> &'a str {
    /// The longest reference read, "&#x10FFFF;", and then some.
    const MAX_REFERENCE_BYTES: usize = 12;
    let reference = rest.bytes().take(MAX_REFERENCE_BYTES).position(|b| b == b';').map(|end| &rest[1..end]);
    let character = reference.and_then(|reference| match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        "mdash" => Some('—'),
        "ndash" => Some('–'),
        "hellip" => Some('…'),
        "rsquo" => Some('’'),
        _ => numeric_reference(reference),
    });
    match (reference, character) {
        // A line feed by reference would be a line that the page does not have.
        (Some(reference), Some(character)) => {
            text.push(if character == '\n' { ' ' } else { character });
            &rest[reference.len() + 2..]
        }
        _ => {
            text.push('&');
            &rest[1..]
        }
    }
}

fn numeric_reference(reference: &str) -> Option<char> {
    let digits = reference.strip_prefix('#')?;
    let code = match digits.strip_prefix(['x', 'X']) {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
        None => digits.parse().ok()?,
    };
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(html: &str) -> String {
        html_text(html).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tags_scripts_and_comments_go() {
        let page = "<!doctype html><title>T</title><SCRIPT>if (a < b) '</p>'</script ><style>p{}</style>\
                    <nav><a>menu</a></nav><p title=\"a > b\">one <b>tw</b>o<!-- <p> no --><br/>three";
        assert_eq!(words(page), "T one two three");
    }

    #[test]
    fn references_become_characters() {
        assert_eq!(
            words("&lt;T&gt; &amp;amp; &#65;&#x42; &unknown; & &#xFFFFFFFF; a&#10;b"),
            "<T> &amp; AB &unknown; & &#xFFFFFFFF; a b"
        );
    }

    #[test]
    fn text_that_only_looks_like_markup_stays() {
        assert_eq!(words("a < b <= c"), "a < b <= c");
        assert_eq!(words("cut <p"), "cut");
    }

    #[test]
    fn blocks_are_separated_and_spans_are_not() {
        assert_eq!(html_text("<li>a</li><li>b<i>c</i></li>"), "\u{2029}a\u{2029}b\u{2029}".replace("b", "bc"));
    }

    #[test]
    fn headings_with_a_line_to_themselves_are_marked() {
        let page =
            "<main>\n  <h2 id=\"x\"><a href=\"#x\">Stop &amp; go</a></h2>\n<p>text <h3>no</h3> more\n<h1>no</h1> more";
        let lines: Vec<String> = html_text(page).lines().map(|line| line.replace(PARAGRAPH_SEPARATOR, "|")).collect();
        assert_eq!(lines, ["|", "## Stop & go|", "|text |no| more", "|no| more"]);
    }

    proptest! {
        #[test]
        fn line_feeds_are_kept(page in "([a-z<>/\"'&;#! \n-]|<p>|</script>|<script>|<!--|-->|&lt;|é){0,60}") {
            prop_assert_eq!(html_text(&page).matches('\n').count(), page.matches('\n').count());
        }
    }
}
