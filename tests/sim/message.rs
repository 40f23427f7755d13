//! SIP messages as the simulated peers know them: text, read and written by their own code.
//!
//! Nothing here is shared with the server: a mistake would have to be made twice to go unseen.

use std::fmt;

/// A SIP message, header values without the white space around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Msg {
    /// Request line or status line.
    pub(crate) start: String,
    /// Names as written, values as bytes.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// What follows the empty line.
    pub(crate) body: Vec<u8>,
}

const COMPACT: [(&str, &str); 12] = [
    ("v", "via"),
    ("f", "from"),
    ("t", "to"),
    ("i", "call-id"),
    ("m", "contact"),
    ("l", "content-length"),
    ("c", "content-type"),
    ("s", "subject"),
    ("k", "supported"),
    ("e", "content-encoding"),
    ("o", "event"),
    ("r", "refer-to"),
];

/// True when `written` is the header `name`, in full or in compact form.
pub(crate) fn is_header(written: &str, name: &str) -> bool {
    written.eq_ignore_ascii_case(name)
        || (written.len() == 1
            && COMPACT.iter().any(|(short, long)| {
                short.eq_ignore_ascii_case(written) && long.eq_ignore_ascii_case(name)
            }))
}

impl Msg {
    /// A request without headers.
    pub(crate) fn request(method: &str, uri: &str) -> Self {
        Self { start: format!("{method} {uri} SIP/2.0"), ..Self::default() }
    }

    /// A response without headers.
    pub(crate) fn response(status: u16, reason: &str) -> Self {
        Self { start: format!("SIP/2.0 {status} {reason}"), ..Self::default() }
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.add(name, value);
        self
    }

    /// The same with this body; an empty type adds no header.
    pub(crate) fn with_body(mut self, content_type: &str, body: &[u8]) -> Self {
        if !content_type.is_empty() {
            self.add("Content-Type", content_type);
        }
        self.body = body.to_vec();
        self
    }

    /// Adds a header at the end.
    pub(crate) fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
    }

    /// True for a response.
    pub(crate) fn is_response(&self) -> bool {
        self.start.starts_with("SIP/2.0 ")
    }

    /// Status of a response, 0 for a request.
    pub(crate) fn status(&self) -> u16 {
        if !self.is_response() {
            return 0;
        }
        self.start.get(8..11).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Method of a request, or that of the CSeq of a response.
    pub(crate) fn method(&self) -> &str {
        if self.is_response() { self.cseq().1 } else { self.start.split(' ').next().unwrap_or("") }
    }

    /// Request-URI of a request.
    pub(crate) fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    /// First value of a header, as it was written.
    pub(crate) fn raw(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| is_header(key, name)).map(|(_, value)| &value[..])
    }

    /// First value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.raw(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// First value of a header, empty when there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.header(name).unwrap_or("")
    }

    /// How often a header is there.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(key, _)| is_header(key, name)).count()
    }

    /// All values of a header that may be a list, in order, split at commas.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        for (key, value) in &self.headers {
            if is_header(key, name) {
                split_list(&String::from_utf8_lossy(value), &mut values);
            }
        }
        values
    }

    /// Number and method of CSeq; 0 and nothing when it cannot be read.
    pub(crate) fn cseq(&self) -> (u32, &str) {
        let mut parts = self.text("CSeq").split_whitespace();
        let number = parts.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        (number, parts.next().unwrap_or(""))
    }

    /// Branch of the topmost Via.
    pub(crate) fn branch(&self) -> String {
        let top = self.list("Via").into_iter().next().unwrap_or_default();
        param(&top, "branch").unwrap_or_default()
    }

    /// Tag of From.
    pub(crate) fn tag_of_from(&self) -> String {
        tag(self.text("From")).unwrap_or_default()
    }

    /// Tag of To; empty when there is none.
    pub(crate) fn tag_of_to(&self) -> String {
        tag(self.text("To")).unwrap_or_default()
    }

    /// A header that the simulation itself put there, as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name).and_then(|value| value.parse().ok())
    }

    /// Bytes to send; adds Content-Length.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.spelled(Spelling::Plain)
    }

    /// Bytes to send, spelled as a stack of this kind would.
    pub(crate) fn spelled(&self, spelling: Spelling) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.body.len());
        out.extend_from_slice(self.start.as_bytes());
        out.extend_from_slice(b"\r\n");
        let mut put = |name: &str, value: &[u8]| {
            match spelling {
                Spelling::Plain => out.extend_from_slice(name.as_bytes()),
                Spelling::Compact => {
                    let short = COMPACT.iter().find(|(_, long)| long.eq_ignore_ascii_case(name));
                    out.extend_from_slice(short.map_or(name, |(short, _)| short).as_bytes());
                }
                Spelling::Shouted => out.extend_from_slice(name.to_ascii_uppercase().as_bytes()),
                Spelling::Spaced => out.extend_from_slice(format!("{name} ").as_bytes()),
            }
            out.extend_from_slice(if spelling == Spelling::Compact { b":" } else { b": " });
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        for (name, value) in &self.headers {
            put(name, value);
        }
        put("Content-Length", self.body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }

    /// Reads one whole message, strictly.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let head_len = find(bytes, b"\r\n\r\n").ok_or("no end of the head")?;
        let mut lines = split_lines(&bytes[..head_len + 2])?.into_iter();
        let start = lines.next().ok_or("no start line")?;
        let start = String::from_utf8(start.to_vec()).map_err(|_| "start line is not text")?;
        let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
        for line in lines {
            if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
                let (_, value) = headers.last_mut().ok_or("folded start line")?;
                value.push(b' ');
                value.extend_from_slice(line.trim_ascii());
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or("header without colon")?;
            let name = std::str::from_utf8(line[..colon].trim_ascii_end())
                .map_err(|_| "header name is not text")?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(format!("bad header name {name:?}"));
            }
            headers.push((name.to_owned(), line[colon + 1..].trim_ascii().to_vec()));
        }
        let body = bytes[head_len + 4..].to_vec();
        let msg = Self { start, headers, body };
        if msg.count("Content-Length") != 1 {
            return Err(format!("{} Content-Length headers", msg.count("Content-Length")));
        }
        if msg.number("Content-Length") != Some(msg.body.len() as u64) {
            return Err(format!(
                "Content-Length {} but {} bytes",
                msg.text("Content-Length"),
                msg.body.len()
            ));
        }
        if msg.is_response() && !(100..700).contains(&msg.status()) {
            return Err(format!("bad status line {:?}", msg.start));
        }
        if !msg.is_response() && msg.start.split(' ').count() != 3 {
            return Err(format!("bad request line {:?}", msg.start));
        }
        for name in ["From", "To", "Call-ID", "CSeq"] {
            if msg.count(name) != 1 {
                return Err(format!("{} {name} headers", msg.count(name)));
            }
        }
        Ok(msg)
    }
}

