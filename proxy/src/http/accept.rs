//! The `Accept` header (RFC 9110, section 12.5.1): which media types a client accepts.

use axum::http::{HeaderMap, header::ACCEPT};

/// A weight in thousandths.
type Quality = u16;

/// Whether the client asks for a stream of events by name, and prefers nothing else.
pub(crate) fn prefers_events(headers: &HeaderMap) -> bool {
    prefers(headers, "text", "event-stream")
}

/// Whether the client asks for bytes by name, and prefers nothing else.
pub(crate) fn prefers_bytes(headers: &HeaderMap) -> bool {
    prefers(headers, "application", "octet-stream")
}

/// Whether the client asks for this media type, which may have parameters, by name, and prefers nothing else.
pub(crate) fn prefers_type(headers: &HeaderMap, media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.split_once('/').is_some_and(|(kind, subtype)| prefers(headers, kind, subtype))
}

/// Whether the client names this media type and does not prefer JSON.
fn prefers(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let named = ranges(headers).filter(|range| range.is(kind, subtype)).map(|range| range.quality);
    let named = named.max().unwrap_or(0);
    named > 0 && named >= quality(headers, "application", "json")
}

/// Whether the client accepts this media type. Without the header, or if no part of it is well formed, it accepts every type.
pub(crate) fn takes(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    quality(headers, kind, subtype) > 0 || ranges(headers).next().is_none()
}

/// The weight of the most specific range that contains the media type; 0 if none does.
fn quality(headers: &HeaderMap, kind: &str, subtype: &str) -> Quality {
    let fitting =
        ranges(headers).filter_map(|range| Some((range.specificity(kind, subtype)?, range.quality)));
    fitting.max().map_or(0, |(_, quality)| quality)
}

#[derive(Clone, Copy)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: Quality,
}

impl Range<'_> {
    fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    fn specificity(&self, kind: &str, subtype: &str) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (_, "*") if self.kind.eq_ignore_ascii_case(kind) => Some(1),
            _ => self.is(kind, subtype).then_some(2),
        }
    }
}

/// The well-formed ranges. Parameters other than `q` are ignored.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = Range<'_>> {
    let lines = headers.get_all(ACCEPT).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(range)
}

fn range(text: &str) -> Option<Range<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/').filter(|(kind, subtype)| {
        let is_token = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
        is_token(kind) && is_token(subtype) && (*kind != "*" || *subtype == "*")
    })?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    Some(Range { kind, subtype, quality: weight.map_or(Some(1000), thousandths)? })
}

fn thousandths(weight: &str) -> Option<Quality> {
    let weight: f32 = weight.trim().parse().ok()?;
    (0.0..=1.0).contains(&weight).then_some((weight * 1000.0) as Quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn json_is_taken_unless_the_client_says_otherwise() {
        for good in [
            &[][..],
            &[""],
            &["nonsense"],
            &["*/*"],
            &["application/*"],
            &["Application/JSON;charset=utf-8"],
            &["text/html", "*/*;q=0.1"],
            &["text/html,application/json;q=0.5"],
        ] {
            assert!(takes(&accept(good), "application", "json"), "{good:?}");
        }
        for bad in [
            &["text/html"][..],
            &["application/xml"],
            &["application/json;q=0"],
            &["*/*, application/json; q=0"],
            &["text/*"],
        ] {
            assert!(!takes(&accept(bad), "application", "json"), "{bad:?}");
        }
    }

    #[test]
    fn bytes_must_be_named_and_weigh_no_less_than_json() {
        for good in [
            "application/octet-stream",
            "application/octet-stream, application/json",
            "*/*;q=0.5, Application/Octet-Stream",
        ] {
            assert!(prefers_bytes(&accept(&[good])), "{good}");
        }
        for bad in ["", "*/*", "application/*", "application/json, application/octet-stream;q=0.9"] {
            assert!(!prefers_bytes(&accept(&[bad])), "{bad}");
        }
    }

    #[test]
    fn any_media_type_can_be_asked_for_by_name() {
        let asks = |line, media_type| prefers_type(&accept(&[line]), media_type);
        assert!(asks("image/png, application/json;q=0.5", "image/png"));
        assert!(asks("Text/Plain", "text/plain; charset=utf-8"));
        for line in ["image/*", "*/*", "image/png;q=0.5, application/json", "application/json"] {
            assert!(!asks(line, "image/png"), "{line}");
        }
    }

    #[test]
    fn events_must_be_named() {
        for good in [
            "text/event-stream",
            "text/event-stream, */*",
            "application/json;q=0.5, text/event-stream",
            "Text/Event-Stream;q=0.1",
        ] {
            assert!(prefers_events(&accept(&[good])), "{good}");
        }
        for bad in [
            "",
            "*/*",
            "text/*",
            "application/json",
            "application/json, text/event-stream;q=0.9",
            "text/event-stream;q=0",
        ] {
            assert!(!prefers_events(&accept(&[bad])), "{bad}");
        }
    }
}
