//! The commands that a Redis server executes, and their clients: from `MONITOR`, which shows the calls of scripts, too.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::RedisServer;

/// Collects commands until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    connection: TcpStream,
    seen: Arc<Mutex<Vec<Executed>>>,
}

/// A command that the server executed.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The client's address; for a call of a script, that of the script's caller.
    pub by: String,
    /// Whether a script called it.
    pub is_in_script: bool,
    /// The command and its arguments.
    pub words: Vec<String>,
    /// When, Unix time by the server's clock.
    pub at: Duration,
}

impl RedisServer {
    /// Watches what the server executes from now on.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        let mut connection = TcpStream::connect(self.addr()).expect("the server listens");
        let mut lines = BufReader::new(connection.try_clone().expect("a second handle")).lines();
        let mut ask = |command: &str| {
            connection.write_all(format!("{command}\r\n").as_bytes()).expect("the server reads");
            assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("+OK"));
        };
        if let Some(credentials) = self.options.credentials() {
            ask(&format!("AUTH {credentials}"));
        }
        ask("MONITOR");
        let seen = Arc::new(Mutex::new(Vec::<Executed>::new()));
        let collected = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut seen = collected.lock().expect("no panic while held");
                let caller = seen.last().map(|last| last.by.clone());
                seen.extend(parse(&line, caller.as_deref()));
            }
        });
        Monitor { connection, seen }
    }

    /// The addresses of the clients that are logged in as `user` now.
    #[must_use]
    pub fn clients_of(&self, user: &str) -> BTreeSet<String> {
        let list = self.cli(&["CLIENT", "LIST"]);
        let of_user = list.lines().filter(|line| line.contains(&format!(" user={user} ")));
        let address =
            |line: &str| line.split(' ').find_map(|field| field.strip_prefix("addr=")).map(str::to_owned);
        of_user.filter_map(address).collect()
    }
}

impl Monitor {
    /// The commands executed so far.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the list.
    #[must_use]
    pub fn executed(&self) -> Vec<Executed> {
        self.seen.lock().expect("no panic while held").clone()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.connection.shutdown(std::net::Shutdown::Both);
    }
}

/// The rights that these commands need: each command with each kind of key that it has, as in `HGET $job`. `kinds` are the
/// beginnings of keys and the names of their kinds.
#[must_use]
pub fn rights<'a>(
    commands: impl IntoIterator<Item = &'a [String]>,
    kinds: &[(String, &str)],
) -> BTreeSet<String> {
    let kind = |word: &String| kinds.iter().find(|(start, _)| word.starts_with(start)).map(|(_, kind)| *kind);
    let mut rights = BTreeSet::new();
    for words in commands {
        let Some(command) = words.first().map(|word| word.to_uppercase()) else { continue };
        let (name, arguments) = match (command.as_str(), words.get(1)) {
            // The keys of a script are in its calls.
            ("EVALSHA", _) => (command, &[][..]),
            ("XINFO" | "XGROUP" | "SCRIPT" | "ACL" | "CLIENT", Some(second)) => {
                (format!("{command} {}", second.to_uppercase()), &words[2..])
            }
            _ => (command, &words[1..]),
        };
        let mut keys = arguments.iter().filter_map(kind).peekable();
        if keys.peek().is_none() {
            rights.insert(name.clone());
        }
        rights.extend(keys.map(|kind| format!("{name} {kind}")));
    }
    rights
}

/// `+1339518083.107412 [0 127.0.0.1:60866] "hget" "key"`; a script's calls have `lua` in place of the address and follow
/// the call of the script.
fn parse(line: &str, caller: Option<&str>) -> Option<Executed> {
    let (time, rest) = line.split_once(" [")?;
    let at = Duration::try_from_secs_f64(time.trim_start_matches('+').parse().ok()?).ok()?;
    let (client, words) = rest.split_once("] ")?;
    let (_, address) = client.split_once(' ')?;
    let is_in_script = address == "lua";
    let by = if is_in_script { caller? } else { address };
    Some(Executed { by: by.to_owned(), is_in_script, words: unquoted(words), at })
}

fn unquoted(text: &str) -> Vec<String> {
    let (mut words, mut word, mut chars) = (Vec::new(), None::<String>, text.chars());
    while let Some(next) = chars.next() {
        match (next, &mut word) {
            ('"', None) => word = Some(String::new()),
            ('"', Some(_)) => words.extend(word.take()),
            ('\\', Some(word)) => word.extend(chars.next()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripts_calls_are_its_callers() {
        let line = r#"+1339518083.107412 [0 127.0.0.1:60866] "evalsha" "a \"b\"" "0""#;
        let script = parse(line, None).unwrap();
        assert_eq!(script.by, "127.0.0.1:60866");
        assert_eq!(script.words, ["evalsha", "a \"b\"", "0"]);
        assert!(!script.is_in_script);
        assert_eq!(script.at.as_secs(), 1_339_518_083);
        let call = parse(r#"+1339518083.107413 [0 lua] "hget" "k""#, Some(&script.by)).unwrap();
        assert!(call.is_in_script);
        assert_eq!((call.by, call.words), (script.by, vec!["hget".to_owned(), "k".to_owned()]));
    }
}
