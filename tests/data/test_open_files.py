"""More files of records than a process may have open, and none that may be opened at all."""

import errno
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile

from ssl_audio.data import open_files
from ssl_audio.data.prepare import prepare
from ssl_audio.data.reading import read_ahead
from ssl_audio.data.synthetic import Synthetic

FILES = 300
LIMIT = 256

BEGIN = f"""
    import os, resource, sys

    resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
    import numpy as np
    from ssl_audio.data.entries import Audio
    from ssl_audio.data.open_files import TooManyOpenFiles
    from ssl_audio.data.pipeline import Pipeline
    from ssl_audio.data.reading import examples
    from ssl_audio.data.shards import Shards
    from ssl_audio.data.source import Folder
    from ssl_audio.data.synthetic import Synthetic

    def pipeline(source, **options):
        return Pipeline(dict(a=source), 20, dict(audio=Audio(160)), max_bad_share=0.5, **options)

    def open_now():
        return len(os.listdir("/proc/self/fd"))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return a folder of more files of records than a process may open."""
    root = tmp_path_factory.mktemp("many") / "shards"
    prepare(Synthetic(FILES, seconds=0.01), root, shard_size=1)
    assert len(list(root.glob("*.array_record"))) == FILES
    return root


def limited(code, *arguments):
    """Run code in a process that may open few files; return what it prints."""
    code = textwrap.dedent(BEGIN) + textwrap.dedent(code)
    made = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


@linux
def test_shards_of_more_files_than_may_be_open_are_read_whole(many):
    said = limited(
        f"""
        source, like = Shards(sys.argv[1]), Synthetic({FILES}, seconds=0.01)
        made = pipeline(source)
        batches = made.batches()
        index = np.concatenate([next(batches)["index"] for _ in range(2 * {FILES} // 20)])
        assert sorted(index) == sorted(2 * list(range({FILES}))), index
        print(open_now())
        batches.close()
        for i, example in examples(source, threads=8):
            np.testing.assert_allclose(example["audio"], like[i]["audio"], atol=1.01 / 32768)
        print(open_now(), made.bad)
        """,
        many,
    )
    during, after, bad = said.split(maxsplit=2)
    assert 20 < int(during) < LIMIT // 2 and int(after) < LIMIT // 2 and bad.strip() == "{}"


@linux
def test_workers_read_them_too(many, tmp_path):
    (tmp_path / "run.py").write_text(
        textwrap.dedent(BEGIN)
        + textwrap.dedent(
            f"""
            if __name__ == "__main__":
                made = pipeline(Shards(sys.argv[1]), workers=2, threads=2)
                batches = made.batches()
                index = np.concatenate([next(batches)["index"] for _ in range({FILES} // 20)])
                batches.close()
                assert sorted(index) == list(range({FILES})) and not made.bad, made.bad
            """
        )
    )
    command = [sys.executable, str(tmp_path / "run.py"), str(many)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@linux
@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("kind", ["Shards", "Folder"])
def test_no_file_left_to_open_is_an_error_of_its_own_and_no_bad_clip(many, tmp_path, kind, threads):
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(160), 16_000)
    said = limited(
        f"""
        import array_record.python.array_record_module

        next(pipeline(Synthetic(20, seconds=0.01), threads={threads}).batches())  # imports
        made = pipeline({kind}(sys.argv[1]), threads={threads})
        batches = made.batches()
        held = []
        try:
            while True:
                held.append(open("/dev/null"))
        except OSError:
            pass
        try:
            next(batches)
        except TooManyOpenFiles as error:
            held.clear()
            print(error, made.bad)
        """,
        many if kind == "Shards" else tmp_path,
    )
    assert f"this process may have {LIMIT} files open" in said
    assert "ulimit -n 4096" in said and "data.workers" in said and said.endswith("{}\n")


@linux
@pytest.mark.parametrize("threads", [1, 2])
def test_shards_make_room_by_closing_files_of_their_own(many, threads):
    # All that is free is held before the threads start: what they close, nobody else opens.
    said = limited(
        f"""
        from concurrent.futures import ThreadPoolExecutor

        source, held = Shards(sys.argv[1]), []
        before = [source[i]["audio"] for i in range(20)]
        try:
            while True:
                held.append(open("/dev/null"))
        except OSError:
            pass
        with ThreadPoolExecutor({threads}) as pool:
            after = list(pool.map(lambda i: source[i]["audio"], range({FILES})))
        held.clear()
        assert all(np.array_equal(*pair) for pair in zip(before, after))
        print(len(after))
        """,
        many,
    )
    assert said == f"{FILES}\n"


@linux
def test_the_limit_is_raised_as_far_as_it_may_be():
    said = limited(
        """
        import subprocess
        code = (
            "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, r.getrlimit(r.RLIMIT_NOFILE)[1]));"
            "from ssl_audio.data import open_files as o;"
            "print(o.raise_limit(), *r.getrlimit(r.RLIMIT_NOFILE))"
        )
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        """
    )
    assert said.split() == [str(LIMIT)] * 3


def test_other_errors_are_left_alone_and_this_one_survives_a_pickle():
    open_files.check(FileNotFoundError(2, "none", "a.wav"), "a.wav")
    open_files.check(ValueError("odd"), "a.wav")
    with pytest.raises(open_files.TooManyOpenFiles) as found:
        open_files.check(OSError(23, "full"), "a.wav")
    again = pickle.loads(pickle.dumps(found.value))
    assert type(again) is open_files.TooManyOpenFiles and "fs.file-max" in str(again)
    assert again.filename == "a.wav"


@pytest.mark.parametrize("threads", [0, 2])
def test_what_hands_clips_over_names_the_limit_too(threads):
    def read(position):
        raise OSError(errno.EMFILE, "Too many open files")  # as Grain's shared memory does

    with pytest.raises(open_files.TooManyOpenFiles, match="ulimit -n"):
        next(read_ahead(read, range(4), 0, threads, 2))
