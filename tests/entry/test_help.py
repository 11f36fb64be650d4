"""`ssl-audio VERB --help` for every verb: it lists, and it imports nothing that only work needs."""

import json
import os
import subprocess
import sys

import encoders
import numpy as np
import pytest
import soundfile
from reference import ROOT

from ssl_audio.__main__ import RENAMED, VERBS, module
from ssl_audio.storage import exported

pytestmark = pytest.mark.entry
HEAVY = "jax jaxlib flax optax orbax grain sklearn scipy librosa matplotlib tensorboardX tensorflow"
HEAVY += " tensorflow_datasets torch faiss pyarrow pandas absl ml_collections"
WATCHED = """
import sys, runpy
sys.argv[1:] = {arguments}
try:
    runpy.run_module("ssl_audio", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
found = sorted(set({heavy}) & set(sys.modules))
assert not found, f"imported: {{', '.join(found)}}"
"""

HELPS = """
import contextlib, io, json, runpy, sys
told = {{}}
for verb in {verbs}:
    sys.argv[1:] = [verb, "--help"]
    status, said = None, io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_module("ssl_audio", run_name="__main__")
        except SystemExit as stop:
            status = stop.code
    told[verb] = said.getvalue(), status, sorted(set({heavy}) & set(sys.modules))
print(json.dumps(told))
"""


def watched(*arguments, heavy=HEAVY, cwd=ROOT):
    """Run a command; it must end well and have imported none of the `heavy` modules."""
    code = WATCHED.format(arguments=list(arguments), heavy=heavy.split())
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_help_lists_the_verbs():
    said = watched("--help", heavy=f"{HEAVY} numpy")
    assert all(f"\n  {verb} " in said and about in said for verb, (_, about) in VERBS.items())
    assert watched() == said
    assert watched("--version").startswith("ssl_audio 0.")


@pytest.fixture(scope="module")
def helps():
    """Return verb → what `--help` says, and what was imported by then; all of one process.

    What one imports is there for those after it, so the first verb with any is to blame.
    """
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    code = HELPS.format(verbs=list(VERBS), heavy=HEAVY.split())
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_nothing_that_only_work_needs(verb, helps):
    said, status, found = helps[verb]
    assert not status and not found, f"ended with {status}, imported: {', '.join(found)}"
    assert said.startswith(f"usage: ssl-audio {verb}")
    assert len(said.splitlines()) > 4


@pytest.mark.parametrize("arguments", [("bench", "scan"), ("search", "query"), ("configs", "copy")])
def test_help_of_a_part(arguments):
    assert f"usage: ssl-audio {' '.join(arguments)}" in watched(*arguments, "--help")


def test_train_lists_the_configs():
    said = watched("train", "--help")
    for path in (ROOT / "configs").glob("*.py"):
        assert f"\n  {path.stem} " in said
    assert "--workdir" in said and "--profile" in said


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_a_parser_and_a_main(verb):
    assert module(verb).parser().prog == f"ssl-audio {verb}"
    assert callable(module(verb).main)


def test_verbs_that_compute_nothing_never_import_jax(tmp_path):
    watched("configs")
    watched("configs", "copy", "ssamba", str(tmp_path / "my.py"))
    arguments = ["--source", "synthetic", "--set", "size=3", "--set", "seconds=0.1"]
    watched("prepare", *arguments, "--output", str(tmp_path / "shards"), heavy="jax sklearn")


def test_embedding_with_a_plain_folder_needs_neither_orbax_nor_grain(tmp_path):
    encoder = encoders.encoder(frames=24)
    exported.write(tmp_path / "model", encoder.params, encoder.config)
    sound = np.random.default_rng(0).normal(0, 0.1, 2000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 16_000)
    places = ["--checkpoint", str(tmp_path / "model"), "--output", str(tmp_path / "out.npz")]
    watched("embed", str(tmp_path / "a.wav"), *places, heavy="orbax grain scipy librosa sklearn")
    assert np.load(tmp_path / "out.npz")["embedding"].shape == (1, encoder.width)


def test_an_old_or_misspelt_verb_is_told_the_new_one():
    for wrong, right in (*RENAMED.items(), ("trian", "train")):
        done = subprocess.run(
            [sys.executable, "-m", "ssl_audio", wrong], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2 and f"Did you mean '{right}'?" in done.stderr


def test_help_names_what_can_be_chosen():
    from ssl_audio.eval import evaluate
    from ssl_audio.layers.scan import IMPLEMENTATIONS

    assert tuple(evaluate.classifiers()) == evaluate.CLASSIFIERS
    said = watched("bench", "scan", "--help")
    assert all(name in said for name in IMPLEMENTATIONS)
