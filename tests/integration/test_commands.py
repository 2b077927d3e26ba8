"""The console commands as a user meets them: processes with arguments, an exit status, and what they print."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from llm_sidecar import __version__
from tests.integration.processes import DEFECTS, ServerProcess, start_process

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = str(Path(sys.executable).with_name("llm-sidecar"))
CRD: Final = (sys.executable, "-m", "llm_sidecar.contract.crd")
SECONDS: Final = 60.0
COMMANDS: Final = ("run", "serve", "check", "explain", "simulate", "usage", "cache")

GOOD: Final = """\
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: openai}
spec:
  type: OpenAI
  models: [{name: gpt-5}]
"""
QUOTA: Final = """\
apiVersion: llm-sidecar.io/v1alpha1
kind: TeamQuota
metadata: {name: payments}
spec:
  limits: [{name: daily, per: Day, tokens: 1000}]
"""

Simulate = Callable[..., "Simulated"]


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; whatever it says, a traceback is never part of it."""
    done = subprocess.run([*map(str, command)], cwd=ROOT, check=False, capture_output=True, text=True, timeout=SECONDS)
    assert not any(word in done.stderr for word in DEFECTS), done.stderr
    return done


def _written(folder: Path, text: str, name: str = "manifests.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


class Simulated:
    """A running `llm-sidecar simulate`."""

    def __init__(self, process: ServerProcess) -> None:
        last = process.stdout.wait_for(lambda line: line.startswith("Gemini"), timeout_seconds=SECONDS)
        self.banner = process.stdout.all()
        self.base_url = last.partition("=")[2]

    def ask(
        self, path: str, body: Any = None, *, key: str | None = None, api: str = "anthropic", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """One request; gives status, body and headers."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(  # noqa: S310 - of our own making
            self.base_url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                **({"anthropic-version": "2023-06-01"} if api == "anthropic" else {}),
                **({"x-api-key": key} if key else {}),
                **named,
            },
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                return answer.status, json.load(answer), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), dict(error.headers)


MESSAGE: Final = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "a word"}]}


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Start simulators; each must end with code 0 on SIGTERM."""
    with ExitStack() as stack:

        def start(*arguments: str) -> Simulated:
            process = start_process((PROGRAM, "simulate", "--port", "0", *arguments), {})
            stack.callback(process.stop)
            return Simulated(process)

        yield start


# --- all of them


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((PROGRAM,), COMMANDS),
        ((PROGRAM, "run"), ("--filename", "--team", "--port", "--admin-port", "--redis", "--token", "--no-token")),
        ((PROGRAM, "serve"), ("--config", "--port", "--admin-port", "LLM_SIDECAR_TOKEN")),
        ((PROGRAM, "check"), ("--filename", "--output", "0 where nothing is wrong")),
        ((PROGRAM, "explain"), ("--filename", "--model", "--api", "--team", "--output", "--input-tokens")),
        ((PROGRAM, "simulate"), ("--fault", "--latency-ms", "--require-key", "--model", "x-llm-simulate")),
        ((PROGRAM, "usage"), ("export", "recompute", "--filename", "--config", "--redis", "--since", "--write")),
        ((PROGRAM, "cache"), ("purge", "--team", "--provider", "--model", "--older-than", "--key", "--redis")),
        (CRD, ("--write", "--check")),
    ],
    ids=["llm-sidecar", *COMMANDS, "crd"],
)
def test_help_tells_what_there_is(command: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = _run(*command, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert [word for word in words if word not in done.stdout] == []


def test_the_version_is_the_packages() -> None:
    assert _run(PROGRAM, "--version").stdout == f"llm-sidecar {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "COMMAND"),
        (("run",), "-f/--filename"),
        (("run", "-f", "x.yaml", "--port", "65536"), "'65536' is not a port: give a whole number from 0 to"),
        (("run", "-f", "x.yaml", "--admin-port=-1"), "argument --admin-port: '-1' is not a port"),
        (("run", "-f", "x.yaml", "--token", "t", "--no-token"), "--no-token: not allowed with argument --token"),
        (("run", "-f", "x.yaml", "--token", ""), "argument --token: it is empty: give a token"),
        (("run", "-f", "x.yaml", "--redis", "nonsense"), "argument --redis: the store's URL must begin with redis://"),
        (("run", "-f", "x.yaml", "--redis", "redis://user@host"), "argument --redis: the store's URL has a user name"),
        (("serve",), "--config"),
        (("serve", "--config", "x.json", "--port", "99999"), "'99999' is not a port"),
        (("check",), "-f/--filename"),
        (("explain", "-f", "x.yaml"), "--model"),
        (("explain", "-f", "x.yaml", "--model", "m", "--api", "Chat"), "argument --api: invalid choice: 'Chat'"),
        (("explain", "-f", "x.yaml", "--model", "m", "--input-tokens=-1"), "'-1' is no number of tokens"),
        (("simulate", "--port", "70000"), "'70000' is not a port"),
        (("simulate", "--fault", "nonsense"), "--fault: fault 'nonsense': expected name=value with a name of latency"),
        (("simulate", "--fault", "status=500", "--fault", "status=503"), "--fault: fault 'status' is given twice"),
        (("simulate", "--latency-ms=-3"), "--latency-ms: fault 'latency_ms=-3': must be a whole number"),
        (("simulate", "--model", "gpt-5"), "--model 'gpt-5': expected openai=NAME, anthropic=NAME or gemini=NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_argument_ends_with_2_and_is_named(arguments: tuple[str, ...], told: str) -> None:
    done = _run(PROGRAM, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


# --- run


@pytest.mark.parametrize(
    ("manifests", "arguments", "told"),
    [
        (None, (), "manifests.yaml: cannot be read (No such file or directory). Fix: check the name"),
        (GOOD.replace("type:", "tpye:"), (), "manifests.yaml:5: spec.tpye: unknown field. Fix: did you mean type?"),
        (GOOD, ("--team", "sales"), "no single TeamQuota is called sales; there are: none. Fix: say --team"),
    ],
    ids=["no-file", "wrong-manifest", "no-such-team"],
)
def test_run_says_why_it_cannot_begin(
    tmp_path: Path, manifests: str | None, arguments: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "manifests.yaml" if manifests is None else _written(tmp_path, manifests)
    done = _run(PROGRAM, "run", "-f", path, "--redis", "redis://127.0.0.1:1", *arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr


@pytest.mark.parametrize("command", ["run", "simulate"])
def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path: Path, command: str) -> None:
    manifests = ("-f", _written(tmp_path, GOOD), "--redis", "redis://127.0.0.1:1", "--admin-port", "0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        done = _run(PROGRAM, command, "--port", port, *(manifests if command == "run" else ()))

    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port}" in done.stderr
    assert "address already in use" in done.stderr
    assert "hoose" in done.stderr


# --- check


def test_check_accepts_the_examples() -> None:
    done = _run(PROGRAM, "check", "-f", *sorted(ROOT.glob("examples/*.yaml")))

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "0 problems" in done.stderr.splitlines()[-1]


def test_check_names_file_line_field_and_fix(tmp_path: Path) -> None:
    """All that is wrong at once, in the order of files and lines."""
    provider = _written(tmp_path, GOOD.replace("OpenAI", "OpenIA") + "---\n" + GOOD + "  priorty: 1\n", "a.yaml")
    limits = "[{name: a, per: Day, tokens: -1}, {name: b, per: Daily, tokens: 1}, {name: c, per: Day}]"
    quota = _written(tmp_path, QUOTA.replace("[{name: daily, per: Day, tokens: 1000}]", limits), "b.yaml")
    done = _run(PROGRAM, "check", "-f", quota, provider)
    *problems, summary = done.stderr.splitlines()

    assert (done.returncode, done.stdout) == (1, "")
    for problem, (where, told, fix) in zip(
        problems,
        (
            (f"{provider}:5: spec.type: ", "no provider of this type", "did you mean OpenAI?"),
            (f"{provider}:10: metadata.name: ", f"is already at {provider}:1", "rename or remove one of them"),
            (f"{provider}:14: spec.priorty: ", "unknown field", "did you mean priority?"),
            (f"{quota}:5: spec.limits[0].tokens: ", "greater than or equal to 1", "use a larger number"),
            (f"{quota}:5: spec.limits[1].per: ", "supported are Minute, Hour", "did you mean Day?"),
            (
                f"{quota}:5: spec.limits[2]: ",
                "exactly one of requests, tokens, costUSD and concurrentRequests",
                "keep one of them",
            ),
        ),
        strict=True,
    ):
        message, _, advice = problem.partition(" Fix: ")
        assert message.startswith(where)
        assert told in message
        assert advice.startswith(fix)
    assert summary == "1 LLMProvider, 0 TeamQuotas, 0 Secrets: 6 problems"


def test_check_reads_folders_and_tells_programs_in_json(tmp_path: Path) -> None:
    _written(tmp_path, GOOD, "a.yaml")
    _written(tmp_path, QUOTA.replace("1000", "0"), "b.yaml")
    done = _run(PROGRAM, "check", "-f", tmp_path, "--output", "json")
    report = json.loads(done.stdout)

    assert (done.returncode, done.stderr, report["ok"]) == (1, "", False)
    assert report["providers"] == ["default/openai"]
    (problem,) = report["problems"]
    assert (problem["file"], problem["line"], problem["severity"]) == (str(tmp_path / "b.yaml"), 5, "error")


@pytest.mark.parametrize("text", [None, "{", "\x00", "- [1"], ids=["missing", "flow", "binary", "list"])
def test_check_ends_with_another_status_than_0_where_a_file_is_no_manifest(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "manifests.yaml" if text is None else _written(tmp_path, text)
    done = _run(PROGRAM, "check", "-f", path)

    assert done.returncode == (2 if text is None else 1)
    assert done.stderr.startswith(f"{path}:")
    assert "Fix: " in done.stderr


# --- simulate


def test_simulate_tells_where_it_is_and_answers_there(simulate: Simulate) -> None:
    simulated = simulate()
    base_url = simulated.base_url

    assert simulated.banner == [
        f"OpenAI     OPENAI_BASE_URL={base_url}/v1",
        f"Anthropic  ANTHROPIC_BASE_URL={base_url}",
        f"Gemini     GOOGLE_GEMINI_BASE_URL={base_url}",
    ]
    status, answer, _ = simulated.ask("/v1/messages", MESSAGE)
    assert (status, answer["type"], answer["stop_reason"]) == (200, "message", "end_turn")
    assert simulated.ask("/_simulate/healthz")[:2] == (200, {"status": "ok"})
    (entry,) = simulated.ask("/_simulate/requests")[1]
    assert (entry["api"], entry["model"], entry["outcome"]) == ("anthropic.messages", "m", "finished")


def test_simulate_ends_in_order_when_it_is_interrupted() -> None:
    process = start_process((PROGRAM, "simulate", "--port", "0"), {})
    Simulated(process)
    process.process.send_signal(signal.SIGINT)

    assert process.process.wait(SECONDS) == 0
    process.stop()


def test_simulate_tells_the_models_that_it_was_given(simulate: Simulate) -> None:
    simulated = simulate("--model", "openai=first", "--model", "openai=second", "--model", "gemini=third")
    openai = simulated.ask("/v1/models", api="openai")[1]["data"]
    anthropic = simulated.ask("/v1/models")[1]["data"]
    gemini = simulated.ask("/v1beta/models", api="gemini")[1]["models"]

    assert [model["id"] for model in openai] == ["first", "second"]
    assert [model["name"] for model in gemini] == ["models/third"]
    assert "claude-haiku-4-5" in [model["id"] for model in anthropic]  # where nothing else was said


def test_simulate_refuses_other_keys_than_those_it_was_given(simulate: Simulate) -> None:
    """A key of one API opens this one only; behind its name, a key may hold any character."""
    simulated = simulate("--require-key", "for-all", "--require-key", "anthropic=a=b==", "--require-key", "openai=c")
    statuses = {key: simulated.ask("/v1/messages", MESSAGE, key=key)[0] for key in ("for-all", "a=b==", "c", "a", None)}

    assert statuses == {"for-all": 200, "a=b==": 200, "c": 401, "a": 401, None: 401}
    refused = simulated.ask("/v1/messages", MESSAGE, key="c")[1]
    assert refused["error"] == {"type": "authentication_error", "message": "invalid x-api-key"}


@pytest.mark.parametrize("key", ["nobody=hush", "hush=", ""])
def test_simulate_refuses_a_key_that_could_be_meant_for_an_api_and_does_not_repeat_it(key: str) -> None:
    done = _run(PROGRAM, "simulate", "--port", "0", f"--require-key={key}")

    assert (done.returncode, done.stdout) == (2, "")
    assert "expected KEY, openai=KEY, anthropic=KEY or gemini=KEY" in done.stderr
    assert "hush" not in done.stderr


def test_simulate_fails_as_flag_path_and_header_say_the_later_one_first(simulate: Simulate) -> None:
    simulated = simulate("--fault", "status=529", "--fault", "retry_after_seconds=3", "--latency-ms", "1")

    status, answer, headers = simulated.ask("/v1/messages", MESSAGE)
    assert (status, answer["error"]["type"], headers["retry-after"]) == (529, "overloaded_error", "3")
    assert simulated.ask("/fault/status=503/v1/messages", MESSAGE)[0] == 503
    assert simulated.ask("/fault/status=503/v1/messages", MESSAGE, x_llm_simulate="status=429")[0] == 429
    status, answer, _ = simulated.ask("/v1/messages", MESSAGE, x_llm_simulate="statsu=429")
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert "statsu=429" in answer["error"]["message"]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_simulate_names_a_host_on_which_nobody_here_can_listen(host: str) -> None:
    done = _run(PROGRAM, "simulate", "--port", "0", "--host", host)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"llm-sidecar simulate: cannot listen on {host} port 0: ")
    assert "Give --host an address of this machine" in done.stderr


# --- the CRDs


def test_the_committed_crds_are_those_of_the_models_and_a_change_is_found(tmp_path: Path) -> None:
    assert _run(*CRD, "--check", ROOT / "crds").returncode == 0
    assert _run(*CRD, "--write", tmp_path / "new" / "crds").returncode == 0
    first, second = written = sorted((tmp_path / "new" / "crds").iterdir())
    assert {path.name: path.read_text() for path in written} == {
        path.name: path.read_text() for path in (ROOT / "crds").iterdir()
    }
    first.write_text(first.read_text().replace("description", "descriptoin", 1))
    second.unlink()
    done = _run(*CRD, "--check", first.parent)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"{path} is not up to date. Fix: run with --write {first.parent}" for path in (first, second)
    ]


@pytest.mark.parametrize("arguments", [(), ("--check",), ("--check", "a", "--write", "b")])
def test_the_crd_command_wants_one_folder_to_check_or_to_write(arguments: tuple[str, ...]) -> None:
    done = _run(*CRD, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--check" in done.stderr


# --- explain


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--model", "small", "--team", "payments"], 0, ["openai", "anthropic", "google", "translated"]),
        (["--model", "small", "--team", "payments", "--input-tokens", "900000"], 0, ["context window"]),
        (["--model", "small", "--team", "payments", "--api", "Gemini", "--output-tokens", "10"], 0, ["google"]),
        (["--model", "nobody-has-it", "--team", "payments"], 1, ["nobody-has-it"]),
        (["--model", "small", "--team", "payments", "--embeddings", "--api", "OpenAIEmbeddings"], 0, ["openai"]),
    ],
)
def test_explain_tells_who_would_be_asked(words: list[str], status: int, said: list[str]) -> None:
    manifests = [ROOT / "examples" / "several-providers", ROOT / "examples" / "team-quota.yaml"]
    done = _run(PROGRAM, "explain", "-f", *manifests, *words)

    assert done.returncode == status, done.stderr
    for word in said:
        assert word in done.stdout + done.stderr


def test_explain_gives_programs_the_same_as_json() -> None:
    manifests = [ROOT / "examples" / "several-providers", ROOT / "examples" / "team-quota.yaml"]
    done = _run(PROGRAM, "explain", "-f", *manifests, "--model", "small", "--output", "json")

    told = json.loads(done.stdout)
    assert told["team"] == "payments/payments"
    assert {way["provider"] for way in told["candidates"]} >= {"openai", "anthropic", "google"}


def test_explain_of_unusable_manifests_says_what_is_wrong(tmp_path: Path) -> None:
    path = _written(tmp_path, GOOD.replace("models: [", "modles: ["))
    done = _run(PROGRAM, "explain", "-f", path, "--model", "gpt-5")

    assert done.returncode == 2
    assert "modles" in done.stderr


# --- what a cluster refuses


REFUSED: Final = sorted((ROOT / "tests" / "contract" / "manifests" / "refused").glob("*.yaml"))


@pytest.mark.parametrize("output", ["text", "json"])
def test_check_refuses_every_manifest_that_the_cluster_refuses(output: str) -> None:
    """In one run: each file is named with what is wrong in it."""
    done = _run(PROGRAM, "check", "-f", *REFUSED, "--output", output)

    assert done.returncode == 1
    told = done.stdout if output == "json" else done.stderr
    for path in REFUSED:
        assert path.name in told


MISTAKES: Final = """\
apiVersion: v1
kind: Secret
metadata: {name: many, labels: {llm-sidecar.io/credentials: "true"}}
data: {half: "%%%", number: 7, good: a2V5}
stringData: {spaced: "two words", bundle: "no certificate"}
---
apiVersion: v1
kind: Secret
metadata: {labels: {a: b}}
---
apiVersion: v1
kind: Secret
metadata: {name: odd, annotations: {llm-sidecar.io/from-env: "=,x"}}
data: [a, list]
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: spaced}
spec:
  type: OpenAI
  credentials: {secretKeyRef: {name: many, key: spaced}}
  egress: {caBundleSecretRef: {name: many, key: bundle}, clientCertificateSecretRef: {name: many}}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: lost}
spec:
  type: Opnai
  credentials: {secretKeyRef: {name: nowhere, key: api-key}}
  models: [{name: m}]
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProviders
metadata: {name: misspelt}
---
kind: LLMProvider
metadata: {name: without-a-version}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: not-ours}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: TeamQuota
metadata: {name: t}
spec: {providers: [spacd]}
"""


def test_check_tells_every_mistake_of_a_file_at_once_and_no_secret(tmp_path: Path) -> None:
    path = _written(tmp_path, MISTAKES)
    done = _run(PROGRAM, "check", "-f", path)

    assert done.returncode == 1
    for said in (
        "is not base64",
        "must be text",
        "metadata.name: required value",
        "does not name environment variables",
        "must be an object",
        "cannot be sent in a header",
        "is not PEM certificates",
        "has no key tls.crt",
        "no Secret nowhere of namespace default",
        "did you mean OpenAI?",
        "the provider has no model",
        "did you mean LLMProvider?",
        "apiVersion: required value",
        "is not a kind that llm-sidecar reads",
        "did you mean spaced?",
    ):
        assert said in done.stderr, said
    assert "two words" not in done.stderr
