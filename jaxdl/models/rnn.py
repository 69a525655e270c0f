"""Recurrent networks: sequence to vector, sequence to sequence, vector to sequence, and language models."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, Rule, dense, embed, linear
from jaxdl.models.stages import Stages
from jaxdl.nn.largest import largest
from jaxdl.parallel import constrain

Array = jax.Array
Axes = tuple[tuple[str, tuple[str | None, ...]], ...]

POOLS = ("last", "mean", "max", "each")

AXES: Axes = (
    (r"(.*/)?embed/embedding", ("vocab", "embed")),
    *nn.RNN.logical_axes,
    (r"logits/kernel", ("hidden", "classes")),
    (r"logits/bias", ("classes",)),
)


def torch_rnn(ours: str, peer: str, cell: str) -> tuple[Rule, ...]:
    """The rules of an `nn.RNN` of this cell and torch.nn.LSTM, GRU or RNN.

    torch's two biases add up to one here. Those of a GRU's third gate stay apart, since it resets one of them only: the
    second is our `recurrent_bias`.

    Raises:
        ValueError: the cell is "gru_reset_before", which torch does not have; its shapes would fit all the same.
    """
    if cell == "gru_reset_before":
        raise ValueError("torch's GRU resets after the product: its weights go with cell='gru'")
    rules: tuple[Rule, ...] = ()
    for here, there in (("", ""), ("_backward", "_reverse")):
        layer, second = rf"{ours}/layer(\d+){here}", rf"{peer}.bias_hh_l\1{there}"
        apart = cell == "gru"
        rules += (
            Rule(f"{layer}/kernel", rf"{peer}.weight_ih_l\1{there}", dense()),
            Rule(f"{layer}/recurrent_kernel", rf"{peer}.weight_hh_l\1{there}", dense()),
            Rule(f"{layer}/bias", rf"{peer}.bias_ih_l\1{there}", plus=second, plus_part=(2, 3) if apart else (1, 1)),
            *([Rule(f"{layer}/recurrent_bias", second, part=(2, 3))] if apart else []),
        )
    return rules


def _torch_network(model: RNNClassifier | VectorToSequence) -> Peer:
    """A module of torch: embedding `embed` (where tokens are read), torch.nn.LSTM, GRU or RNN `rnn`, dense `logits`."""
    rules = (*embed("embed", "embed"), *torch_rnn("rnn", "rnn", model.cell), *linear("logits", "logits"))
    return Peer(rules, head=r"logits\..*")


class RNNClassifier(linen.Module):
    """A recurrent network that reads a sequence and answers once, or at each step.

    Attributes:
        num_classes: how many numbers come out (classes; 1 for regression); 0: what the recurrent layers have to say.
        cell: "lstm", "gru", "gru_reset_before", "vanilla" or "vanilla_relu".
        width: hidden numbers of each layer and direction.
        depth: layers.
        bidirectional: also read backwards, within each sequence's length.
        vocabulary: how many tokens there are, where x holds token numbers.
        embed: width of the embedding of tokens; None: `width`.
        pad: what padding at the end of a sequence consists of: a token number, or a float that all features of a step
            equal. None: sequences are whole.
        pool: "last": the state after the last step (backwards: after the first one); "mean" or "max" over the steps;
            "each": an answer at each step, [batch, time, num_classes].
        residual, zoneout, backend: as in `nn.RNN`.
        dropout: rate after the embedding, between layers and before the logits.
        features: names of stages to return instead: "embed", "hidden" (every step), "pooled".
    """

    num_classes: int
    cell: str = "lstm"
    width: int = 128
    depth: int = 1
    bidirectional: bool = False
    vocabulary: int | None = None
    embed: int | None = None
    pad: float | None = None
    pool: str = "last"
    residual: bool = False
    dropout: float | Array = 0.0
    zoneout: float | Array = 0.0
    backend: str = "scan"
    features: tuple[str, ...] = ()

    logical_axes: ClassVar[Axes] = AXES
    peers: ClassVar[Peers] = {"torch": _torch_network}

    @linen.compact
    def __call__(self, x: Array, *, train: bool, lengths: Array | None = None) -> Any:
        """Answer.

        Args:
            x: [batch, time, features] floats, or [batch, time] token numbers.
            train: draws dropout and zoneout.
            lengths: [batch], where they are not to be seen from `pad`.

        Returns:
            [batch, num_classes]; with pool="each" [batch, time, num_classes].

        Raises:
            ValueError: x of another shape; tokens without a vocabulary; an unknown pool.
        """
        if self.pool not in POOLS:
            raise ValueError(f"pool={self.pool!r}: choose one of {', '.join(map(repr, POOLS))}")
        stages = Stages(self, self.features, known=("embed", "hidden", "pooled"))
        if lengths is None and self.pad is not None:
            lengths = lengths_of(x, self.pad)
        if self.vocabulary is not None:
            _check_tokens("an RNN classifier with a vocabulary", x)
            x = nn.Embed(self.vocabulary, self.embed or self.width, name="embed")(x)
            x = constrain(x, "batch", "length", "embed")
        elif jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError("x holds integers: say how many tokens there are, vocabulary=..., or give floats")
        x = stages.reached("embed", nn.Dropout(self.dropout)(x, train=train))
        rnn = nn.RNN(
            self.width, self.cell, self.depth, self.bidirectional, self.residual, self.dropout, self.zoneout,
            backend=self.backend, name="rnn",
        )  # fmt: skip
        y, carry = rnn(x, train=train, lengths=lengths)
        y = stages.reached("hidden", constrain(y, "batch", "length", None))
        y = stages.reached("pooled", self._pooled(y, carry, lengths))
        if self.num_classes:
            y = nn.Dense(self.num_classes, name="logits")(nn.Dropout(self.dropout)(y, train=train))
        return stages.result(y)

    def _pooled(self, y: Array, carry: Any, lengths: Array | None) -> Array:
        if self.pool == "each":
            return y
        if self.pool == "last":
            return nn.last_hidden(carry).astype(y.dtype)
        valid = jnp.ones(y.shape[:2], jnp.bool_)
        if lengths is not None:
            valid = jnp.arange(y.shape[1], dtype=jnp.int32).reshape(1, -1) < lengths.reshape(-1, 1)
        if self.pool == "max":
            peaks = largest(jnp.where(valid[..., None], y, jnp.asarray(-jnp.inf, y.dtype)), 1)
            return jnp.where(valid.any(1)[:, None], peaks, jnp.zeros((), y.dtype))
        # padding's outputs are zeros already
        return y.sum(1) / jnp.maximum(valid.sum(1), 1).astype(y.dtype)[:, None]


class VectorToSequence(linen.Module):
    """A recurrent network that is told one vector and says a sequence: the vector is its input at every step.

    Attributes:
        num_classes: numbers that come out at each step (classes, or 1 for a series); 0: the hidden ones.
        length: steps.
        cell, width, depth, residual, zoneout, backend: as in `nn.RNN`.
        dropout: rate between layers and before the logits.
        features: names of stages to return instead: "hidden".
    """

    num_classes: int
    length: int = 16
    cell: str = "lstm"
    width: int = 128
    depth: int = 1
    residual: bool = False
    dropout: float | Array = 0.0
    zoneout: float | Array = 0.0
    backend: str = "scan"
    features: tuple[str, ...] = ()

    logical_axes: ClassVar[Axes] = AXES
    peers: ClassVar[Peers] = {"torch": _torch_network}

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Any:
        """x: [batch, features] floats; returns [batch, length, num_classes]. ValueError for another shape."""
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"a sequence is made of vectors [batch, features], not of {x.dtype} {list(x.shape)}")
        stages = Stages(self, self.features, known=("hidden",))
        repeated = jnp.broadcast_to(x[:, None], (x.shape[0], self.length, x.shape[-1]))
        rnn = nn.RNN(
            self.width, self.cell, self.depth, False, self.residual, self.dropout, self.zoneout,
            backend=self.backend, name="rnn",
        )  # fmt: skip
        y = stages.reached("hidden", rnn(repeated, train=train)[0])
        if self.num_classes:
            y = nn.Dense(self.num_classes, name="logits")(nn.Dropout(self.dropout)(y, train=train))
        return stages.result(y)


def _torch(model: RNNLanguageModel) -> Peer:
    """The modules are called encoder, rnn and decoder there, as in PyTorch's word language model."""
    return Peer(
        (*embed("embed", "encoder"), *torch_rnn("rnn", "rnn", model.cell), *linear("logits", "decoder")),
        head=r"decoder\..*",
    )


