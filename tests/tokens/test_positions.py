import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ssl_audio.structs import Tokens
from ssl_audio.tokens.positions import Learned, Separate, sincos_2d, transfer


def ramp(rows, columns, width=3):
    table = np.random.default_rng(0).standard_normal((rows, columns, width))
    return table.astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("rule", ["fixed", "reference"])
@pytest.mark.parametrize("path", reference.golden_files("ss*_finetune.npz"))
def test_transfer_parity(path, rule):
    data = np.load(path)
    config = json.loads(str(data["config"]))
    special = {"ssast": 2, "ssamba": 1}[config["model"]]
    table = np.load(path.parent / config["backbone_params"])["param/v.pos_embed"][0]
    old_grid, patch = tuple(config["grid"]), (config["fshape"], config["tshape"])
    for tag, variant in config["variants"].items():
        wanted = data[f"{tag}/param/v.pos_embed"][0]
        new_grid = tuple(
            (size - extent) // stride + 1
            for size, extent, stride in zip(
                (config["input_fdim"], variant["input_tdim"]),
                patch,
                (variant["fstride"], variant["tstride"]),
                strict=True,
            )
        )
        got = transfer(table[special:], old_grid, new_grid, rule=rule)
        assert got.shape == wanted[special:].shape
        np.testing.assert_allclose(got, wanted[special:], rtol=0, atol=2e-5, err_msg=tag)


def test_transfer_cuts_the_middle():
    table = ramp(8, 10)
    got = transfer(table.reshape(80, 3), (8, 10), (5, 7))
    np.testing.assert_array_equal(got, table[2:7, 2:9].reshape(35, 3))
    same = transfer(table.reshape(80, 3), (8, 10), (8, 10))
    np.testing.assert_array_equal(same, table.reshape(80, 3))


def test_transfer_stretches_linearly():
    table = np.arange(4, dtype=np.float32)[:, None]
    got = transfer(table, (1, 4), (1, 8))[:, 0]
    np.testing.assert_allclose(got, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)
    plane = ramp(4, 5)
    resized = jax.image.resize(jnp.asarray(plane), (7, 9, 3), "bilinear", antialias=False)
    got = transfer(plane.reshape(20, 3), (4, 5), (7, 9))
    np.testing.assert_allclose(got, resized.reshape(63, 3), atol=1e-5)


def test_transfer_works_inside_jit():
    table = jnp.asarray(ramp(2, 3).reshape(6, 3))
    run = jax.jit(lambda table: transfer(table, (2, 3), (3, 5)))
    np.testing.assert_allclose(run(table), transfer(table, (2, 3), (3, 5)), atol=1e-6)


def test_reference_rule_differs_where_it_is_wrong():
    table = ramp(4, 6).reshape(24, 3)
    # Four rows go up to eight and, when time is stretched, not straight to five.
    straight = transfer(table, (4, 6), (5, 9))
    assert np.abs(straight - transfer(table, (4, 6), (5, 9), rule="reference")).max() > 0.01
    # Two rows are wanted, but three (as many as columns) are cut.
    assert transfer(table, (4, 6), (2, 3)).shape == (6, 3)
    with pytest.raises(ValueError, match="gives 3 x 3, wanted 2 x 3"):
        transfer(table, (4, 6), (2, 3), rule="reference")


def test_transfer_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="has 26 rows, a grid of 4 x 6 needs 24"):
        transfer(np.zeros((26, 3), np.float32), (4, 6), (4, 6))


def tokens(index, grid, width=24):
    index = jnp.asarray(index, jnp.int32)
    return Tokens(x=jnp.zeros((*index.shape, width)), index=index, grid=grid)


def test_learned_rows_follow_the_index():
    module, some = Learned(grid=(8, 16)), tokens([[5, 0, 127], [3, 3, 1]], (8, 16))
    variables = module.init(jax.random.key(0), some, 2)
    assert jax.tree.map(jnp.shape, variables) == {
        "params": {"table": (128, 24), "special": (2, 24)}
    }
    params = variables["params"]
    rows, special = module.apply(variables, some, 2)
    np.testing.assert_array_equal(rows, params["table"][some.index])
    np.testing.assert_array_equal(special, params["special"])
    assert params["table"].std() == pytest.approx(0.02, rel=0.05)


