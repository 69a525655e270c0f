"""Convolutions of one, two and three dimensions: as XLA's own operation, or as patches and a matrix product.

XLA's CPU backend computes a convolution about 20 times slower inside a compiled loop than outside, and one whose
kernels are batched (`jax.vmap` over models) as a grouped convolution, which is slow as well. The same sum as patches
times kernel, "im2col", has neither trouble and costs the memory of the patches. `implementation` chooses:

- "native": `lax.conv_general_dilated`.
- "im2col": shifted copies of the input, side by side, times the kernel.
- "auto": native, unless the code around says otherwise with `conv_implementation("im2col")`; on a CPU also im2col for a
  kernel of one tap, which needs no patches: with stride 2 it takes half the time (docs/nn.md).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp

Array = jax.Array
Lengths = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]

IMPLEMENTATIONS = ("auto", "native", "im2col")

_chosen: ContextVar[str] = ContextVar("jaxdl_conv_implementation", default="native")


@contextlib.contextmanager
def conv_implementation(name: str) -> Iterator[None]:
    """Within it, convolutions whose implementation is "auto" are traced as `name`, "native" or "im2col".

    For whoever puts a model into a compiled loop or under `jax.vmap` on a CPU. It acts while a function is traced: a
    function that was jitted before keeps what it was traced with.

        with nn.conv_implementation("im2col"):
            losses = jax.jit(jax.vmap(loss))(many_params, x)

    Raises:
        ValueError: an unknown name.
    """
    if name not in IMPLEMENTATIONS[1:]:
        raise ValueError(f'conv_implementation({name!r}): choose "native" or "im2col"')
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def convolve(
    x: Array,
    kernel: Array,
    *,
    strides: Lengths = 1,
    padding: Padding = "SAME",
    dilation: Lengths = 1,
    groups: int = 1,
    implementation: str = "auto",
) -> Array:
    """Slide a kernel over the axes of space (cross-correlation, as every deep-learning library calls it).

    >>> x, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 4))
    >>> convolve(x, kernel, strides=2).shape
    (1, 3, 3, 4)
    >>> convolve(x, kernel, padding="VALID")[0, 0, 0]
    Array([18., 18., 18., 18.], dtype=float32)

    Args:
        x: [batch, *space, channels].
        kernel: [*kernel_size, channels // groups, features].
        strides, dilation: one number, or one per axis of space.
        padding: "SAME" (output = ceil(size / stride), the odd zero at the end), "VALID" (none), zeros at both ends of
            every axis, or one number or pair (before, after) per axis.
        groups: channels are cut into this many parts, each with kernels of its own.
        implementation: "auto", "native" or "im2col"; see the top of this file.

    Returns:
        [batch, *new space, features] in x's dtype.

    Raises:
        ValueError: shapes that do not fit each other, an unknown implementation.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r}: choose one of {', '.join(map(repr, IMPLEMENTATIONS))}")
    space, taps = x.shape[1:-1], kernel.shape[:-2]
    if len(taps) != len(space):
        raise ValueError(
            f"a kernel of {len(taps)} dimensions, {tuple(taps)}, slides over x [batch, {len(taps)} axes of space, "
            f"channels], not {x.shape}"
        )
    if x.shape[-1] != kernel.shape[-2] * groups or kernel.shape[-1] % groups:
        raise ValueError(
            f"convolution in {groups} groups: {x.shape[-1]} channels and {kernel.shape[-1]} features must divide by "
            f"them, and the kernel {kernel.shape} must take {x.shape[-1] / groups:g} channels"
        )
    axes = len(space)
    steps, gaps = per_axis(strides, axes, "strides"), per_axis(dilation, axes, "dilation")
    pads = padding_pairs(padding, space, taps, steps, gaps)
    spans = [size + sum(pad) - (tap - 1) * gap for size, pad, tap, gap in zip(space, pads, taps, gaps, strict=True)]
    if min(spans) < 1:
        raise ValueError(f"a kernel {tuple(taps)} with dilation {gaps} does not fit into {space} padded by {pads}")
    if implementation == "auto":
        one_product = math.prod(taps) == groups == 1 and jax.default_backend() == "cpu"
        implementation = "im2col" if one_product else _chosen.get()
    if implementation == "native":
        letters = "DHW"[3 - axes :]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            steps,
            pads,
            rhs_dilation=gaps,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=groups,
        )
    return _im2col(x, kernel, steps, pads, gaps, groups)


