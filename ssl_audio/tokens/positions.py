"""Position embeddings: a learned table, a fixed sine table, and moving a table to another grid.

Called by encoders with `Tokens.index`, and by warm starts and converters (`transfer`).
"""

from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.slots import Norm
from ssl_audio.structs import Tokens

# Timm truncates at +-2, a hundred standard deviations away: in effect nowhere.
_init = nn.initializers.normal(0.02)


class Learned(nn.Module):
    """One learned row per position of a grid and, if wanted, per special token (cls …).

    Attributes:
      grid: (frequency rows, time columns) of the table. Tokens of another grid get the table moved
        to theirs by `transfer`, so one encoder takes clips of any length.
      start: "normal", deviation 0.02, as published; "sincos", from `sincos_2d`: masked patches differ
        from the first step on, which a short run needs; also the fixed table of masked
        autoencoders, if the optimizer leaves it alone; "sincos_time", from `sincos_1d`.
      cut: clips shorter than the table get its "middle", as published by SSAST, or its "start".
      special: special tokens have rows, too.
    """

    grid: tuple[int, int]
    start: str = "normal"
    cut: str = "middle"
    special: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.start not in STARTS:
            raise ValueError(f"start {self.start!r}: wanted one of {', '.join(STARTS)}.")
        if self.cut not in CUTS:
            raise ValueError(f"cut {self.cut!r}: wanted one of {', '.join(CUTS)}.")

    @nn.compact
    def __call__(self, tokens: Tokens, special: int = 0):
        """Return the rows of the tokens [B, N, D] and of the P special tokens, [P, D] or 0.0."""
        width = tokens.x.shape[-1]
        table = self.param("table", STARTS[self.start], self.grid, width)
        rows: Any = 0.0 if special else None
        if special and self.special:
            rows = self.param("special", _init, (special, width), jnp.float32)
        if tokens.grid != self.grid:
            table = transfer(table, self.grid, tokens.grid, cut=self.cut)
        return jnp.take(table, tokens.index, axis=0), rows


class Separate(nn.Module):
    """One learned row per frequency row and one per time column, added; and per special token.

    Koutini et al. 2022 (arXiv:2110.05069) section 3.1. Clips with fewer columns than the table get its
    first ones, or, where there is a random stream "positions" (in training), a random run of them, the
    same for the whole batch. Longer ones get the table stretched.

    Attributes:
      grid: (frequency rows, time columns) of the tables.
    """

    grid: tuple[int, int]

    @nn.compact
    def __call__(self, tokens: Tokens, special: int = 0):
        """Return the rows of the tokens [B, N, D] and of the P special tokens [P, D]."""
        width = tokens.x.shape[-1]
        freq = self.param("freq", _init, (self.grid[0], width), jnp.float32)
        time = self.param("time", _init, (self.grid[1], width), jnp.float32)
        rows = self.param("special", _init, (special, width), jnp.float32) if special else None
        spare = max(0, self.grid[1] - tokens.grid[1])
        start = jnp.zeros((), jnp.int32)
        if spare and self.has_rng("positions"):
            start = jax.random.randint(self.make_rng("positions"), (), 0, spare + 1)
        return separate(freq, time, tokens, start), rows


