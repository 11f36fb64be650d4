"""The Hugging Face Hub: what is fetched, what is sent, and what users are told; against a stand-in server."""

import json

import encoders
import hub_server
import numpy as np
import pytest

import ssl_audio
from ssl_audio.convert import export, push
from ssl_audio.convert.files import read
from ssl_audio.explore import collection
from ssl_audio.inference import index as indexes
from ssl_audio.inference import search
from ssl_audio.inference.calibration import Calibration
from ssl_audio.storage import checkpoint, hub, written

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
from huggingface_hub import constants  # noqa: E402

# Of its HTTP library, when it sends large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
AUDIO = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)
MODEL = encoders.encoder(frames=24)


@pytest.fixture(scope="module")
def server():
    with hub_server.serve() as found:
        yield found


def point(monkeypatch, url):
    """Do what HF_ENDPOINT does before huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    files = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)


@pytest.fixture(autouse=True)
def client(server, tmp_path, monkeypatch):
    """Point huggingface_hub to the server, with an empty cache and no token."""
    point(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    hub._fetched.cache_clear()
    server.repositories.clear()
    server.gated.clear()
    server.asked.clear()
    server.broken = False


def shared(folder, **more):
    """Export the model as for the Hub, out of a run with places of this machine in its config."""
    config = json.loads(json.dumps(MODEL.config))
    config["data"]["sources"]["a"]["root"] = str(folder / "my sounds")
    config["warm_start"] = dict(encoder=dict(path=str(folder / "before"), take="^encoder/"))
    config |= more
    run = folder / "run"
    encoders.save(ssl_audio_encoder(config), run, 3)
    Calibration(1.0).write(run)
    export.main(
        ["--checkpoint", str(run), "--to", "hub", "--out", str(folder / "out"), "--licence", "mit"]
    )
    return folder / "out"


def ssl_audio_encoder(config):
    return type(MODEL)(MODEL.objective, MODEL.params, config)


def put(server, name, folder):
    server.repositories[name] = {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_folder_is_pushed_and_loaded_again(server, tmp_path, monkeypatch, capsys):
    folder = shared(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    push.main([str(folder), "--to", "me/sounds", "--private"])
    said = capsys.readouterr().out
    assert f"{server.url}/me/sounds/commit/" in said and "hf://me/sounds" in said
    sent = server.repositories["me/sounds"]
    assert sorted(sent) == ["README.md", "calibration.json", "config.json", "model.safetensors"]
    assert sent["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert server.private["me/sounds"]

    model = ssl_audio.load("hf://me/sounds")
    np.testing.assert_array_equal(model.embed(AUDIO, 16_000), MODEL.embed(AUDIO, 16_000))
    assert "from hf://me/sounds" in repr(model)
    wanted = {"config.json", "model.safetensors", "calibration.json"}
    assert set(server.files()) == wanted  # not the card
    assert written.architecture("hf://me/sounds")["encoder"]["kind"] == "stack"
    params, _ = checkpoint.load_params("hf://me/sounds@main")
    assert params.keys() == MODEL.params.keys()
    # Without a network the cache serves, and knows that there is no tokenizer.
    hub._fetched.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ssl_audio.load("hf://me/sounds").width == MODEL.width


def test_only_what_may_be_shared_is_sent(tmp_path, caplog):
    folder = shared(tmp_path)
    (folder / ".git").mkdir()
    (folder / ".git/config.json").write_text("{}")
    (folder / "recording.wav").write_bytes(b"secret")
    (tmp_path / "elsewhere.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "elsewhere.txt")
    names = [path.name for path in push.files(folder)]
    assert names == ["README.md", "calibration.json", "config.json", "model.safetensors"]
    assert "not sent: .git/config.json, link.txt, recording.wav" in caplog.text
    (folder / "notes.md").write_text(f"made in {tmp_path / 'out'}/x")
    with pytest.raises(ValueError, match=r"notes\.md: names .*a place of this machine"):
        push.files(folder)
    with pytest.raises(FileNotFoundError, match=r"no README\.md; wanted a folder that"):
        (folder / "README.md").unlink()
        push.files(folder)


def fails(match, address="hf://me/there", kind=Exception):
    with pytest.raises(kind, match=match) as error:
        ssl_audio.load(address)
    assert "\n" not in str(error.value)
    return error.value


def test_what_is_wrong_is_told_in_a_line(server, tmp_path, monkeypatch):
    fails(r"hf://me: wanted hf://OWNER/NAME", "hf://me", ValueError)
    fails("no such repository, or it is private and your token", kind=FileNotFoundError)
    put(server, "me/there", shared(tmp_path))
    fails("no revision 'old'", "hf://me/there@old", FileNotFoundError)
    server.gated.add("me/there")
    fails("gated: accept its terms", kind=PermissionError)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    ssl_audio.load("hf://me/there")
    hub._fetched.cache_clear()
    server.repositories["me/other"] = {"README.md": b""}
    fails(r"no config\.json in it; wanted a folder as", "hf://me/other", FileNotFoundError)
    server.repositories["me/empty"] = {"config.json": b'{"objective": {"kind": "mae"}}'}
    fails(r"no model\.safetensors in it", "hf://me/empty", FileNotFoundError)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fails(r"not in the cache.*HF_HUB_OFFLINE is set", "hf://me/other2", FileNotFoundError)
    with pytest.raises(RuntimeError, match="the Hub was not asked .HF_HUB_OFFLINE is set"):
        push.push(tmp_path / "out", "me/new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point(monkeypatch, "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(RuntimeError, match="the Hub was not reached"):
        push.push(tmp_path / "out", "me/new")


def test_a_wrong_token_is_told(server, tmp_path, monkeypatch):
    folder = shared(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises((RuntimeError, FileNotFoundError), match="hf auth login") as error:
        push.push(folder, "me/new")
    assert "\n" not in str(error.value)


def test_a_strangers_repository_runs_no_code(server, tmp_path):
    folder = shared(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["objective"]["encoder"]["kind"] = "payload:Boom"
    (folder / "config.json").write_text(json.dumps(config))
    put(server, "me/stranger", folder)
    fails("payload", "hf://me/stranger", ValueError)


def test_a_model_of_transformers_is_named_and_converts(server, tmp_path):
    state = {"a.weight": np.ones((2, 2), np.float32)}
    from ssl_audio.storage import exported

    exported.write_arrays(tmp_path / "model.safetensors", state, {"format": "pt"})
    server.repositories["them/base"] = {
        "config.json": b'{"model_type": "wav2vec2", "hidden_size": 2}',
        "model.safetensors": (tmp_path / "model.safetensors").read_bytes(),
        "preprocessor_config.json": b'{"sampling_rate": 16000}',
        "tf_model.h5": b"large",
    }
    fails(
        r"model_type 'wav2vec2'.*convert --from FAMILY --checkpoint hf://them/base",
        "hf://them/base",
    )
    assert "model.safetensors" not in server.files()
    found, options = read("hf://them/base")
    assert list(found) == ["a.weight"] and options["preprocessor"]["sampling_rate"] == 16_000
    assert "tf_model.h5" not in server.files()


def test_what_other_programs_fetched_is_used_without_a_network(
    server, tmp_path, monkeypatch, caplog
):
    """As `hf download` does: nothing notes which files a repository does not have."""
    put(server, "me/there", shared(tmp_path))
    for name in ("config.json", "model.safetensors"):
        huggingface_hub.hf_hub_download("me/there", name)
    from ssl_audio.storage import exported

    part = {"a": np.ones((2, 2), np.float32)}
    exported.write_arrays(tmp_path / "model-1.safetensors", part, {"format": "pt"})
    server.repositories["them/parts"] = {
        "config.json": b'{"model_type": "wav2vec2"}',
        "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors"}}',
        "model-1.safetensors": (tmp_path / "model-1.safetensors").read_bytes(),
    }
    for name in server.repositories["them/parts"]:
        huggingface_hub.hf_hub_download("them/parts", name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ssl_audio.load("hf://me/there").width == MODEL.width
    assert "no calibration.json in the cache" in caplog.text
    assert list(read("hf://them/parts")[0]) == ["a"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # A part that the index names and the repository lacks.
    server.repositories["them/torn"] = {
        "config.json": b'{"model_type": "wav2vec2"}',
        "model.safetensors.index.json": b'{"weight_map": {"a": "model-2.safetensors"}}',
    }
    with pytest.raises(FileNotFoundError, match="no model-2.safetensors in it"):
        hub.foreign("hf://them/torn")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    fails(r"needs huggingface_hub: pip install 'ssl_audio\[hub\]'", "hf://me/x", RuntimeError)


def test_what_a_folder_names_is_taken_from_the_cache_or_refused(server, tmp_path, monkeypatch):
    put(server, "me/there", shared(tmp_path))
    with hub.from_cache(), pytest.raises(FileNotFoundError, match=r"hf://me/there: .*not fetched"):
        hub.local("hf://me/there")
    assert not server.files()
    # As a teacher that the config of a folder names.
    monkeypatch.setattr(type(MODEL.objective), "prepare", lambda _: hub.local("hf://me/there"))
    with pytest.raises(FileNotFoundError, match="not fetched"):
        ssl_audio.load(tmp_path / "out")
    assert not server.files()
    # An index of sounds names its model; `explore` and the next `index` read it as `query` does.
    vectors = np.eye(2, MODEL.width, dtype=np.float32)
    rows = indexes.Rows(["/a|1|2"], np.zeros(2, np.int32), np.zeros(2), np.ones(2))
    about = dict(checkpoint="hf://me/there", digest="", words=False, settings={}, token="t")
    (tmp_path / "index").mkdir()
    made = indexes.write(tmp_path / "index", about, rows, MODEL.width, [vectors])
    again = ["index", "--index", str(tmp_path / "index"), str(tmp_path)]
    for ask in (
        lambda: search.open_model(made),
        lambda: search.main(again),
        lambda: collection.read(made.folder).model,
    ):
        with pytest.raises(FileNotFoundError, match="not fetched"):
            ask()
    assert not server.files()
    hub.local("hf://me/there")  # the user asks
    ssl_audio.load(tmp_path / "out")
