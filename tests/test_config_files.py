"""`--config NAME|FILE`, overrides, and `ssl-audio configs`."""

import re

import pytest
from published import CONFIGS
from reference import ROOT

from ssl_audio import config, config_files
from ssl_audio.train.run import Run

SSAST, SSAMBA = str(ROOT / "configs/ssast.py"), str(ROOT / "configs/ssamba.py")


def test_a_name_is_a_config_of_the_package_and_a_path_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.locate("ssamba") == ROOT / "configs/ssamba.py"
    (tmp_path / "ssamba.py").write_text("X = 1\n")
    (tmp_path / "ssast").write_text("not a config")
    assert config_files.locate("ssamba.py").read_text() == "X = 1\n"
    assert config_files.locate("ssast") == ROOT / "configs/ssast.py", (
        "a name means the same anywhere"
    )
    assert config_files.locate("./ssast").read_text() == "not a config"
    tiny = config_files.load("ssamba:size=tiny")
    assert tiny.to_dict() == config_files.load(f"{SSAMBA}:size=tiny").to_dict()


def test_neither_a_name_nor_a_file_lists_the_names():
    for wrong, near in (
        ("samba", "ssamba"),
        ("configs/ssast.py", "ssast"),
        ("my/hubrt.py", "hubert"),
    ):
        with pytest.raises(
            ValueError, match=f"no file there/{wrong}.*Did you mean '{near}'"
        ) as error:
            config_files.locate(f"there/{wrong}")
        assert all(path.stem in str(error.value) for path in CONFIGS)
    with pytest.raises(ValueError, match="no file zzz, nor a config of this name. Configs: asit, "):
        config_files.locate("zzz")


def test_every_config_is_listed_with_the_first_line_of_its_docstring(capsys):
    config_files.main([])
    listed = capsys.readouterr().out
    lines = listed.splitlines()
    assert [line.split()[0] for line in lines] == [path.stem for path in CONFIGS]
    for line, path in zip(lines, CONFIGS, strict=True):
        assert line.split(maxsplit=1)[1] == path.read_text().splitlines()[0].strip('"')
    with pytest.raises(SystemExit):
        config_files.with_config("train", "").parse_args(["--help"])
    assert listed in capsys.readouterr().out


def test_a_copy_is_the_same_and_overwrites_nothing(tmp_path, capsys):
    copy = tmp_path / "my.py"
    config_files.main(["copy", "ssamba", str(copy)])
    assert copy.read_text() == (ROOT / "configs/ssamba.py").read_text()
    copy.write_text("changed")
    with pytest.raises(FileExistsError, match="my.py exists already"):
        config_files.main(["copy", "ssamba", str(copy)])
    assert copy.read_text() == "changed"
    with pytest.raises(ValueError, match="Did you mean 'ssamba'"):
        config_files.main(["copy", "sssamba", str(tmp_path / "other.py")])
    assert not (tmp_path / "other.py").exists()


def test_show_prints_all_options(capsys):
    config_files.main(["show", "ssamba:encoder=ssast,runlocal"])
    assert capsys.readouterr().out == config.text(
        config_files.load(f"{SSAMBA}:encoder=ssast,runlocal")
    )


