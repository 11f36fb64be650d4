"""Rows of `ssl-audio benchmark` about sound that models make, and events in time: controls, real models."""

import dataclasses

import encoders
import jax
import numpy as np
import pytest

from ssl_audio import config, config_files
from ssl_audio.data.scenes import Scenes
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import (
    benchmark,
    benchmark_table,
    generated,
    moment_protocols,
    sound_protocols,
    tasks,
)
from ssl_audio.eval.listening import Deaf, Inapplicable, Listener
from ssl_audio.eval.protocols import CONTROLS, Case
from ssl_audio.inference.audio_text import AudioTextModel
from ssl_audio.inference.generator import Generator
from ssl_audio.inference.model import silence
from ssl_audio.inference.separator import Separator

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
SOUNDS = Synthetic(size=48, seconds=0.5, rate=8000)


def scored(protocol, source, control, seed=0, rate=8000):
    case = protocol.case(source, Deaf(rate), seed)
    return protocol.score(protocol.controlled(case, control, seed), seed)


def test_separation_of_the_parts_is_best_and_of_the_mixture_or_samples_of_it_chance():
    protocol = sound_protocols.Separation(pairs=24, seconds=0.5)
    perfect, random, constant = (scored(protocol, SOUNDS, control) for control in CONTROLS)
    assert perfect.value > 30 and perfect.chance == 0 and perfect.count == 48
    assert constant.value == pytest.approx(0, abs=1e-4)
    assert random.value == pytest.approx(0, abs=0.3)
    assert constant.more["SDRi_half"] == pytest.approx(3, abs=0.3)
    for found in (perfect, random, constant):
        low, high = found.interval
        assert low <= found.value <= high


def test_generation_of_the_clips_is_best_and_of_noise_chance():
    protocol = sound_protocols.Generation(most=24)
    perfect, random, constant = (scored(protocol, SOUNDS, control) for control in CONTROLS)
    assert perfect.value == pytest.approx(0, abs=1e-6 * perfect.chance)
    assert random.value == pytest.approx(random.chance, rel=0.1)
    assert constant.value == pytest.approx(constant.chance, rel=0.1)
    assert perfect.chance > 100 and perfect.count == 24
    clips = [np.ones(400, np.float32), np.full(900, 0.1, np.float32)]
    for one in (False, True):
        for noise, clip in zip(sound_protocols._noises(clips, 0, one=one), clips, strict=True):
            assert len(noise) == len(clip)
            assert noise.std() == pytest.approx(clip[0], rel=0.15)
    # Half of the clips lie nearer than noise, whatever their number does to the distance.
    case = protocol.case(SOUNDS, Deaf(8000), 0)
    half = Case({"made": case.ideal["made"][::2]}, case.ideal, case.truth)
    found = protocol.score(half, 0)
    assert 0 < found.value < found.chance / 2
    wanted = generated.frechet(case.ideal["made"][::2], case.ideal["made"])
    assert found.value == pytest.approx(wanted)


def test_words_of_a_clip_are_its_own_or_those_of_its_label():
    class Heard(Deaf):
        def generated(self, texts, seconds, seed):
            self.texts.extend(texts)
            assert seconds == pytest.approx(0.5)
            return super().generated(texts, seconds, seed)

    heard = Heard(8000)
    object.__setattr__(heard, "texts", [])
    sound_protocols.Generation(most=6).case(SOUNDS, heard, 0)
    names = [SOUNDS.info.labels[SOUNDS.meta(i)["label"]] for i in range(48)]
    wanted = {f"This is a sound of {name.replace('_', ' ')}." for name in names}
    assert set(heard.texts) <= wanted and len(heard.texts) == 6


def test_what_a_model_does_not_offer_does_not_apply():
    heard = Listener(encoders.encoder(frames=24))
    assert "separates nothing" in heard.lacks(("parts",))
    assert "generates no sound" in heard.lacks(("sound",))
    assert "compares no sound with words" in heard.lacks(("moments in words",))
    assert heard.lacks(("clips", "moments")) == ""
    record = benchmark.run(tasks.TASKS["digits/separation"], heard, None)
    assert record["not_offered"] == "it separates nothing" and "value" not in record
    assert benchmark._said(record) == "does not apply: it separates nothing"
    page = benchmark_table.text([record | dict(name="mine", seed=0, most=0)])
    assert "Does not apply:\n\n* mine: `digits/separation`: it separates nothing" in page


def test_a_score_that_is_rounded_to_zero_has_no_sign():
    about = dict(task="digits/separation", group="parts", name="mine", seed=0, most=0, how="")
    score = dict(
        metric="SDRi, dB", best=None, value=-0.0001, chance=-0.0, count=8, low=-0.001, high=2.0
    )
    page = benchmark_table.text([about | score])
    assert "| 0.000 | 8 | 0.000 (0.00 to 2.00) |" in page and "-0.00" not in page
    assert benchmark._said(score) == "0.000 (SDRi, dB, chance 0.000)"


