"""Building objects from configs: what is refused, and with which words."""

import dataclasses
import textwrap

import pytest
from ml_collections import ConfigDict
from reference import ROOT

from ssl_audio import config, config_files, slots
from ssl_audio.layers import norms
from ssl_audio.layers.attention import Attention
from ssl_audio.presets import patch_encoders
from ssl_audio.tokens.masking import Cluster

SSAST = str(ROOT / "configs/ssast.py")


def test_a_typo_gets_a_suggestion_and_all_options():
    with pytest.raises(
        TypeError, match=r"^config\.frontend: Fbank has no option 'bin'\. Did you mean 'bins'\?"
    ):
        config.build(dict(kind="fbank", bin=64), "frontend")
    with pytest.raises(TypeError, match=r"no option 'zzz'\. Options: rate, bins, "):
        config.build(dict(kind="fbank", zzz=64), "frontend")


def test_a_typo_far_down_names_its_place():
    options = patch_encoders.encoder("ssast", "tiny", (8, 4))
    options["block"]["mixer"]["head"] = options["block"]["mixer"].pop("heads")
    with pytest.raises(
        TypeError, match=r"^config\.backbones\.block\.mixer: Attention has no option 'head'\."
    ):
        config.build(options, "backbones")


def test_an_unknown_kind_lists_the_classes_of_its_slot():
    listed = r"config\.frontend\.kind: no 'fbanks' here\. Did you mean 'fbank'\? There are augment:"
    with pytest.raises(ValueError, match=listed):
        config.build(dict(kind="fbanks"), "frontend")
    with pytest.raises(ValueError, match=r"has no class 'Masking'\. .*There are masking:Cluster, "):
        config.build(dict(kind="masking"), slots.of(slots.Masking))
    with pytest.raises(ValueError) as error:
        config.build(dict(kind="random"), slots.of(slots.Masking), path="config.masking")
    assert "patchify" not in str(error.value) and "masking:Random, " in str(error.value)


@pytest.mark.parametrize("kind", ["random", "random:Random", "json", "numpy", "no.such:Thing"])
def test_a_kind_never_becomes_a_module_of_python_or_a_library(kind):
    with pytest.raises(ValueError, match=rf"no '{kind}' here\..*masking:Random"):
        config.build(dict(kind=kind), slots.of(slots.Masking))


@pytest.mark.parametrize("folder", ["frontend", "layers", "heads", "tokens", "objectives", "data"])
def test_every_class_that_an_error_lists_can_be_built(folder):
    with pytest.raises(ValueError) as error:
        config.build(dict(kind="nothing_like_it"), folder)
    listed = str(error.value).partition("There are ")[2].partition(";")[0].split(", ")
    assert len(listed) > 5
    for kind in listed:
        assert dataclasses.is_dataclass(config._find(kind, slots.Slot(folder), ""))


def test_a_field_of_any_name_takes_what_its_annotation_names():
    @dataclasses.dataclass(frozen=True)
    class Thing:
        anything: slots.Masking
        several: dict[str, slots.Norm] = dataclasses.field(default_factory=dict)

    built = config.make(
        Thing,
        dict(
            anything=dict(kind="masking:Random", count=3),
            several=dict(a=dict(kind="norms:RMSNorm")),
        ),
    )
    assert built.anything.count == 3 and isinstance(built.several["a"], norms.RMSNorm)


@pytest.mark.parametrize("wrong", [3, "fbank", {"bins": 64}, None])
def test_a_slot_wants_a_mapping_with_a_kind(wrong):
    with pytest.raises(TypeError, match="wanted a mapping with a 'kind'"):
        config.build(wrong, "frontend")


def test_a_kind_where_none_belongs_is_refused():
    with pytest.raises(TypeError, match="nothing with a 'kind' belongs here"):
        config.make(Attention, dict(heads=dict(kind="fbank")))


def test_a_missing_option_is_named():
    with pytest.raises(TypeError, match=r"config\.layers: Attention needs heads\."):
        config.build(dict(kind="attention"), "layers")


@pytest.mark.parametrize(
    ("key", "value", "wanted"), [("bins", "64", "int"), ("bins", 64.0, "int"), ("bins", True, "int"),
                                 ("mean", "0", "float"), ("frames", 1.5, "int or NoneType")],
)  # fmt: skip
def test_a_wrong_type_is_refused(key, value, wanted):
    with pytest.raises(TypeError, match=rf"^config\.frontend\.{key}: wanted {wanted}, got "):
        config.build(dict(kind="fbank") | {key: value}, "frontend")


def test_an_error_of_the_class_itself_says_where():
    with pytest.raises(ValueError, match=r"^config\.tokens: .*count is 0"):
        config.build(dict(kind="masking:Cluster", count=0), "tokens")


