"""Several slices: which devices lie along which axis, what is refused, and that a run gives the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_audio.distributed import sharding


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh needs to know of a device."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "gpu"
    device_kind: str = "made up"
    coords: tuple[int, int, int] | None = None
    core_on_chip: int = 0


def devices(slices, each, order=1):
    """Return so many fake devices of so many slices, which take turns where `order` is -1."""
    found = [Device(s * each + i, s) for s in range(slices) for i in range(each)]
    return (
        sorted(found, key=lambda d: d.id)
        if order == 1
        else sorted(found, key=lambda d: d.id % each)
    )


def slices(array):
    return np.vectorize(sharding.slice_of)(array)


@pytest.mark.parametrize("order", [1, -1])
def test_slices_lie_along_data(order):
    found = sharding.arrange(devices(4, 8, order), (8, 2, 2))
    assert found.shape == (8, 2, 2) and len({d.id for d in found.flat}) == 32
    # Two steps along data are one slice; nothing else leaves it.
    where = slices(found)
    assert where[:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (where == where[:, :1, :1]).all()


def test_what_data_does_not_hold_goes_along_fsdp_and_is_told(caplog):
    found = sharding.arrange(devices(4, 4), (2, 8, 1))
    assert slices(found)[:, :, 0].tolist() == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]
    assert "fsdp=8 spans 2 of the 4 slices" in caplog.text and "data=4 would keep" in caplog.text
    assert slices(sharding.arrange(devices(2, 4), (1, 8, 1))).ravel().tolist() == [0] * 4 + [1] * 4


def test_devices_of_a_tpu_keep_their_places_on_the_torus():
    """Two slices of 2 x 4 chips: those along fsdp are a square of four neighbours."""
    made = [
        Device(8 * s + 4 * x + y, s, s, "tpu", "TPU v5 lite", (x, y, 0))
        for s in range(2)
        for x in range(2)
        for y in range(4)
    ]
    found = sharding.arrange(made, (4, 4, 1))
    assert slices(found)[:, 0, 0].tolist() == [0, 0, 1, 1]
    for row in found[:, :, 0]:
        assert [len({d.coords[axis] for d in row}) for axis in (0, 1)] == [2, 2]
        assert max(d.coords[1] for d in row) - min(d.coords[1] for d in row) == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="tensor stays within a slice"):
        sharding.arrange(devices(2, 4), (1, 1, 8))
    with pytest.raises(ValueError, match="tensor stays within a slice"):
        sharding.arrange(devices(3, 4), (2, 2, 3))
    with pytest.raises(ValueError, match="8 of slice 0, 4 of slice 1; wanted as many of each"):
        sharding.arrange(devices(2, 8)[:12], (12, 1, 1))


def test_devices_without_slices_are_one():
    assert {sharding.slice_of(device) for device in jax.devices()} == {0}
    assert sharding.Sharding().mesh().devices.ravel().tolist() == jax.devices()


@pytest.mark.multi
def test_a_mesh_of_slices_computes_the_same():
    """Eight devices of two slices that take turns: real ones stand where the fake ones were put."""
    fakes = [Device(i, i % 2) for i in range(8)]
    order = sharding.arrange(fakes, (4, 2, 1))
    real = np.vectorize(lambda d: jax.devices()[d.id], otypes=[object])(order)
    x, w = np.arange(48.0, dtype=np.float32).reshape(16, 3), np.ones((3, 8), np.float32)

    def loss(where):
        rows = jax.device_put(x, NamedSharding(where, sharding.BATCH))
        weights = jax.device_put(w, NamedSharding(where, PartitionSpec(None, "fsdp")))
        return jax.jit(jax.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2)))(weights, rows)

    kinds = (AxisType.Auto,) * 3
    value, gradient = loss(Mesh(real, sharding.AXES, axis_types=kinds))
    plain, expected = loss(sharding.Sharding(data=4, fsdp=2).mesh())
    assert float(value) == pytest.approx(float(plain), rel=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    assert real[:, :, 0].ravel().tolist() != jax.devices()
