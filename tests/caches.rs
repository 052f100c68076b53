//! The cache's client against the test bed's Redis, over TLS.

use backout::{
    cache::{Cache, Error, Tls},
    secret::Sensitive,
};

use crate::{
    database::{
        access::{OTHER_CA, UNNAMED},
        ca,
    },
    support::bed::{redis, variable},
};

fn cache(host: &str, tls: Tls) -> Cache {
    let port = variable("BED_REDIS_TLS_PORT").parse().expect("a port is a number");
    Cache { host: host.to_owned(), port, db: 0, username: None, password: Some(Sensitive::new(variable("BED_REDIS_PASSWORD"))), tls }
}

#[tokio::test]
async fn only_a_trusted_redis_gets_the_password() {
    let named = variable("BED_REDIS_HOST");
    for (host, tls) in [
        (named.as_str(), Tls::VerifyIdentity { ca_pem: ca() }),
        (named.as_str(), Tls::VerifyCa { ca_pem: ca() }),
        (UNNAMED, Tls::VerifyCa { ca_pem: ca() }),
    ] {
        cache(host, tls.clone()).ping().await.unwrap_or_else(|error| panic!("{host} with {tls:?}: {error}"));
    }
    for (host, tls) in [
        (UNNAMED, Tls::VerifyIdentity { ca_pem: ca() }),
        (named.as_str(), Tls::VerifyIdentity { ca_pem: OTHER_CA.into() }),
        (named.as_str(), Tls::VerifyCa { ca_pem: OTHER_CA.into() }),
        (named.as_str(), Tls::VerifyIdentity { ca_pem: Vec::new() }),
        (named.as_str(), Tls::VerifyCa { ca_pem: Vec::new() }),
        (named.as_str(), Tls::VerifyCa { ca_pem: b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n".to_vec() }),
    ] {
        let result = cache(host, tls.clone()).ping().await;
        assert!(matches!(&result, Err(Error::Untrusted { .. })), "{host} with {tls:?}: {result:?}");
    }
}

#[tokio::test]
async fn keys_are_removed_by_prefix_over_tls() {
    for key in ["caches*:1", "caches*:2", "caches:3"] {
        redis(&["SET", key, "value"]).await;
    }
    let cache = cache(&variable("BED_REDIS_HOST"), Tls::VerifyIdentity { ca_pem: ca() });
    assert_eq!(cache.flush("caches*:").await.expect("the cache answers"), 2);
    assert_eq!(cache.flush("caches:").await.expect("the cache answers"), 1);
}

#[tokio::test]
async fn a_wrong_password_is_named_without_being_shown() {
    let wrong =
        Cache { password: Some(Sensitive::new("marker-0815")), ..cache(&variable("BED_REDIS_HOST"), Tls::VerifyCa { ca_pem: ca() }) };
    let error = wrong.ping().await.expect_err("the password is wrong");
    assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("marker"), "{error}");
}
