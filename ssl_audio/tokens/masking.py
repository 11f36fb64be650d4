"""Which patches to hide: pure functions of a key, one independent draw per clip.

Called by objectives with the grid of the tokens; all shapes follow from `count` and the grid.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int, PRNGKeyArray
from ssl_audio.structs import Tokens
from ssl_audio.tokens.order import put, reorder


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Hide square clusters of patches, exactly as SSAST and SSAMBA draw them.

    A clip gets one cluster side. Squares are added at random corners until more than `count`
    patches are covered; the `count` lowest are kept. A square that crosses the right edge goes on
    in the next row, and the first patch and the last are never hidden.

    Attributes:
      count: patches to hide: a number, or a share of the grid (above 0, below 1). At most two less
        than the grid has, since the first and the last are never hidden: a larger number is
        reduced to that, so that a run configured for long clips also works on short ones.
      sizes: cluster sides, equally likely.
    """

    count: int | float
    sizes: tuple[int, ...] = (3, 4, 5)

    def __post_init__(self):
        _check(self.count)
        if not self.sizes or any(type(side) is not int or side < 1 for side in self.sizes):
            raise ValueError(f"Cluster: sizes is {self.sizes}; wanted positive integers.")

    def __call__(self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]) -> Int[Array, "B M"]:
        """Return the hidden positions of each clip, ascending."""
        count = self.number(grid)
        return jax.vmap(lambda key: self._draw(key, grid, count))(jax.random.split(key, batch))

    def number(self, grid: tuple[int, int]) -> int:
        """Return M, the patches hidden in a grid."""
        return _number(self.count, grid, spare=2)

    def _draw(self, key, grid, count):
        # Corners drawn before add nothing, so only the order in which new ones come up matters, and
        # that is a random permutation: no loop of unknown length is needed.
        rows, columns = grid
        size_key, order_key = jax.random.split(key)
        turn = jax.random.permutation(order_key, rows * columns)
        covered = jnp.stack([self._covered(turn, columns, side) for side in self.sizes])
        covered = covered[jax.random.randint(size_key, (), 0, len(self.sizes))]
        position = jnp.arange(1, rows * columns, dtype=jnp.int32)
        covered = covered[1:]
        stop = jnp.sort(covered)[count]
        return jnp.sort(jnp.where(covered <= stop, position, rows * columns))[:count]

    def _covered(self, turn, columns, side):
        """Return the turn in which each position is first covered by a square."""
        for stride in (1, columns):
            turn = jnp.min(jnp.stack([_later(turn, i * stride) for i in range(side)]), axis=0)
        return turn


@dataclasses.dataclass(frozen=True)
class Random:
    """Hide patches drawn without replacement, in random order.

    Attributes:
      count: patches to hide: a number, or a share of the grid (above 0, below 1). A number larger
        than the grid is reduced to the whole grid.
    """

    count: int | float

    def __post_init__(self):
        _check(self.count)

    def __call__(self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]) -> Int[Array, "B M"]:
        """Return the hidden positions of each clip."""
        count, total = self.number(grid), grid[0] * grid[1]
        draw = jax.vmap(lambda key: jax.random.permutation(key, total)[:count])
        return draw(jax.random.split(key, batch)).astype(jnp.int32)

    def number(self, grid: tuple[int, int]) -> int:
        """Return M, the patches hidden in a grid."""
        return _number(self.count, grid, spare=0)


