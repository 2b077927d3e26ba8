"""What a proxy counts and tells of its providers: against a store that remembers, with a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.config import ConfigDocument, ProviderEntry
from llm_sidecar.contract.provider_reports import (
    FAILURE_WORDS,
    MAX_REPORT_BYTES,
    ProviderReport,
    parse_report,
    render_report,
    window_at,
)
from llm_sidecar.contract.resources import LLMProviderSpec
from llm_sidecar.failover.circuit import EVIDENCE, Evidence
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.provider_reports import ProviderReports
from llm_sidecar.store import Reply, Script, StoreUnavailable


class Remembering:
    """A store that keeps what it was told, or is away."""

    def __init__(self) -> None:
        self.available = True
        self.fails = False
        self.calls: list[tuple[list[str], list[str | int | bytes]]] = []
        self.reply: Reply = [[], []]

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        await asyncio.sleep(0)
        if self.fails:
            raise StoreUnavailable("timeout")
        self.calls.append((list(keys), list(arguments)))
        return self.reply

    async def get(self, key: str) -> bytes | None:
        raise AssertionError(key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        raise AssertionError(keys)

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        raise AssertionError(key)

    async def close(self) -> None:
        """Nothing to close."""

    def told(self) -> dict[str, ProviderReport | None]:
        """The last report under each key."""
        found: dict[str, ProviderReport | None] = {}
        for keys, arguments in self.calls:
            raw = arguments[6 + int(arguments[5]) :]
            found |= {key: parse_report(one) for key, one in zip(keys[2:], raw, strict=True) if isinstance(one, bytes)}
        return found


class Clock:
    def __init__(self) -> None:
        self.now = 30_000.0

    def __call__(self) -> float:
        return self.now


def _document(*names: str) -> ConfigDocument:
    spec = LLMProviderSpec.model_validate({"type": "OpenAI", "models": [{"name": "m"}, {"name": "n"}]})
    entries = tuple(ProviderEntry(namespace="sys", name=name, shared=True, spec=spec) for name in names)
    return ConfigDocument(providers=entries)


class Proxy:
    """Reports of one proxy on a store of its own."""

    def __init__(self, *names: str) -> None:
        self.clock, self.store = Clock(), Remembering()
        self.hints: list[tuple[str, str]] = []
        self.reports = ProviderReports(
            on_hint=lambda provider, model: self.hints.append((provider, model)), clock=self.clock
        )
        self.reports.configure(_document(*(names or ("p",))), self.store)


KEY = "llm-sidecar:v1:{sys/p}:provider:reports:1000"


async def test_attempts_are_counted_and_told_in_one_report() -> None:
    proxy = Proxy()
    for milliseconds in (100, 300):
        proxy.reports.note("p", None, milliseconds)
    proxy.reports.note("p", FailureKind.TIMEOUT, 5000)
    await proxy.reports.flush()

    assert proxy.store.told() == {KEY: ProviderReport(answered=2, answered_milliseconds=400, failures={"timeout": 1})}


@pytest.mark.parametrize("kind", list(FailureKind))
async def test_each_failure_counts_by_what_it_says_about_the_provider(kind: FailureKind) -> None:
    proxy = Proxy()
    proxy.reports.note("p", kind, 10)
    await proxy.reports.flush()

    report = proxy.store.told().get(KEY)
    expected = {
        Evidence.BROKEN: ProviderReport(answered=0, answered_milliseconds=0, failures={str(kind): 1}),
        Evidence.WORKING: ProviderReport(answered=1, answered_milliseconds=10),
        Evidence.NONE: None,
    }
    assert report == expected[EVIDENCE[kind]]


def test_the_words_of_reports_are_the_failures_that_speak_against_a_provider() -> None:
    assert set(FAILURE_WORDS) == {str(kind) for kind, evidence in EVIDENCE.items() if evidence is Evidence.BROKEN}


async def test_nothing_new_is_told_once_and_an_idle_proxy_is_silent() -> None:
    proxy = Proxy()
    proxy.reports.note("p", None, 1)
    await proxy.reports.flush()
    await proxy.reports.flush()

    assert [len(keys) for keys, _ in proxy.store.calls] == [3, 2]
    proxy.clock.now += 61
    await proxy.reports.flush()
    assert len(proxy.store.calls) == 2


async def test_a_report_replaces_the_one_before_it_so_that_telling_twice_counts_once() -> None:
    proxy = Proxy()
    for _ in range(3):
        proxy.reports.note("p", None, 10)
        await proxy.reports.flush()

    assert proxy.store.told() == {KEY: ProviderReport(answered=3, answered_milliseconds=30)}


async def test_each_window_has_a_report_of_its_own() -> None:
    proxy = Proxy()
    proxy.reports.note("p", None, 10)
    await proxy.reports.flush()
    proxy.clock.now += 30
    await proxy.reports.flush()
    proxy.reports.note("p", None, 20)
    await proxy.reports.flush()

    assert [report.answered_milliseconds for report in proxy.store.told().values() if report] == [10, 20]


async def test_what_a_failing_store_did_not_take_is_told_again() -> None:
    proxy = Proxy()
    proxy.store.fails = True
    proxy.reports.note("p", None, 10)
    proxy.reports.opened("p", "m")
    await proxy.reports.flush()
    proxy.store.fails = False
    await proxy.reports.flush()

    assert proxy.store.told() == {KEY: ProviderReport(answered=1, answered_milliseconds=10)}
    assert proxy.store.calls[0][1][5:7] == [1, "m"]


async def test_with_the_store_away_for_long_only_the_last_windows_are_kept() -> None:
    proxy = Proxy()
    proxy.store.available = False
    for _ in range(200):
        proxy.reports.note("p", None, 10)
        proxy.reports.opened("p", "m")
        await proxy.reports.flush()
        proxy.clock.now += 10
    proxy.clock.now += 30
    proxy.store.available = True
    await proxy.reports.flush()

    assert proxy.store.calls[0][1][5] == 0, "old openings are no news"
    assert len(proxy.store.told()) <= 3
    assert sum(report.answered for report in proxy.store.told().values() if report) <= 9


async def test_without_a_store_nothing_happens() -> None:
    proxy = Proxy()
    proxy.reports.configure(_document("p"), None)
    proxy.reports.note("p", None, 10)
    await proxy.reports.flush()

    assert proxy.store.calls == []


async def test_counts_outlive_a_reload_of_the_configuration() -> None:
    proxy = Proxy()
    proxy.reports.note("p", None, 10)
    proxy.reports.configure(_document("p", "q"), proxy.store)
    proxy.reports.note("gone", None, 10)
    await proxy.reports.flush()

    assert proxy.store.told() == {KEY: ProviderReport(answered=1, answered_milliseconds=10)}


async def test_all_keys_of_one_call_are_in_one_slot() -> None:
    proxy = Proxy("p", "q")
    for name in ("p", "q"):
        proxy.reports.note(name, None, 10)
    await proxy.reports.flush()

    tags = [{key[key.index("{") : key.index("}")] for key in keys} for keys, _ in proxy.store.calls]
    assert tags == [{"{sys/p"}, {"{sys/q"}]


async def test_an_opening_elsewhere_is_a_hint_once_and_for_configured_models_only() -> None:
    proxy = Proxy()
    proxy.reports.note("p", None, 10)
    proxy.store.reply = [[b"m", b"no-such-model", b"\xff"], []]
    await proxy.reports.flush()
    proxy.store.reply = [[b"m"], []]
    await proxy.reports.flush()
    proxy.clock.now += 10
    proxy.store.reply = [[], [b"m"]]
    await proxy.reports.flush()

    assert proxy.hints == [("p", "m")]


async def test_a_proxy_takes_no_hint_from_itself() -> None:
    proxy = Proxy()
    proxy.reports.opened("p", "m")
    proxy.store.reply = [[b"m"], []]
    await proxy.reports.flush()
    await proxy.reports.flush()

    assert proxy.hints == []


@pytest.mark.parametrize("reply", [None, 1, b"x", [], [None, b"x"], [[1, None, []], []]])
async def test_an_odd_reply_is_no_hint(reply: Reply) -> None:
    proxy = Proxy()
    proxy.reports.note("p", None, 10)
    proxy.store.reply = reply
    await proxy.reports.flush()

    assert proxy.hints == []


@pytest.mark.looptime
async def test_the_background_task_tells_every_few_seconds_and_once_more_at_the_end() -> None:
    proxy = Proxy()
    proxy.reports.start()
    for _ in range(10):
        proxy.reports.note("p", None, 10)
        await asyncio.sleep(5)
    told = len(proxy.store.calls)
    proxy.reports.note("p", None, 10)
    await proxy.reports.close()

    assert 8 <= told <= 13
    assert proxy.store.told()[KEY] == ProviderReport(answered=11, answered_milliseconds=110)


counts = st.integers(min_value=0, max_value=2**53)


@given(counts, counts, st.dictionaries(st.sampled_from(sorted(FAILURE_WORDS)), counts))
def test_a_report_is_read_as_it_was_written_and_fits(
    answered: int, milliseconds: int, failures: dict[str, int]
) -> None:
    report = ProviderReport(answered=answered, answered_milliseconds=milliseconds, failures=failures)

    assert len(render_report(report)) <= MAX_REPORT_BYTES
    assert parse_report(render_report(report)) == report


@given(st.binary(max_size=600))
def test_any_bytes_are_a_report_or_none(raw: bytes) -> None:
    parse_report(raw)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"1e400",
        b"[" * 400,
        b'{"a":1}',
        b'{"a":-1,"ms":0,"f":{}}',
        b'{"a":true,"ms":0,"f":{}}',
        b'{"a":1.5,"ms":0,"f":{}}',
        b'{"a":9007199254740993,"ms":0,"f":{}}',
        b'{"a":1,"ms":0,"f":[]}',
        b'{"a":1,"ms":0,"f":{}}' + b" " * 600,
    ],
)
def test_what_is_no_report_is_not_read(document: bytes) -> None:
    assert parse_report(document) is None


def test_unknown_words_and_fields_are_left_out() -> None:
    known: dict[str, Any] = {"timeout": 2}

    assert parse_report(b'{"a":1,"ms":2,"f":{"timeout":2,"odd":3,"server":-1},"new":1}') == ProviderReport(
        answered=1, answered_milliseconds=2, failures=known
    )


def test_windows_follow_each_other() -> None:
    assert [window_at(seconds) for seconds in (0, 29.9, 30, 59.9, 60)] == [0, 0, 1, 1, 2]
