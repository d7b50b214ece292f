"""The least cost, against trying all."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.vision.assignment import assign

COSTS = st.integers(1, 5).flatmap(
    lambda columns: st.lists(st.lists(st.floats(-10, 10), min_size=columns, max_size=columns), min_size=1, max_size=5)
)


def least(costs: list[list[float]]) -> float:
    rows, columns = len(costs), len(costs[0])
    if rows > columns:
        return least([list(column) for column in zip(*costs, strict=True)])
    return min(
        sum(costs[row][column] for row, column in enumerate(chosen))
        for chosen in itertools.permutations(range(columns), rows)
    )


@given(COSTS)
def test_no_other_assignment_costs_less(costs: list[list[float]]) -> None:
    pairs = assign(costs)

    assert len(pairs) == min(len(costs), len(costs[0]))
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert pairs == sorted(pairs)
    assert math.isclose(sum(costs[row][column] for row, column in pairs), least(costs), abs_tol=1e-9)


@pytest.mark.parametrize("costs", [[], [[]], [[], []]])
def test_nobody_belongs_to_nobody(costs: list[list[float]]) -> None:
    assert assign(costs) == []


def test_the_nearest_pair_is_given_up_where_all_together_are_better_off() -> None:
    assert assign([[0, 1], [1, 100]]) == [(0, 1), (1, 0)]


def test_equal_costs_are_settled_somehow() -> None:
    assert len(assign([[1.0] * 7] * 7)) == 7
