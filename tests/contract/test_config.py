"""The config document: what is written can be read, restrictions are never lost, secrets never shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from llm_sidecar.contract.config import (
    MAX_DOCUMENT_BYTES,
    ClientCertificate,
    ConfigDocument,
    InvalidConfig,
    ProviderEntry,
    StoreEntry,
    TeamEntry,
    config_hash,
    parse_config,
    render_config,
)
from llm_sidecar.contract.resources import LLMProviderSpec, TeamQuotaSpec

KEY = "sk-very-secret"


def _spec(**fields: Any) -> LLMProviderSpec:
    return LLMProviderSpec.model_validate({"type": "OpenAI", "models": [{"name": "a"}]} | fields)


def _full() -> ConfigDocument:
    reference = {"name": "s", "key": "k"}
    return ConfigDocument(
        team=TeamEntry(
            namespace="payments",
            name="main",
            spec=TeamQuotaSpec.model_validate({"limits": [{"name": "daily", "per": "Day", "tokens": 5}]}),
        ),
        providers=(
            ProviderEntry(
                namespace="llm-system",
                name="openai",
                shared=True,
                spec=_spec(
                    credentials={"secretKeyRef": reference},
                    egress={"caBundleSecretRef": reference, "clientCertificateSecretRef": {"name": "c"}},
                ),
                credential=SecretStr(KEY),
                ca_bundle="PEM",
                client_certificate=ClientCertificate(certificate="PEM", private_key=SecretStr(KEY)),
            ),
            ProviderEntry(namespace="payments", name="openai", shared=False, spec=_spec()),
        ),
        store=StoreEntry(url=SecretStr(f"redis://:{KEY}@redis:6379/0")),
    )


def _document(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(render_config(_full()))
    return document | changes


def _parse(document: Any) -> ConfigDocument:
    return parse_config(json.dumps(document).encode())


def test_what_is_rendered_is_read_back_equal() -> None:
    assert parse_config(render_config(_full())) == _full()


def test_equal_documents_have_equal_bytes_and_hashes() -> None:
    once, again = render_config(_full()), render_config(parse_config(render_config(_full())))
    assert once == again
    assert config_hash(once) == config_hash(again)
    assert config_hash(once) != config_hash(once + b" ")


def test_the_rendered_document_holds_keys_in_the_clear_and_its_repr_does_not() -> None:
    assert KEY.encode() in render_config(_full())
    assert KEY not in repr(_full())


def test_a_shared_providers_label_is_its_name_and_anothers_has_the_namespace_before_it() -> None:
    shared, own = _full().providers
    assert (shared.label, own.label) == ("openai", "payments/openai")
    assert _full().team is not None
    assert _full().team.label == "payments/main"  # type: ignore[union-attr]


def test_a_newer_document_that_allows_our_version_is_read_and_its_unknown_fields_ignored() -> None:
    document = _document(schemaVersion=2, novelty={"a": 1})
    document["providers"][0]["spec"]["novelty"] = 1

    assert _parse(document).providers[0].label == "openai"


def test_a_document_that_needs_a_newer_reader_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"minimumReaderVersion: .* version 2.*newer llm-sidecar"):
        _parse(_document(schemaVersion=2, minimumReaderVersion=2))


def test_an_unknown_field_in_a_document_of_our_version_is_refused() -> None:
    document = _document()
    document["team"]["spec"]["limit"] = []

    with pytest.raises(InvalidConfig, match=r"team\.spec\.limit: unknown field\. Fix: did you mean limits\?"):
        _parse(document)


def test_the_python_spelling_of_a_field_is_unknown() -> None:
    with pytest.raises(InvalidConfig, match="schema_version"):
        _parse(_document(schema_version=1))


def test_the_versions_are_required() -> None:
    with pytest.raises(InvalidConfig) as caught:
        _parse({"providers": []})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["schemaVersion", "minimumReaderVersion"]


@pytest.mark.parametrize("version", ["1", 1.5, 0, True, None])
def test_an_odd_version_is_refused(version: Any) -> None:
    with pytest.raises(InvalidConfig, match="schemaVersion"):
        _parse(_document(schemaVersion=version))


@pytest.mark.parametrize(
    ("field", "path"),
    [("credential", "credential"), ("caBundle", "caBundle"), ("clientCertificate", "clientCertificate")],
)
def test_a_provider_that_lacks_what_its_spec_asks_for_is_refused(field: str, path: str) -> None:
    document = _document()
    del document["providers"][0][field]

    with pytest.raises(InvalidConfig, match=rf"providers\[0\]\.{path}: is missing"):
        _parse(document)


def test_two_providers_of_one_label_are_refused() -> None:
    document = _document()
    document["providers"][1]["shared"] = True

    with pytest.raises(InvalidConfig, match="providers: two providers have the same name"):
        _parse(document)


@pytest.mark.parametrize(
    "change",
    [
        {"credential": {"oops": KEY}},
        {"credential": [KEY]},
        {"clientCertificate": {"certificate": 5, "privateKey": {"a": KEY}}},
        {"spec": KEY},
        {"spec": {"type": KEY}},
        {"spec": {"type": "OpenAI", "streamUsage": KEY}},
        {"spec": {"type": "OpenAI", "baseURL": f"https://u:{KEY}@x"}},
        {"shared": KEY},
        {"namespace": KEY.upper()},
    ],
)
def test_no_error_quotes_a_value(change: dict[str, Any]) -> None:
    document = _document()
    document["providers"][0] |= change

    with pytest.raises(InvalidConfig) as caught:
        _parse(document)
    assert KEY not in str(caught.value)
    assert KEY.upper() not in str(caught.value)
    assert all("Fix: " in problem and problem.startswith("providers[0].") for problem in caught.value.problems)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"schemaVersion":1,"schemaVersion":2}',
        b"[" * 100_000,
        b'{"schemaVersion": NaN, "minimumReaderVersion": 1}',
        b" " * (MAX_DOCUMENT_BYTES + 1),
    ],
    ids=["empty", "cut", "list", "null", "text", "bytes", "twice", "deep", "nan", "huge"],
)
def test_what_is_no_config_is_refused_with_a_fix(raw: bytes) -> None:
    with pytest.raises(InvalidConfig, match="Fix: "):
        parse_config(raw)