def _im2col(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """The convolution as one matrix product over patches."""
    taps, features = kernel.shape[:-2], kernel.shape[-1]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    ends = [
        1 + (size - (tap - 1) * gap - 1) // step * step
        for size, tap, gap, step in zip(x.shape[1:-1], taps, dilation, strides, strict=True)
    ]
    windows = []
    for offsets in itertools.product(*map(range, taps)):
        begins = [offset * gap for offset, gap in zip(offsets, dilation, strict=True)]
        cuts = (slice(b, b + end, step) for b, end, step in zip(begins, ends, strides, strict=True))
        windows.append(x[(slice(None), *cuts)])
    new_space = windows[0].shape[:-1]
    if groups == 1:
        patches = windows[0] if len(windows) == 1 else jnp.concatenate(windows, axis=-1)
        rows = patches.reshape(math.prod(new_space), -1)
        return (rows @ kernel.reshape(-1, features)).reshape(*new_space, features)
    if kernel.shape[-2] == 1 and features == groups:  # depthwise: a product would be of matrices with one column
        kernels = kernel.reshape(len(windows), *(1,) * (x.ndim - 1), features)
        total = windows[0] * kernels[0]
        for window, weights in zip(windows[1:], kernels[1:], strict=True):
            total = total + window * weights
        return total
    each = kernel.shape[-2]
    patches = jnp.stack([w.reshape(math.prod(new_space), groups, each) for w in windows], axis=2)
    kernels = kernel.reshape(len(windows), each, groups, features // groups)
    return jnp.einsum("ngtc,tcgf->ngf", patches, kernels).reshape(*new_space, features)


def per_axis(value: Lengths, axes: int, name: str) -> tuple[int, ...]:
    """One number -> the same for each axis; several must be one per axis, all at least 1."""
    numbers = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(numbers) != axes or min(numbers) < 1:
        raise ValueError(f"{name}={value}: one number of at least 1, or one for each of {axes} axes of space")
    return numbers


def padding_pairs(
    padding: Padding, space: Sequence[int], taps: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Zeros (before, after) each axis of space, for every form that `padding` may take."""
    if isinstance(padding, str):
        if padding == "VALID":
            return ((0, 0),) * len(space)
        if padding != "SAME":
            raise ValueError(f'padding={padding!r}: "SAME", "VALID", a number, or one number or pair for each axis')
        pairs = []
        for size, tap, step, gap in zip(space, taps, strides, dilation, strict=True):
            missing = max((-(-size // step) - 1) * step + (tap - 1) * gap + 1 - size, 0)
            pairs.append((missing // 2, missing - missing // 2))
        return tuple(pairs)
    each: Sequence[Any] = (padding,) * len(space) if isinstance(padding, int) else padding
    pairs = [(pad, pad) if isinstance(pad, int) else (int(pad[0]), int(pad[1])) for pad in each]
    if len(pairs) != len(space) or min(min(pair) for pair in pairs) < 0:
        raise ValueError(f"padding={padding}: {len(space)} axes of space take one number or pair each, none below 0")
    return tuple(pairs)


class Conv(linen.Module):
    """A convolution of 1, 2 or 3 dimensions with learned kernels.

    Parameters: `kernel` [*kernel_size, channels // groups, features], `bias` [features].

    Attributes:
        features: channels that come out.
        kernel_size: one length for every axis of space, or one per axis.
        strides, padding, dilation, groups, implementation: as in `convolve`.
        use_bias: add a bias.
        kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: Lengths
    strides: Lengths = 1
    padding: Padding = "SAME"
    dilation: Lengths = 1
    groups: int = 1
    use_bias: bool = True
    implementation: str = "auto"
    kernel_init: Any = linen.initializers.lecun_normal()

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [batch, *space, channels]; returns [batch, *new space, features]."""
        taps = per_axis(self.kernel_size, x.ndim - 2, "kernel_size")
        if x.shape[-1] % self.groups or self.features % self.groups:
            raise ValueError(f"groups={self.groups} must divide {x.shape[-1]} channels and {self.features} features")
        return _convolved(self, x, (*taps, x.shape[-1] // self.groups, self.features), self.groups)


class DepthwiseConv(linen.Module):
    """A convolution that keeps channels apart: each has `multiplier` kernels of its own.

    Parameters: `kernel` [*kernel_size, 1, channels * multiplier], `bias` [channels * multiplier].

    Attributes:
        kernel_size, strides, padding, dilation, use_bias, implementation, kernel_init: as in `Conv`.
        multiplier: channels out for each channel in.
    """

    kernel_size: Lengths
    strides: Lengths = 1
    padding: Padding = "SAME"
    dilation: Lengths = 1
    multiplier: int = 1
    use_bias: bool = True
    implementation: str = "auto"
    kernel_init: Any = linen.initializers.lecun_normal()

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [batch, *space, channels]; returns [batch, *new space, channels * multiplier]."""
        taps = per_axis(self.kernel_size, x.ndim - 2, "kernel_size")
        return _convolved(self, x, (*taps, 1, x.shape[-1] * self.multiplier), x.shape[-1])


def _convolved(module: Conv | DepthwiseConv, x: Array, shape: tuple[int, ...], groups: int) -> Array:
    """x under the module's kernel of this shape, and its bias where it has one."""
    kernel = module.param("kernel", module.kernel_init, shape, jnp.float32)
    y = convolve(
        x,
        kernel.astype(x.dtype),
        strides=module.strides,
        padding=module.padding,
        dilation=module.dilation,
        groups=groups,
        implementation=module.implementation,
    )
    return add_bias(module, y) if module.use_bias else y


class ConvTranspose(linen.Module):
    """A transposed convolution: spreads each number over a window of a larger output ("deconvolution").

    Parameters: `kernel` [*kernel_size, channels, features], `bias` [features]. As in flax the kernel is slid over the
    spread-out input as it is; torch's weight [channels, features, *kernel_size] is that kernel mirrored in space.

    Attributes:
        features: channels that come out.
        kernel_size, strides, dilation, use_bias, implementation, kernel_init: as in `Conv`.
        padding: "SAME" (size * stride), "VALID" (all that the windows reach), or numbers, which are torch's: the zeros
            of the convolution that this one transposes, (size - 1) * stride - 2 * padding + extent + output_padding
            with extent = dilation * (kernel_size - 1) + 1.
        output_padding: rows added at the end of each axis; with numbers as padding only.
    """

    features: int
    kernel_size: Lengths
    strides: Lengths = 1
    padding: Padding = "SAME"
    dilation: Lengths = 1
    output_padding: Lengths = 0
    use_bias: bool = True
    implementation: str = "auto"
    kernel_init: Any = linen.initializers.lecun_normal()

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [batch, *space, channels]; returns [batch, *new space, features]."""
        axes = x.ndim - 2
        taps = per_axis(self.kernel_size, axes, "kernel_size")
        steps, gaps = per_axis(self.strides, axes, "strides"), per_axis(self.dilation, axes, "dilation")
        kernel = self.param("kernel", self.kernel_init, (*taps, x.shape[-1], self.features), jnp.float32)
        kernel = kernel.astype(x.dtype)
        pads = self._pads(x.shape[1:-1], taps, steps, gaps)
        if taps == steps and all(pad == (tap - 1, tap - 1) for pad, tap in zip(pads, taps, strict=True)):
            y = _tiles(x, kernel)
        else:
            y = _spread(x, steps, pads)
            y = convolve(y, kernel, padding="VALID", dilation=gaps, implementation=self.implementation)
        return add_bias(self, y) if self.use_bias else y

    def _pads(
        self, space: Sequence[int], taps: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Zeros around the spread-out input; negative ones crop it."""
        extents = [(tap - 1) * gap + 1 for tap, gap in zip(taps, dilation, strict=True)]
        extra = (self.output_padding,) * len(space) if isinstance(self.output_padding, int) else self.output_padding
        if isinstance(self.padding, str):
            if any(extra):
                raise ValueError(f"output_padding={self.output_padding} goes with a padding of numbers, torch's")
            if self.padding not in ("SAME", "VALID"):
                raise ValueError(f'padding={self.padding!r}: "SAME", "VALID", a number, or one for each axis')
            pads = []
            for extent, step in zip(extents, strides, strict=True):
                total = extent + step - 2 if self.padding == "SAME" else 2 * (extent - 1) + max(step - extent, 0)
                first = extent - 1 if self.padding == "VALID" or step > extent - 1 else -(-total // 2)
                pads.append((first, total - first))
            return pads
        if len(extra) != len(space) or any(not 0 <= e < max(s, d) for e, s, d in zip(extra, strides, dilation)):  # noqa: B905
            raise ValueError(
                f"output_padding={self.output_padding}: one number for each of {len(space)} axes, smaller than its "
                f"stride {tuple(strides)} or dilation {tuple(dilation)}"
            )
        given = padding_pairs(self.padding, space, taps, strides, dilation)
        return [
            (extent - 1 - before, extent - 1 - after + more)
            for extent, (before, after), more in zip(extents, given, extra, strict=True)
        ]


def _tiles(x: Array, kernel: Array) -> Array:
    """Windows that lie side by side: one matrix product, and each row of it is a tile of the output."""
    *taps, channels, features = kernel.shape
    axes = len(taps)
    mirrored = jnp.flip(kernel, axis=tuple(range(axes)))
    columns = jnp.moveaxis(mirrored, -2, 0).reshape(channels, -1)
    y = (x.reshape(-1, channels) @ columns).reshape(*x.shape[:-1], *taps, features)
    order = [0, *(n for axis in range(axes) for n in (1 + axis, 1 + axes + axis)), 1 + 2 * axes]
    space = (size * tap for size, tap in zip(x.shape[1:-1], taps, strict=True))
    return y.transpose(order).reshape(x.shape[0], *space, features)


def _spread(x: Array, strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> Array:
    """stride - 1 zeros between neighbours, then zeros around (or rows cut off, where negative)."""
    config = [(0, 0, 0), *((*pad, step - 1) for pad, step in zip(pads, strides, strict=True)), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def add_bias(module: linen.Module, y: Array) -> Array:
    """y [..., features] plus the parameter `bias` [features] of the module, zeros at the start."""
    bias = module.param("bias", linen.initializers.zeros, (y.shape[-1],), jnp.float32)
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
