"""Rows of (score, relevance, query id) as the padded arrays that metrics of ranking take; NumPy, on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class PaddedQueries(NamedTuple):
    """One row a query.

    Attributes:
        preds: float32 [queries, documents], 0 where there is no document.
        target: float32 [queries, documents], 0 where there is no document.
        mask: bool [queries, documents], where there is a document.
        query: the id of each row, sorted, [queries].
    """

    preds: np.ndarray
    target: np.ndarray
    mask: np.ndarray
    query: np.ndarray


def pad_queries(preds: Any, target: Any, query: Any, *, documents: int | None = None) -> PaddedQueries:
    """Gathers flat rows into one padded row a query, in the order in which a query's rows stand.

    preds, target and query are [rows]; a query id may be a number or a string, and its rows may lie anywhere.
    `documents` is the width to pad to (None: the longest list); give it when batches must all have one shape.

    Raises:
        ValueError: when the lengths differ, when an id is NaN, or when a query has more than `documents` rows.

    >>> from jaxdl.metrics import ndcg, pad_queries
    >>> batch = pad_queries([0.9, 0.1, 0.4], [1, 0, 1], ["b", "a", "a"])
    >>> batch.query.tolist(), batch.mask.tolist()
    (['a', 'b'], [[True, True], [True, False]])
    >>> float(ndcg(batch.preds, batch.target, mask=batch.mask))
    1.0
    """
    scores, relevance, ids = np.asarray(preds), np.asarray(target), np.asarray(query)
    if not scores.shape == relevance.shape == ids.shape or scores.ndim != 1:
        raise ValueError(
            f"pad_queries: preds, target and query must be three lists of one length; their shapes are "
            f"{scores.shape}, {relevance.shape} and {ids.shape}"
        )
    if ids.dtype.kind == "f" and np.isnan(ids).any():
        raise ValueError(f"pad_queries: the query id of row {int(np.argmax(np.isnan(ids)))} is NaN")
    names, row, count = np.unique(ids, return_inverse=True, return_counts=True)
    longest = int(count.max(initial=0))
    width = max(longest, 1) if documents is None else documents
    if longest > width:
        raise ValueError(
            f"pad_queries: query {names.tolist()[int(np.argmax(count))]!r} has {longest} rows, more than "
            f"documents={width}; give at least documents={longest}"
        )
    order = np.argsort(row, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    shape = (len(names), width)
    padded = PaddedQueries(
        preds=np.zeros(shape, np.float32), target=np.zeros(shape, np.float32), mask=np.zeros(shape, bool), query=names
    )
    cell = (row[order], place)
    padded.preds[cell], padded.target[cell], padded.mask[cell] = scores[order], relevance[order], True
    return padded
