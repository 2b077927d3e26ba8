from __future__ import annotations

from pathlib import Path

import pytest

from llm_sidecar.contract.redis_url import InvalidStoreURL, parse_redis_url
from llm_sidecar.redis_cluster import ClusterStore
from llm_sidecar.redis_endpoint import RedisServers
from llm_sidecar.redis_kinds import make_store
from llm_sidecar.redis_sentinel import SentinelStore
from llm_sidecar.redis_store import RedisStore


def test_a_full_url_is_read() -> None:
    url = parse_redis_url("redis://us%40er:p%3Ass@[::1]:7000/5")

    assert (url.kind, url.addresses, url.database) == ("single", (("::1", 7000),), 5)
    assert (url.username, url.password) == ("us@er", "p:ss")
    assert not url.tls


def test_defaults_and_the_unix_socket() -> None:
    assert parse_redis_url("redis://store").addresses == (("store", 6379),)
    assert parse_redis_url("unix:///run/store.sock?db=2").socket_path == "/run/store.sock"
    assert parse_redis_url("unix:///run/store.sock?db=2").database == 2
    assert parse_redis_url("rediss://store").tls


def test_sentinels_are_read_with_their_masters_name_and_their_own_login() -> None:
    url = parse_redis_url("rediss+sentinel://app:pw@s1,s2:5000,[::3]:5001/main/4?sentinel_password=watch%20out")

    assert (url.kind, url.tls, url.master_name, url.database) == ("sentinel", True, "main", 4)
    assert url.addresses == (("s1", 26379), ("s2", 5000), ("::3", 5001))
    assert (url.username, url.password, url.sentinel_password) == ("app", "pw", "watch out")


def test_a_cluster_is_read_with_several_of_its_nodes() -> None:
    url = parse_redis_url("redis+cluster://:p@n1:7000,n2,[::3]")

    assert (url.kind, url.tls, url.password) == ("cluster", False, "p")
    assert url.addresses == (("n1", 7000), ("n2", 6379), ("::3", 6379))


def test_a_sentinel_has_its_own_login_or_none_and_that_of_the_servers_once_it_asks() -> None:
    own = RedisServers("redis+sentinel://:data@s/main?sentinel_username=u&sentinel_password=watch")
    same = RedisServers("redis+sentinel://:data@s/main")

    assert own.sentinel_at(("s", 1), logged_in=False).password == "watch"
    assert same.sentinel_at(("s", 1), logged_in=False).password is None
    assert same.sentinel_at(("s", 1), logged_in=True).password == "data"
    assert own.at(("r", 1)).password == same.at(("r", 1)).password == "data"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://:hunter2@store", "must begin with"),
        ("hunter2", "must begin with"),
        ("redis+https://:hunter2@store", "must begin with"),
        ("redis://", "no host"),
        ("redis://user@store", "no password"),
        ("redis://:hunter2@store:99999", "no valid port"),
        ("redis://:hunter2@store:0", "no valid port"),
        ("redis://:hunter2@one,two", "several hosts"),
        ("redis://:hunter2@store/x", "names no database"),
        ("redis://:hunter2@store?colour=red", "'colour'"),
        ("redis://:hunter2@store?ssl_ca_certs=ca.pem", "rediss"),
        ("redis://:hunter2@store?sentinel_password=p", "without Sentinel"),
        ("redis+sentinel://:hunter2@s", "names no master"),
        ("redis+sentinel://:hunter2@s/main?sentinel_username=u", "sentinel_password"),
        ("redis+sentinel://:hunter2@s,/main", "no host"),
        ("redis+cluster://:hunter2@n/3", "database 0"),
        ("unix://", "no path"),
    ],
)
def test_a_wrong_url_says_what_to_do_and_never_repeats_the_password(url: str, message: str) -> None:
    with pytest.raises(InvalidStoreURL, match=message) as caught:
        parse_redis_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "ca_bundle", "message"),
    [
        ("rediss://:hunter2@store?ssl_ca_certs=/no/such/file", None, "ssl_ca_certs.*No such file"),
        ("rediss://:hunter2@store?ssl_certfile=/no/such/file", None, "ssl_certfile"),
        ("rediss+cluster://:hunter2@store", "no certificate", "CA bundle cannot be read"),
        ("redis://:hunter2@store", "-----BEGIN CERTIFICATE-----", "rediss"),
    ],
)
def test_tls_files_that_cannot_be_used_are_named(url: str, ca_bundle: str | None, message: str) -> None:
    with pytest.raises(InvalidStoreURL, match=message) as caught:
        RedisServers(url, ca_bundle=ca_bundle)
    assert "hunter2" not in str(caught.value)


def test_the_password_is_not_shown(tmp_path: Path) -> None:
    servers = RedisServers("redis+sentinel://:hunter2@store/main?sentinel_password=hunter2")

    assert "hunter2" not in repr(servers.url)
    assert "hunter2" not in repr(servers.at(("a", 1)))
    assert "hunter2" not in repr(servers.sentinel_at(("a", 1), logged_in=True))


def test_the_scheme_chooses_the_store() -> None:
    assert type(make_store("redis://h")) is RedisStore
    assert type(make_store("rediss+sentinel://h/main")) is SentinelStore
    assert type(make_store("redis+cluster://h")) is ClusterStore


@pytest.mark.parametrize("kind", [RedisStore, SentinelStore, ClusterStore])
def test_a_store_of_one_kind_refuses_the_url_of_another(kind: type[RedisStore | SentinelStore | ClusterStore]) -> None:
    urls = {RedisStore: "redis://h", SentinelStore: "redis+sentinel://h/main", ClusterStore: "redis+cluster://h"}

    for other in urls.keys() - {kind}:
        with pytest.raises(InvalidStoreURL):
            kind(urls[other])
