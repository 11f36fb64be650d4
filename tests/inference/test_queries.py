"""One query of several modalities, of models with a tower for each, a merging one, and with branches."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from encoders import drawn
from published import CONFIGS, load

from ssl_audio import config as configs
from ssl_audio.config import build
from ssl_audio.eval import gallery_verb
from ssl_audio.inference import branches, search
from ssl_audio.inference.audio_text import AudioTextModel
from ssl_audio.storage import exported

RATE = 16_000


def model_of(name):
    (path,) = [path for path in CONFIGS if path.stem == name]
    options = load(path, "runlocal")
    options.data.entries.audio.samples = 8_000
    audio = options.objective.towers.audio
    audio.encoder.channels = (8,)
    audio.pool.kind = "pools:Mean"
    options = configs.plain(options)
    built = build(options["objective"], "objectives")
    params = drawn(built, AudioTextModel(built, {}, options).blank())
    return AudioTextModel(built, params, options), params, options


@pytest.fixture(scope="module")
def merging():
    return model_of("viml")


@pytest.fixture(scope="module")
def branched():
    return model_of("control_mvr")


def sound(seed, seconds=0.5):
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    return (
        0.3 * np.sin(2 * np.pi * 100 * 2 ** (seed % 6) * t) + rng.normal(0, 0.01, len(t))
    ).astype(np.float32)


def video(seed, rows=4):
    return np.random.default_rng(seed).normal(size=(rows, 64)).astype(np.float32)


def test_a_merging_tower_sees_what_there_is(merging):
    model, _, _ = merging
    assert set(model.takes) == {"audio", "video", "text"}
    assert model.width == len(model.embed_query(text="calm")) == 64
    words = model.embed_query(text="calm")
    seen = model.embed_query(features={"video": video(0)})
    both = model.embed_query(text="calm", features={"video": video(0)})
    for vector in (words, seen, both):
        assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-5)
    assert min(np.abs(both - seen).max(), np.abs(both - words).max()) > 1e-3
    assert np.array_equal(both, model.embed_query(features={"video": video(0)}, text="calm"))
    # As the objective has it, with a batch that lacks what was not asked with.
    batch = {"video": np.zeros((1, 6, 64), np.float32), "video_length": np.array([4], np.int32)}
    batch["video"][0, :4] = video(0)
    want = model.objective.embed("query", model.params, jax.tree.map(jnp.asarray, batch))[0]
    np.testing.assert_allclose(seen, want, atol=1e-5)


def test_a_sound_beside_words_is_added(merging):
    model, _, _ = merging
    words, heard = model.embed_query(text="calm"), model.embed_audio(sound(0), RATE)
    asked = dict(text="calm", audio=sound(0), sample_rate=RATE)
    got = model.embed_query(**asked)
    np.testing.assert_allclose(got, branches.merged({"a": words, "b": heard}, {}), atol=1e-6)
    more = model.embed_query(**asked, weights={"audio": 0.0})
    np.testing.assert_allclose(more, words, atol=1e-6)
    with pytest.raises(ValueError, match="weight of 'text': this model merges it"):
        model.embed_query(**asked, weights={"text": 2.0})


def test_mistakes_are_told(merging, branched):
    model = merging[0]
    with pytest.raises(ValueError, match="wanted words, a sound"):
        model.embed_query()
    with pytest.raises(ValueError, match="query by image: this model is asked with audio, text"):
        model.embed_query(image="a.png")
    with pytest.raises(ValueError, match=r"shape \(4, 3\); wanted \[64\] or \[rows, 64\]"):
        model.embed_query(features={"video": np.zeros((4, 3))})
    with pytest.raises(ValueError, match="a branch 'class'"):
        model.embed_query(text="calm", alpha=0.5)
    with pytest.raises(ValueError, match="query by text"):
        branched[0].embed_query(text="calm")


def test_search_asks_with_several_and_with_any_share(branched, tmp_path, capsys):
    pytest.importorskip("faiss", reason="pip install 'ssl_audio[search]'")
    model, params, options = branched
    folder = exported.write(tmp_path / "model", params, options)
    place, where = tmp_path / "sounds", tmp_path / "index"
    place.mkdir()
    for seed in range(4):
        soundfile.write(place / f"{seed}.wav", sound(seed), RATE, subtype="FLOAT")
    search.main(["index", "--checkpoint", str(folder), "--index", str(where), str(place)])
    np.save(tmp_path / "video.npy", np.stack([video(0), video(1)]))
    file = f"video={tmp_path / 'video.npy'}#1"
    heard = {str(place / f"{n}.wav"): model.embed_audio(sound(n), RATE) for n in range(4)}
    asked = model.embed_query(features={"video": video(1)})
    order = ["class", "pair"]
    for alpha in (0.0, 0.4, 1.0):
        share = branches.shares(order, "class", alpha)
        hits = search.main(
            [
                "query",
                "--index",
                str(where),
                "--features",
                file,
                "--alpha",
                str(alpha),
                "--top",
                "4",
            ]
        )
        own = branches.mixed(asked, share)
        scores = {path: float(own @ branches.mixed(v, share)) for path, v in heard.items()}
        want = sorted(scores, key=lambda path: -scores[path])
        assert [hit.path for hit in hits] == want
    both = ["--features", file, "--audio", str(place / "2.wav"), "--weight", "video=0"]
    assert search.main(["query", "--index", str(where), *both])[0].path.endswith("2.wav")
    wrong = ["query", "--index", str(where), "--audio", str(place / "2.wav"), "--weight", "audio"]
    with pytest.raises(ValueError, match="--weight: got 'audio', wanted NAME=VALUE"):
        search.main(wrong)
    capsys.readouterr()


def test_the_gallery_of_a_manifest(merging, tmp_path, capsys):
    model, params, options = merging
    folder = exported.write(tmp_path / "model", params, options)
    np.save(tmp_path / "video.npy", np.stack([video(n) for n in range(6)]))
    rows = ["path,label,text,video"]
    for n in range(6):
        soundfile.write(tmp_path / f"{n}.wav", sound(n), RATE)
        rows.append(f"{n}.wav,{'ab'[n % 2]},calm,video.npy#{n}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    asked = ["--checkpoint", str(folder), "--manifest", str(tmp_path / "clips.csv")]
    found = gallery_verb.main([*asked, "--ask", "video", "--ask", "video+text"])
    assert [row["query"] for row in found] == ["video", "video+text"] and found[0]["clips"] == 6
    queries = np.stack([model.embed_query(features={"video": video(n)}) for n in range(6)])
    heard = np.stack([model.embed_audio(sound(n), RATE) for n in range(6)])
    scores = queries @ heard.T
    first = np.mean(scores.argmax(1) == np.arange(6))
    assert found[0]["R@1"] == pytest.approx(first) and found[0]["R@10"] == 1
    printed = capsys.readouterr().out
    assert "| video+text |" in printed and (folder / "evals/gallery_clips.jsonl").is_file()
    with pytest.raises(ValueError, match="modality 'image'"):
        gallery_verb.main([*asked, "--ask", "image"])
    # The clips are heard as they are, whatever was done to those of the training.
    altered = copy.deepcopy(options)
    noise = dict(kind="altered:Pitch", low=9.0, high=9.0)
    altered["data"]["entries"]["audio"] |= dict(
        kind="altered:Altered", speed=0.5, gain=30.0, changes=(noise,)
    )
    exported.write(folder, params, altered)
    assert gallery_verb.main([*asked, "--ask", "video", "--ask", "video+text"]) == found


def test_blank_batches_fit_the_towers(merging):
    model, params, _ = merging
    shapes = jax.eval_shape(model.objective.init, jax.random.key(0), model.blank())[0]
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, params)
