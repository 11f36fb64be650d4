"""Arrays written as safetensors, whatever the order of their memory."""

import jax.numpy as jnp
import numpy as np

from ssl_audio.storage.exported import read_arrays, write_arrays


def test_arrays_are_written_by_their_values_not_their_memory(tmp_path):
    matrix = np.arange(12, dtype="float32").reshape(3, 4)
    arrays = {
        "transposed": matrix.T,
        "fortran": np.asfortranarray(matrix),
        "columns": matrix[:, ::2],
        "jax": jnp.asarray(matrix).T,
    }
    write_arrays(tmp_path / "arrays.safetensors", arrays)  # safetensors 0.8.0 ignores strides
    read, _ = read_arrays(tmp_path / "arrays.safetensors")
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)
