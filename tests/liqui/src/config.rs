//! Reads the environment once into typed settings. It never fails: what is missing or wrong becomes a
//! problem that `/health` reports, and the application serves without it.

use std::{net::SocketAddr, str::FromStr, time::Duration};

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);

#[derive(Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Absent when one of its variables is missing or wrong.
    pub database: Option<DatabaseConfig>,
    pub redis: RedisConfig,
    /// How long aggregates are cached; zero caches nothing.
    pub cache_ttl: Duration,
    /// How long the list of symbols is cached; zero caches nothing.
    pub symbols_ttl: Duration,
    /// All variables that are missing or wrong, one sentence each, without their values.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub name: String,
    /// For the list of symbols and for inserts.
    pub query_timeout: Duration,
    /// For aggregates.
    pub long_query_timeout: Duration,
}

#[derive(Clone, Debug)]
pub enum RedisConfig {
    /// `REDIS_HOST=disabled`: healthy without a cache.
    Disabled,
    /// `REDIS_HOST` is missing: not healthy.
    Missing,
    At {
        host: String,
        port: u16,
        password: Option<String>,
    },
}

impl Config {
    /// Reads all settings through `lookup`, which answers the value of an environment variable.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let mut reader = Reader { lookup, problems: Vec::new() };
        let query_timeout = reader.seconds("QUERY_TIMEOUT_SECONDS", 30);
        let long_query_timeout = reader.seconds("LONG_QUERY_TIMEOUT_SECONDS", 60);
        let port = reader.parsed("DB_PORT", 3306);
        let parts =
            [reader.required("DB_HOST"), reader.required("DB_USER"), reader.required("DB_PASSWORD"), reader.required("DB_DATABASE")];
        let database = match parts {
            [Some(host), Some(user), Some(password), Some(name)] => {
                Some(DatabaseConfig { host, port, user, password, name, query_timeout, long_query_timeout })
            }
            _ => None,
        };
        Self {
            listen: reader.parsed("LISTEN", LISTEN),
            database,
            redis: reader.redis(),
            cache_ttl: reader.seconds("CACHE_TTL_SECONDS", 300),
            symbols_ttl: reader.seconds("CACHE_TTL_SYMBOLS", 3600),
            problems: reader.problems,
        }
    }
}

struct Reader<L> {
    lookup: L,
    problems: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    fn required(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        if value.is_none() {
            self.problems.push(format!("{name} is not set"));
        }
        value
    }

    fn parsed<T: FromStr>(&mut self, name: &str, default: T) -> T {
        let Some(text) = (self.lookup)(name) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            self.problems.push(format!("{name} has a wrong format"));
            default
        })
    }

    fn seconds(&mut self, name: &str, default: u32) -> Duration {
        Duration::from_secs(self.parsed(name, default).into())
    }

    fn redis(&mut self) -> RedisConfig {
        let port = self.parsed("REDIS_PORT", 6379);
        match self.required("REDIS_HOST") {
            None => RedisConfig::Missing,
            Some(host) if host == "disabled" => RedisConfig::Disabled,
            Some(host) => RedisConfig::At { host, port, password: (self.lookup)("REDIS_PASSWORD").filter(|password| !password.is_empty()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Config {
        Config::read(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn missing_variables_are_problems_and_not_an_error() {
        let config = read(&[("CACHE_TTL_SECONDS", "soon")]);
        assert!(config.database.is_none());
        assert!(matches!(config.redis, RedisConfig::Missing));
        assert_eq!(config.cache_ttl, Duration::from_secs(300));
        assert_eq!(
            config.problems,
            [
                "DB_HOST is not set",
                "DB_USER is not set",
                "DB_PASSWORD is not set",
                "DB_DATABASE is not set",
                "REDIS_HOST is not set",
                "CACHE_TTL_SECONDS has a wrong format",
            ]
        );
    }

    #[test]
    fn redis_can_be_disabled() {
        let config = read(&[
            ("DB_HOST", "mariadb"),
            ("DB_USER", "liqui"),
            ("DB_PASSWORD", ""),
            ("DB_DATABASE", "liqui"),
            ("REDIS_HOST", "disabled"),
        ]);
        assert!(config.problems.is_empty());
        assert!(config.database.is_some());
        assert!(matches!(config.redis, RedisConfig::Disabled));
    }
}
