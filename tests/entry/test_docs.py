"""The documentation is true: its Python runs, the commands marked so run, every path and link exists."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from reference import ROOT

pytestmark = pytest.mark.entry

PAGES = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"
LINKED = [*PAGES, README, *sorted((ROOT / "experiments").glob("*/*.md"))]
# All Python runs unless a comment above the block says why it cannot; commands run when marked.
BLOCK = re.compile(r"(?:^<!-- (run|not run: .+) -->\n)?^```(python|bash)\n(.*?)^```$", re.M | re.S)
INCLUDED = re.compile(r'^--8<-- "(.+)"$', re.M)
TRAIN = ["-m", "ssl_audio", "train", "--config", "ssamba:runlocal", "--workdir", "runs/try"]
# What the README takes as given.
GIVEN = """
import numpy as np
waveform = np.sin(np.arange(44_100) / 9).astype(np.float32)
"""


def blocks(page, language):
    """Return the blocks of a page that run, in order."""
    found = []
    for mark, kind, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        runs = mark == "run" if kind == "bash" else not mark.startswith("not run")
        if kind == language and runs:
            found.append(code)
    return found


def checked(*command, **options):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=600, **options
    )
    assert not done.returncode, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory, environment):
    """Return a folder with a trained run and a few sounds, as the quickstart leaves it."""
    made = tmp_path_factory.mktemp("docs")
    (made / "sounds").mkdir()
    for name, samples in (("a", 8_000), ("b", 40_000)):
        noise = np.random.default_rng(samples).normal(0, 0.1, samples)
        soundfile.write(made / f"sounds/{name}.wav", noise, 16_000)
    checked(sys.executable, *TRAIN, cwd=made, env=environment)
    os.symlink("try", made / "runs/demo")
    return made


def commands(page):
    """Return the marked commands of a page but the training that the fixture has done."""
    lines = "".join(blocks(page, "bash")).splitlines(keepends=True)
    wanted = " ".join(["ssl-audio", *TRAIN[2:]])
    return "".join(line for line in lines if line.strip() != wanted)


RUN = [page for page in (*PAGES, README) if blocks(page, "python") or blocks(page, "bash")]


@pytest.mark.parametrize("page", RUN, ids=lambda p: p.stem)
def test_what_a_page_shows_runs(page, folder, environment, optimised):
    """Commands first, then all Python of the page as one program."""
    if script := commands(page):
        shell = f'set -e\nssl-audio() {{ "{sys.executable}" -m ssl_audio "$@"; }}\n{script}'
        much = " evaluate " in script
        checked("bash", "-c", shell, cwd=folder, env=optimised if much else environment)
    if code := "\n".join(blocks(page, "python")):
        given = GIVEN if page == README else ""
        checked(sys.executable, "-W", "error::FutureWarning", "-c", given + code,
                cwd=folder, env=environment)  # fmt: skip


def test_the_quickstart_trains_what_the_other_pages_use():
    assert " ".join(["ssl-audio", *TRAIN[2:]]) in "".join(blocks(ROOT / "docs/index.md", "bash"))
    assert {"index", "use-it-from-jax", "README"} <= {page.stem for page in RUN}


# A path of this project in a code span: of the checkout, or of the package in a table.
FOLDERS = "ssl_audio|configs|experiments|launch|tests|docs"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]*|[a-z_]+/\w+\.py)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_link_and_path_exists(page):
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if "://" not in link:
            target, _, anchor = link.partition("#")
            there = page.parent / target if target else page
            assert there.exists(), f"{page}: no {link}"
            assert not anchor or anchor in anchors(there), f"{page}: no heading {link}"
    for path in (*PATH.findall(text), *INCLUDED.findall(text)):
        places = [ROOT / path, ROOT / "ssl_audio" / path, page.parent / path]
        assert any(place.exists() for place in places), f"{page}: no {path}"


def test_what_a_system_cost_is_still_so():
    text = (ROOT / "docs/add-a-system.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\S+\.py)` \| (\d+) \|$", text, re.M)
    assert len(told) == 3
    for path, lines in told:
        assert abs(len((ROOT / path).read_text().splitlines()) - int(lines)) <= 10, path
    own = {path for path, _ in told} | {"tests/entry/test_docs.py"}
    for path in (*ROOT.glob("ssl_audio/**/*.py"), *ROOT.glob("configs/*.py")):
        name = path.relative_to(ROOT).as_posix()
        named = re.search(r"masked_?modeling_?duo|m2d\b", path.read_text(), re.I)
        assert name in own or not named, f"{name} names M2D"


def test_every_page_is_in_the_menu_and_every_public_name_in_the_reference():
    import ssl_audio

    menu = re.findall(r"^  - .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(menu) == [page.name for page in PAGES]
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.M)
    for name in set(ssl_audio.__all__) - {"__version__"}:
        public = getattr(ssl_audio, name)
        assert f"{public.__module__}.{name}" in listed, name
