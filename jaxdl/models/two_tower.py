"""Two towers: queries and items as unit vectors whose product says how well they go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn

Array = jax.Array


class Tower(linen.Module):
    """One side: ids or numbers -> vectors of length 1.

    Attributes:
        vocabulary: how many ids there are; None: the input is numbers.
        features: length of the embedding and of the vector that comes out.
        widths: of the layers between.
    """

    vocabulary: int | None
    features: int
    widths: Sequence[int]

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [batch] ids, [batch, length] bags of ids (-1 is padding; the mean of their vectors), or [batch, d] floats.

        Returns:
            [batch, features], of length 1.
        """
        if self.vocabulary is None:
            if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
                raise ValueError(f"a tower without vocabulary takes numbers [batch, d], not {x.dtype}{list(x.shape)}")
        elif not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"a tower with a vocabulary takes integer ids, not {x.dtype}{list(x.shape)}")
        else:
            there = x >= 0
            vectors = nn.Embed(self.vocabulary, self.features, name="embed")(jnp.maximum(x, 0))
            x = vectors
            if there.ndim == 2:
                share = there.astype(x.dtype) / jnp.maximum(jnp.sum(there, axis=1, keepdims=True), 1).astype(x.dtype)
                x = jnp.sum(x * share[..., None], axis=1)
        for number, width in enumerate(self.widths):
            x = jax.nn.relu(nn.Dense(width, kernel_init=linen.initializers.he_normal(), name=f"hidden{number}")(x))
        if self.widths or self.vocabulary is None:
            x = nn.Dense(self.features, name="output")(x)
        return nn.L2Norm(initial_scale=1.0, learned=False, name="unit")(x)


class TwoTower(linen.Module):
    """A tower for queries and a tower for items; neither sees the other, so items are indexed once.

    Attributes:
        queries: how many query (user) ids there are; None: queries are numbers.
        items: how many item ids there are; None: items are numbers.
        features: length of the vectors.
        width: of each tower's hidden layers.
        depth: number of each tower's hidden layers; 0: the embeddings themselves.
        widths: of each tower's hidden layers, one by one, instead of width and depth.

    Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", 2019.
    """

    queries: int | None = 1000
    items: int | None = 1000
    features: int = 32
    width: int = 64
    depth: int = 1
    widths: Sequence[int] | None = None

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"(query|item)/embed/embedding", ("vocab", "embed")),
        (r"(query|item)/hidden\d+/kernel", ("embed", "mlp")),
        (r"(query|item)/hidden\d+/bias", ("mlp",)),
        (r"(query|item)/output/kernel", ("mlp", "embed")),
        (r"(query|item)/output/bias", ("embed",)),
    )

    @linen.compact
    def __call__(self, x: Array | Mapping[str, Array], *, train: bool) -> dict[str, Array]:
        """x: {"query": ..., "item": ...}, each as `Tower` takes it; or integers [batch, 2]: query id, item id.

        One of the two may be missing: then only the other's vectors come out (to index the items, say).

        Returns:
            {"query": [batch, features], "item": [batch, features]}, vectors of length 1.

        Raises:
            ValueError: x is neither, or a side does not suit its tower.
        """
        x = sides(x)
        widths = (self.width,) * self.depth if self.widths is None else tuple(self.widths)
        towers = {"query": self.queries, "item": self.items}
        return {
            name: nn.tap(self, name, Tower(vocabulary, self.features, widths, name=name)(x[name]))
            for name, vocabulary in towers.items()
            if name in x
        }


class Found(NamedTuple):
    """What `retrieve` finds for each query, best first.

    Attributes:
        items: [queries, k] int32, places among the items.
        scores: [queries, k], cosines.
    """

    items: Array
    scores: Array


def sides(x: Any) -> Mapping[str, Array]:
    """{"query", "item"} of what `TwoTower` takes.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(x, Mapping):
        if not x or not set(x) <= {"query", "item"}:
            raise ValueError(f"two towers take a mapping of query and item, not of {', '.join(map(str, x))}")
        return x
    if x.ndim != 2 or x.shape[1] != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"two towers take integers [batch, 2] (query, item) or a mapping, not {x.dtype}{list(x.shape)}"
        )
    return {"query": x[:, 0], "item": x[:, 1]}


def retrieve(queries: Array, items: Array, k: int) -> Found:
    """The k items nearest to each query, exactly: [queries, features] and [items, features], both of length 1."""
    if not 1 <= k <= items.shape[0]:
        raise ValueError(f"k lies between 1 and the {items.shape[0]} items, not {k}")
    scores, places = jax.lax.top_k(queries @ items.T, k)
    return Found(places.astype(jnp.int32), scores)
