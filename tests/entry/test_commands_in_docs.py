"""Every command that the documents, configs and launchers name exists: verb, options, configs, arguments."""

import argparse
import ast
import dataclasses
import functools
import re
import shlex

import pytest
from reference import ROOT

from ssl_audio import config_files
from ssl_audio.__main__ import VERBS, module
from ssl_audio.train.run import Run

pytestmark = pytest.mark.entry

PLACES = ["README.md", "Makefile", "docs/**/*.md", "experiments/*/*", "launch/**/*", "configs/*.py"]
PLACES += ["ssl_audio/**/*.py"]
FILES = sorted(
    {path for place in PLACES for path in ROOT.glob(place) if path.is_file()}
    - set((ROOT / "experiments").rglob("*.png"))
    - {ROOT / "ssl_audio/__main__.py"}  # which explains what a command looks like
)
# Up to the end of a code span, of a cell, of a sentence, or to a comment.
COMMAND = re.compile(r"(?:ssl-audio|-m ssl_audio[ .]) *([\w-]*)((?:(?! \| |[`\n;]|  +#| # ).)*)")
CONFIG = re.compile(r"--config[= ]\\?\s*[\"']?([\w./]+)(?::([\w.,=+/$-]*))?")
OVERRIDE = re.compile(r"--config\.([a-z]\w*)")
FREE = re.compile(r"[^a-z0-9]|^$")  # a value that stands for another: DIR, $pool, …


def text(path):
    return path.read_text(encoding="utf-8").replace("\\\\\n", " ").replace("\\\n", " ")


def name(path):
    return path.relative_to(ROOT).as_posix()


def commands():
    """Yield (file, verb, the rest of the line)."""
    for path in FILES:
        for verb, rest in COMMAND.findall(text(path)):
            if verb and verb not in ("VERB", "version"):
                yield name(path), verb, rest


@functools.cache
def options(verb):
    """Return option → its action, over all parts of a verb."""
    found, left = {}, [module(verb).parser()]
    while left:
        for action in left.pop()._actions:
            found |= dict.fromkeys(action.option_strings, action)
            if isinstance(action, argparse._SubParsersAction):
                left += action.choices.values()
    return found


def test_every_verb_and_option_exists():
    seen = set()
    for where, verb, rest in commands():
        assert verb in VERBS, f"{where}: no verb {verb}"
        seen.add(verb)
        known = options(verb)
        for option, value in re.findall(r"(?<!\S)(--[a-z][\w-]*)(?![\w.-])[= ]?(\S*)", rest):
            assert option in known, f"{where}: ssl-audio {verb} has no {option}"
            choices = known[option].choices
            if choices is not None and not FREE.match(value):
                value = value.strip(",).'\"")
                assert value in choices, f"{where}: {verb} {option} {value}: {list(choices)}"
    missing = set(VERBS) - seen - {"configs"}
    assert not missing, f"no document names {missing}"


@functools.cache
def arguments(path):
    """Return the options of a config, and which of them are switches: the defaults of its `parse_arg`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "parse_arg":
            values = {k.arg: k.value for k in node.keywords}
            false = {k for k, v in values.items() if getattr(v, "value", None) is False}
            return list(values), false
    raise AssertionError(f"{path}: calls no parse_arg")


def test_every_config_and_argument_exists():
    count = 0
    for path in FILES:
        for place, given in CONFIG.findall(text(path)):
            if place in ("FILE", "NAME", "my.py", "file.py") or place.startswith("-"):
                continue
            found = config_files.locate(place)
            known, switches = arguments(found)
            for number, part in enumerate(filter(None, given.rstrip(".,").split(","))):
                key, equals, _ = part.partition("=")
                if equals or number:
                    assert key in known, f"{name(path)}: {place} has no argument {key}"
                    assert equals or key in switches, f"{name(path)}: {place}:{key} wants a value"
            count += 1
    assert count > 90


def test_every_override_is_of_a_run():
    fields = {f.name for f in dataclasses.fields(Run)}
    found = {(name(p), key) for p in FILES for key in OVERRIDE.findall(text(p))}
    assert len(found) > 5
    assert not {(where, key) for where, key in found if key not in fields}


def fenced():
    for path in FILES:
        if path.suffix == ".md":
            for block in re.findall(r"```bash\n(.*?)```", text(path), re.S):
                for line in block.splitlines():
                    words = shlex.split(line.partition(" > ")[0], comments=True)
                    if words[:1] == ["ssl-audio"]:
                        yield pytest.param(words[1:], id=f"{name(path)}:{words[1]}")


@pytest.mark.parametrize("words", list(fenced()))
def test_commands_of_their_own_are_complete(words):
    verb, *rest = words
    for i, word in enumerate(rest):
        if word.startswith("$"):  # of a loop around it
            rest[i] = str(next(iter(options(verb)[rest[i - 1]].choices or "1")))
    module(verb).parser().parse_args([w for w in rest if not w.startswith("--config.")])
