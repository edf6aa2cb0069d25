"""Who goes with whom: the best choice of pairs, over all planes at once.

A stack is cut into chains of objects. Choosing for each object at most one follower
and at most one forerunner, so that the sum of weights is largest, is one bipartite
matching between "ends here" and "begins here" of all objects (path cover; Jaqaman
et al. 2008, Nature Methods 5:695, solve the same problem frame by frame). Nothing in
it knows a direction, so a stack read backwards gives the same chains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import (
    connected_components,
    min_weight_full_bipartite_matching,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What it is worth to leave an object unpaired: nothing, but a stored zero is no edge.
_ALONE = 1e-12


def best_pairs(
    first: NDArray[np.int64], second: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose pairs so that none shares a member and the sum of weights is largest.

    Parameters
    ----------
    first, second : (K,) int64 arrays
        The members of each pair; each pair once.
    weight : (K,) float64 array
        What a pair is worth, above 0.

    Returns
    -------
    (P,) int64 array
        Indices of the pairs chosen, ascending.

    Examples
    --------
    >>> best_pairs(np.array([0, 0, 1]), np.array([5, 6, 5]), np.array([3.0, 2.0, 2.0]))
    array([1, 2])
    """
    sure = _sure_pairs(first, second, weight)
    taken_first, taken_second = np.unique(first[sure]), np.unique(second[sure])
    left = np.flatnonzero(~np.isin(first, taken_first) & ~np.isin(second, taken_second))
    chosen = [sure]
    for group in _groups(first[left], second[left]):
        pairs = left[group]
        chosen.append(pairs[_best_of(first[pairs], second[pairs], weight[pairs])])
    return np.sort(np.concatenate(chosen))


def _sure_pairs(
    first: NDArray[np.int64], second: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Find pairs that are worth more than all that both members could have instead.

    They are in the best choice whatever the others do. In most stacks these are
    nearly all pairs, and what is left falls into small groups.
    """
    left = np.arange(len(first))
    sure = [np.zeros(0, np.int64)]
    while left.size:
        instead = [_best_other(side[left], weight[left]) for side in (first, second)]
        is_sure = weight[left] > instead[0] + instead[1]
        found = left[is_sure]
        sure.append(found)
        rest = ~np.isin(first[left], first[found])
        rest &= ~np.isin(second[left], second[found])
        left = left[rest]
        if not found.size:
            break
    return np.concatenate(sure)


def _best_other(
    member: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For each pair the largest weight of another pair of this member, or 0."""
    members, of = np.unique(member, return_inverse=True)
    order = np.lexsort((weight, of))
    last = np.cumsum(np.bincount(of, minlength=len(members))) - 1
    best = order[last]
    has_second = np.bincount(of) > 1
    second = np.where(has_second, weight[order[last - has_second]], 0.0)
    other: NDArray[np.float64] = weight[best][of]
    other[best] = second[of[best]]
    return other


def _groups(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Split pairs into groups that have no member in common."""
    if not len(first):
        return []
    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    n = len(rows) + len(columns)
    graph = coo_array((np.ones(len(row)), (row, len(rows) + column)), shape=(n, n))
    _, number = connected_components(graph, directed=False)
    order = np.argsort(number[row], kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[row][order])) + 1)


def _best_of(
    first: NDArray[np.int64], second: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.int64]:
    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    n, m = len(rows), len(columns)
    # each row may also go with a column of its own, that is, stay alone
    alone = np.arange(n)
    graph = coo_array(
        (
            np.concatenate([weight, np.full(n, _ALONE)]),
            (np.concatenate([row, alone]), np.concatenate([column, m + alone])),
        ),
        shape=(n, m + n),
    ).tocsr()
    chosen_row, chosen_column = min_weight_full_bipartite_matching(graph, maximize=True)
    chosen = np.full(n, -1, np.int64)
    chosen[chosen_row] = chosen_column
    return np.flatnonzero(chosen[row] == column)


def evidence(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn scores into weights that add up.

    The negative logarithm of ``1 - score``: one sure pair is worth more than two
    doubtful ones, and what two independent scores say is the sum of their weights.

    Parameters
    ----------
    score : (K,) float64 array, 0 to 1
    """
    weight: NDArray[np.float64] = -np.log1p(-np.clip(score, 0.0, 0.99))
    return weight


def chains(
    n_nodes: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number the chains that chosen pairs make.

    Parameters
    ----------
    n_nodes : int
        Number of objects, in the order of their planes.
    first, second : (P,) int64 arrays
        Pairs; the second stands in a later plane than the first, and no object is
        first or second twice.

    Returns
    -------
    (n_nodes,) int64 array
        Number of each object's chain, from 0, in the order of the chains' beginnings.
    """
    forerunner = np.full(n_nodes, -1, np.int64)
    forerunner[second] = first
    number = np.full(n_nodes, -1, np.int64)
    n_chains = 0
    for node in range(n_nodes):
        if forerunner[node] < 0:
            number[node] = n_chains
            n_chains += 1
        else:
            number[node] = number[forerunner[node]]
    return number
