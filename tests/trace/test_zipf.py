import random
from collections import Counter

import pytest

from tests.trace.zipf import Catalogue


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.3])
def test_the_share_of_a_thing_falls_with_its_place(exponent: float) -> None:
    catalogue = Catalogue(100, exponent=exponent, new_share=0.0)
    shares = [catalogue.share(place) for place in range(100)]
    assert sum(shares) == pytest.approx(1)
    for place in (1, 9, 99):
        assert shares[0] / shares[place] == pytest.approx((place + 1) ** exponent)


def test_things_are_drawn_as_often_as_their_shares_say() -> None:
    catalogue, source = Catalogue(50, exponent=1.0, new_share=0.0), random.Random(7)
    drawn = Counter(catalogue.draw(source) for _ in range(20_000))
    assert set(drawn) <= set(range(50))
    for place in (0, 1, 4, 19):
        assert drawn[place] / 20_000 == pytest.approx(catalogue.share(place), rel=0.15)


def test_new_things_come_as_often_as_told_and_only_once() -> None:
    catalogue, source = Catalogue(50, exponent=1.0, new_share=0.25), random.Random(7)
    new = [number for number in (catalogue.draw(source) for _ in range(8000)) if number >= catalogue.size]
    assert len(new) == len(set(new))
    assert len(new) / 8000 == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("fraction", "place"), [(0.0, 0), (0.5, 0), (0.67, 1), (0.999, 2), (1.0, 2)])
def test_every_fraction_of_the_draws_has_its_thing(fraction: float, place: int) -> None:
    """Of three things the shares are 6/11, 3/11 and 2/11."""
    assert Catalogue(3, exponent=1.0, new_share=0.0).at(fraction) == place
