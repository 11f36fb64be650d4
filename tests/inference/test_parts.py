"""embed and search index on several machines: parts and their merge give the bytes of one machine."""

import bucket
import encoders
import numpy as np
import pytest
import soundfile

from ssl_audio import startup
from ssl_audio.inference import embed, index, indexing, inputs, search
from ssl_audio.inference.index import NAME
from ssl_audio.storage import atomic, lock
from ssl_audio.storage.division import Part

RATE = 16_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    encoders.save(encoders.encoder(frames=24), workdir, 1, 2)
    return workdir


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return encoders.audio_text(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Seven clips of other lengths below two folders, and one that cannot be read."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for i in range(7):
        path = root / "ab"[i % 2] / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(2000 + 1500 * i), RATE, subtype="FLOAT")
    (root / "a" / "bad.wav").write_text("no sound")
    return root


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)


def call(run, output, *more):
    embed.main(["--checkpoint", str(run), "--output", str(output), *map(str, more)])


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_parts_in_any_order_give_the_bytes_of_one_machine(run, sounds, tmp_path, capsys, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet")
    output, options = tmp_path / f"many.{kind}", ["--frames", "--pool", "stats", sounds]
    call(run, tmp_path / f"one.{kind}", *options)
    alone = capsys.readouterr().out
    for number in (3, 1):
        call(run, output, *options, f"--part={number}/3")
    said = capsys.readouterr().out
    assert "part 3/3: 3 files embedded, 0 skipped" in said
    with pytest.raises(
        ValueError, match="many.*parts: part 2/3 is missing: .* --part 2/3 in place"
    ):
        call(run, output, *options, "--merge")
    assert not output.exists()
    call(run, output, *options, "--part=2/3")
    call(run, output, *options, "--part=2/3")
    assert "part 2/3: done before" in capsys.readouterr().out
    call(run, output, *options, "--merge")
    said = capsys.readouterr().out
    assert said == alone.replace("one.", "many.") and "1 of 8 files skipped" in said
    names = {"npz": [kind], "parquet": [kind, "frames.parquet"]}[kind]
    for name in names:
        one, many = (tmp_path / f"{stem}.{name}" for stem in ("one", "many"))
        assert unstamped(one) == unstamped(many)
    assert len(list(tmp_path.iterdir())) == 2 * len(names)
    call(run, output, *options, "--merge")
    assert "no part is left to merge; the file stays" in capsys.readouterr().out


def unstamped(path):
    """Return a file's bytes without the times of the entries of an archive."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path, allow_pickle=False) as file:
        return [(name, str(file[name].dtype), file[name].tobytes()) for name in file.files]


def test_other_options_and_another_list_are_refused_by_name(run, sounds, tmp_path):
    call(run, tmp_path / "out.npz", sounds, "--part=1/2")
    for more, said in (
        (["--pool", "rows", "--part=2/2"], "pool: mean, now rows"),
        (["--step", "1", "--part=2/2"], "checkpoint: "),
        (["--part=2/3"], "parts: 2, now 3"),
        ([sounds / "a" / "0.wav", "--step", "1", "--merge"], "checkpoint: "),
    ):
        with pytest.raises(
            ValueError, match=f"begun with other settings or of another list .*{said}"
        ):
            call(run, tmp_path / "out.npz", sounds, *more)
    with pytest.raises(ValueError, match="files: 8, now 5, list: "):
        call(run, tmp_path / "out.npz", sounds / "a", sounds / "a" / "0.wav", "--merge")


def test_bad_files_of_all_parts_are_counted_at_the_merge(run, sounds, tmp_path):
    (tmp_path / "worse.wav").write_text("no sound")
    places = [tmp_path / "worse.wav", sounds]
    for number in (1, 2):
        call(run, tmp_path / "out.npz", *places, f"--part={number}/2")
    with pytest.raises(ValueError, match="2 of 9 clips could not be read"):
        call(run, tmp_path / "out.npz", *places, "--merge")
    call(run, tmp_path / "out.npz", *places, "--merge", "--max-bad-share=0.5")
    assert len(np.load(tmp_path / "out.npz")["ids"]) == 7


def test_a_killed_part_goes_on(run, sounds, tmp_path, monkeypatch):
    from ssl_audio.storage import partial_results

    monkeypatch.setattr(partial_results, "BYTES", 1)  # each result is a file
    call(run, tmp_path / "one.npz", "--frames", sounds)
    real = atomic.file

    def killed(final):
        if final.name == "0000-000003.part":
            raise KeyboardInterrupt
        return real(final)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(atomic, "file", killed)
        call(run, tmp_path / "many.npz", "--frames", sounds, "--part=2/2")
    left = tmp_path / "many.npz.parts" / "2-of-2"
    assert len(list(left.glob("*.part"))) >= 3 and not (left / "done.json").exists()
    read = []
    blocks = inputs.blocks
    monkeypatch.setattr(
        inputs, "blocks", lambda path, *a, **k: read.append(path) or blocks(path, *a, **k)
    )
    call(run, tmp_path / "many.npz", "--frames", sounds, "--part=2/2")
    assert 0 < len(read) < 4
    call(run, tmp_path / "many.npz", "--frames", sounds, "--part=1/2")
    (left / "0000-000001.part").rename(tmp_path / "aside")
    with pytest.raises(
        ValueError, match="2-of-2: .* files, but part 2/2 had 3: remove this folder"
    ):
        call(run, tmp_path / "many.npz", "--frames", sounds, "--merge")
    (tmp_path / "aside").rename(left / "0000-000001.part")
    call(run, tmp_path / "many.npz", "--frames", sounds, "--merge")
    assert unstamped(tmp_path / "one.npz") == unstamped(tmp_path / "many.npz")


def test_into_an_object_store(run, sounds, tmp_path, monkeypatch, capsys):
    store = bucket.install(monkeypatch, tmp_path)
    monkeypatch.setattr(lock, "POLL", 0.01)
    call(run, tmp_path / "one.npz", "--frames", sounds)
    call(run, "gs://bucket/alone.npz", "--frames", sounds)
    for number in (2, 1):
        call(run, "gs://bucket/many.npz", "--frames", sounds, f"--part={number}/2")
    assert any(key.endswith("many.npz.parts/1-of-2/done.json") for key in store)
    call(run, "gs://bucket/many.npz", "--frames", sounds, "--merge")
    assert sorted(key.rpartition("/")[2] for key in store) == ["alone.npz", "many.npz"]
    for key, found in store.items():
        (tmp_path / "copy.npz").write_bytes(found.getvalue())
        assert unstamped(tmp_path / "copy.npz") == unstamped(tmp_path / "one.npz"), key


def bytes_of(index):
    return [(path.name, path.read_bytes()) for path in sorted(index.glob("*.*"))]


def test_an_index_in_parts_and_what_is_new_later(model, sounds, tmp_path, capsys, caplog):
    pytest.importorskip("faiss", reason="pip install 'ssl_audio[search]'")

    def index(where, *more):
        command = ["index", "--checkpoint", str(model), "--index", str(where), str(sounds)]
        return search.main([*command, *map(str, more)])

    one, many = tmp_path / "one", tmp_path / "many"
    index(one)
    index(many, "--part=2/3")
    index(many, "--part=3/3")
    with pytest.raises(ValueError, match="part 1/3 is missing"):
        index(many, "--merge")
    index(many, "--part=1/3")
    index(many, "--part=1/3")
    said = capsys.readouterr().out
    assert "embedded, 1 skipped" in said and "part 1/3: done before" in said
    found = index(many, "--merge")
    assert bytes_of(one) == bytes_of(many) and len(found) > 7
    assert len(index(many, "--merge")) == len(found)  # again
    assert not (many / indexing.PARTS).exists()
    with pytest.raises(ValueError, match="no part|other settings"):
        (many / NAME).rename(tmp_path / NAME)
        index(many, "--merge")
    (tmp_path / NAME).rename(many / NAME)
    # What the parts found is known to a later command, of one machine or of several.
    extra = sounds / "b" / "new.wav"
    soundfile.write(extra, 0.1 * np.random.default_rng(9).standard_normal(7000), RATE)
    try:
        index(one)
        for number in (1, 2):
            index(many, f"--part={number}/2")
        assert capsys.readouterr().out.count("0 files embedded") == 1
        index(many, "--merge")
        assert bytes_of(one) == bytes_of(many)
    finally:
        extra.unlink()


def test_an_index_in_an_object_store(model, sounds, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="pip install 'ssl_audio[search]'")
    bucket.install(monkeypatch, tmp_path)
    monkeypatch.setattr(lock, "POLL", 0.01)
    from ssl_audio import load

    loaded, places = load(model), [str(sounds)]
    near = indexing.build(loaded, "m", tmp_path / "one", places)
    where = "gs://bucket/index"
    for number in (1, 2):
        indexing.build_part(loaded, "m", where, places, Part(number, 2))
    far = indexing.join(loaded, "m", where, places)
    assert isinstance(far, index.Index) and len(far) == len(near)
    words = loaded.embed_text("a dog")
    assert index.Index(where).query(words) == near.query(words)
    with pytest.raises(ValueError, match="begun with other settings or of another list .*list: "):
        indexing.build_part(loaded, "m", where, places, Part(1, 2))
        indexing.build_part(loaded, "m", where, [str(sounds / "a")], Part(2, 2))
