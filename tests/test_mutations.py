"""A share of tests/mutations.py."""

import mutations
import pytest


@pytest.mark.parametrize("name", mutations.KINDS)
def test_damage_is_refused_in_one_line_or_taken(name):
    refused, longest, failures = mutations.run(name, 60, seed=1)
    assert not failures
    assert refused > 10
    assert longest < 10  # of a machine that has much else to do
