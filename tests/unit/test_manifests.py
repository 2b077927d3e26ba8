"""Manifests from files: found with their lines, checked against each other, assembled to one team's config."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trustme

from llm_sidecar.contract.config import ConfigDocument
from llm_sidecar.manifest_files import Severity, Unreadable
from llm_sidecar.manifests import Manifests, ManifestsRefused, assemble, load

TYPES = {"OpenAI", "Anthropic", "Google"}
KEY = "sk-very-secret"


def _provider(name: str = "openai", *, namespace: str = "team", spec: str = "") -> str:
    return f"""
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  type: OpenAI
  models: [{{name: gpt-5-mini}}]
{spec}"""


WITH_KEY = "  credentials: {secretKeyRef: {name: keys, key: openai}}\n"


def _quota(name: str = "default", *, namespace: str = "team", spec: str = "  limits: []") -> str:
    return f"""
apiVersion: llm-sidecar.io/v1alpha1
kind: TeamQuota
metadata: {{name: {name}, namespace: {namespace}}}
spec:
{spec}
"""


def _secret(body: str, *, annotation: str = "", name: str = "keys") -> str:
    annotations = f", annotations: {{llm-sidecar.io/from-env: {annotation!r}}}" if annotation else ""
    return f"""
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: team{annotations}}}
{body}
"""


def _load(tmp_path: Path, *documents: str, environment: dict[str, str] | None = None) -> Manifests:
    file = tmp_path / "manifests.yaml"
    file.write_text("---".join(documents), encoding="utf-8")
    return load([file], known_types=TYPES, environment=environment or {})


def _assemble(tmp_path: Path, *documents: str, team: str | None = None, **environment: str) -> ConfigDocument:
    manifests = _load(tmp_path, *documents, environment=environment)
    return assemble(manifests, team=team, store_url="redis://127.0.0.1:1", environment=environment)


def _said(manifests: Manifests) -> list[str]:
    return [str(problem).split("manifests.yaml:")[-1] for problem in manifests.problems]


class TestReading:
    def test_a_folder_is_read_with_all_its_manifests_in_order(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        (tmp_path / "b.yml").write_text(_provider("b"))
        (tmp_path / "deep" / "c.yaml").write_text(_provider("c"))
        (tmp_path / "a.json").write_text(
            '{"apiVersion": "llm-sidecar.io/v1alpha1", "kind": "LLMProvider", "metadata": {"name": "a"},'
            ' "spec": {"type": "OpenAI", "models": [{"name": "m"}]}}'
        )
        (tmp_path / "notes.txt").write_text("not a manifest")

        manifests = load([tmp_path], known_types=TYPES, environment={})

        assert [found.value.identity for found in manifests.providers] == ["default/a", "team/b", "team/c"]
        assert manifests.problems == ()

    def test_a_list_as_kubectl_prints_it_is_read_item_by_item(self, tmp_path: Path) -> None:
        manifests = _load(
            tmp_path,
            "apiVersion: v1\nkind: List\nitems:\n"
            "- apiVersion: llm-sidecar.io/v1alpha1\n  kind: LLMProvider\n"
            "  metadata: {name: a, uid: x, resourceVersion: '5', creationTimestamp: 2026-11-22T00:00:00Z}\n"
            "  spec:\n    type: OpenAI\n    wieght: 5\n    models: [{name: m}]\n  status: {conditions: []}\n",
        )
        assert _said(manifests) == ["9: spec.wieght: unknown field. Fix: did you mean weight?"]

    def test_what_looks_like_a_date_is_text(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _provider().replace("gpt-5-mini", "2026-11-22"))
        assert manifests.providers[0].value.spec.models[0].name == "2026-11-22"

    def test_a_merge_key_fills_in_and_may_be_overridden(self, tmp_path: Path) -> None:
        manifests = _load(
            tmp_path,
            _provider().replace("spec:\n", "spec:\n  <<: {priority: 5, weight: 7}\n  weight: 9\n"),
        )
        assert manifests.problems == ()
        assert (manifests.providers[0].value.spec.priority, manifests.providers[0].value.spec.weight) == (5, 9)

    def test_empty_documents_are_passed_over(self, tmp_path: Path) -> None:
        assert _load(tmp_path, "\n", _provider(), "\n# a comment\n").problems == ()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: [1, 2\nb: 3\n", "2: is not YAML"),
            ("a: b: c\n", "1: is not YAML"),
            ("- 1\n", "1: is not an object. Fix: write apiVersion, kind, metadata and spec"),
            ("text\n", "1: is not an object"),
            ("\x00", "1: is not YAML that can be read"),
            ("? [a]\n: 1\n", "1: is not YAML: a key must be text"),
            ("a: !!python/object:os.system 1\n", "1: is not YAML"),
            ("a: !!int x\n", "1: is not YAML: unreadable value"),
            ("a: *missing\n", "1: is not YAML"),
            ("a: &a [*a]\n", "1: is not YAML that can be read"),
            ("a: " + "[" * 1200, "1: is not YAML that can be read"),
            ("&a [x,x,x,x,x,x,x,x]\n", "1: is not an object"),
        ],
    )
    def test_what_is_no_manifest_is_a_problem_with_a_line(self, tmp_path: Path, text: str, said: str) -> None:
        (first,) = _said(_load(tmp_path, text))
        assert first.startswith(said)

    def test_a_few_lines_that_stand_for_a_billion_nodes_are_refused(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]

        assert "aliased without end" in _said(_load(tmp_path, "\n".join(lines)))[0]

    def test_a_broken_document_does_not_hide_those_before_it(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _provider(), "\na: [\n")
        assert len(manifests.providers) == 1
        assert len(manifests.errors) == 1

    def test_a_field_that_stands_twice_is_a_problem(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _provider(spec="  weight: 1\n  weight: 2\n"))
        (said,) = _said(manifests)
        assert said.startswith("9: spec.weight: stands here twice")

    def test_yaml_errors_quote_no_text_of_the_file(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _secret(f"stringData:\n  openai: {KEY}\n bad: [indentation"))
        assert manifests.errors
        assert KEY not in str(manifests.problems)

    @pytest.mark.parametrize("case", ["missing", "empty folder", "bytes", "huge"])
    def test_a_path_that_cannot_be_read_is_told(self, tmp_path: Path, case: str) -> None:
        path = tmp_path / "x.yaml"
        if case == "empty folder":
            path = tmp_path
        elif case == "bytes":
            path.write_bytes(b"\xff\xfe\xfa")
        elif case == "huge":
            with path.open("wb") as file:
                file.truncate(9 * 1024 * 1024)
        with pytest.raises(Unreadable, match=r"Fix: "):
            load([path], known_types=TYPES, environment={})


class TestKinds:
    def test_a_kind_of_another_group_is_noted_and_left_out(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", _provider())
        (note,) = manifests.problems
        assert note.severity is Severity.NOTE
        assert "Deployment of apps/v1 is not a kind that llm-sidecar reads" in str(note)
        assert manifests.errors == ()

    @pytest.mark.parametrize(
        ("kind", "fix"),
        [("LLMprovider", "did you mean LLMProvider?"), ("Budget", "write one of LLMProvider, TeamQuota")],
    )
    def test_an_unknown_kind_of_our_group_is_a_problem(self, tmp_path: Path, kind: str, fix: str) -> None:
        (said,) = _said(_load(tmp_path, f"apiVersion: llm-sidecar.io/v1alpha1\nkind: {kind}\n"))
        assert said == f"2: kind: unknown kind. Fix: {fix}"

    def test_another_version_of_our_group_is_a_problem(self, tmp_path: Path) -> None:
        (said,) = _said(_load(tmp_path, _provider().replace("v1alpha1", "v1")))
        assert said.startswith("2: apiVersion: unsupported value; supported are llm-sidecar.io/v1alpha1")

    @pytest.mark.parametrize("missing", ["kind", "apiVersion"])
    def test_a_document_without_kind_or_version_is_a_problem(self, tmp_path: Path, missing: str) -> None:
        text = "\n".join(line for line in _provider().splitlines() if not line.startswith(missing))
        (said,) = _said(_load(tmp_path, text))
        assert f"{missing}: required value. Fix: add it, such as {missing}: " in said

    def test_the_same_name_twice_is_a_problem_that_names_the_first(self, tmp_path: Path) -> None:
        (problem,) = _load(tmp_path, _provider(), _provider()).errors
        assert problem.message == f"LLMProvider team/openai is already at {problem.file}:2"

    def test_the_same_name_in_another_namespace_or_kind_is_fine(self, tmp_path: Path) -> None:
        documents = (_provider("a"), _provider("a", namespace="other"), _quota("a"))
        assert _load(tmp_path, *documents).problems == ()

    @pytest.mark.parametrize(
        ("written", "fix"),
        [("OpenAi", "did you mean OpenAI?"), ("Zzz", "write one of Anthropic, Google, OpenAI, or install")],
    )
    def test_a_type_that_is_not_registered_is_a_problem(self, tmp_path: Path, written: str, fix: str) -> None:
        (said,) = _said(_load(tmp_path, _provider().replace("type: OpenAI", f"type: {written}")))
        assert said.startswith(f"6: spec.type: no provider of this type is registered. Fix: {fix}")

    def test_a_provider_without_models_and_paths_is_a_problem(self, tmp_path: Path) -> None:
        (said,) = _said(_load(tmp_path, _provider().replace("  models: [{name: gpt-5-mini}]\n", "")))
        assert said.startswith("5: spec.models: the provider has no model")

    def test_a_provider_with_only_passthrough_paths_is_fine(self, tmp_path: Path) -> None:
        text = _provider().replace("models: [{name: gpt-5-mini}]", "passthroughPaths: [/v1/files]")
        assert _load(tmp_path, text).problems == ()

    def test_a_quota_that_names_an_unknown_provider_gets_a_warning(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _provider(), _quota(spec="  providers: [openai, opnai, team/openai, x/openai]"))
        said = "warning: no LLMProvider of this name is among these files. Fix: did you mean openai?"
        assert _said(manifests) == [f"13: spec.providers[{position}]: {said}" for position in (1, 3)]


class TestSecrets:
    def test_a_value_comes_from_string_data_before_data(self, tmp_path: Path) -> None:
        encoded = base64.b64encode(b"from-data").decode()
        secret = _secret(f"data: {{openai: {encoded}}}\nstringData: {{openai: {KEY}}}")
        assert _key(_assemble(tmp_path, _provider(spec=WITH_KEY), secret)) == KEY

    def test_a_value_in_base64_is_decoded_and_its_line_break_dropped(self, tmp_path: Path) -> None:
        encoded = base64.b64encode(f"{KEY}\n".encode()).decode()
        assert _key(_assemble(tmp_path, _provider(spec=WITH_KEY), _secret(f"data: {{openai: {encoded}}}"))) == KEY

    def test_one_variable_stands_for_whatever_key_is_asked_for(self, tmp_path: Path) -> None:
        documents = (_provider(spec=WITH_KEY), _secret("", annotation="MY_KEY"))
        assert _key(_assemble(tmp_path, *documents, MY_KEY=KEY)) == KEY

    def test_variables_may_be_named_by_key_and_others_come_from_the_data(self, tmp_path: Path) -> None:
        other = _provider("other", spec="  credentials: {secretKeyRef: {name: keys, key: other}}\n")
        secret = _secret("stringData: {other: plain}", annotation="openai=A, unused=B")
        document = _assemble(tmp_path, _provider(spec=WITH_KEY), other, secret, A=KEY)
        assert [entry.credential and entry.credential.get_secret_value() for entry in document.providers] == [
            KEY,
            "plain",
        ]

    def test_a_missing_secret_is_a_warning_for_check_and_an_end_for_run(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _provider(spec=WITH_KEY))
        (said,) = _said(manifests)
        assert said == (
            "8: spec.credentials.secretKeyRef.name: warning: no Secret keys of namespace team is among these files. "
            "Fix: add its manifest, or create it in the cluster"
        )
        with pytest.raises(ManifestsRefused, match="no Secret keys of namespace team"):
            assemble(manifests, environment={})

    def test_a_secret_of_another_namespace_does_not_count(self, tmp_path: Path) -> None:
        provider = _provider(namespace="other", spec=WITH_KEY)
        assert "namespace other" in _said(_load(tmp_path, provider, _secret(f"stringData: {{openai: {KEY}}}")))[0]

    def test_an_unset_variable_is_named(self, tmp_path: Path) -> None:
        documents = (_provider(spec=WITH_KEY), _secret("", annotation="MY_KEY"))
        assert (
            "MY_KEY, which the Secret keys names for it, is not set. Fix: export MY_KEY"
            in _said(_load(tmp_path, *documents))[0]
        )
        with pytest.raises(ManifestsRefused, match="export MY_KEY"):
            _assemble(tmp_path, *documents, MY_KEY=" ")

    def test_a_missing_key_is_a_problem_that_lists_the_keys(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _provider(spec=WITH_KEY), _secret(f"stringData: {{a: {KEY}, b: x}}"))
        (said,) = _said(manifests)
        assert said == (
            "8: spec.credentials.secretKeyRef.key: the Secret keys has no key openai, or an empty one. "
            "Fix: add it, or name one that it has (a, b)"
        )

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("data: {openai: sk-not-base64!}", "data.openai: is not base64 of UTF-8 text"),
            ("data: {openai: /////w==}", "data.openai: is not base64 of UTF-8 text"),
            ("stringData: {openai: 5}", "stringData.openai: must be text"),
            ("stringData: [a]", "stringData: must be an object"),
        ],
    )
    def test_a_value_that_cannot_be_read_is_a_problem(self, tmp_path: Path, body: str, said: str) -> None:
        found = _said(_load(tmp_path, _secret(body)))
        assert len(found) == 1
        assert said in found[0]
        assert "sk-not" not in found[0]

    @pytest.mark.parametrize("annotation", ["A=B=C", "1A", "A,B", "=A", "a=", "a b"])
    def test_an_odd_annotation_is_a_problem(self, tmp_path: Path, annotation: str) -> None:
        (said,) = _said(_load(tmp_path, _secret("", annotation=annotation)))
        assert "does not name environment variables. Fix: write VARIABLE, or KEY=VARIABLE" in said

    def test_a_key_that_no_header_can_hold_is_a_problem(self, tmp_path: Path) -> None:
        manifests = _load(tmp_path, _provider(spec=WITH_KEY), _secret(f'stringData: {{openai: "{KEY}\\n{KEY}"}}'))
        (said,) = _said(manifests)
        assert "cannot be sent in a header" in said
        assert KEY not in said

    def test_a_secret_without_a_name_is_a_problem(self, tmp_path: Path) -> None:
        (said,) = _said(_load(tmp_path, "apiVersion: v1\nkind: Secret\nstringData: {a: b}\n"))
        assert said == "1: metadata.name: required value. Fix: add it"

    def test_secrets_show_no_value_in_their_repr(self, tmp_path: Path) -> None:
        assert KEY not in repr(_load(tmp_path, _secret(f"stringData: {{openai: {KEY}}}")))

    def test_a_ca_bundle_and_a_client_certificate_are_taken_over(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("client.example.com")
        spec = "  egress: {caBundleSecretRef: {name: ca, key: ca.crt}, clientCertificateSecretRef: {name: tls}}\n"
        document = _assemble(
            tmp_path,
            _provider(spec=spec),
            _secret(f"data: {{ca.crt: {_base64(authority.cert_pem)}}}", name="ca"),
            _secret(
                f"type: kubernetes.io/tls\ndata:\n  tls.crt: {_base64(leaf.cert_chain_pems[0])}\n"
                f"  tls.key: {_base64(leaf.private_key_pem)}",
                name="tls",
            ),
        )
        (entry,) = document.providers
        assert entry.ca_bundle == authority.cert_pem.bytes().decode().strip()
        assert entry.client_certificate is not None
        assert "PRIVATE KEY" in entry.client_certificate.private_key.get_secret_value()

    def test_what_is_no_certificate_is_a_problem(self, tmp_path: Path) -> None:
        spec = "  egress: {caBundleSecretRef: {name: keys, key: a}, clientCertificateSecretRef: {name: keys}}\n"
        secret = _secret(f"stringData: {{a: {KEY}, tls.crt: {KEY}, tls.key: {KEY}}}")
        bundle, certificate = _said(_load(tmp_path, _provider(spec=spec), secret))
        assert "is not PEM certificates" in bundle
        assert "does not hold a PEM certificate and its private key" in certificate
        assert KEY not in bundle + certificate


def _key(document: ConfigDocument) -> str | None:
    (entry,) = document.providers
    return entry.credential.get_secret_value() if entry.credential else None


def _base64(blob: trustme.Blob) -> str:
    return base64.b64encode(blob.bytes()).decode()


class TestAssembling:
    def test_without_any_quota_there_is_no_team(self, tmp_path: Path) -> None:
        document = _assemble(tmp_path, _provider())
        assert document.team is None
        assert document.store.url is not None
        assert document.store.url.get_secret_value() == "redis://127.0.0.1:1"

    def test_all_providers_count_as_shared(self, tmp_path: Path) -> None:
        document = _assemble(tmp_path, _provider("a"), _provider("b", namespace="other"))
        assert [entry.label for entry in document.providers] == ["a", "b"]

    @pytest.mark.parametrize(
        ("names", "team", "expected"),
        [
            (["payments"], None, "team/payments"),
            (["payments", "default"], None, "team/default"),
            (["payments", "search"], "search", "team/search"),
            (["payments", "search"], "team/search", "team/search"),
        ],
    )
    def test_the_team_is_chosen(self, tmp_path: Path, names: list[str], team: str | None, expected: str) -> None:
        document = _assemble(tmp_path, _provider(), *(_quota(name) for name in names), team=team)
        assert document.team is not None
        assert document.team.label == expected

    @pytest.mark.parametrize(
        ("team", "said"),
        [(None, "which team to run as is not clear"), ("x", "called x"), ("other/payments", "called other/payments")],
    )
    def test_a_team_that_is_not_clear_is_refused_with_the_choices(
        self, tmp_path: Path, team: str | None, said: str
    ) -> None:
        with pytest.raises(ManifestsRefused, match=rf"{said}; there are: team/payments, team/search\. Fix: say --team"):
            _assemble(tmp_path, _provider(), _quota("payments"), _quota("search"), team=team)

    def test_a_team_that_is_asked_for_without_any_quota_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestsRefused, match="there are: none"):
            _assemble(tmp_path, _provider(), team="x")

    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            ("openai", ["team/openai"]),  # the quota's own namespace goes first
            ("other/openai", ["other/openai"]),
            ("google", ["other/google"]),  # a shared one
        ],
    )
    def test_the_quotas_providers_are_the_only_ones(self, tmp_path: Path, reference: str, expected: list[str]) -> None:
        document = _assemble(
            tmp_path,
            _provider("openai"),
            _provider("openai", namespace="other"),
            _provider("google", namespace="other"),
            _quota(spec=f"  providers: [{reference}]"),
        )
        assert [entry.identity for entry in document.providers] == expected

    def test_a_secret_that_only_an_excluded_provider_lacks_does_not_matter(self, tmp_path: Path) -> None:
        document = _assemble(tmp_path, _provider("a"), _provider("b", spec=WITH_KEY), _quota(spec="  providers: [a]"))
        assert [entry.label for entry in document.providers] == ["a"]

    def test_no_provider_at_all_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestsRefused, match=r"no LLMProvider is left to use\. Fix: "):
            _assemble(tmp_path, _quota())

    def test_two_providers_of_one_name_cannot_both_be_shared(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestsRefused, match="two providers have the same name"):
            _assemble(tmp_path, _provider(), _provider(namespace="other"))

    def test_manifests_with_errors_are_not_assembled(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestsRefused, match=r"manifests\.yaml:8: spec\.wieght: unknown field"):
            _assemble(tmp_path, _provider(spec="  wieght: 1\n"))
