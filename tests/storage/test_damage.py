"""Damaged checkpoints: named, passed over, and never read as something else."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.storage import checkpoint, items, sealed
from ssl_audio.structs import TrainState

PARAMS = {"encoder": {"kernel": jnp.arange(1200.0).reshape(40, 30)}, "head": jnp.ones(2)}


def state(step):
    params = jax.tree.map(lambda x: x * (step + 1), PARAMS)
    extra = {"book": jnp.ones(3) * step}
    return TrainState(
        jnp.int32(step), params, {"main": ({"mu": params},)}, extra, jax.random.key(step)
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a workdir with steps 1 and 2."""
    path = tmp_path_factory.mktemp("saved") / "run"
    path.mkdir()
    (path / "config.json").write_text("{}")
    checkpoints = checkpoint.Checkpoints(path)
    for step in (1, 2):
        checkpoints.save(state(step), {"data": {"a": step}})
    checkpoints.close()
    return path


def copied(saved, tmp_path, name="run"):
    return shutil.copytree(saved, tmp_path / name)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def resumed(path):
    checkpoints = checkpoint.Checkpoints(path)
    found = checkpoints.resume(state(0))
    if found is not None:
        whole = state(int(found.step))
        same(
            (found.params, found.opt_state, found.extra),
            (whole.params, whole.opt_state, whole.extra),
        )
        same(jax.random.key_data(found.key), jax.random.key_data(whole.key))
    checkpoints.close()
    return found