impl fmt::Display for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_response() {
            write!(f, "{} ({})", self.start.trim_start_matches("SIP/2.0 "), self.text("CSeq"))
        } else {
            write!(f, "{} ({})", self.start.trim_end_matches(" SIP/2.0"), self.cseq().0)
        }?;
        write!(f, " id={}", self.text("Call-ID"))
    }
}

/// How a stack spells header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// `Call-ID: x`.
    Plain,
    /// `i:x`.
    Compact,
    /// `CALL-ID: x`.
    Shouted,
    /// `Call-ID : x`.
    Spaced,
}

/// Position of `needle` in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += haystack[at..].iter().position(|byte| *byte == needle[0])?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

fn split_lines(head: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    for line in head.split(|byte| *byte == b'\n') {
        match line.split_last() {
            Some((b'\r', line)) if !line.iter().any(|byte| matches!(byte, b'\r' | 0)) => {
                lines.push(line);
            }
            None => {}
            Some(_) => return Err("bare CR, LF or NUL in the head".to_owned()),
        }
    }
    Ok(lines)
}

fn split_list(text: &str, values: &mut Vec<String>) {
    let (mut quoted, mut angled, mut start) = (false, false, 0);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '<' if !quoted => angled = true,
            '>' if !quoted => angled = false,
            ',' if !quoted && !angled => {
                values.push(text[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    values.push(text[start..].trim().to_owned());
}

/// A parameter of a header value such as Via.
pub(crate) fn param(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// The tag of a From or To value.
pub(crate) fn tag(value: &str) -> Option<String> {
    let params = value.rfind('>').map_or(value, |end| &value[end..]);
    param(params, "tag")
}

/// The URI of a From, To, Contact or Route value.
pub(crate) fn uri(value: &str) -> &str {
    match (value.find('<'), value.find('>')) {
        (Some(open), Some(close)) if open < close => &value[open + 1..close],
        _ => value.split(';').next().unwrap_or("").trim(),
    }
}

/// Host and port of a SIP URI, as written.
pub(crate) fn host_port(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let rest = rest.split([';', '?']).next().unwrap_or("");
    rest.rsplit('@').next().unwrap_or("")
}

/// A stream cut into messages by Content-Length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    bytes: Vec<u8>,
}

impl Stream {
    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next whole message out.
    pub(crate) fn next_message(&mut self) -> Option<Vec<u8>> {
        let skip = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.bytes.drain(..skip);
        let head_len = find(&self.bytes, b"\r\n\r\n")? + 4;
        let body_len = self.bytes[..head_len]
            .split(|byte| *byte == b'\n')
            .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
            .find(|(name, _)| is_header(name.trim(), "Content-Length"))
            .and_then(|(_, value)| value.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if self.bytes.len() < head_len + body_len {
            return None;
        }
        Some(self.bytes.drain(..head_len + body_len).collect())
    }
}
