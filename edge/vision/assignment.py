"""Who belongs to whom at the least cost."""

from __future__ import annotations

import math
from collections.abc import Sequence


def assign(costs: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(row, column) of as many pairs as the shorter side has, no row or column twice, so that the sum of their costs is
    the least. costs: a rectangle of finite numbers, row by row.

    By shortest augmenting paths with potentials, which is the Hungarian method in O(n³): Kuhn (1955), Jonker and
    Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems", Computing 38,
    1987.
    """
    if not costs or not costs[0]:
        return []
    rows, columns = len(costs), len(costs[0])
    if rows > columns:
        return sorted((row, column) for column, row in assign(list(zip(*costs, strict=True))))
    # Rows and columns count from 1; 0 stands for "none yet".
    of_row, of_column = [0.0] * (rows + 1), [0.0] * (columns + 1)
    owner = [0] * (columns + 1)
    for row in range(1, rows + 1):
        owner[0] = row
        at, came_from = _shortest_path(costs, owner, of_row, of_column)
        while at:
            owner[at], at = owner[came_from[at]], came_from[at]
    return sorted((owner[column] - 1, column - 1) for column in range(1, columns + 1) if owner[column])


def _shortest_path(
    costs: Sequence[Sequence[float]], owner: list[int], of_row: list[float], of_column: list[float]
) -> tuple[int, list[int]]:
    """The free column at its end, and of each column the one before it. The potentials are brought up to date."""
    columns = range(len(owner))
    distance, came_from, done = [math.inf] * len(owner), [0] * len(owner), [False] * len(owner)
    at = 0
    while owner[at]:
        done[at] = True
        here = owner[at]
        for column in columns[1:]:
            if not done[column]:
                reduced = costs[here - 1][column - 1] - of_row[here] - of_column[column]
                if reduced < distance[column]:
                    distance[column], came_from[column] = reduced, at
        nearest = min((column for column in columns[1:] if not done[column]), key=distance.__getitem__)
        least = distance[nearest]
        for column in columns:
            if done[column]:
                of_row[owner[column]] += least
                of_column[column] -= least
            else:
                distance[column] -= least
        at = nearest
    return at, came_from
