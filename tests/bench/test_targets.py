from pathlib import Path

import pytest
import yaml

from llm_sidecar.cache.known_requests import MAX_REQUESTS
from llm_sidecar.cache.memory import MAX_MEMORY_BYTES, OVERHEAD_BYTES
from llm_sidecar.manifests import assemble, load
from tests.bench.payloads import ANSWER_SIZE
from tests.bench.targets import MORE_THAN_MEMORY, NAMESPACE, VARIANTS, Variant, manifests


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_manifests_of_a_variant_are_what_a_user_may_write(variant: Variant, tmp_path: Path) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump_all(manifests("slug", variant=variant, upstream_port=8080)))

    found = load([file], known_types={"OpenAI", "Anthropic", "Google"})
    config = assemble(found, environment={})

    assert found.problems == ()
    assert len(config.providers) == 1 + 3 * variant.translates + variant.fails_over
    team = config.team
    assert (None if team is None else f"{team.namespace}/{team.name}") == (
        f"{NAMESPACE}/slug" if variant.limits else None
    )


def test_a_row_about_hits_in_redis_is_not_made_of_hits_in_memory() -> None:
    """Least recently used, and asked for in turn: what does not fit is gone each time."""
    assert MORE_THAN_MEMORY * (ANSWER_SIZE + OVERHEAD_BYTES) > 1.5 * MAX_MEMORY_BYTES
    assert MORE_THAN_MEMORY > 2 * MAX_REQUESTS
