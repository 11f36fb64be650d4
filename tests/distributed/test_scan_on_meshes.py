"""Meshes with the selective scan in C++, which each device runs on its part of the batch."""

import functools

import jax
import numpy as np
import pytest
from test_sharding import Trainer, five_steps

from ssl_audio.storage.checkpoint import Checkpoints

pytestmark = pytest.mark.multi


@functools.cache
def in_cpp_on(mesh):
    made = Trainer("ssamba", mesh)
    with made.context():
        state = made.init()
    return made, *made.run(state, 0, 5)


@pytest.mark.parametrize("mesh", ["hybrid", "tensor"])  # hybrid: data and fsdp
def test_losses_depend_neither_on_the_mesh_nor_on_the_form(in_cpp, monkeypatch, mesh):
    _, _, alone = in_cpp_on("one")
    _, _, losses = in_cpp_on(mesh)
    assert losses == pytest.approx(alone, rel=1e-5)
    with monkeypatch.context() as patch:
        patch.setenv("SSL_AUDIO_SCAN", "xla")
        _, other = five_steps("ssamba", mesh)
    assert losses == pytest.approx(other, rel=1e-5)
    in_cpp.discard("xla")


def test_a_checkpoint_moves_to_another_mesh(in_cpp, tmp_path):
    made, state, _ = in_cpp_on("fsdp")
    saved = Checkpoints(tmp_path)
    saved.save(state, {})
    saved.close()
    there, _, _ = in_cpp_on("hybrid")
    back = Checkpoints(tmp_path)
    found = back.resume(there.wanted)
    back.close()
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    in_cpp.add("cpp")  # by the tests before, which compiled these
    assert there.run(found, 5, 1)[1] == pytest.approx(made.run(state, 5, 1)[1], abs=1e-5)
