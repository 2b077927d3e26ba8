"""What Helm makes of the chart, with each of the values files in `ci/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import llm_sidecar
from llm_operator.admission import INJECT_PATH, WARN_PATH
from llm_operator.settings import Settings
from llm_operator.webhook_settings import WebhookSettings
from llm_sidecar.contract.names import ADMIN_PORT, CONFIG_SECRET_PREFIX, INJECTED_LABEL, METRICS_PORT_NAME
from tests.chart.rendering import CHART, NAMESPACE, ROOT, Chart, Object, only

pytestmark = pytest.mark.needs("helm")

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
every_values_file = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))


def _pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for one in objects:
        if one["kind"] == "Deployment":
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]


def _containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for name, spec in _pods(objects):
        for container in spec["containers"]:
            yield f"{name}/{container['name']}", container


def _environment(objects: list[Object], component: str) -> dict[str, str]:
    """As the process would see it, with what the kubelet fills in."""
    container = only(objects, "Deployment", f"llm-sidecar-{component}")["spec"]["template"]["spec"]["containers"][0]
    filled = {
        "LLM_OPERATOR_NAMESPACE": NAMESPACE,
        "LLM_OPERATOR_REDIS_URL": "rediss://from-a-secret:6379/0",
        "LLM_OPERATOR_REDIS_CA_BUNDLE": "from a secret",
    }
    return {entry["name"]: entry["value"] if "value" in entry else filled[entry["name"]] for entry in container["env"]}


@every_values_file
def test_lint_has_nothing_to_say(chart: Chart, values: Path) -> None:
    assert "0 chart(s) failed" in chart.lint(f"--values={values}")


@every_values_file
def test_rendering_twice_gives_the_same_bytes(chart: Chart, values: Path) -> None:
    """GitOps tools render again and again, and would roll out whatever differs."""
    assert chart.text(f"--values={values}") == chart.text(f"--values={values}")


def test_no_template_looks_into_the_cluster_or_throws_dice() -> None:
    for template in (CHART / "templates").rglob("*"):
        if template.is_file():
            text = template.read_text(encoding="utf-8")
            for function in ("lookup ", "randAlpha", "randNumeric", "randBytes", "genCA", "genSigned", "uuidv4", "now"):
                assert f"{{{{ {function}" not in text
                assert f"({function}" not in text


@every_values_file
def test_every_object_has_the_standard_labels_and_its_namespace(chart: Chart, values: Path) -> None:
    cluster_wide = {
        "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    }  # fmt: skip
    for one in chart.render(f"--values={values}"):
        labels = one["metadata"]["labels"]
        assert {"app.kubernetes.io/name", "app.kubernetes.io/instance", "helm.sh/chart"} <= labels.keys()
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert ("namespace" in one["metadata"]) == (one["kind"] not in cluster_wide), one["metadata"]["name"]


@every_values_file
def test_no_two_objects_have_the_same_name(chart: Chart, values: Path) -> None:
    names = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        for one in chart.render(f"--values={values}")
    ]

    assert len(names) == len(set(names))


@every_values_file
def test_every_container_holds_to_the_restricted_profile(chart: Chart, values: Path) -> None:
    objects = chart.render(f"--values={values}")

    for name, spec in _pods(objects):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
    for name, container in _containers(objects):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name


@every_values_file
def test_every_container_has_resources_an_image_and_where_it_serves_its_probes(chart: Chart, values: Path) -> None:
    for name, container in _containers(chart.render(f"--values={values}")):
        assert container["image"].count(":") >= 1, name
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
        if not name.startswith("llm-sidecar-test") and not name.startswith("proxies-test"):
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name


@every_values_file
def test_nothing_but_the_operators_own_pods_gets_a_token(chart: Chart, values: Path) -> None:
    objects = chart.render(f"--values={values}")

    assert all(one["automountServiceAccountToken"] is False for one in objects if one["kind"] == "ServiceAccount")
    mounting = {name.rpartition("-")[2] for name, spec in _pods(objects) if spec["automountServiceAccountToken"]}
    assert mounting == {"controller", "webhook", "test"}


@every_values_file
def test_services_and_budgets_select_the_pods_that_they_mean(chart: Chart, values: Path) -> None:
    objects = chart.render(f"--values={values}")
    templates = [one["spec"]["template"] for one in objects if one["kind"] == "Deployment"]

    for one in objects:
        if one["kind"] == "Service":
            selected = _selected(templates, one["spec"]["selector"])
            assert len(selected) == 1
            ports = {port.get("name") for port in selected[0]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports
        if one["kind"] in {"Deployment", "PodDisruptionBudget"}:
            assert len(_selected(templates, one["spec"]["selector"]["matchLabels"])) == 1


def test_a_digest_wins_over_a_tag_and_a_tag_over_the_charts_version(chart: Chart) -> None:
    def image(*options: str) -> str:
        objects = chart.render(set=options)
        return str(dict(_containers(objects))["llm-sidecar-webhook/webhook"]["image"])

    digest = f"sha256:{'a' * 64}"
    assert image() == f"llm-operator:{llm_sidecar.__version__}"
    assert image("image.tag=1.2.3") == "llm-operator:1.2.3"
    assert image("image.tag=1.2.3", f"image.digest={digest}") == f"llm-operator@{digest}"


def test_the_charts_versions_are_those_of_the_code() -> None:
    described = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert described["appVersion"] == described["version"] == llm_sidecar.__version__


@every_values_file
def test_the_processes_understand_what_the_chart_tells_them(chart: Chart, values: Path) -> None:
    objects = chart.render(f"--values={values}", "--set=fullnameOverride=")
    given = yaml.safe_load(values.read_text(encoding="utf-8"))

    controller = Settings.from_environment(_environment(objects, "controller"))
    webhook = WebhookSettings.from_environment(_environment(objects, "webhook"))

    assert controller.namespace == NAMESPACE
    assert list(controller.provider_namespaces) == given.get("providerNamespaces", [NAMESPACE])
    assert controller.redis_url is not None
    assert (controller.redis_ca_bundle is not None) is bool(given.get("redis", {}).get("ca"))
    assert controller.require_quota is webhook.injection.require_quota
    assert controller.all_secrets is given.get("credentials", {}).get("allNamespaces", False)
    own = given.get("webhook", {}).get("certificates", {}).get("mode", "operator") == "operator"
    assert (controller.webhook_secret is not None) is own
    assert webhook.injection.run_as_user == given.get("sidecar", {}).get("runAsUser")


@pytest.mark.parametrize("component", ["controller", "webhook"])
def test_no_variable_is_set_that_nobody_reads(chart: Chart, component: str) -> None:
    module = "settings.py" if component == "controller" else "webhook_settings.py"
    source = (ROOT / "operator" / "llm_operator" / module).read_text(encoding="utf-8").lower()
    fields = source + (ROOT / "operator" / "llm_operator" / "inject" / "settings.py").read_text(encoding="utf-8")
    everything = ["sidecar.runAsUser=1000", "sidecar.resources.limits.cpu=1"]

    for name in _environment(chart.render(set=everything), component):
        short = name.removeprefix("LLM_OPERATOR_").removeprefix("SIDECAR_").lower()
        assert short in fields, f"{component} does not read {name}"


def test_the_controller_is_told_the_names_of_the_objects_that_it_keeps(chart: Chart) -> None:
    objects = chart.render()
    settings = Settings.from_environment(_environment(objects, "controller"))
    pod = only(objects, "Deployment", "llm-sidecar-webhook")["spec"]["template"]["spec"]
    service = only(objects, "Service", "llm-sidecar-webhook")["metadata"]

    assert settings.webhook_configuration == only(objects, "MutatingWebhookConfiguration")["metadata"]["name"]
    assert settings.webhook_secret == pod["volumes"][0]["secret"]["secretName"]
    assert settings.webhook_service_names[0] == f"{service['name']}.{service['namespace']}.svc"


def test_the_webhook_does_not_get_the_authoritys_key(chart: Chart) -> None:
    pod = only(chart.render(), "Deployment", "llm-sidecar-webhook")["spec"]["template"]["spec"]

    assert [item["key"] for item in pod["volumes"][0]["secret"]["items"]] == ["tls.crt", "tls.key"]


def test_the_ports_are_those_that_the_processes_open(chart: Chart) -> None:
    objects = chart.render()

    for component in ("controller", "webhook"):
        container = dict(_containers(objects))[f"llm-sidecar-{component}/{component}"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["metrics"] == ADMIN_PORT
        if component == "webhook":
            image = {"LLM_OPERATOR_SIDECAR_IMAGE": "any"}
            assert ports["admission"] == WebhookSettings.from_environment(image).port


def _webhooks(objects: list[Object]) -> dict[str, Any]:
    return {one["name"]: one for one in only(objects, "MutatingWebhookConfiguration")["webhooks"]}


@every_values_file
def test_the_webhook_fails_only_pods_that_ask_and_never_its_own_namespace(chart: Chart, values: Path) -> None:
    """Else a webhook that is away could not come back (hashicorp/vault-helm#609)."""
    hooks = _webhooks(chart.render(f"--values={values}"))
    pods, workloads = hooks["pods.llm-sidecar.io"], hooks["workloads.llm-sidecar.io"]

    assert pods["failurePolicy"] == "Fail"
    assert workloads["failurePolicy"] == "Ignore"
    for hook in (pods, workloads):
        assert hook["sideEffects"] == "None"
        assert hook["namespaceSelector"]["matchExpressions"] == [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [NAMESPACE, "kube-system"]}
        ]
        assert "llm-sidecar.io/" in hook["matchConditions"][-1]["expression"]
    assert pods["clientConfig"]["service"]["path"] == INJECT_PATH
    assert workloads["clientConfig"]["service"]["path"] == WARN_PATH
    assert pods["timeoutSeconds"] == 5
    assert pods["reinvocationPolicy"] == "IfNeeded"
    assert pods["rules"] == [
        {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }
    ]


