//! Fields of INFO.

use redis::RedisError;

use super::RedisServer;

impl RedisServer {
    /// A field of INFO, as in `used_memory`; `None` if the server does not report it.
    #[must_use]
    pub fn info(&self, field: &str) -> Option<String> {
        self.try_info(field).unwrap_or_else(|error| panic!("INFO: {error}"))
    }

    /// The same for a server that may not answer.
    ///
    /// # Errors
    /// Why there is no reply.
    pub fn try_info(&self, field: &str) -> Result<Option<String>, RedisError> {
        let info = self.try_cli(&["INFO", "everything"])?;
        let value = |line: &str| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned);
        Ok(info.lines().find_map(|line| value(line.trim_end())))
    }

    /// How many times the server has run a command, as in `hget` or `xinfo|stream`.
    ///
    /// # Panics
    /// When the reply is not as expected.
    #[must_use]
    pub fn calls(&self, command: &str) -> u64 {
        self.command_stat(command, "calls")
    }

    /// A number that the server keeps of a command, as in `usec` or `rejected_calls`; 0 before its first call.
    ///
    /// # Panics
    /// When the reply is not as expected.
    #[must_use]
    pub fn command_stat(&self, command: &str, name: &str) -> u64 {
        let Some(stats) = self.info(&format!("cmdstat_{command}")) else { return 0 };
        let value = stats.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let number = value.and_then(|value| value.parse().ok());
        number.unwrap_or_else(|| panic!("no {name} of {command} in `{stats}`"))
    }
}
