from pathlib import Path

import pytest
import yaml

from llm_sidecar.manifests import assemble, load
from tests.bench.targets import NAMESPACE, VARIANTS, Variant, manifests


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