def test_the_authority_is_written_by_whoever_makes_the_certificate(chart: Chart) -> None:
    """What the chart renders, it would reset on every upgrade."""

    def rendered(name: str) -> list[Object]:
        return chart.render(f"--values={CHART / 'ci' / f'{name}-values.yaml'}")

    for name in ("default", "cert-manager"):
        assert all("caBundle" not in hook["clientConfig"] for hook in _webhooks(rendered(name)).values())
    annotations = only(rendered("cert-manager"), "MutatingWebhookConfiguration")["metadata"]["annotations"]
    assert annotations == {"cert-manager.io/inject-ca-from": "llm-system/llm-sidecar-webhook"}
    existing = _webhooks(rendered("existing-certificate")).values()
    assert all(hook["clientConfig"]["caBundle"].startswith("LS0tLS1CRUdJTi") for hook in existing)
    assert only(rendered("cert-manager"), "Certificate")["spec"]["issuerRef"]["name"] == "internal"
    assert only(rendered("self-signed-by-cert-manager"), "Issuer")["spec"] == {"selfSigned": {}}
    assert not [one for one in rendered("default") if one["kind"] in {"Certificate", "Issuer"}]


def test_the_crds_are_those_of_the_repository_and_stay_after_an_uninstall(chart: Chart) -> None:
    rendered = {one["metadata"]["name"]: one for one in chart.render() if one["kind"] == "CustomResourceDefinition"}
    originals = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "crds").glob("*.yaml")]

    assert len(rendered) == len(originals) == 2
    for original in originals:
        crd = rendered[original["metadata"]["name"]]
        assert crd["spec"] == original["spec"]
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(("option", "expected"), [("crds.keep=false", 2), ("crds.enabled=false", 0)])
def test_the_crds_may_be_left_to_others(chart: Chart, option: str, expected: int) -> None:
    crds = [one for one in chart.render(set=[option]) if one["kind"] == "CustomResourceDefinition"]

    assert len(crds) == expected
    assert all("annotations" not in crd["metadata"] for crd in crds)