def test_learned_without_special_rows():
    module, some = Learned(grid=(2, 3)), tokens([[1]], (2, 3))
    variables = module.init(jax.random.key(0), some)
    assert list(variables["params"]) == ["table"]
    assert module.apply(variables, some)[1] is None


def test_learned_table_moves_to_the_grid_of_the_tokens():
    module, some = Learned(grid=(4, 8)), tokens([[9, 2]], (3, 5))
    variables = module.init(jax.random.key(0), some)
    table = variables["params"]["table"]
    assert table.shape == (32, 24)
    moved = transfer(table, (4, 8), (3, 5))
    np.testing.assert_array_equal(module.apply(variables, some)[0][0], moved[np.array([9, 2])])


def test_sincos_2d_splits_the_width_between_the_axes():
    table = np.asarray(sincos_2d((3, 5), 16)).reshape(3, 5, 16)
    np.testing.assert_array_equal(table[:, 0, :8], table[:, 4, :8])
    np.testing.assert_array_equal(table[0, :, 8:], table[2, :, 8:])
    omega = 10_000.0 ** (-np.arange(4) / 4)
    wanted = [np.sin(2 * omega), np.cos(2 * omega), np.sin(4 * omega), np.cos(4 * omega)]
    np.testing.assert_allclose(table[2, 4], np.concatenate(wanted), atol=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d((3, 5), 6)


def test_learned_starts():
    tokens = Tokens(x=jnp.zeros((1, 6, 8)), index=jnp.arange(6)[None], grid=(2, 3))
    place, _ = Learned((2, 3), start="sincos").init_with_output(jax.random.key(0), tokens)[0]
    np.testing.assert_array_equal(place[0], sincos_2d((2, 3), 8))
    place, _ = Learned((2, 3)).init_with_output(jax.random.key(0), tokens)[0]
    assert 0.01 < float(place.std()) < 0.04
    with pytest.raises(ValueError, match="start 'cosine': wanted one of normal, sincos"):
        Learned((2, 3), start="cosine")


def test_separate_tables_start_at_the_first_column_or_a_random_one():
    module = Separate(grid=(2, 6))
    params = {"freq": 100.0 * jnp.arange(2)[:, None], "time": 1.0 * jnp.arange(6)[:, None]}
    index = jnp.arange(6)[None]
    tokens = Tokens(x=jnp.zeros((1, 6, 1)), index=index, grid=(2, 3))
    rows, special = module.apply({"params": params}, tokens)
    assert special is None
    assert np.asarray(rows)[0, :, 0].tolist() == [0, 1, 2, 100, 101, 102]
    starts = set()
    for seed in range(12):
        moved, _ = module.apply(
            {"params": params}, tokens, rngs={"positions": jax.random.key(seed)}
        )
        start = float(moved[0, 0, 0])
        starts.add(start)
        assert np.array_equal(moved, rows + start)
    assert starts <= {0, 1, 2, 3} and len(starts) > 2
    longer = Tokens(x=jnp.zeros((1, 24, 1)), index=jnp.arange(24)[None], grid=(2, 12))
    stretched = np.asarray(module.apply({"params": params}, longer)[0])[0, :12, 0]
    assert stretched[0] == 0 and stretched[-1] == 5 and (np.diff(stretched) >= 0).all()


def test_a_table_can_be_cut_from_its_start():
    table = jnp.arange(12.0)[:, None]
    cut = transfer(table, (2, 6), (2, 3), cut="start")
    assert np.asarray(cut)[:, 0].tolist() == [0, 1, 2, 6, 7, 8]
    with pytest.raises(ValueError, match="cut 'end': wanted one of middle, start"):
        Learned(grid=(2, 6), cut="end")
