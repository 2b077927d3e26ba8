"""A controller that is killed at any moment leaves nothing half done for ever: the next one makes it whole."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tests.e2e.applications import Applications
from tests.e2e.edits import Edit, World, edits
from tests.e2e.killing import Killer, killer
from tests.e2e.release import Release

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

EDITS: Final = 16
KILLS: Final = 4
STABLE_SECONDS: Final = 3.0
"""A state that did not change for so long is the last: what the controller waits for on purpose is shorter."""
CONVERGED_SECONDS: Final = 60.0


@pytest.fixture(scope="module")
def controllers_killer(release: Release) -> Iterator[Killer]:
    with killer(release) as one:
        yield one


@pytest.mark.parametrize("seed", [1, 2], ids=["seed 1", "seed 2"])
def test_a_controller_that_is_killed_at_any_moment_comes_to_the_same_state(
    team: Team, controllers_killer: Killer, tell_figure: Callable[[str], None], seed: int
) -> None:
    """The same edits once without and once with kills, each at a moment that the seed chose."""
    release = controllers_killer.release
    sequence = edits(seed=seed, count=EDITS)
    undisturbed, disturbed = World(ours=team(), theirs=team()), World(ours=team(), theirs=team())
    for world in (undisturbed, disturbed):
        world.prepare()

    for edit in sequence:
        edit(undisturbed)
    expected = _settled(undisturbed)
    killed = _edit_and_kill(disturbed, sequence, controllers_killer, chance=random.Random(f"kills {seed}"))
    release.wait_for("controller")
    began = time.monotonic()
    _expect(disturbed, expected)

    # One may hit a moment in which none runs. None at all: the cluster has more nodes than one, see `killing`.
    assert killed >= KILLS - 1
    assert _is_whole(expected)
    tell_figure(
        f"controller killed {killed} times during {len(sequence)} edits (seed {seed}): "
        f"the same state {time.monotonic() - began:.1f} s after the last one was up"
    )


def _edit_and_kill(world: World, sequence: list[Edit], killer: Killer, *, chance: random.Random) -> int:
    """Edit, and kill beside some of the edits after a moment; returns how many processes were ended."""
    moments = {position: chance.uniform(0, 0.6) for position in chance.sample(range(len(sequence)), KILLS)}
    with ThreadPoolExecutor(max_workers=1) as pool:
        kills = []
        for position, edit in enumerate(sequence):
            if position in moments:
                kills.append(pool.submit(_kill_after, moments[position], killer))
            edit(world)
        return sum(kill.result() for kill in kills)


def _kill_after(seconds: float, killer: Killer) -> bool:
    # Not to wait for something, but to meet the controller at one of its steps. One that only starts is killed, too.
    threading.Event().wait(seconds)
    return killer.kill("controller")


def _settled(world: World) -> dict[str, Any]:
    """The state that does not change any more."""
    seen: list[tuple[float, dict[str, Any]]] = []

    def is_settled() -> bool:
        state = world.state()
        if not seen or seen[-1][1] != state:
            seen.append((time.monotonic(), state))
        return time.monotonic() - seen[-1][0] > STABLE_SECONDS

    world.ours.cluster.wait_until(is_settled, what="the state without kills is settled", seconds=CONVERGED_SECONDS)
    return seen[-1][1]


def _expect(world: World, expected: dict[str, Any]) -> None:
    last: list[dict[str, Any]] = []

    def is_so() -> bool:
        last[:] = [world.state()]
        return last == [expected]

    try:
        world.ours.cluster.wait_until(is_so, what="the state is as without kills", seconds=CONVERGED_SECONDS)
    except Exception as failure:
        failure.add_note(f"it is\n{_text(last[0])}\nand should be\n{_text(expected)}")
        raise


def _text(state: dict[str, Any]) -> str:
    return json.dumps(state, indent=1, sort_keys=True)


def _is_whole(state: dict[str, Any]) -> bool:
    """The undisturbed controller did all of its work, too: what is compared is not two times nothing."""
    ours = state["ours"]
    return all(ours["pods"].values()) and all(
        status["is current"] for part in state.values() for status in part["statuses"].values()
    )