def test_every_file_emptied_cut_changed_or_deleted_is_noticed(saved, tmp_path):
    path = copied(saved, tmp_path)
    folder = path / "checkpoints/2"
    sealed.check(folder)
    files = [p for p in folder.rglob("*") if p.is_file() and not str(p).endswith(sealed.OTHERS)]
    assert len(files) > 20
    for file in files:
        content = file.read_bytes()
        changed = content[:-1] + bytes([content[-1] ^ 1]) if content else b"1"
        for damage in (b"", content[: len(content) // 2], changed, None):
            if damage == content:
                continue
            file.unlink()
            if damage is not None:
                file.write_bytes(damage)
            if damage is None and file.name == sealed.SEAL:
                assert not sealed.is_sealed(folder)
            else:
                with pytest.raises(
                    sealed.Damaged, match=re.escape(f"{folder}: damaged: ")
                ) as error:
                    sealed.check(folder)
                assert file.name in str(error.value)
            file.write_bytes(content)
    sealed.check(folder)


@pytest.mark.parametrize("damage", ["cut", "empty folder", "metadata", "no metadata", "key"])
def test_a_damaged_newest_step_is_named_and_the_one_before_goes_on(
    saved, tmp_path, caplog, capfd, damage
):
    path = copied(saved, tmp_path)
    newest = path / "checkpoints/2"
    if damage == "empty folder":
        shutil.rmtree(newest)
        newest.mkdir()
    elif damage == "metadata":
        (newest / "params/_METADATA").write_bytes(b"")
    elif damage == "no metadata":
        (newest / "optimizer/_METADATA").unlink()
    elif damage == "key":
        (newest / "meta/metadata").write_text('{"format"')
    else:
        (newest / "params/manifest.ocdbt").write_bytes(b"half")
    assert resumed(path).step == 1
    assert f"{newest}: damaged: " in caplog.text
    assert "going on from step 1, the one before" in caplog.text
    assert checkpoint.steps(path) == [1] and (path / "damaged/2").is_dir()
    checkpoints = checkpoint.Checkpoints(path)  # and step 2 can be written again
    checkpoints.save(state(2), {})
    checkpoints.close()
    assert resumed(path).step == 2
    assert "Traceback" not in (said := capfd.readouterr()).err + said.out


@pytest.mark.parametrize(
    "file",
    ["params/manifest.ocdbt", "params/_METADATA", "params/d/*", "optimizer/ocdbt.process_0/d/*"],
)
def test_checkpoints_of_earlier_versions_are_judged_by_reading_them(
    saved, tmp_path, caplog, capfd, file
):
    path = copied(saved, tmp_path)
    (path / "checkpoints/1" / sealed.SEAL).unlink()
    (path / "checkpoints/2" / sealed.SEAL).unlink()
    for broken in (path / "checkpoints/2").glob(file):
        broken.write_bytes(b"")
    if file.startswith("params"):
        same(checkpoint.load_params(path)[0], state(1).params)
    assert resumed(path).step == 1
    assert f"{path / 'checkpoints/2'}: damaged: " in caplog.text
    assert "Event loop" not in (said := capfd.readouterr()).err + said.out


def test_loading_takes_the_newest_whole_step_and_says_so(saved, tmp_path, caplog):
    path = copied(saved, tmp_path)
    for file in (path / "checkpoints/2/params/d").iterdir():
        file.write_bytes(b"")
    params, _ = checkpoint.load_params(path)
    same(params, state(1).params)
    assert (
        "checkpoints/2: damaged" in caplog.text
        and "taking step 1, the newest that is whole" in caplog.text
    )
    same(checkpoint.load_params(path, 1)[0], state(1).params)
    with pytest.raises(ValueError, match="checkpoints/2: damaged: params/d/"):
        checkpoint.load_params(path, 2)
    (path / "checkpoints/3").mkdir()  # a copy that was cut
    same(checkpoint.load_params(path)[0], state(1).params)
    # That of the parameters that are taken, though that of step 2 is whole.
    same(checkpoint.load_extra(path, ("book",))["book"], np.full(3, 1.0))
    shutil.rmtree(path / "checkpoints/1")
    with pytest.raises(ValueError, match=r"none of the checkpoints is whole: \[2, 3\]"):
        checkpoint.load_params(path)
    with pytest.raises(ValueError, match="none of its checkpoints is whole. To begin anew, remove"):
        resumed(path)
    assert checkpoint.steps(path) == [2, 3], "nothing is thrown away"


def test_what_a_checkpoint_says_of_the_run_is_read_past_a_damaged_one(saved, tmp_path):
    path = copied(saved, tmp_path)
    assert checkpoint.meta(path)["data"] == {"a": 2}
    (path / "checkpoints/2/meta/metadata").write_text("{")
    assert checkpoint.meta(path)["data"] == {"a": 1}
    assert checkpoint.meta(tmp_path) == {}


def test_a_full_disk_and_a_removed_workdir_are_one_line_with_the_cause(
    tmp_path, monkeypatch, capfd
):
    checkpoints = checkpoint.Checkpoints(tmp_path / "run")
    real = items.shutil.disk_usage(tmp_path)

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing\n" + "trace\n" * 100)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.manager, "save", full)
        patch.setattr(items.shutil, "disk_usage", lambda _: real._replace(free=2**20))
        with pytest.raises(
            OSError, match=r"no space left for a checkpoint of about 0 MiB: 1 MiB are free"
        ) as e:
            checkpoints.save(state(1), {})
    assert "\n" not in str(e.value) and str(tmp_path / "run") in str(e.value)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OSError, match="the workdir was removed while the run was under way"):
        checkpoints.save(state(1), {})
        checkpoints.wait()
    assert "Traceback" not in (said := capfd.readouterr()).err + said.out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_never_best(tmp_path, caplog, value):
    (tmp_path / "config.json").write_text("{}")
    scores = {1: 0.5, 2: 0.9, 3: value, 4: 0.2}
    for steps in ([1, 2, 3], [3, 4]):  # killed after 3
        checkpoints = checkpoint.Checkpoints(tmp_path, best="test/EER")
        for step in steps:
            checkpoints.save_best(state(step), {"test/EER": scores[step]})
        checkpoints.close()
    assert checkpoint.steps(tmp_path, "best") == [2]
    assert f"step 3: test/EER is {value}, which says nothing" in caplog.text
    same(checkpoint.load_params(tmp_path, "best")[0], state(2).params)


def test_the_best_of_another_measure_is_not_compared_with(tmp_path):
    for best, score in (("test/mAP", 0.9), ("-test/loss", 0.5)):
        checkpoints = checkpoint.Checkpoints(tmp_path, best=best)
        step = 1 if best == "test/mAP" else 2
        checkpoints.save_best(state(step), {best.removeprefix("-"): score})
        checkpoints.close()
    assert checkpoint.steps(tmp_path, "best") == [2]
    assert json.loads((tmp_path / "best/2/metrics/metrics").read_text())["of"] == "test/loss"