def test_a_url_with_a_password_stands_in_no_deployment(chart: Chart) -> None:
    objects = chart.render(f"--values={CHART / 'ci' / 'cert-manager-values.yaml'}")

    for one in objects:
        assert ("password" in str(one)) is False, one["kind"]
    assert only(objects, "Secret")["data"].keys() == {"url"}


def test_the_bundled_redis_is_reached_by_the_proxies_and_the_controller_alone(chart: Chart) -> None:
    policy = only(chart.render(), "NetworkPolicy")["spec"]

    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [
        {INJECTED_LABEL: "true"},
        {
            "app.kubernetes.io/name": "llm-sidecar",
            "app.kubernetes.io/instance": "llm-sidecar",
            "app.kubernetes.io/component": "controller",
        },
    ]


def test_the_controller_may_reach_the_bundled_redis_and_no_other(chart: Chart) -> None:
    def destinations(*more: str) -> list[dict[str, str]]:
        objects = chart.render(set=["networkPolicies.enabled=true", *more])
        egress = only(objects, "NetworkPolicy", "llm-sidecar-controller")["spec"]["egress"]
        return [rule["to"][0]["podSelector"]["matchLabels"] for rule in egress if rule["ports"][0]["port"] == "redis"]

    assert [labels["app.kubernetes.io/component"] for labels in destinations()] == ["redis"]
    assert destinations("redis.bundled.enabled=false", "redis.url=redis://elsewhere:6379") == []