def test_children_are_built_first():
    encoder = config.build(patch_encoders.encoder("ssast", "tiny", (8, 4)), "backbones")
    assert isinstance(encoder.block.mixer, Attention) and encoder.block.mixer.heads == 3
    assert isinstance(encoder.final_norm, norms.LayerNorm)
    twice = config.build(patch_encoders.encoder("ssamba", "tiny", (8, 4)), "backbones").final_norm
    assert isinstance(twice, norms.Twice) and twice.norm.eps == 1e-5


def test_config_dicts_and_lists_are_data_and_what_is_built_is_frozen():
    given = ConfigDict(dict(kind="masking:Cluster", count=4, sizes=[2, 3]))
    built = config.build(given, "tokens")
    assert built == Cluster(4, (2, 3))
    given.count = 5
    assert built.count == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.count = 5


def test_research_code_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "my_lab.py").write_text(
        textwrap.dedent("""
        import dataclasses

        @dataclasses.dataclass(frozen=True)
        class Alternate:
            count: int

        @dataclasses.dataclass(frozen=True)
        class MyLab:
            size: float = 2.0
        """)
    )
    (tmp_path / "broken_lab.py").write_text("import a_module_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert config.build(dict(kind="my_lab:Alternate", count=3), "tokens").count == 3
    assert config.build(dict(kind="my_lab:MyLab"), "tokens").size == 2.0
    with pytest.raises(ModuleNotFoundError, match="a_module_nobody_has"):
        config.build(dict(kind="broken_lab:Thing"), "tokens")


def test_parse_arg():
    def parse(arg):
        return vars(config.parse_arg(arg, size="base", masked=400, rate=0.5, runlocal=False))

    base = dict(size="base", masked=400, rate=0.5, runlocal=False)
    assert parse("") == parse(None) == base
    assert parse("size=tiny,runlocal") == base | dict(size="tiny", runlocal=True)
    assert parse("tiny,masked=3,rate=1e-3") == base | dict(size="tiny", masked=3, rate=1e-3)
    assert parse("runlocal=no")["runlocal"] is False
    with pytest.raises(ValueError, match="'sise': the options are size, masked, rate, runlocal"):
        parse("sise=tiny")
    with pytest.raises(ValueError, match="'masked=many': wanted int"):
        parse("masked=many")
    with pytest.raises(ValueError, match="write masked=VALUE"):
        parse("masked")
    with pytest.raises(ValueError, match="write tiny=VALUE"):
        parse("runlocal,tiny")
    with pytest.raises(ValueError, match="'runlocal=maybe': wanted true or false"):
        parse("runlocal=maybe")
    with pytest.raises(ValueError, match="'size': given twice"):
        parse("size=tiny,size=base")


def test_an_option_without_effect_is_refused():
    parsed = config.parse_arg("base,runlocal=no", size="base", masked=400, runlocal=False)
    parsed.refuse("masked runlocal", "laptop sets it")  # not given, or off
    with pytest.raises(ValueError, match="'size': it would change nothing: laptop sets it"):
        parsed.refuse("masked size", "laptop sets it")
    on = config.parse_arg("align=false", align=True)
    with pytest.raises(ValueError, match="'align': it would change nothing"):
        on.refuse("align", "laptop sets it")


def test_duration():
    def steps(value):
        return config.duration(value, total=2000, epoch=30)

    assert [steps(v) for v in (3000, "3000", "30 steps", "5%", "10ep", "0.5ep", "0.01%")] == [
        3000, 3000, 30, 100, 300, 15, 1,
    ]  # fmt: skip
    for wrong in ("5 parsecs", "", "%5", "-3"):
        with pytest.raises(ValueError, match="write 3000, '5%' or '10ep'"):
            steps(wrong)
    with pytest.raises(ValueError, match="epoch is not known"):
        config.duration("2ep", total=10)


def test_text_has_one_sorted_line_per_leaf():
    given = dict(b=dict(z=1, a=(1, "x")), a=None, empty={})
    assert config.text(ConfigDict(given)) == "a = None\nb.a = (1, 'x')\nb.z = 1\nempty = {}\n"


def test_swapping_transformer_for_mamba_is_one_subtree():
    lines = {}
    for encoder in ("ssast", "ssamba"):
        options = config_files.load(f"{SSAST}:size=tiny,encoder={encoder}")
        lines[encoder] = set(config.text(options).splitlines())
    differ = lines["ssast"] ^ lines["ssamba"]
    assert any("mixer.kind" in line for line in differ)
    assert all(line.startswith("objective.encoder.") for line in differ)
