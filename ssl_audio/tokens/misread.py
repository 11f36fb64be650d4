"""A masking as released code draws it that takes its tokens' grid for another; called as `masking.py` is."""

import dataclasses

import jax.numpy as jnp

from ssl_audio.arrays import Array, Int, PRNGKeyArray
from ssl_audio.slots import Masking


@dataclasses.dataclass(frozen=True)
class Misread:
    """Draw a masking on a grid whose tokens lie otherwise than it takes them to: AudioMosaic's released code.

    That code (arXiv:2605.14231) has tokens column by column, but reads them as if they lay row by row of a
    grid of as many rows and columns, and takes what it reads as rows for time and as columns for frequency.
    Of 8 rows x 64 columns, "time" then hides blocks of 8 columns, all rows of them, and "frequency" hides
    places within such a block, the same in every block. The masking itself is the intended one.

    Attributes:
      masking: what is drawn, as `masking:TimeFrequency`.
    """

    masking: Masking

    def __call__(self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]) -> Int[Array, "B M"]:
        """Return the hidden positions of each clip, ascending."""
        rows, columns = grid
        drawn = self.masking(key, batch, (columns, rows))
        # Which token of theirs that is, with what they take for time as the slow axis.
        theirs = drawn % rows * columns + drawn // rows
        return jnp.sort(theirs % rows * columns + theirs // rows, axis=1).astype(jnp.int32)

    def number(self, grid: tuple[int, int]) -> int:
        """Return M, the patches hidden in a grid."""
        return self.masking.number(grid[::-1])