class RNNLanguageModel(linen.Module):
    """A recurrent network that says the next token.

    Attributes:
        num_classes: the vocabulary.
        cell: "lstm", "gru", "gru_reset_before", "vanilla" or "vanilla_relu".
        width: hidden numbers of each layer.
        depth: layers.
        embed: width of the embedding; None: `width`.
        tied: the logits are products with the embedding, whose width must then be `width`.
        residual, zoneout, backend: as in `nn.RNN`.
        dropout: rate after the embedding, between layers and before the logits.
        stateful: training goes on from the batch before: the carry of each row stays in the variables ("carry"), as a
            constant, so that gradients end at the window (truncated backpropagation through time). The rows of the
            data must go on too: see `jaxdl.data.TokenStreams`. Evaluation starts each row from zeros.
        document_end: a token that ends a document: the carry is cleared before it is read, so that it begins the next.
        features: names of stages to return instead: "embed", "hidden".

    Source of truncation: Williams and Peng, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent
    Network Trajectories", 1990. Of tied weights: Press and Wolf, "Using the Output Embedding to Improve Language
    Models", 2017.
    """

    num_classes: int
    cell: str = "lstm"
    width: int = 256
    depth: int = 1
    embed: int | None = None
    tied: bool = False
    residual: bool = False
    dropout: float | Array = 0.0
    zoneout: float | Array = 0.0
    stateful: bool = False
    document_end: int | None = None
    backend: str = "scan"
    features: tuple[str, ...] = ()

    logical_axes: ClassVar[Axes] = AXES
    peers: ClassVar[Peers] = {"torch": _torch}

    def setup(self) -> None:
        embed = self.embed or self.width
        if self.tied and embed != self.width:
            raise ValueError(f"tied=True needs an embedding as wide as the network, {self.width}, not {embed}")
        self.embedding = nn.Embed(self.num_classes, embed, name="embed")
        self.rnn = self._rnn()
        self.drop = nn.Dropout(self.dropout)
        if not self.tied:
            self.head = nn.Dense(self.num_classes, name="logits")

    def __call__(self, x: Array, *, train: bool, carry: Any = None) -> Any:
        """x: [batch, time] token numbers; carry: as `start` and `step` have it; returns [batch, time, num_classes]."""
        _check_tokens("a language model", x)
        stages = Stages(self, self.features, known=("embed", "hidden"))
        keeps = self.stateful and self.is_mutable_collection("carry")
        if keeps and self.is_initializing():
            self.put_variable("carry", "streams", self.start(x.shape[0]))
        keeps = keeps and train and self.has_variable("carry", "streams")
        if keeps and carry is None:
            carry = nn.stop_carry(dict(self.get_variable("carry", "streams")))
        embedded = constrain(self.embedding(x), "batch", "length", "embed")
        embedded = stages.reached("embed", self.drop(embedded, train=train))
        y, last = self.rnn(embedded, train=train, carry=carry, resets=self._resets(x))
        if keeps:
            self.put_variable("carry", "streams", nn.stop_carry(last))
        y = stages.reached("hidden", constrain(y, "batch", "length", None))
        return stages.result(self._logits(self.drop(y, train=train)))

    @linen.nowrap
    def start(self, batch: int) -> Any:
        """The carry before the first token: zeros."""
        return self._rnn(parent=None).start(batch)

    def step(self, carry: Any, tokens: Array) -> tuple[Array, Any]:
        """Read one token a row, [batch] -> the logits of the next [batch, num_classes], and the carry.

        It is the step of `jaxdl.models.decoding`; `decoder` gives it with the variables bound.
        """
        y, carry = self.rnn(
            self.embedding(tokens[:, None]), train=False, carry=carry, resets=self._resets(tokens[:, None])
        )
        return self._logits(y[:, 0]), carry

    @linen.nowrap
    def decoder(self, variables: Any, batch: int) -> tuple[Any, Any]:
        """What `jaxdl.models.decoding` needs: the step, and the carry of `batch` rows that it starts from."""
        return lambda carry, tokens: self.apply(variables, carry, tokens, method="step"), self.start(batch)

    @linen.nowrap
    def _rnn(self, **options: Any) -> nn.RNN:
        return nn.RNN(
            self.width, self.cell, self.depth, False, self.residual, self.dropout, self.zoneout,
            backend=self.backend, **options,
        )  # fmt: skip

    def _resets(self, tokens: Array) -> Array | None:
        return None if self.document_end is None else tokens == self.document_end

    def _logits(self, y: Array) -> Array:
        return self.embedding.attend(y) if self.tied else self.head(y)


def lengths_of(x: Array, pad: float) -> Array:
    """[batch, time] or [batch, time, features] -> [batch] int32: steps up to the last one that is no padding."""
    there = x != jnp.asarray(pad, x.dtype)
    there = there.any(-1) if x.ndim == 3 else there
    places = jnp.arange(1, x.shape[1] + 1, dtype=jnp.int32).reshape(1, -1)
    return jnp.where(there, places, jnp.int32(0)).max(1)


def _check_tokens(what: str, x: Array) -> None:
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{what} reads token numbers, [batch, time] integers, not {x.dtype} {list(x.shape)}")