class Axes(nn.Module):
    """One learned row per step of each axis, added up and normalised (VATT, arXiv:2104.11178, section 3.2).

    Special tokens have none. An axis of another length gets its table by a natural cubic spline (as the
    published code does; beyond the last row it goes on straight). The published dropout of 0.1 on the sum of
    tokens and positions is left out.

    Attributes:
      sizes: steps of each axis, time last: (1200,) of samples or words, (14, 14, 8) of video. Those before
        time are the rows of the tokens' grid.
      norm: of the sum.
    """

    sizes: tuple[int, ...]
    norm: Norm = LayerNorm()

    stretches: ClassVar[bool] = True  # a clip padded to another length would get other rows

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= len(self.sizes) <= 3 or min(self.sizes) < 1:
            raise ValueError(f"Axes: sizes is {self.sizes}; wanted one to three numbers above 0.")

    @nn.compact
    def __call__(self, tokens: Tokens, special: int = 0):
        """Return the rows of the tokens [B, N, D], and 0.0 for the special tokens."""
        width = tokens.x.shape[-1]
        sides = (*self._sides(tokens.grid[0]), tokens.grid[1])
        init = nn.initializers.truncated_normal(width**-0.5)
        place: Any = 0.0
        for number, (old, new) in enumerate(zip(self.sizes, sides, strict=True)):
            table = self.param(f"axis_{number}", init, (old, width), jnp.float32)
            if new != old:
                table = jnp.asarray(spline(old, new)) @ table
            shape = [1] * len(sides) + [width]
            shape[number] = new
            place = place + table.reshape(shape)
        place = self.norm(jnp.broadcast_to(place, (*sides, width)).reshape(-1, width))
        return jnp.take(place, tokens.index, axis=0), 0.0 if special else None

    def _sides(self, rows: int) -> tuple[int, ...]:
        """Return the steps of the axes before time in a grid of so many rows."""
        before = self.sizes[:-1]
        if len(before) == 2:
            # Of the table's shape: what a larger or smaller picture gives.
            scale = (rows / (before[0] * before[1])) ** 0.5
            sides = (round(before[0] * scale), round(before[1] * scale))
        else:
            sides = (rows,) if before else ()
        if np.prod(sides, dtype=int) != rows:
            raise ValueError(
                f"Axes: {rows} rows of tokens do not lie on axes shaped like {before or 'a single row'}; "
                "wanted as many, or a picture of the same shape."
            )
        return sides


