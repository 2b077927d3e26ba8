"""What is counted, under labels of configured names only."""

from __future__ import annotations

from llm_sidecar.contract.names import RequestType
from llm_sidecar.formats.base import Usage
from llm_sidecar.metrics import Metrics
from llm_sidecar.record import Attempt, RequestRecord


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def answered() -> RequestRecord:
    record = RequestRecord("id", "ns/team", started=1.0)
    record.provider, record.model, record.type, record.status = "p", "m", RequestType.GENERATION, 200
    record.usage, record.usage_source, record.cache = Usage(7, 1, 2, 3, 1), "measured", "miss"
    return record


def test_a_request_is_counted_with_its_tokens_by_kind() -> None:
    metrics = Metrics()
    metrics.count(answered(), 2.0)
    metrics.count(answered(), 2.0)
    where = {"provider": "p", "model": "m", "team": "ns/team"}
    assert value(metrics, "llm_requests_total", status="200", type="generation", **where) == 2
    for kind, tokens in (("input", 14), ("cache_read", 2), ("cache_write", 4), ("output", 6), ("reasoning", 2)):
        assert value(metrics, "llm_tokens_total", kind=kind, **where) == tokens
    assert value(metrics, "llm_request_duration_seconds_sum", provider="p", type="generation") == 2.0
    assert value(metrics, "llm_usage_source_total", source="measured") == 2
    assert value(metrics, "llm_cache_requests_total", result="miss") == 2


def test_a_hit_saves_tokens_and_spends_none() -> None:
    metrics = Metrics()
    record = answered()
    record.cache = "hit"
    metrics.count(record, 2.0)
    assert value(metrics, "llm_cache_saved_tokens_total") == 13
    assert value(metrics, "llm_tokens_total", provider="p", model="m", team="ns/team", kind="input") is None


def test_each_step_from_provider_to_provider_is_counted_with_its_reason() -> None:
    metrics = Metrics()
    record = answered()
    record.attempts = [
        Attempt("a", "server", 500, 1),
        Attempt("b", "timeout", None, 1),
        Attempt("p", "answered", 200, 1),
    ]
    metrics.count(record, 2.0)
    assert value(metrics, "llm_failovers_total", **{"from": "a", "to": "b", "reason": "server"}) == 1
    assert value(metrics, "llm_failovers_total", **{"from": "b", "to": "p", "reason": "timeout"}) == 1


def test_a_refusal_is_counted_under_its_limit() -> None:
    metrics = Metrics()
    record = RequestRecord("id", "ns/team")
    record.refused_limit, record.status = "daily", 429
    metrics.count(record, record.started)
    assert value(metrics, "llm_quota_refusals_total", team="ns/team", limit="daily") == 1
    labels = {"provider": "none", "status": "429", "model": "other", "team": "ns/team", "type": "other"}
    assert value(metrics, "llm_requests_total", **labels) == 1


def test_the_time_to_the_first_content_is_told_for_streams() -> None:
    metrics = Metrics()
    record = answered()
    record.first_content = 1.5
    metrics.count(record, 2.0)
    assert value(metrics, "llm_time_to_first_token_seconds_sum", provider="p") == 0.5


def test_only_the_configuration_in_use_is_told() -> None:
    metrics = Metrics()
    metrics.degraded.labels("config").set(1)
    metrics.config_loaded("one")
    metrics.config_loaded("two")
    assert value(metrics, "llm_sidecar_config_info", hash="one") is None
    assert value(metrics, "llm_sidecar_config_info", hash="two") == 1
    assert value(metrics, "llm_sidecar_degraded", part="config") == 0


def test_the_exposition_is_text_that_prometheus_reads() -> None:
    text = Metrics().exposition().decode()
    assert "# TYPE llm_requests_total counter" in text
    assert 'llm_sidecar_degraded{part="store"} 0.0' in text
    assert "llm_sidecar_build_info" in text
