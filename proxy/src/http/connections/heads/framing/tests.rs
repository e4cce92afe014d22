use super::*;

/// The result for these bytes, which must not depend on the pieces in which they arrive.
fn scan(text: &str) -> Result<(), (usize, Fault)> {
    let whole = Scanner::default().scan(text.as_bytes());
    for size in 1..text.len().min(40) {
        let mut scanner = Scanner::default();
        let mut pieces = text.as_bytes().chunks(size).enumerate();
        let found = pieces.try_for_each(|(number, piece)| {
            scanner.scan(piece).map_err(|(at, fault)| (number * size + at, fault))
        });
        assert_eq!(found, whole, "in pieces of {size}: {text:?}");
    }
    whole
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A head with these lines.
fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn line_feeds_are_looked_at_in_heads_only() {
    let bodies = [
        post("content-length: 4\r\n") + "\n\n\n\n",
        post("Content-Length:4  \r\ncontent-length: 4\r\n") + "\n\n\n\n",
        post("TRANSFER-encoding:\t Chunked\r\n") + "2;x=y\r\n\n\n\r\nA \r\n0123\n56\n89\r\n0\r\n\r\n",
        post("content-length: 1\r\ntransfer-encoding: chunked\r\n") + "1\r\n\n\r\n00\r\na: b\nc\r\n\r\n",
        format!("\r\n\r\n{GET}"),
    ];
    for message in bodies.iter().chain([&GET.to_owned()]) {
        let twice = message.repeat(2) + GET;
        assert_eq!(scan(&twice), Ok(()), "{twice:?}");
        let bad = format!("{twice}GET /x HTTP/1.1\r\nHost: a\n\r\n");
        assert_eq!(scan(&bad), Err((bad.len() - 3, Fault::BareLineFeed)), "{bad:?}");
    }
}

#[test]
fn a_line_feed_alone_is_found_wherever_it_is_in_a_head() {
    for (at, _) in GET.match_indices("\r\n") {
        let bad = format!("{}{}", &GET[..at], &GET[at + 1..]);
        assert_eq!(scan(&bad), Err((at, Fault::BareLineFeed)), "{bad:?}");
    }
    assert_eq!(scan(&format!("\n{GET}")), Err((0, Fault::BareLineFeed)));
}

#[test]
fn chunked_is_the_only_transfer_coding() {
    for other in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "", "xchunked", "chunked;q=1"] {
        let found = scan(&post(&format!("Transfer-Encoding: {other}\r\n")));
        assert!(matches!(found, Err((_, Fault::TransferCoding))), "{other}: {found:?}");
    }
    let twice = post(&"transfer-encoding: chunked\r\n".repeat(2));
    assert!(matches!(scan(&twice), Err((_, Fault::TransferCoding))));
    assert_eq!(scan(&post("x-transfer-encoding: gzip\r\nte: gzip\r\ntransfer-encodings: gzip\r\n")), Ok(()));
}

#[test]
fn behind_what_the_library_refuses_nothing_is_looked_at() {
    let lengths = ["-1", "+1", "1,1", "", "18446744073709551616", "1\r\ncontent-length: 2", "0x1"];
    for length in lengths {
        assert_eq!(scan(&(post(&format!("content-length: {length}\r\n")) + "\n")), Ok(()), "{length}");
    }
    for chunk in ["1\n", "1;\n", "11111111111111111\r\n", "ffffffffffffffff\r\n"] {
        assert_eq!(scan(&(post("transfer-encoding: chunked\r\n") + chunk + "\n\n")), Ok(()), "{chunk}");
    }
}

#[test]
fn a_long_line_costs_little_memory_and_a_long_framing_header_is_refused() {
    let mut scanner = Scanner::default();
    scanner.scan(b"GET / HTTP/1.1\r\ncookie: ").unwrap();
    for _ in 0..1000 {
        scanner.scan(&[b'a'; 100]).unwrap();
    }
    assert!(scanner.head.line.capacity() <= 2 * LONGEST_FRAMING);
    scanner.scan(b"\r\n\r\n").unwrap();
    assert!(scanner.head.line.is_empty() && !scanner.head.is_begun);

    scanner.scan(b"POST / HTTP/1.1\r\ncontent-length:").unwrap();
    scanner.scan(&[b' '; 300]).unwrap();
    assert_eq!(scanner.scan(b"1\r\n"), Err((2, Fault::Framing)));
}
