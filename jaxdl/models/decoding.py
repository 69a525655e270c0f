"""Sequences from a model that says what comes next: greedy, sampled and beam decoding.

A model takes part by one function, the step:

    step(carry, tokens [batch] int32) -> (logits [batch, vocabulary], carry)

The carry is any pytree whose shapes stay (a recurrent state, a key-value cache with its position). Each function is
one loop, so under `jax.jit` a whole decoding is one compiled program per shape; it ends early when every row has ended.
What stays the same while decoding (parameters, an encoded source) belongs in the step's closure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.nn.precision import widened

Array = jax.Array
PyTree = Any
Step = Callable[[PyTree, Array], tuple[Array, PyTree]]

_NEVER = -1e30  # log-probability of what cannot be chosen; finite, so that sums and differences stay numbers


class Decoded(NamedTuple):
    """What was decoded, without the prompt; beam search has an axis of beams after the batch, best first.

    Attributes:
        tokens: [batch, steps] int32; the end token is included, `pad` follows it.
        lengths: [batch] int32, tokens of each row with the end token.
        scores: [batch] float32, the sum of log-probabilities (beam search: divided by the length penalty).
    """

    tokens: Array
    lengths: Array
    scores: Array


def greedy(
    step: Step,
    carry: PyTree,
    tokens: Array,
    *,
    steps: int,
    eos: int | None = None,
    pad: int = 0,
    lengths: Array | None = None,
) -> Decoded:
    """The likeliest token at each step.

    Args:
        step: see the module.
        carry: where the step starts.
        tokens: [batch] the token to start from, or [batch, prompt] tokens, which are read one by one.
        steps: how many tokens to decode at most.
        eos: the token that ends a row; None: every row has `steps` tokens.
        pad: what follows the end.
        lengths: [batch] the real tokens of each prompt, at least 1; None: all of them.

    Raises:
        ValueError: steps is less than 1, or tokens are no [batch] or [batch, prompt] integers.
    """
    return _generate(step, carry, tokens, lambda logits, _: jnp.argmax(logits, axis=-1), steps, eos, pad, lengths)


def sample(
    step: Step,
    carry: PyTree,
    tokens: Array,
    *,
    key: Array,
    steps: int,
    temperature: float | Array = 1.0,
    top_k: int | None = None,
    top_p: float | Array | None = None,
    eos: int | None = None,
    pad: int = 0,
    lengths: Array | None = None,
) -> Decoded:
    """A token drawn at each step from softmax(logits / temperature), cut by `top_k`, then by `top_p`.

    Args:
        key: a typed key; each step and row draws from its own part of it.
        temperature: above 0, a number or a traced scalar; below 1 the likely becomes likelier. A Python 0 is `greedy`;
            a traced one counts as 1e-6.
        top_k: keep the k likeliest tokens.
        top_p: keep the fewest tokens whose probabilities reach top_p together (Holtzman et al., 2020), after top_k.
        step, carry, tokens, steps, eos, pad, lengths: as in `greedy`.

    Returns:
        Decoded; scores are log-probabilities of the model itself (temperature 1, nothing cut).

    Raises:
        ValueError: a temperature below 0, a top_k below 1, a top_p outside (0, 1], or as in `greedy`.
    """
    if isinstance(temperature, (int, float)) and temperature <= 0:
        if temperature < 0:
            raise ValueError(f"a temperature is above 0 (0: the likeliest token), not {temperature}")
        return greedy(step, carry, tokens, steps=steps, eos=eos, pad=pad, lengths=lengths)

    def choose(logits: Array, index: Array) -> Array:
        divisor = jnp.maximum(jnp.asarray(temperature, logits.dtype), 1e-6)
        kept = cut(logits / divisor, top_k=top_k, top_p=top_p)
        return jax.random.categorical(jax.random.fold_in(key, index), kept, axis=-1)

    return _generate(step, carry, tokens, choose, steps, eos, pad, lengths)


def cut(logits: Array, *, top_k: int | None = None, top_p: float | Array | None = None) -> Array:
    """Logits with the unlikely ones at -1e30: those below the k-th, then those outside the likeliest mass top_p.

    Equal logits at the border all stay. The likeliest token always stays.

    Args:
        logits: [..., vocabulary] floats.

    Raises:
        ValueError: a top_k below 1, a top_p outside (0, 1].
    """
    never = jnp.asarray(_NEVER, logits.dtype)
    if top_k is not None:
        if top_k < 1:
            raise ValueError(f"top_k keeps at least 1 token, not {top_k}")
        least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits < least, never, logits)
    if top_p is not None:
        if isinstance(top_p, (int, float)) and not 0 < top_p <= 1:
            raise ValueError(f"top_p is a share in (0, 1], not {top_p}")
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probability = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probability, axis=-1) - probability  # the mass of what is likelier
        inside = (before < jnp.asarray(top_p, logits.dtype)).at[..., 0].set(True)
        least = jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, never, logits)
    return logits


def beam_search(
    step: Step,
    carry: PyTree,
    tokens: Array,
    *,
    steps: int,
    beams: int = 4,
    eos: int | None = None,
    pad: int = 0,
    length_penalty: float = 0.0,
    batch_axes: PyTree = 0,
) -> Decoded:
    """The best of the sequences found by keeping `beams` of them at each step.

    A sequence that ends (with `eos`, or at `steps` tokens) scores

        sum of log-probabilities / ((5 + length) / 6) ** length_penalty

    Ended sequences are kept apart and take no beam; the search stops when no open beam can win. With as many beams
    as there are open prefixes the search is exhaustive.

    Args:
        step: as in the module, but it sees batch * beams rows: row r belongs to example r // beams. A closure over
            something of [batch, ...] repeats it by tokens.shape[0] // batch.
        carry: for [batch] rows; it is repeated here.
        tokens: [batch] the token to start from. For a longer prompt hand in the carry after all tokens but the last.
        beams: sequences kept at each step, and returned.
        length_penalty: at least 0; 0 compares plain sums, which prefers the short; 0.6 to 1 is usual in translation.
        batch_axes: which axis of each leaf of the carry is the batch: an int, or a tree of them that is a prefix of the
            carry as in `jax.vmap(in_axes=)`; None: the leaf is shared by all rows.
        steps, eos, pad: as in `greedy`.

    Returns:
        Decoded with an axis of beams: tokens [batch, beams, steps], lengths and scores [batch, beams], best first. One
        that does not exist (fewer sequences than beams are possible) has a score below -1e29.

    Raises:
        ValueError: beams or steps below 1, a length_penalty below 0, a vocabulary of 1, tokens that are no [batch]
            integers.

    Source: Wu et al., "Google's Neural Machine Translation System", 2016, equation 14 (the penalty).
    """
    if tokens.ndim != 1:
        raise ValueError(f"beam_search starts from one token a row, [batch], not {tokens.shape}")
    _check(tokens, steps)
    if beams < 1 or length_penalty < 0:
        raise ValueError(f"beams is at least 1 and length_penalty at least 0, not {beams} and {length_penalty}")
    batch = tokens.shape[0]
    axes = _leaf_axes(carry, batch_axes)

    def penalty(length: Any) -> Array:
        return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** length_penalty

    def going(state: _Beams) -> Array:
        best_open = jnp.max(state.open_scores, axis=1) / penalty(steps)
        return (state.read < steps) & jnp.any(best_open > jnp.min(state.ended_scores, axis=1))

    def advance(state: _Beams) -> _Beams:
        logits, moved = step(state.carry, state.current.reshape(-1))
        vocabulary = logits.shape[-1]
        if vocabulary < 2:
            raise ValueError("beam_search needs a vocabulary of two tokens or more")
        if eos is not None and not 0 <= eos < vocabulary:
            raise ValueError(f"eos is token {eos}, but the model's tokens are 0 to {vocabulary - 1}")
        logs = jax.nn.log_softmax(widened(logits), axis=-1).reshape(batch, beams, vocabulary)
        total = (state.open_scores[:, :, None] + logs).reshape(batch, -1)
        # Each beam has one end token, so twice as many candidates always hold enough open ones.
        scores, places = jax.lax.top_k(total, 2 * beams)
        parents, chosen = places // vocabulary, (places % vocabulary).astype(jnp.int32)
        grown = _rows(state.open_tokens, parents).at[:, :, state.read].set(chosen)
        ends = jnp.zeros(chosen.shape, jnp.bool_) if eos is None else chosen == eos
        ended = jnp.where(ends, scores / penalty(state.read + 1), _NEVER)
        ended_scores, ended_tokens, ended_lengths = _best(
            beams,
            jnp.concatenate([state.ended_scores, ended], 1),
            jnp.concatenate([state.ended_tokens, grown], 1),
            jnp.concatenate([state.ended_lengths, jnp.full(chosen.shape, state.read + 1, jnp.int32)], 1),
        )
        open_scores, kept = jax.lax.top_k(jnp.where(ends, _NEVER, scores), beams)
        open_parents = _rows(parents, kept)
        flat = (open_parents + beams * jnp.arange(batch)[:, None]).reshape(-1)
        moved = _map_batch(lambda leaf, axis: jnp.take(leaf, flat, axis=axis), moved, axes)
        current = _rows(chosen, kept)
        return _Beams(
            state.read + 1, moved, current, _rows(grown, kept), open_scores, ended_tokens, ended_scores, ended_lengths
        )

    nothing = jnp.full((batch, beams, steps), pad, jnp.int32)
    start = _Beams(
        read=jnp.int32(0),
        carry=_map_batch(lambda leaf, axis: jnp.repeat(leaf, beams, axis=axis), carry, axes),
        current=jnp.repeat(tokens.astype(jnp.int32)[:, None], beams, axis=1),
        open_tokens=nothing,
        # One beam is open at first: the others would be the same sequence again.
        open_scores=jnp.full((batch, beams), _NEVER, jnp.float32).at[:, 0].set(0.0),
        ended_tokens=nothing,
        ended_scores=jnp.full((batch, beams), 2 * _NEVER, jnp.float32),
        ended_lengths=jnp.zeros((batch, beams), jnp.int32),
    )
    last = jax.lax.while_loop(going, advance, start)
    scores, out, lengths = _best(
        beams,
        jnp.concatenate([last.ended_scores, last.open_scores / penalty(last.read)], 1),
        jnp.concatenate([last.ended_tokens, last.open_tokens], 1),
        jnp.concatenate([last.ended_lengths, jnp.full((batch, beams), last.read, jnp.int32)], 1),
    )
    return Decoded(out, lengths, scores)


def likeliest(
    step: Step, carry: PyTree, tokens: Array, *, steps: int, beams: int = 1, eos: int, pad: int = 0,
    length_penalty: float = 0.0, batch_axes: PyTree = 0,
) -> Decoded:  # fmt: skip
    """One sequence an example: the likeliest token at each step, or with beams > 1 the best of a search.

    Args: see `greedy` and `beam_search`.
    """
    if beams == 1:
        return greedy(step, carry, tokens, steps=steps, eos=eos, pad=pad)
    found = beam_search(
        step, carry, tokens, steps=steps, beams=beams, eos=eos, pad=pad, length_penalty=length_penalty,
        batch_axes=batch_axes,
    )  # fmt: skip
    return Decoded(*(leaf[:, 0] for leaf in found))


class _Beams(NamedTuple):
    read: Array  # [] int32, tokens decoded so far
    carry: PyTree  # of batch * beams rows
    current: Array  # [batch, beams], the token to read next
    open_tokens: Array  # [batch, beams, steps]
    open_scores: Array  # [batch, beams], sums of log-probabilities
    ended_tokens: Array
    ended_scores: Array  # [batch, beams], with the penalty
    ended_lengths: Array


def _best(count: int, scores: Array, tokens: Array, lengths: Array) -> tuple[Array, Array, Array]:
    """The `count` sequences of each row with the highest scores, best first."""
    scores, places = jax.lax.top_k(scores, count)
    return scores, _rows(tokens, places), _rows(lengths, places)


def _rows(x: Array, places: Array) -> Array:
    """x [batch, n, ...] and places [batch, m] -> [batch, m, ...]."""
    return jnp.take_along_axis(x, places.reshape(*places.shape, *(1,) * (x.ndim - 2)), axis=1)


def _leaf_axes(carry: PyTree, axes: PyTree) -> list[int | None]:
    """The batch axis of each leaf of the carry, in its order."""
    flat: list[int | None] = []
    jax.tree.map(
        lambda axis, part: flat.extend([axis] * len(jax.tree.leaves(part))), axes, carry, is_leaf=lambda x: x is None
    )
    return flat


def _map_batch(function: Callable[[Array, int], Array], tree: PyTree, axes: list[int | None]) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    moved = [leaf if axis is None else function(leaf, axis) for leaf, axis in zip(leaves, axes, strict=True)]
    return jax.tree.unflatten(structure, moved)


class _Rows(NamedTuple):
    read: Array  # [] int32, tokens read so far
    carry: PyTree
    current: Array  # [batch], the token to read next
    text: Array  # [batch, prompt + steps]
    done: Array  # [batch] bool
    lengths: Array  # [batch] int32, tokens decoded
    scores: Array  # [batch] float32


def _generate(
    step: Step,
    carry: PyTree,
    tokens: Array,
    choose: Callable[[Array, Array], Array],
    steps: int,
    eos: int | None,
    pad: int,
    lengths: Array | None,
) -> Decoded:
    """The loop of `greedy` and `sample`: prompts of several lengths are read while the shorter rows decode."""
    _check(tokens, steps)
    prompt = tokens.astype(jnp.int32).reshape(tokens.shape[0], -1)
    batch, width = prompt.shape
    given = jnp.full((batch,), width, jnp.int32) if lengths is None else jnp.asarray(lengths, jnp.int32)
    if given.shape != (batch,):
        raise ValueError(f"lengths are one number per row, [{batch}], not {given.shape}")
    prompt = jnp.where(jnp.arange(width)[None] < given[:, None], prompt, np.int32(pad))

    def going(state: _Rows) -> Array:
        return ~jnp.all(state.done)

    def advance(state: _Rows) -> _Rows:
        logits, moved = step(state.carry, state.current)
        logits = widened(logits)
        after = state.read + 1
        reading = after < given
        chosen = choose(logits, state.read).astype(jnp.int32)
        counts = ~(reading | state.done)
        log = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), chosen[:, None], axis=-1)[:, 0]
        told = jax.lax.dynamic_index_in_dim(state.text, after, axis=1, keepdims=False)
        token = jnp.where(reading, told, jnp.where(state.done, np.int32(pad), chosen))
        decoded = state.lengths + counts.astype(jnp.int32)
        done = state.done | (decoded >= steps)
        if eos is not None:
            done |= counts & (chosen == eos)
        text = jax.lax.dynamic_update_slice_in_dim(state.text, token[:, None], after, axis=1)
        scores = state.scores + jnp.where(counts, log, np.float32(0)).astype(jnp.float32)
        return _Rows(after, moved, token, text, done, decoded, scores)

    start = _Rows(
        jnp.int32(0),
        carry,
        prompt[:, 0],
        jnp.concatenate([prompt, jnp.full((batch, steps), pad, jnp.int32)], 1),
        jnp.zeros(batch, jnp.bool_),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, jnp.float32),
    )
    last = jax.lax.while_loop(going, advance, start)
    new = jnp.take_along_axis(last.text, given[:, None] + jnp.arange(steps, dtype=jnp.int32)[None], axis=1)
    return Decoded(new, last.lengths, last.scores)


def _check(tokens: Array, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"decoding takes at least one step, not {steps}")
    if tokens.ndim not in (1, 2) or tokens.size == 0 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"decoding starts from integers [batch] or [batch, prompt], not {tokens.dtype} {tokens.shape}")
