"""`python -m ssl_audio.train` with GELU for ReLU, so that gradients on other layouts can be compared.

The gradient of ReLU jumps where its input crosses 0: an input that differs by 1e-7, as sums in another order
do, then changes a gradient by 1e-3, though the loss by 1e-7 only.
"""

import functools
import sys

from flax import linen as nn

from ssl_audio.__main__ import main

nn.relu = functools.partial(nn.gelu, approximate=False)
sys.argv[1:1] = ["train"]
main()