def test_the_pod_monitor_finds_injected_pods_by_what_the_webhook_gives_them(chart: Chart) -> None:
    monitor = only(chart.render(set=["podMonitor.enabled=true"]), "PodMonitor", "llm-sidecar-proxies")["spec"]

    assert monitor["namespaceSelector"] == {"any": True}
    assert monitor["selector"] == {"matchLabels": {INJECTED_LABEL: "true"}}
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == [METRICS_PORT_NAME]


def test_one_replica_of_the_webhook_gets_no_budget_that_would_stop_every_drain(chart: Chart) -> None:
    assert only(chart.render(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert not [one for one in chart.render(set=["webhook.replicas=1"]) if one["kind"] == "PodDisruptionBudget"]


def test_an_extra_label_does_not_replace_one_that_is_selected_by(chart: Chart) -> None:
    objects = chart.render(f"--values={CHART / 'ci' / 'existing-certificate-values.yaml'}")
    labels = only(objects, "Deployment", "proxies-webhook")["spec"]["template"]["metadata"]["labels"]

    assert labels["team"] == "platform"
    assert labels["app.kubernetes.io/component"] == "webhook"


def test_a_long_release_name_still_makes_valid_names(chart: Chart) -> None:
    for one in chart.render(set=[f"fullnameOverride={'a' * 60}"]):
        assert len(one["metadata"]["name"]) <= 63


def test_a_policy_guards_the_secrets_that_the_contract_names(chart: Chart) -> None:
    policy = only(chart.render(), "ValidatingAdmissionPolicy", "llm-sidecar-config-secrets")

    assert f"startsWith('{CONFIG_SECRET_PREFIX}')" in str(policy)
    assert policy["spec"]["failurePolicy"] == "Fail"


def test_every_policy_is_bound_and_denies(chart: Chart) -> None:
    objects = chart.render()
    policies = {one["metadata"]["name"] for one in objects if one["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [one["spec"] for one in objects if one["kind"] == "ValidatingAdmissionPolicyBinding"]

    assert len(policies) == 3
    assert {one["policyName"] for one in bindings} == policies
    assert all(one["validationActions"] == ["Deny"] for one in bindings)


def _selected(templates: list[Object], labels: dict[str, str]) -> list[Object]:
    return [one for one in templates if labels.items() <= one["metadata"]["labels"].items()]
