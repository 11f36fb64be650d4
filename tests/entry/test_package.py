"""The package, built from its sdist and installed, works in an empty folder and without the checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata

import numpy as np
import pytest
from published import CONFIGS
from reference import ROOT

from ssl_audio.versions import __version__

pytestmark = pytest.mark.entry

CITED = f"version: {__version__}\n"
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


def run(*command, **options):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, **options
    )
    assert not done.returncode, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the sdist of the files here, and the wheel that is built from it."""
    if int(metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("the package cannot be built here: pip install 'setuptools>=77'")
    root = tmp_path_factory.mktemp("package")
    source, out = root / "source", root / "out"
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    for name in ("configs", "ssl_audio", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    run(sys.executable, "-c", BUILD.format("sdist"), out, cwd=source)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        file.extractall(root, filter="data")
    run(sys.executable, "-c", BUILD.format("wheel"), out, cwd=root / f"ssl_audio-{__version__}")
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


def files(folder, *patterns):
    """Return the names that files of the checkout have in the package."""
    found = [path for pattern in patterns for path in (ROOT / folder).rglob(pattern)]
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_wheel_holds_what_runs_and_nothing_else(built):
    sdist, wheel = built
    assert wheel.name == f"ssl_audio-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (entries,) = (n for n in names if n.endswith("/entry_points.txt"))
        assert "ssl-audio = ssl_audio.__main__:main" in file.read(entries).decode()
        about = file.read(entries.replace("entry_points.txt", "METADATA")).decode()
    page = ("*.html", "*.css", "*.js", "*.svg")
    wanted = files("ssl_audio", "*.py", "*.cc", "*.h", "*.json", "py.typed", *page)
    wanted |= {f"ssl_audio/configs/{path.name}" for path in CONFIGS}
    code = {f"ssl_audio/layers/scan/{name}" for name in ("cpp.cc", "conv.h", "vectors.h")}
    assert code | {"ssl_audio/py.typed"} < wanted
    assert "ssl_audio/data/banks/esc.json" in wanted
    info = f"ssl_audio-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == wanted
    assert f"{info}licenses/LICENSE" in names
    for line in ("License-Expression: Apache-2.0", f"Version: {__version__}", "Typing :: Typed"):
        assert line in about
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "pyproject.toml"} < inside
    assert not any(name.startswith("tests") for name in inside)


def test_one_version():
    assert CITED in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Install the wheel in an environment that sees this one's packages; return its folder of programs."""
    root = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", root)
    python = root / "bin" / "python"
    here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    say = "import sysconfig; print(sysconfig.get_path('purelib'))"
    # No .pth in those folders is read, so an editable install of the checkout is not seen.
    with open(f"{run(python, '-c', say).strip()}/environment.pth", "w") as file:
        file.write("\n".join(here))
    command = ["-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    run(sys.executable, *command, "--ignore-installed", built[1])
    return python.parent


def test_from_training_to_the_report_in_an_empty_folder(
    installed, environment, optimised, tmp_path
):
    def without_the_checkout(environment):
        env = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        return env | {"PATH": f"{installed}{os.pathsep}{env['PATH']}"}

    env, quick = map(without_the_checkout, (environment, optimised))

    def verb(*arguments, env=env):
        return run("ssl-audio", *arguments, cwd=tmp_path, env=env)

    code = "import ssl_audio; print(ssl_audio.__file__, ssl_audio.__version__)"
    where, version = run(installed / "python", "-c", code, cwd=tmp_path, env=env).split()
    assert where.startswith(str(installed.parent)) and version == __version__
    assert verb("configs").count("\n") == len(CONFIGS)

    verb("train", "--config", "ssamba:runlocal", "--workdir", "run")
    assert (tmp_path / "run/checkpoints/4").is_dir()
    code = """
import numpy, ssl_audio
encoder = ssl_audio.load("run")
numpy.save("clip.npy", encoder.embed(numpy.ones(8000, numpy.float32), sample_rate=16_000))
import soundfile
soundfile.write("clip.wav", numpy.ones(8000) * 0.999, 16_000, subtype="FLOAT")
"""
    run(installed / "python", "-c", code, cwd=tmp_path, env=env)
    verb("embed", "--checkpoint", "run", "--output", "out.npz", "clip.wav")
    with np.load(tmp_path / "out.npz") as found:
        assert found["embedding"].shape == (1, *np.load(tmp_path / "clip.npy").shape)
    verb(
        "evaluate", "--checkpoint", "run", "--set", "synthetic", "--features", "encoder", env=quick
    )
    records = (tmp_path / "run/evals/synthetic_folds.jsonl").read_text().splitlines()
    assert len(records) == 2 * (5 + 1)
    assert {json.loads(line)["features"] for line in records} == {"encoder"}
    verb("report", "run")
    page = (tmp_path / "run/report.html").read_text()
    assert "Frozen features: synthetic_folds" in page and "training curves" in page
