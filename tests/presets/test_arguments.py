"""Options of configs: each that is written changes the config, or is refused."""

import runpy

import pytest

from ssl_audio import config, config_files

# Values of each option that no config has as its default.
OTHERS = {
    "size": ("tiny", "small", "large"),
    "encoder": ("ssamba", "eat", "cnn14"),
    "decoder": ("global", "conv"),
    "masking": ("structured",),
    "patch": ("128x2",),
    "masked": ("7",),
    "clones": ("3",),
    "group": ("3",),
    "codes": ("9",),
    "layout": ("released",),
    "waves": ("none", "true"),
    "adversarial": ("false",),
    "codec": ("NOWHERE",),
    "mixed": ("0.3",),
    "target": ("mlp",),
    "mel": ("kaldi",),
    "stage": ("A", "base"),
    "same": ("0.5",),
    "cross": ("0.5",),
    "beta": ("0.5",),
    "inter": ("0.3",),
    "original": ("0.3",),
    "books": ("3",),
    "share": ("0.3",),
    "layer": ("3",),
    "preset": ("msclap",),
    "fold": ("2",),
    "drop": ("0.25",),
    "shared": ("true",),
    "video": ("large",),
    "patchout": ("single",),
    "stride": ("12", "12x12"),
    "task": ("esc10",),
    "shuffled": ("true",),
    "scratch": ("true",),
    "keep_head": ("true",),
    "runlocal": ("true",),
    "text": ("NOWHERE",),
    "root": ("NOWHERE",),
    "data": ("DIR",),
    "audio": ("NOWHERE",),
    "speech": ("NOWHERE",),
    "teacher": ("NOWHERE",),
    "pairs": ("2",),
    "depth": ("8",),
    "sound": ("NOWHERE",),
    "music": ("NOWHERE",),
    "speech_data": ("DIR",),
    "sound_data": ("DIR",),
    "music_data": ("DIR",),
    "matched": ("10.0",),
    "targets": ("NOWHERE",),
    "previous": ("NOWHERE",),
    "pivot": ("NOWHERE",),
    "model": ("NOWHERE", "crnn"),
    "method": ("delores_m", "slicer", "mix_match", "supervised"),
    "pretrained": ("NOWHERE",),
    "clips": ("NOWHERE",),
    "column": ("Species",),
    "seconds": ("4.0",),
    "weak": ("NOWHERE",),
    "head": ("crnn",),
    "batch": ("8",),
    "steps": ("100",),
    "lr": ("0.01",),
    "validation": ("NOWHERE",),
    "test": ("NOWHERE",),
    "by": ("site",),
    "max_bad_share": ("0.2",),
    "adapt": ("lora", "head"),
    "mixup": ("0.3",),
    "view": ("strong",),
    "labels": ("5", "all"),
    "width": ("4",),
    "seed": ("7",),
    "rank": ("4",),
    "alpha": ("8.0",),
    "clusters": ("7",),
    "draw": ("3",),
    "columns": ("title",),
    "mu": ("0.4",),
    "keep": ("0.5",),
    "dropout": ("0.25",),
    "classes": ("7",),
    "frames": ("9",),
    "query": ("soft",),
    "tagger": ("NOWHERE",),
    "mining": ("random",),
    "events": ("NOWHERE",),
    "sources": ("3",),
    "items": ("NOWHERE",),
    "vocabulary": ("NOWHERE",),
    "least": ("2",),
    "length": ("32",),
    "triplet": ("0.5",),
    "reconstruct": ("0.5",),
    "side": ("32",),
    "autoencoder": ("NOWHERE",),
    "filter": ("NOWHERE",),
    "threshold": ("0.5",),
    "template": ("digit {}",),
    "each": ("3",),
    "rejected": ("3",),
    "rounds": ("1",),
    "generic": ("false",),
    "align": ("false",),
    "mixcap": ("false",),
    "prefix": ("3",),
    "learn": ("true",),
}
# What a config must be given to be one at all.
NEEDED = dict.fromkeys(("finetune", "fsd50k", "passt", "semi_supervised"), "root=DIR")


def options(name):
    """Return the options of a config and their defaults."""
    found = {}

    def spy(arg, **defaults):
        found.update(defaults)
        raise KeyboardInterrupt

    namespace = runpy.run_path(str(config_files.locate(name)))
    namespace["get_config"].__globals__["parse_arg"] = spy
    with pytest.raises(KeyboardInterrupt):
        namespace["get_config"]("")
    return found


def made(name, *arguments):
    """Return the text of a config, or the message with which it was refused."""
    get_config = runpy.run_path(str(config_files.locate(name)))["get_config"]
    try:
        return config.text(get_config(",".join(filter(None, arguments))))
    except (ValueError, OSError) as error:
        return f"refused: {error}"


@pytest.mark.parametrize("name", sorted(config_files.packaged()))
def test_whatever_is_written_is_obeyed_or_refused(name, tmp_path):
    known = options(name)
    modes = [mode for mode in ("laptop", "runlocal") if mode in known]
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "config.json").write_text('{"objective": {"encoder": {"width": 8}}}')
    stages = {"spear": (f"stage=codes,teacher={teacher}",), "teminal": ("stage=A",)}
    stages |= {"unfused": (f"stage=finetune,root={tmp_path}",)}
    stages = stages.get(name, ())
    # `ssl-audio folds` gives it to every config
    passed = {(config, "runlocal", "fold") for config in ("finetune", "semi_supervised")}
    ignored, tried = [], 0
    for mode in ("", *modes, *stages):
        needed = NEEDED.get(name, "") if mode != "runlocal" else ""
        needed = needed.replace("DIR", str(tmp_path))
        before = made(name, needed, mode)
        assert not before.startswith("refused"), before
        for option in known:
            if option in ("laptop", *mode.split(",")) or option in mode or f"{option}=" in needed:
                continue
            values = (*OTHERS[option], str(known[option]))
            for value in values:
                value = str(tmp_path) if value == "DIR" else value
                if value in ("", "False", "synthetic"):  # as if it were not there
                    continue
                if (name, mode, option) in passed:
                    continue
                if option == "data" and value == str(tmp_path) and "root" in known and not mode:
                    continue
                tried += 1
                after = made(name, needed, mode, f"{option}={value}")
                default = value == str(known[option])
                if after == before and not default:
                    ignored.append(f"{mode or 'plain'}: {option}={value}")
                # Where other values are refused as useless, the default is refused too.
                others = [made(name, needed, mode, f"{option}={v}") for v in OTHERS[option]]
                useless = any("would change nothing" in other for other in others)
                if default and useless and "would change nothing" not in after:
                    ignored.append(f"{mode or 'plain'}: {option}={value}, of all values")
    assert tried and not ignored, ignored
