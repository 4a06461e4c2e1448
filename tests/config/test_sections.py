"""Which keys are part of fingerprints."""

from mapnet_cli.config.base import Section, added, operational


class Inner(Section):
    new: int = added(3)


class Outer(Section):
    old: int = 1
    new: float = added(0.0)
    how: int = operational(2)
    inner: Inner = Inner()


def test_an_added_key_counts_only_where_it_differs() -> None:
    assert Outer(how=5).results_view() == {"old": 1, "inner": {}}
    assert Outer(new=0.5, inner=Inner(new=4)).results_view() == {"old": 1, "new": 0.5, "inner": {"new": 4}}
