"""A share of tests/mutations.py."""

import mutations
import pytest


@pytest.mark.parametrize("name", mutations.KINDS)
def test_damage_is_refused_in_one_line_or_taken(name):
    refused, _ = mutations.run(name, 60, seed=1)
    assert refused > 10
