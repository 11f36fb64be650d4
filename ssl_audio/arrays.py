"""The axis letters and the array types made of them, used in annotations, comments and einsum alike.

    B batch        S samples      T frames       F mel bins     N tokens       K kept or masked tokens
    D width        H heads        E SSM inner    R SSM state    L layers       P special tokens (cls …)
    W text length  V vocabulary   Q codebooks    C classes      M sources      G values in a patch

Shapes are checked under pytest only (jaxtyping + beartype); without jaxtyping the names below are inert.
"""

from typing import TYPE_CHECKING, Any

from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, PRNGKeyArray
else:
    try:
        from jaxtyping import Bool, Float, Int, PRNGKeyArray
    except ImportError:  # a GPU box with nothing but jax and flax can still train

        class _Untyped:
            def __class_getitem__(cls, _):
                return Any

        Bool = Float = Int = _Untyped
        PRNGKeyArray = Any

Wave = Float[Array, "B S"]
Spec = Float[Array, "B T F"]
Sequence = Float[Array, "B N D"]
Index = Int[Array, "B N"]

__all__ = ["Array", "Bool", "Float", "Index", "Int", "PRNGKeyArray", "Sequence", "Spec", "Wave"]
