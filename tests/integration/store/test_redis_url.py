from __future__ import annotations

import pytest

from llm_sidecar.redis_url import InvalidStoreURL, parse_redis_url


def test_a_full_url_is_read() -> None:
    endpoint = parse_redis_url("redis://us%40er:p%3Ass@[::1]:7000/5")

    assert (endpoint.host, endpoint.port, endpoint.database) == ("::1", 7000, 5)
    assert (endpoint.username, endpoint.password) == ("us@er", "p:ss")
    assert endpoint.tls is None


def test_defaults_and_the_unix_socket() -> None:
    assert parse_redis_url("redis://store").port == 6379
    assert parse_redis_url("unix:///run/store.sock?db=2").path == "/run/store.sock"
    assert parse_redis_url("unix:///run/store.sock?db=2").database == 2
    assert parse_redis_url("rediss://store").tls is not None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://:hunter2@store", "must begin with"),
        ("redis://", "no host"),
        ("redis://user@store", "no password"),
        ("redis://:hunter2@store:99999", "no valid port"),
        ("redis://:hunter2@store/x", "names no database"),
        ("redis://:hunter2@store?colour=red", "'colour'"),
        ("redis://:hunter2@store?ssl_ca_certs=ca.pem", "rediss://"),
        ("rediss://:hunter2@store?ssl_ca_certs=/no/such/file", "No such file"),
        ("unix://", "no path"),
    ],
)
def test_a_wrong_url_says_what_to_do_and_never_repeats_the_password(url: str, message: str) -> None:
    with pytest.raises(InvalidStoreURL, match=message) as caught:
        parse_redis_url(url)
    assert "hunter2" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(parse_redis_url("redis://:hunter2@store"))