@dataclasses.dataclass(frozen=True)
class Groups:
    """Hide groups of tokens that follow each other, drawn without replacement, in random order (Dasheng).

    Groups begin at multiples of their size; the last one of the grid may be shorter, and of the last one
    that is hidden only as much as is missing, its end.
    Dinkel et al. 2024 (arXiv:2406.06992).

    Attributes:
      count: tokens to hide: a number, or a share of the grid (above 0, below 1). A number larger than the
        grid is reduced to the whole grid.
      size: tokens of a group.
    """

    count: int | float
    size: int = 2

    def __post_init__(self):
        _check(self.count)
        if self.size < 1:
            raise ValueError(f"Groups: size is {self.size}; wanted 1 or more.")

    def __call__(self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]) -> Int[Array, "B M"]:
        """Return the hidden positions of each clip."""
        count, total = self.number(grid), grid[0] * grid[1]
        place = jnp.arange(total, dtype=jnp.int32)

        def draw(key):
            turn = jax.random.permutation(key, -(-total // self.size))[place // self.size]
            kept_first = jnp.argsort(turn * self.size + place % self.size)
            return kept_first[total - count :].astype(jnp.int32)

        return jax.vmap(draw)(jax.random.split(key, batch))

    def number(self, grid: tuple[int, int]) -> int:
        """Return M, the tokens hidden in a grid."""
        return _number(self.count, grid, spare=0)


@dataclasses.dataclass(frozen=True)
class TimeFrequency:
    """Hide whole time columns and whole frequency rows of the grid, then single patches.

    What is left of a share is rounded down, as in Audio-MAE (arXiv:2207.06405, section 3.1), where
    columns and rows are "time + frequency" masking. With numbers instead of shares this is the
    patchout of PaSST (arXiv:2110.05069, section 3.2), structured and unstructured.

    Attributes:
      time: columns to hide: a number, or a share of them (a float below 1).
      freq: rows to hide, likewise.
      single: patches to hide of those that are left, likewise.
      shared: one draw for the whole batch.
    """

    time: int | float = 0
    freq: int | float = 0
    single: int | float = 0
    shared: bool = False

    def __post_init__(self):
        for name in ("time", "freq", "single"):
            value = getattr(self, name)
            if value < 0 or (isinstance(value, float) and value >= 1):
                raise ValueError(
                    f"TimeFrequency: {name} is {value!r}; wanted a number of 0 or more, or a share "
                    "below 1."
                )

    def __call__(self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]) -> Int[Array, "B M"]:
        """Return the hidden positions of each clip, ascending."""
        rows, columns, count = self.kept(grid)

        def draw(key):
            row_key, column_key, single_key = jax.random.split(key, 3)
            row = _sample(row_key, grid[0], rows)
            column = _sample(column_key, grid[1], columns)
            kept = (row[:, None] * grid[1] + column[None]).reshape(-1)
            kept = kept[_sample(single_key, rows * columns, count)]
            hidden = jnp.ones(grid[0] * grid[1], bool).at[kept].set(False)
            return _first(hidden, self.number(grid))

        if self.shared:
            return jnp.broadcast_to(draw(key)[None], (batch, self.number(grid)))
        return jax.vmap(draw)(jax.random.split(key, batch))

    def kept(self, grid: tuple[int, int]) -> tuple[int, int, int]:
        """Return how many rows, columns and patches are left.

        Raises:
          ValueError: nothing is left, or nothing is hidden.
        """
        rows, columns = _left(grid[0], self.freq), _left(grid[1], self.time)
        count = _left(rows * columns, self.single)
        if min(rows, columns, count) < 1 or count == grid[0] * grid[1]:
            raise ValueError(
                f"TimeFrequency: freq={self.freq!r}, time={self.time!r}, single={self.single!r} leave "
                f"{rows} rows x {columns} columns, {count} patches, of a grid of {grid[0]} x {grid[1]};"
                " wanted some, but not all."
            )
        return rows, columns, count

    def number(self, grid: tuple[int, int]) -> int:
        """Return M, the patches hidden in a grid."""
        return grid[0] * grid[1] - self.kept(grid)[2]


@dataclasses.dataclass(frozen=True)
class InverseBlock:
    """Hide all but a few square blocks of patches.

    Squares around random centres are kept; what they lack or have too many of single patches is drawn
    at random, so that every clip keeps the same number (data2vec 2.0, arXiv:2212.07525, section 3.3;
    EAT, arXiv:2401.03497, section 3.2).

    Attributes:
      keep: share of the patches that stay visible, rounded down.
      side: of the squares.
      more: added to `keep` for the number of squares, since they overlap and cross the edges.
    """

    keep: float = 0.2
    side: int = 5
    more: float = 0.07

    def __post_init__(self):
        if not 0 < self.keep < 1 or self.side < 1 or self.more < 0:
            raise ValueError(
                f"InverseBlock: keep={self.keep}, side={self.side}, more={self.more}; wanted a share "
                "between 0 and 1, a side of 1 or more, and a share of 0 or more."
            )

    def __call__(self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]) -> Int[Array, "B M"]:
        """Return the hidden positions of each clip, ascending."""
        draw = jax.vmap(lambda key: self._draw(key, grid))
        return draw(jax.random.split(key, batch))

    def number(self, grid: tuple[int, int]) -> int:
        """Return M, the patches hidden in a grid."""
        total = grid[0] * grid[1]
        return total - max(1, int(self.keep * total))

    def _draw(self, key, grid):
        total = grid[0] * grid[1]
        count = max(1, int(total * (self.keep + self.more) / self.side**2))
        centre_key, rank_key = jax.random.split(key)
        centre = jax.random.randint(centre_key, (count,), 0, total)
        near = jnp.ones((count, *grid), bool)
        for axis, middle in ((0, centre // grid[1]), (1, centre % grid[1])):
            first = middle - self.side // 2
            place = jnp.arange(grid[axis])[None]
            inside = (place >= first[:, None]) & (place < first[:, None] + self.side)
            near &= jnp.expand_dims(inside, 2 - axis)
        rank = jnp.any(near, axis=0).reshape(-1) + jax.random.uniform(rank_key, (total,))
        return jnp.sort(jnp.argsort(rank)[: self.number(grid)]).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Spans:
    """Hide spans of time columns, all rows of them (wav2vec 2.0, arXiv:2006.11477, section 3.1).

    Spans start at random columns, overlap, and are added until exactly so much is covered: every
    clip has as many hidden patches as any other.

    Attributes:
      count: columns to hide: a number, or a share of them (above 0, below 1). Published recipes name
        a probability p that a column starts a span instead; that covers 1 - (1 - p)^length.
      length: columns of a span.
    """

    count: int | float
    length: int = 10

    def __post_init__(self):
        _check(self.count)
        if self.length < 1:
            raise ValueError(f"Spans: length is {self.length}; wanted 1 or more.")

    def __call__(self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]) -> Int[Array, "B M"]:
        """Return the hidden positions of each clip, ascending."""
        rows, columns = grid
        count = _number(self.count, (1, columns), spare=0)
        turn = jax.vmap(lambda k: jax.random.permutation(k, columns))(jax.random.split(key, batch))
        # A column is covered in the turn of the first span that starts on it or shortly before.
        first = jax.vmap(
            lambda t: jnp.min(jnp.stack([_later(t, i) for i in range(self.length)]), axis=0)
        )(turn)
        # Spans leave no rest: of the last one, only as much as is missing is taken.
        order = jnp.argsort(first, axis=1)[:, :count]
        chosen = jnp.sort(order, axis=1).astype(jnp.int32)
        row = jnp.arange(rows, dtype=jnp.int32)[None, :, None] * columns
        return (row + chosen[:, None]).reshape(batch, -1)


def hide(
    x: Float[Array, "B N D"], index: Int[Array, "B M"], token: Float[Array, " D"]
) -> Float[Array, "B N D"]:
    """Replace the tokens at some places of the sequence by one token."""
    return jnp.where(chosen(index, x.shape[1])[..., None], token[None, None].astype(x.dtype), x)


def chosen(index: Int[Array, "B M"], count: int) -> Bool[Array, "B N"]:
    """Return which of `count` places an index names."""
    return put(jnp.zeros((index.shape[0], count), bool), index, jnp.ones(index.shape, bool))


def others(index: Int[Array, "B M"], count: int) -> Int[Array, "B K"]:
    """Return the places that an index does not name, ascending; it must not name one twice."""
    return jnp.argsort(chosen(index, count), axis=1)[:, : count - index.shape[1]].astype(jnp.int32)


def dropped(tokens: Tokens, hidden: Int[Array, "B M"]) -> Tokens:
    """Return tokens without those at some places of the sequence, the others in their order .

    VATT's DropToken (Akbari et al. 2021, arXiv:2104.11178, section 3.2.1).

    Args:
      tokens: all of a grid, in its order.
      hidden: places of each example, as `Random` draws them.
    """
    kept = reorder(tokens, others(hidden, tokens.x.shape[1]))
    if kept.valid is None:
        return kept
    # Attention to nothing is not a number: where only padding is left, it counts.
    there = kept.valid | ~jnp.any(kept.valid, axis=1, keepdims=True)
    return dataclasses.replace(kept, valid=there)


def _left(size: int, hidden: int | float) -> int:
    return int(size * (1 - hidden)) if isinstance(hidden, float) else size - hidden


def _first(mask: Bool[Array, " N"], count: int) -> Int[Array, " M"]:
    """Return the first `count` positions where a mask is True."""
    return jnp.argsort(~mask, stable=True)[:count].astype(jnp.int32)


def _sample(key: PRNGKeyArray, size: int, count: int) -> Int[Array, " M"]:
    """Return `count` of the numbers below `size`, ascending."""
    return jnp.sort(jax.random.permutation(key, size)[:count]).astype(jnp.int32)


def _later(turn, shift):
    never = jnp.iinfo(turn.dtype).max
    return jnp.pad(turn, (shift, 0), constant_values=never)[: turn.shape[0]]


def _check(count):
    if type(count) not in (int, float) or count <= 0 or (type(count) is float and count >= 1):
        raise ValueError(
            f"masking: count is {count!r}; wanted a number of patches (1 or more) or a share of "
            "them (a float above 0 and below 1)."
        )


def _number(count: int | float, grid: tuple[int, int], spare: int) -> int:
    total = grid[0] * grid[1]
    wanted = round(count * total) if isinstance(count, float) else count
    if wanted < 1 or total - spare < 1:
        raise ValueError(
            f"masking: a grid of {grid[0]} x {grid[1]} leaves nothing to hide with count={count!r};"
            " use longer clips or smaller patches."
        )
    return min(wanted, total - spare)