def test_a_config_may_load_another(tmp_path):
    """Warnings are errors here: that of ml_collections, which reads files the old way, is not the user's."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from ssl_audio import config_files\n\n\ndef get_config(arg=''):\n"
        "    return config_files.load(f'ssamba:size=tiny,{arg}')\n"
    )
    found = config_files.load(f"{mine}:masked=7")
    assert found.to_dict() == config_files.load("ssamba:size=tiny,masked=7").to_dict()


def test_an_argument_is_put_behind_those_given():
    parser = config_files.with_config("folds", "")
    for given, more in (("ssamba", "encoder=ssast,runlocal"), ("ssamba:runlocal", "encoder=ssast")):
        _, options = config_files.parse(parser, [f"--config={given}"], argument=more)
        assert options.to_dict() == config_files.load("ssamba:encoder=ssast,runlocal").to_dict()


def test_command_line_overrides():
    argv = [
        f"--config={SSAMBA}:encoder=ssast,runlocal",
        "--config.optim.lr=0.5",
        "--workdir",
        "there",
    ]
    argv += ["--config.objective.masking.count=3", "--config.checkpoint.every=50%"]
    parser = config_files.with_config("train", "what it does", workdir=True)
    args, options = config_files.parse(parser, argv)
    assert args.workdir == "there"
    assert (options.optim.lr, options.objective.masking.count) == (0.5, 3)
    assert options.checkpoint.every == "50%"
    again = config_files.parse(parser, argv)[1]
    assert again.to_dict() == options.to_dict(), "a program may parse twice"


def test_options_that_a_config_does_not_name_can_be_overridden():
    place = f"{SSAMBA}:encoder=ssast,runlocal"
    more = ["--config.objective.encoder.dtype=bfloat16", "--config.data.entries.audio.gain=3"]
    more += ["--config.eval_every=5%", "--config.data.shuffle=False"]
    run = config.make(Run, config_files.load(place, more))
    assert run.objective.encoder.dtype == "bfloat16" and run.eval_every == "5%"
    assert (run.data.entries["audio"].gain, run.data.shuffle) == (3, False)

    for wrong, words in (
        (
            "--config.objective.encoder.dtpe=bfloat16",
            r"config.objective.encoder: .*no option 'dtpe'.*'dtype'",
        ),
        ("--config.data.shuffle=3", "config.data.shuffle: wanted bool, got 3"),
        ("--config.optim.learning=1", "config.optim: Optim has no option 'learning'"),
    ):
        with pytest.raises(TypeError, match=words):
            config.make(Run, config_files.load(place, [wrong]))


def test_an_override_may_add_an_entry():
    more = ["--config.data.entries.weight.kind=entries:Weight", "--config.objective.encode.depth=3"]
    loaded = config_files.load("ssast:runlocal", more[:1])
    assert "weight" in config.make(Run, loaded).data.spec()
    with pytest.raises(TypeError, match="no option 'encode'. Did you mean 'encoder'"):
        config.make(Run, config_files.load("ssast:runlocal", more))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--config"),
        (["--config=nowhere.py"], "no file nowhere.py"),
        ([f"--config={SSAST}:sise=tiny"], "the options are size"),
        ([f"--config={SSAST}:size=huge"], "huge"),
        ([f"--config={SSAST}", "--config.no.such=1"], "'no'"),
        ([f"--config={SSAST}", "--config.optim.lr=fast"], "fast"),
        ([f"--config={SSAST}", "--confg.optim.lr=1"], "--confg.optim.lr=1"),
        ([f"--config={SSAST}:data=/no/such/folder"], "a folder that exists"),
        ([f"--config={SSAST}", "--config.objective=foo"], "--config.objective.OPTION=VALUE"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_command_line_mistakes_are_one_message(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        config_files.parse(config_files.with_config("preview", ""), argv)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and words in said and "Traceback" not in said


def test_a_missing_workdir_and_help(capsys):
    parser = config_files.with_config("train", "Line one.\n  kept as it is", workdir=True)
    with pytest.raises(SystemExit):
        config_files.parse(parser, [f"--config={SSAST}"])
    assert "--workdir" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        config_files.parse(parser, ["--help"])
    assert stop.value.code == 0 and "  kept as it is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def get_config(:", "SyntaxError"),
        ("def get_config(arg=''):\n    return missing", "line 2: NameError: name 'missing'"),
        ("def get_config(arg=''):\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("import no_such_module", "line 1: ModuleNotFoundError"),
        ("raise SystemExit(0)", "its code ends the program"),
        ("def get_config(arg=''):\n    pass", "wanted a function get_config that returns"),
        ("def get_config(arg=''):\n    return {}", "gives dict, wanted"),
    ],
)
def test_a_config_file_with_a_mistake_is_named(tmp_path, code, words):
    path = tmp_path / "own.py"
    path.write_text(code)
    with pytest.raises(ValueError, match=f"own.py: .*{re.escape(words)}"):
        config_files.load(str(path))
