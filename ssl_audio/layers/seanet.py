"""The parts of SEANet, the network of EnCodec: convolutions that pad and cut so that strides divide time.

Tagliasacchi et al. 2020 (arXiv:2009.02095); Défossez et al. 2022 (arXiv:2210.13438) section 3.1.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.dense import uniform
from ssl_audio.layers.lstm import Lstm

NORMS, PADS = ("weight", "group", "none"), ("constant", "reflect")


class Conv(nn.Module):
    """A convolution over time that gives ceil(T / stride) values.

    Attributes:
      channels: of the output.
      size: taps.
      stride: between outputs.
      dilation: between taps.
      causal: see nothing of what comes later; else padding is on both sides, one more on the left if odd.
      pad: "reflect" or "constant" (zeros).
      norm: "weight": every channel's weights have a length of their own (Salimans & Kingma 2016,
        arXiv:1602.07868); "group": the output is normalised over time and channels; "none".
      bias: whether it has one.
    """

    channels: int
    size: int
    stride: int = 1
    dilation: int = 1
    causal: bool = True
    pad: str = "reflect"
    norm: str = "weight"
    bias: bool = True

    def __post_init__(self):
        super().__post_init__()
        check(self.pad, self.norm)
        if self.spare < 0:
            raise ValueError(
                f"Conv: {self.size} taps are fewer than the stride {self.stride}: values between them "
                "would not be heard."
            )

    @property
    def spare(self) -> int:
        """Return how many values before an output's own stride it sees."""
        return (self.size - 1) * self.dilation + 1 - self.stride

    def __call__(
        self, x: Float[Array, "B T A"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B U C"]:
        """Return the convolution's output.

        Args:
          x: the sequences.
          count: values of each before its padding, with T a multiple of the stride: the first
            ceil(count / stride) outputs are then those of the sequences without it.
        """
        if count is None:
            return self.padded(self.with_ends(x))
        return self.padded(self.ended(x, count), -(-count // self.stride))

    def piece(
        self, x: Float[Array, "B T A"], memory: Any, *, last: bool = False
    ) -> tuple[Float[Array, "B U C"], Any]:
        """Return the output of the next piece of a long sequence, and what the one after it needs.

        Args:
          x: the piece; as long as a multiple of the stride, unless it is the last one.
          memory: what the piece before returned; None: this is the first.
          last: continue the end as that of a whole sequence.

        Raises:
          ValueError: an output needs what comes later.
        """
        if not self.causal or self.norm == "group":
            raise ValueError(
                f"Conv: causal={self.causal}, norm={self.norm!r}: pieces of sound need causal=True and "
                "norm='weight' or 'none'."
            )
        x = self.with_ends(x, right=False) if memory is None else jnp.concatenate([memory, x], 1)
        extra = -(x.shape[1] - self.spare) % self.stride if last else 0
        memory = x[:, x.shape[1] - self.spare :]
        how = "reflect" if self.pad == "reflect" else "constant"
        return self.padded(jnp.pad(x, ((0, 0), (0, extra), (0, 0)), mode=how)), memory

    @nn.compact
    def padded(
        self, x: Float[Array, "B T A"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B U C"]:
        """Return the output where every tap lies inside: of a sequence that has its padding already.

        `count`: outputs that count in a norm over time; None: all.
        """
        shape = self.size, x.shape[-1], self.channels
        kernel, bias = weights(self, shape, shape[0] * shape[1], (0, 1))
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride,),
            "VALID",
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return normalised(self.norm, x if bias is None else x + bias[None, None], count)

    @nn.nowrap
    def with_ends(self, x: Float[Array, "B T A"], right: bool = True) -> Float[Array, "B U A"]:
        """Return a sequence with its padding, so long that the last output is a whole one.

        Args:
          x: the sequence.
          right: pad its end, too.
        """
        after = 0 if self.causal else self.spare // 2
        left, ends = self.spare - after, (after + -x.shape[1] % self.stride if right else 0)
        if self.pad == "constant":
            return jnp.pad(x, ((0, 0), (left, ends), (0, 0)))
        # A sequence shorter than what is mirrored is continued with zeros first, which go again.
        extra = max(0, max(left, ends) - x.shape[1] + 1)
        x = jnp.pad(x, ((0, 0), (0, extra), (0, 0)))
        x = jnp.pad(x, ((0, 0), (left, ends), (0, 0)), mode="reflect")
        return x[:, : x.shape[1] - extra]

    @nn.nowrap
    def ended(self, x: Float[Array, "B T A"], count: Int[Array, " B"]) -> Float[Array, "B U A"]:
        """Return what `with_ends` gives of the first `count` values of each sequence, and zeros after it."""
        after = 0 if self.causal else self.spare // 2
        left = self.spare - after
        if self.pad == "constant":
            return jnp.pad(until(x, count), ((0, 0), (left, after), (0, 0)))
        place, count = jnp.arange(-left, x.shape[1] + after)[None], count[:, None]
        right = after + -count % self.stride
        edge = jnp.maximum(count - 1, jnp.maximum(left, right))
        place = jnp.where(place > edge, 2 * edge - place, jnp.abs(place))
        inside = (place >= 0) & (place < count)
        found = jnp.take_along_axis(x, jnp.where(inside, place, 0)[:, :, None], axis=1)
        return jnp.where(inside[:, :, None], found, 0)


class TransposedConv(nn.Module):
    """The transpose of a strided convolution: T values become T * stride.

    Attributes:
      channels: of the output.
      size: taps of what one value spreads to.
      stride: values of the output for each of the input.
      causal: cut what is too long from the end; else from both ends.
      norm: as of `Conv`; "weight": each *input* channel's weights have a length of their own.
    """

    channels: int
    size: int
    stride: int
    causal: bool = True
    norm: str = "weight"

    bias: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check("constant", self.norm)
        if self.size < self.stride:
            raise ValueError(
                f"TransposedConv: {self.size} taps leave gaps between strides of {self.stride}."
            )

    def __call__(
        self, x: Float[Array, "B T A"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B U C"]:
        """Return the output, cut to T * stride; `count`: values before the padding, see `Conv`."""
        spare = self.size - self.stride
        right = spare if self.causal else spare // 2
        found = self.whole(x, count)
        return found[:, spare - right : found.shape[1] - right]

    def piece(
        self, x: Float[Array, "B T A"], memory: Any
    ) -> tuple[Float[Array, "B U C"], Float[Array, "B M A"]]:
        """Return the output of the next piece, and what the one after it needs; see `Conv.piece`."""
        if not self.causal or self.norm == "group":
            raise ValueError(
                f"TransposedConv: causal={self.causal}, norm={self.norm!r}: pieces of sound need "
                "causal=True and norm='weight' or 'none'."
            )
        before = -(-self.size // self.stride) - 1
        if memory is None:
            memory = jnp.zeros((x.shape[0], before, x.shape[2]), x.dtype)
        x = jnp.concatenate([memory, x], 1)
        found = self.whole(x)[:, before * self.stride : x.shape[1] * self.stride]
        return found, x[:, x.shape[1] - before :]

    @nn.compact
    def whole(
        self, x: Float[Array, "B T A"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B U C"]:
        """Return the output before anything is cut; `count`: values before the padding."""
        if count is not None:  # what comes after spreads to what was before, too
            x, count = until(x, count), (count - 1) * self.stride + self.size
        shape = self.size, x.shape[-1], self.channels
        kernel, bias = weights(self, shape, shape[0] * shape[2], (0, 2))
        # What each value spreads to, in parts of one stride that are added where they overlap. XLA's own
        # transposed convolution multiplies the zeros between the values, too.
        parts = -(-self.size // self.stride)
        kernel = jnp.pad(kernel, ((0, parts * self.stride - self.size), (0, 0), (0, 0)))
        spread = jnp.einsum("bta,kac->btkc", x, kernel)
        batch, length, channels = x.shape[0], x.shape[1] + parts - 1, shape[2]
        total = jnp.zeros((batch, length, self.stride, channels), spread.dtype)
        for k in range(parts):
            some = spread[:, :, k * self.stride : (k + 1) * self.stride]
            total = total + jnp.pad(some, ((0, 0), (k, parts - 1 - k), (0, 0), (0, 0)))
        total = total.reshape(batch, -1, channels)[:, : (x.shape[1] - 1) * self.stride + self.size]
        return normalised(self.norm, total + bias[None, None], count)


class ResidualUnit(nn.Module):
    """ELU, dilated convolution to fewer channels, ELU, convolution of width 1 back, added to the input.

    Attributes:
      channels: of input and output.
      conv: template of both convolutions and of the shortcut.
      size: taps of the first one.
      dilation: of the first one.
      compress: by how much fewer channels are in between.
      projected: send the input through a convolution of width 1, too.
    """

    channels: int
    conv: Conv
    size: int = 3
    dilation: int = 1
    compress: int = 2
    projected: bool = True

    def setup(self):
        """Declare the layers."""
        inner, one = self.channels // self.compress, self.conv.copy(channels=self.channels, size=1)
        self.first = self.conv.copy(channels=inner, size=self.size, dilation=self.dilation)
        self.second = one.copy()
        self.shortcut = one.copy() if self.projected else None

    def __call__(
        self, x: Float[Array, "B T C"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B T C"]:
        """Return the output; `count`: values before the padding, see `Conv`."""
        return self._added(x, self.first(nn.elu(x), count), count)

    def piece(
        self, x: Float[Array, "B T C"], memory: Any, *, last: bool = False
    ) -> tuple[Float[Array, "B T C"], Any]:
        """Return the output of the next piece, and what the one after it needs; see `Conv.piece`."""
        y, memory = self.first.piece(nn.elu(x), memory, last=last)
        return self._added(x, y), memory

    def _added(self, x, y, count=None):
        x = x if self.shortcut is None else self.shortcut(x, count)
        return self.second(nn.elu(y), count) + x


class Recurrent(nn.Module):
    """Recurrent layers whose output is added to their input.

    Attributes:
      width: D.
      depth: layers; 0: the input as it is.
    """

    width: int
    depth: int = 2

    def setup(self):
        """Declare the layers."""
        self.lstm = [Lstm(self.width) for _ in range(self.depth)]

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Return the sum."""
        return self.piece(x, None)[0]

    def piece(
        self, x: Float[Array, "B T D"], memory: Any, *, last: bool = False
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Return the output of the next piece, and the state after it."""
        del last
        if not self.depth:
            return x, []
        y, after = x, []
        for layer, state in zip(self.lstm, memory or [None] * self.depth, strict=True):
            y, state = layer(y, state)
            after.append(state)
        return x + y, after


def check(pad: str, norm: str) -> None:
    """Raise ValueError unless these are a known padding and a known norm."""
    if pad not in PADS or norm not in NORMS:
        raise ValueError(
            f"Conv: pad {pad!r}, norm {norm!r}; wanted one of {', '.join(PADS)}, and of "
            f"{', '.join(NORMS)}."
        )


def weights(module: Any, shape: tuple[int, ...], fan: int, axes: tuple[int, ...]) -> tuple:
    """Return a convolution's kernel [K, A, C], normalised over `axes` if asked for, and bias [C] or None."""
    bound = fan**-0.5
    kernel = module.param("kernel", uniform(bound), shape, jnp.float32)
    bias = module.param("bias", uniform(bound), shape[-1:], jnp.float32) if module.bias else None
    if module.norm != "weight":
        return kernel, bias
    length = jnp.sqrt(jnp.sum(kernel**2, axes, keepdims=True))
    gain = module.param("gain", lambda *_: jnp.squeeze(length, axes), ())
    return kernel * (jnp.expand_dims(gain, axes) / length), bias


def normalised(
    norm: str, x: Float[Array, "B T C"], count: Int[Array, " B"] | None
) -> Float[Array, "B T C"]:
    """Return an output after its norm over the first `count` values; called inside a compact module."""
    if norm != "group":
        return x
    there = None if count is None else jnp.broadcast_to(_there(x, count), x.shape)
    return nn.GroupNorm(1, epsilon=1e-5, use_fast_variance=False, name="norm")(x, mask=there)


def until(x: Float[Array, "B T C"], count: Int[Array, " B"] | None) -> Float[Array, "B T C"]:
    """Return sequences with zeros after the first `count` values of each; None: as they are."""
    return x if count is None else jnp.where(_there(x, count), x, 0)


def _there(x: Float[Array, "B T C"], count: Int[Array, " B"]) -> Bool[Array, "B T 1"]:
    return (jnp.arange(x.shape[1])[None] < count[:, None])[:, :, None]
