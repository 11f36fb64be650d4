"""Counting arithmetic: loops as often as they run, branches, nested programs; known devices."""

import jax
import jax.numpy as jnp
import pytest

from ssl_audio.layers.attention import attend
from ssl_audio.train import flops


def counted(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return flops.count(jax.make_jaxpr(function)(*arrays))


def test_products_convolutions_loops_and_branches():
    assert counted(lambda a, b: a @ b, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert counted(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (2, 3, 5), (2, 5, 7)) == 420
    assert counted(
        lambda a, b: jax.lax.scan(lambda x, _: (x @ b, x), a, length=4), (3, 5), (5, 5)
    ) == (4 * 2 * 3 * 5 * 5)
    assert counted(jax.jit(lambda a, b: jax.checkpoint(lambda x: x @ b)(a)), (3, 5), (5, 7)) == 210

    def branch(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: (a @ b) @ b, lambda: a @ b)

    assert counted(branch, (3, 5), (5, 5)) == 2 * 2 * 3 * 5 * 5

    def conv(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME")

    assert counted(conv, (1, 4, 8, 8), (6, 4, 3, 3)) == 2 * (6 * 8 * 8) * (4 * 3 * 3)


def test_a_backward_pass_costs_twice_the_forward():
    def loss(w, x):
        return jnp.sum(jnp.square(x @ w))

    forward = counted(loss, (5, 7), (3, 5))
    assert counted(jax.grad(loss, argnums=(0, 1)), (5, 7), (3, 5)) == 3 * forward


@pytest.mark.parametrize("shape", [(2, 6, 3, 8), (1, 64, 2, 16)], ids=str)
def test_fused_attention_counts_as_plain_attention(shape, monkeypatch):
    """As many FLOP as the products that it replaces, in both passes."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)

    def loss(implementation, *qkv):
        return jnp.sum(attend(*qkv, implementation=implementation).astype(jnp.float32))

    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16)] * 3
    for function in (loss, lambda *x: jax.grad(loss, argnums=(1, 2, 3))(*x)):
        plain, fused = (
            flops.count(jax.make_jaxpr(function, static_argnums=0)(name, *arrays))
            for name in ("plain", "cudnn")
        )
        assert plain == fused > 0


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA L40S", 362e12),
        ("AMD Instinct MI300X", 1307.4e12),
        ("AMD Instinct MI300A", 980.6e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5e", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU v6e", 918e12),
        ("TPU7x", 1153.5e12),
        ("cpu", None),
    ],
)
def test_known_devices(kind, peak):
    assert flops.peak(kind) == peak