@pytest.fixture(scope="module")
def separator():
    """Return an untrained separator that is asked for the classes of synthetic sounds."""
    options = config.plain(config_files.load("uss:runlocal,query=label"))
    built = config.build(options["objective"], "objectives")
    options["data"]["entries"]["label"]["names"] = list(SOUNDS.info.labels)  # as a run notes them
    samples = options["data"]["entries"]["audio"]["samples"]
    blank = silence(samples) | {"label": np.zeros((1, 12), np.float32)}
    params = jax.tree.map(np.abs, encoders.drawn(built, blank))  # variances are not below 0
    return Separator(built, params, options)


def test_a_separator_is_scored_and_has_no_features(separator):
    heard = Listener(separator)
    assert heard.lacks(("clips",)) == "it has no features of sound"
    assert heard.lacks(("parts",)) == ""
    assert heard.rate == separator.rate
    source = Synthetic(size=24, seconds=0.5, rate=separator.rate)
    protocol = sound_protocols.Separation(pairs=4)
    found = protocol.score(protocol.case(source, heard, 0), 0)
    assert found.count == 8 and np.isfinite(found.value) and found.value < 10
    with pytest.raises(Inapplicable, match="cannot be asked for 'dog'"):
        heard.separator(["dog"])


def test_a_generator_is_scored():
    options = config.plain(config_files.load("audiogen:runlocal"))
    built = config.build(options["objective"], "objectives")
    model = Generator(built, {}, options)
    model = dataclasses.replace(model, params=encoders.drawn(built, model.blank()))
    heard = Listener(model)
    assert heard.rate == 8000 and heard.lacks(("sound",)) == ""
    source = Synthetic(size=12, seconds=0.3, rate=8000)
    protocol = sound_protocols.Generation(most=6)
    case = protocol.case(source, heard, 0)
    found = protocol.score(case, 0)
    assert found.count == 6 and found.value > 0 and found.chance > 0
    again = protocol.case(source, heard, 0)
    np.testing.assert_array_equal(case.vectors["made"], again.vectors["made"])


def scenes(rate=8000):
    return Scenes(Synthetic(size=36, seconds=0.6, rate=rate), size=6, seconds=2.0, longest=0.6)


def test_events_lie_on_moments_and_short_ones_are_left_out():
    source = scenes()
    clips, moments, _ = Deaf(8000).moments(source, 0.05)
    y, events = moment_protocols.active(source, clips, moments, 0.05, 0.2)
    for clip, some in events.items():
        known = [e for e in source[clip]["events"] if e[1] - e[0] >= 0.2]
        assert len(some) == len(known)
        for e, (start, end, label) in zip(some, known, strict=True):
            assert abs(e.start - start) <= 0.026 and abs(e.end - end) <= 0.026
            own = y[clips == clip, label]
            assert own[round(e.start / 0.05)] == 1 and own[round(e.end / 0.05) - 1] == 1
    assert y.sum() == sum(round((e.end - e.start) / 0.05) for some in events.values() for e in some)


def test_what_is_counted_is_what_is_reported():
    pytest.importorskip("sed_scores_eval", reason="event metrics NOT tested: ssl_audio[events]")
    sounds = Synthetic(size=24, seconds=1.8, rate=8000)
    source = Scenes(sounds, size=6, seconds=4.0, longest=1.8)
    case = moment_protocols.Detection().case(source, Deaf(8000), 0)
    tested = [events for clip, events in case.truth["events"].items() if clip >= 4]
    counts = []
    for report, count in (
        (moment_protocols.EVENTS, sum(map(len, tested))),
        (moment_protocols.SEGMENTS, sum(len({
            (e.label, second)
            for e in events
            for second in range(int(e.start), int(np.ceil(round(e.end, 6))))
        }) for events in tested)),
    ):  # fmt: skip
        protocol = moment_protocols.Detection(report)
        found = protocol.score(protocol.controlled(case, CONTROLS[0]), 0)
        assert found.count == count
        counts.append(count)
    assert counts[1] > counts[0]  # an event of more than a second is several segments


def test_a_sentence_is_found_by_columns_of_a_model_that_learned_when_and_by_windows_of_others():
    rates = {}
    for name in ("finelap", "clap"):
        options = config.plain(config_files.load(f"{name}:runlocal"))
        built = config.build(options["objective"], "objectives")
        model = AudioTextModel(built, {}, options)
        params = encoders.drawn(built, model.blank())
        heard = Listener(dataclasses.replace(model, params=params))
        assert heard.lacks(("moments in words",)) == ""
        source = scenes(heard.rate)
        protocol = moment_protocols.Grounding()
        case = protocol.case(source, heard, 0)
        assert len(case.vectors["moments"]) == 6 * 20 and len(case.vectors["sentences"]) == 12
        rates[name] = protocol.score(case, 0)
        assert 0.2 < rates[name].value < 0.8 and rates[name].chance == 0.5
        assert 0 <= rates[name].more["pointed"] <= 1
        if name == "finelap":  # its scores are those of `ssl-audio events --query`
            tagger = heard.model.listening(["rain"], protocol.templates)
            found = np.asarray(tagger.predict("frame_logits", source[0]["audio"], heard.rate))
            _, _, x, text = heard.grounded(source, ["rain"], protocol.templates, 0.1)
            assert text.tolist() == [[1.0]]
            np.testing.assert_allclose(x[0], found[:1].mean(0), rtol=0.2, atol=0.3)
