"""What metrics of topics are fed with: the best words of topics, windows of words, likelihoods of documents."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.inputs import as_float


def top_words(topic_words: Any, k: int = 10) -> np.ndarray:
    """The ids of each topic's k most probable words, best first: [topics, vocabulary] -> int32 [topics, k]; NumPy.

    Among equally probable words the lower id comes first.

    >>> from jaxdl.metrics import top_words
    >>> top_words([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]], 2).tolist()
    [[1, 2], [0, 2]]
    """
    weights = np.asarray(topic_words)
    if weights.ndim != 2 or not 1 <= k <= weights.shape[1]:
        raise ValueError(
            f"top_words: topic_words have shape {weights.shape} and k is {k}; they must be [topics, vocabulary] and k "
            "from 1 to the size of the vocabulary"
        )
    return np.argsort(-weights, axis=1, kind="stable")[:, :k].astype(np.int32)


def sliding_windows(documents: Any, size: int = 10) -> np.ndarray:
    """All runs of `size` words of each document, as documents of their own: int32 [windows, size]; on the host.

    documents: word ids [documents, length], padded at the end with negative ids. A document shorter than `size` is one
    window, an empty one none. Coherence is often reported over such windows.

    >>> from jaxdl.metrics import sliding_windows
    >>> sliding_windows([[4, 5, 6], [7, -1, -1]], 2).tolist()
    [[4, 5], [5, 6], [7, -1]]
    """
    ids = np.asarray(documents)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer) or size < 1:
        raise ValueError(
            f"sliding_windows: documents are {ids.dtype} of shape {ids.shape} and size is {size}; they must be integer "
            "word ids [documents, length] and size at least 1"
        )
    length = (ids >= 0).sum(axis=1)
    if ((ids[:, :-1] < 0) & (ids[:, 1:] >= 0)).any():
        raise ValueError("sliding_windows: a negative id stands before a word; padding belongs at the end")
    filled = np.pad(ids, ((0, 0), (0, max(size - ids.shape[1], 0))), constant_values=-1).astype(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(filled, size, axis=1)
    start = np.arange(windows.shape[1])[None, :]
    whole = start + size <= length[:, None]
    return windows[whole | ((start == 0) & (length > 0)[:, None])]


def document_log_likelihood(mixture: Any, topic_words: Any, counts: Any) -> tuple[jax.Array, jax.Array]:
    """(log p of each document in nats, its number of words), float32 [documents] each.

    log p(d) = sum over words v of counts[d, v] * log(sum over topics k of mixture[d, k] * topic_words[k, v]). mixture:
    [documents, topics], topic_words: [topics, vocabulary], rows that sum to 1; counts: [documents, vocabulary]. A word
    that occurs and has probability 0 gives -inf.

    >>> from jaxdl.metrics import document_log_likelihood, topic_perplexity
    >>> likelihood, words = document_log_likelihood([[0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]], [[3, 1]])
    >>> float(topic_perplexity(likelihood, words))
    2.0
    """
    theta, beta = as_float(mixture, "mixture"), as_float(topic_words, "topic_words")
    found = as_float(counts, "counts")
    if (
        theta.ndim != 2
        or beta.ndim != 2
        or found.shape != (theta.shape[0], beta.shape[1])
        or theta.shape[1] != beta.shape[0]
    ):
        raise ValueError(
            f"document_log_likelihood: mixture {theta.shape}, topic_words {beta.shape} and counts {found.shape} must "
            "be [documents, topics], [topics, vocabulary] and [documents, vocabulary]"
        )
    chance = jnp.matmul(theta, beta, precision=lax.Precision.HIGHEST)
    some = found != 0
    terms = jnp.where(some, found * jnp.log(jnp.where(some, chance, jnp.ones_like(chance))), jnp.zeros_like(found))
    return jnp.sum(terms, axis=-1), jnp.sum(found, axis=-1)