def spline(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Return the matrix that brings a table of `old` rows to `new` ones by a natural cubic spline.

    Row j of the result lies at row j * old / new of the table.
    """
    if old == 1:
        return np.ones((new, 1), np.float32)
    # Second derivatives m of the spline solve A m = C y, and are 0 at both ends.
    inner = np.arange(1, old - 1)
    a, c = np.eye(old), np.zeros((old, old))
    a[inner, inner - 1], a[inner, inner], a[inner, inner + 1] = 1 / 6, 2 / 3, 1 / 6
    c[inner, inner - 1], c[inner, inner], c[inner, inner + 1] = 1, -2, 1
    m, y = np.linalg.solve(a, c), np.eye(old)
    where = np.arange(new) * (old / new)
    low = np.minimum(where.astype(int), old - 2)
    right = (where - low)[:, None]
    left = 1 - right
    inside = right <= 1
    bend = np.where(inside, left**3 - left, 0) * m[low] / 6
    bend += np.where(inside, right**3 - right, 0) * m[low + 1] / 6
    found = left * y[low] + right * y[low + 1] + bend
    # Beyond the last row: straight on, with the slope that the spline has there.
    slope = y[-1] - y[-2] + m[-2] / 6 + m[-1] / 3
    return np.where(inside, found, y[-1] + (where - (old - 1))[:, None] * slope).astype(np.float32)


def separate(
    freq: Float[Array, "rows D"],
    time: Float[Array, "columns D"],
    tokens: Tokens,
    start: Int[Array, ""],
) -> Float[Array, "B N D"]:
    """Return the sum of each token's row of both tables, columns counted from `start`."""
    rows, columns = tokens.grid
    if rows > freq.shape[0]:
        freq = _stretch(freq, rows, axis=0)
    if columns > time.shape[0]:
        time = _stretch(time, columns, axis=0)
    row, column = tokens.index // columns, tokens.index % columns
    return jnp.take(freq, row, axis=0) + jnp.take(time, column + start, axis=0)


def transfer(
    table: Float[Array | np.ndarray, "N D"],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    rule: Literal["fixed", "reference"] = "fixed",
    cut: str = "middle",
) -> Float[Array, "M D"]:
    """Move a table to another grid: cut a part out of a longer axis, stretch a shorter one.

    Stretching is bilinear with half-pixel centres and no antialiasing. Time comes first.

    Args:
      table: rows of the patches only, in the row-major order of `old_grid`.
      old_grid: (frequency rows, time columns) the table was trained with.
      new_grid: the ones it is wanted for.
      rule: "fixed", or "reference": what SSAST and SSAMBA publish. That goes through 8 rows when
        time is stretched, and cuts frequency by the number of columns. Both agree for 128 mel bins
        in patches of 16 x 16, and for frames.
      cut: which part of a longer axis: "middle" or "start".

    Raises:
      ValueError: the table does not fit `old_grid`, or the reference rule gives another grid than
        the one wanted.
    """
    (rows, columns), (new_rows, new_columns) = old_grid, new_grid
    if rule not in ("fixed", "reference"):
        raise ValueError(f"transfer: rule is {rule!r}; wanted 'fixed' or 'reference'.")
    if table.shape[0] != rows * columns:
        raise ValueError(
            f"transfer: the table has {table.shape[0]} rows, a grid of {rows} x {columns} needs "
            f"{rows * columns}; leave out the rows of special tokens."
        )
    x = jnp.asarray(table).reshape(rows, columns, -1)
    if new_columns < columns:
        x = CUTS[cut](x, columns, new_columns, new_columns, axis=1)
    else:
        x = _stretch(x, new_columns, axis=1)
        if rule == "reference":
            x = _stretch(x, 8, axis=0)
    if new_rows < rows:
        length = new_columns if rule == "reference" else new_rows
        x = CUTS[cut](x, rows, new_rows, length, axis=0)
    else:
        x = _stretch(x, new_rows, axis=0)
    if x.shape[:2] != new_grid:
        raise ValueError(
            f"transfer: from {rows} x {columns} the reference rule gives {x.shape[0]} x "
            f"{x.shape[1]}, wanted {new_rows} x {new_columns}; use rule='fixed'."
        )
    return x.reshape(new_rows * new_columns, -1)


def stretched(
    table: Float[Array | np.ndarray, "N D"], old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[Array, "M D"]:
    """Bring a table to another grid bilinearly, whether its axes grow or shrink; nothing is cut.

    Half-pixel centres, no antialiasing: what PyTorch calls bilinear with align_corners=False.
    """
    x = jnp.asarray(table).reshape(*old_grid, -1)
    x = _stretch(_stretch(x, new_grid[1], axis=1), new_grid[0], axis=0)
    return x.reshape(new_grid[0] * new_grid[1], -1)


def sincos_2d(grid: tuple[int, int], width: int) -> Float[Array, "N D"]:
    """Return the fixed table of a masked autoencoder: half the width for rows, half for columns.

    Each half holds sines, then cosines, of wavelengths from 2 pi to 20 000 pi.

    Raises:
      ValueError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sincos_2d: width is {width}; it must be a multiple of 4.")
    frequency = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.indices(grid).reshape(2, -1, 1) * frequency
    parts = [np.sin(row), np.cos(row), np.sin(column), np.cos(column)]
    return jnp.asarray(np.concatenate(parts, axis=1), jnp.float32)


def sincos_1d(grid: tuple[int, int], width: int) -> Float[Array, "N D"]:
    """Return the fixed table of a sequence: all of the width for the column, as half of it in `sincos_2d`.

    Raises:
      ValueError: `width` is odd.
    """
    if width % 2:
        raise ValueError(f"sincos_1d: width is {width}; it must be even.")
    frequency = 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    column = np.indices(grid)[1].reshape(-1, 1) * frequency
    return jnp.asarray(np.concatenate([np.sin(column), np.cos(column)], axis=1), jnp.float32)


def _middle(x: Array, old: int, new: int, length: int, axis: int) -> Array:
    start = old // 2 - new // 2
    return jax.lax.slice_in_dim(x, start, min(start + length, x.shape[axis]), axis=axis)


def _start(x: Array, old: int, new: int, length: int, axis: int) -> Array:
    del old, length
    return jax.lax.slice_in_dim(x, 0, new, axis=axis)


def _stretch(x: Array, size: int, axis: int) -> Array:
    """Resize one axis linearly; positions beyond the outermost centres repeat them."""
    old = x.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, old - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    share = (position - low).astype(x.dtype).reshape(shape)
    return jnp.take(x, low, axis=axis) * (1 - share) + jnp.take(x, high, axis=axis) * share


STARTS = {
    "normal": lambda key, grid, width: _init(key, (grid[0] * grid[1], width), jnp.float32),
    "sincos": lambda key, grid, width: sincos_2d(grid, width),
    "sincos_time": lambda key, grid, width: sincos_1d(grid, width),
}

CUTS = {"middle": _middle, "start": _start}
