"""What is computed by rows on a mesh gives what one device gives, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssl_audio.distributed import sharding
from ssl_audio.layers.conv import grouped_conv
from ssl_audio.tokens.masking import chosen
from ssl_audio.tokens.order import put


def convolve(x, kernel):
    return grouped_conv(
        x, kernel, (1,), ((2, 2),), dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=4
    )


def arrays():
    g = np.random.default_rng(0)
    return [jnp.asarray(g.standard_normal(s), jnp.float32) for s in ((8, 20, 16), (5, 4, 16))]


def test_without_a_mesh_it_is_lax_s():
    x, kernel = arrays()
    wanted = lax.conv_general_dilated(
        x, kernel, (1,), ((2, 2),), dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=4
    )
    np.testing.assert_array_equal(convolve(x, kernel), wanted)


@pytest.mark.multi
@pytest.mark.parametrize("mesh", [dict(data=8), dict(data=2, fsdp=2, tensor=2)], ids=str)
def test_a_grouped_convolution_on_a_mesh(mesh):
    x, kernel = arrays()

    def loss(x, kernel):
        return jnp.sum(convolve(x, kernel) ** 2)

    wanted = jax.value_and_grad(loss, (0, 1))(x, kernel)
    where = sharding.Sharding(**mesh).mesh()
    rows = jax.sharding.NamedSharding(where, sharding.BATCH)
    spread = jax.sharding.NamedSharding(where, jax.sharding.PartitionSpec(None, None, "fsdp"))
    with jax.set_mesh(where):
        step = jax.jit(jax.value_and_grad(loss, (0, 1)), in_shardings=(rows, spread))
        found = step(jax.device_put(x, rows), jax.device_put(kernel, spread))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-4), found, wanted)


def test_each_row_is_put_at_its_own_places():
    into, values = jnp.zeros((2, 4, 3)), jnp.arange(12.0).reshape(2, 2, 3)
    found = put(into, jnp.array([[3, 1], [0, 2]]), values)
    assert found[0, 3].tolist() == [0, 1, 2] and found[0, 1].tolist() == [3, 4, 5]
    assert found[1, 0].tolist() == [6, 7, 8] and found[1, 2].tolist() == [9, 10, 11]
    assert float(found.sum()) == 66
    assert chosen(jnp.array([[3, 1], [0, 2]]), 4).tolist() == [
        [False, True, False, True],
        [True, False, True, False],
    ]
