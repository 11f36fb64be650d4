"""The page's server: who is let in, what is found, played, drawn, labelled, and said on errors."""

import io
import json
import re
import socket
import sys

import numpy as np
import pytest
import soundfile
from pages import RATE

pytest.importorskip("starlette", reason="the extra `explore` is not installed")
from starlette.testclient import TestClient

from ssl_audio.explore import collection, command, projection, server, sounds
from ssl_audio.explore.labels import Labels

TOKEN = "a-token"


class FakeSegments:
    """Stands for a model: a loud sound is like the first kind, a word like the second."""

    rate = RATE

    def sound(self, audio, rate):
        assert rate == RATE
        return np.eye(3, dtype=np.float32)[0].repeat(4)

    def text(self, text):
        return np.eye(3, dtype=np.float32)[1].repeat(4)


@pytest.fixture
def page(place):
    shown = collection.read(place)
    made = sounds.Sounds()
    drawn = projection.Projection(shown.vectors, shown.beside("map.npz"), "pca")
    labels = Labels(shown.beside("labels.csv"), shown.rows, shown.numbers)
    yield server.Page(shown, labels, drawn, made)
    made.close()


@pytest.fixture
def client(page):
    headers = {"x-token": TOKEN}
    base = f"http://127.0.0.1:8000/{TOKEN}/"
    return TestClient(server.app(page, TOKEN), base_url=base, headers=headers)


def test_only_this_machine_with_the_token_is_let_in(page):
    app = server.app(page, TOKEN)
    at = f"/{TOKEN}/"

    def status(path, host="127.0.0.1:8000", **headers):
        headers = {"host": host, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return TestClient(app).get(path, headers=headers).status_code

    assert status(at) == 200 and status(at, "localhost") == status(at, "[::1]:80") == 200
    assert status(f"{at}api/about", x_token=TOKEN) == 200
    # No token, a wrong one, one in the address only; other names of this machine; other sites.
    for path in ("/", "/api/about", "/a-tokem/", "/main.js", "//", f"/x{at}", "/é/"):
        assert status(path) == 403, path
    assert status(f"{at}api/about") == status(f"{at}api/about", x_token="a-tokem") == 403
    for host in (
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "",
        "127.0.0.1@evil",
    ):
        assert status(at, host) == 403, host
    assert status(at, sec_fetch_site="cross-site") == 403
    assert status(at, sec_fetch_site="same-origin") == 200


def test_the_page_needs_nothing_from_elsewhere(client):
    html = client.get("").text
    names = set(re.findall(r'(?:src|href)="([\w.]+)"', html)) - {"labels.csv"}
    assert {"main.js", "style.css", "icon.svg"} <= names
    for name in [*names, "api.js", "map.js", "hits.js", "labels.js"]:
        found = client.get(name)
        assert found.status_code == 200, name
        policy = found.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        links = re.findall(r"https?://[^\s\"')]+", found.text)
        assert set(links) <= {"http://www.w3.org/2000/svg"}, (name, links)
        assert "innerHTML" not in found.text
    # Every control that a script looks for is there, and has a name.
    used = set(re.findall(r'\$\("([\w-]+)"\)', client.get("main.js").text))
    ids = set(re.findall(r'id="([\w-]+)"', html))
    assert used <= ids, used - ids
    for target in re.findall(r'for="([\w-]+)"', html):
        assert target in ids


def test_files_are_rows_and_nothing_else(client):
    for path in (
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e/setup.py",
        "page/main.js",
        "index.json",
        "collection.py",
    ):
        assert client.get(path).status_code in (403, 404), path
    for row in ("12", "-1", "x", "1e3", "..%2Fa"):
        assert client.get(f"sound/{row}.wav").status_code in (404, 422), row
    assert client.get("picture/0.purple.png").status_code == 404


def test_more_like_a_row(client):
    found = client.post("api/search", json={"row": 5, "top": 4}).json()
    assert [hit["row"] for hit in found["hits"]][0] == 5
    assert {hit["row"] for hit in found["hits"]} == {4, 5, 6, 7}
    first = found["hits"][0]
    assert first["path"].endswith("high1.wav") and (first["start"], first["end"]) == (0, 1)
    assert first["score"] == pytest.approx(1, abs=1e-5) and first["label"] is None
    some = [
        client.post("api/search", json={"random": True, "seed": s, "top": 5}) for s in (1, 1, 2)
    ]
    rows = [[hit["row"] for hit in answer.json()["hits"]] for answer in some]
    assert rows[0] == rows[1] != rows[2] and len(set(rows[0])) == 5


def test_words_and_files_where_the_model_knows_them(client, page):
    answer = client.post("api/search", json={"words": "a beep"})
    assert answer.status_code == 422 and "audio-text model such as CLAP" in answer.json()["error"]
    assert "CLAP" in client.get("api/about").json()["lacks_words"]
    file = io.BytesIO()
    soundfile.write(file, np.zeros(RATE), RATE, format="FLAC")
    answer = client.post("api/by-sound?top=4", content=file.getvalue())
    assert answer.status_code == 404 and "gone: no such folder" in answer.json()["error"]
    page.collection.__dict__["model"] = FakeSegments()
    page.collection.index.words = True
    assert client.get("api/about").json()["lacks_words"] == ""
    hits = client.post("api/search", json={"words": "a beep", "top": 4}).json()["hits"]
    assert {hit["row"] for hit in hits} == {4, 5, 6, 7}
    hits = client.post("api/by-sound?top=4", content=file.getvalue()).json()["hits"]
    assert {hit["row"] for hit in hits} == {0, 1, 2, 3}
    answer = client.post("api/by-sound", content=b"no sound")
    assert answer.status_code == 422 and "unreadable" in answer.json()["error"]
    assert client.post("api/by-sound", content=b"").status_code == 422


def test_a_row_is_played_as_wav_with_ranges(client):
    found = client.get("sound/0.wav")
    assert found.status_code == 200 and found.headers["content-type"] == "audio/wav"
    audio, rate = soundfile.read(io.BytesIO(found.content))
    assert rate == 44_100 and len(audio) == 44_100
    assert abs(np.fft.rfft(audio)).argmax() == 200  # Hz
    part = client.get("sound/0.wav", headers={"range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == found.content[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(found.content)}"
    assert client.get("sound/0.wav", headers={"range": "bytes=99999999-"}).status_code == 416


def test_a_picture_is_drawn_once(client, page, monkeypatch):
    first = client.get("picture/9.dark.png")
    assert first.status_code == 200 and first.content.startswith(b"\x89PNG")
    assert len(first.content) < 300_000
    monkeypatch.setattr(sounds, "_draw", None)
    assert client.get("picture/9.dark.png").content == first.content


def test_a_file_that_is_gone_is_named(client, page, place):
    path = page.collection.rows[3].path
    __import__("os").unlink(path)
    for ask in ("sound/3.wav", "picture/3.light.png"):
        answer = client.get(ask)
        assert answer.status_code == 404 and answer.json()["error"] == f"{path}: no such file"
    assert client.post("api/search", json={"row": 3, "top": 2}).status_code == 200


def test_files_that_were_made_do_not_pile_up(page, monkeypatch):
    monkeypatch.setattr(sounds, "FILES", 3)
    made = [page.sounds.wav(row) for row in page.collection.rows[:6]]
    assert [path.exists() for path in made] == [False] * 3 + [True] * 3


def test_labels_come_and_go_and_are_exported(client, page, place):
    assert client.get("labels.csv").status_code == 404
    first = client.post("api/label", json={"row": 4, "label": "beep"}).json()
    assert first["before"] is None and first["labels"] == {"4": "beep"}
    known = client.get("api/labels").json()
    assert known["classes"] == ["beep"]
    assert client.get(f"api/labels?version={known['version']}").json() == {
        "version": known["version"]
    }
    client.post("api/label", json={"row": 5, "label": "chirp"})
    assert client.post("api/label", json={"row": 4, "label": None}).json()["before"] == "beep"
    assert (
        client.post("api/search", json={"row": 5, "top": 1}).json()["hits"][0]["label"] == "chirp"
    )
    exported = client.get("labels.csv")
    assert "attachment" in exported.headers["content-disposition"]
    assert exported.text.splitlines()[1].endswith("high1.wav,0,1,chirp")
    assert exported.text == (place / "labels.csv").read_text()
    for bad in ({"row": 99, "label": "x"}, {"row": 1, "label": 3}, {"row": True, "label": "x"}, {}):
        assert client.post("api/label", json=bad).status_code == 422, bad
    assert client.post("api/label", content=b"[1]").status_code == 422
    assert client.get("api/label").status_code == 405


def test_the_map_and_its_colours(client, page):
    assert client.get("api/map").json()["version"] == 0 and client.get("api/points").content == b""
    page.projection.run()
    assert client.get("api/map").json()["done"]
    points = np.frombuffer(client.get("api/points").content, "<f4").reshape(-1, 2)
    assert points.shape == (12, 2) and np.abs(points).max() <= 1.5

    def colours(by):
        found = client.get(f"api/colours/{by}").json()
        return found["names"], np.frombuffer(__import__("base64").b64decode(found["of"]), "<i2")

    names, of = colours("folder")
    assert names == ["high", "low", "noise"] and of.tolist() == [1] * 4 + [0] * 4 + [2] * 4
    names, of = colours("cluster")
    assert names[0] == "cluster 1" and len(of) == 12
    page.labels.set(2, "hum")
    names, of = colours("label")
    assert names == ["hum"] and of[2] == 0 and of[0] == -1
    assert colours("guess")[0] == [] and colours("else")[0] == []


def test_a_learner_guesses_and_says_what_to_label_next(client, page):
    from ssl_audio.eval.learner import Learner

    answer = client.post("api/next", json={"how": "random"})
    assert answer.status_code == 422 and "ssl-audio label" in answer.json()["error"]
    page.learner = Learner(page.collection.vectors)
    assert client.get("api/about").json()["learner"]
    asked = client.post("api/next", json={"how": "uncertain", "top": 3}).json()["hits"]
    assert len(asked) == 3 and "guess" not in asked[0]
    for row, label in ((0, "low"), (4, "high"), (8, "noise")):
        client.post("api/label", json={"row": row, "label": label})
    first = client.post("api/next", json={"how": "highest", "label": "high", "top": 1}).json()[
        "hits"
    ][0]
    assert first["row"] in (5, 6, 7) and first["guess"]["label"] == "high"
    hits = client.post("api/search", json={"row": 0, "top": 12}).json()["hits"]
    kinds = ("low", "high", "noise")
    assert all(hit["guess"]["label"] == kinds[hit["row"] // 4] for hit in hits)
    found = client.get("api/colours/guess").json()
    assert sorted(found["names"]) == sorted(kinds) and found["counts"] == [4, 4, 4]
    # A label that goes, also in the file alone, is forgotten.
    page.labels.path.write_text("path,start,end,label\n")
    assert client.get("api/labels").json()["labels"] == {}
    assert "guess" not in client.post("api/search", json={"row": 0, "top": 1}).json()["hits"][0]
    client.post("api/next", json={"how": "random"})
    assert page.learner.labels == {}
    bad = client.post("api/next", json={"how": "best"})
    assert bad.status_code == 422 and "'best'" in bad.json()["error"]


def test_a_map_that_fails_leaves_the_page(client, page, monkeypatch):
    monkeypatch.setattr(projection, "compute", lambda *_: 1 / 0)
    page.projection.run()
    assert client.get("api/map").json()["stage"] == "failed: division by zero"


def test_arguments_and_ports_are_checked_in_one_line(place, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}: taken by another program"):
            command.main([str(place), "--port", str(port), "--no-browser"])
    with pytest.raises(SystemExit):
        command.main([str(place), "--port", "70000"])
    with pytest.raises(ValueError, match="nothing there"):
        command.main([str(place / "none"), "--no-browser"])
    with pytest.raises(ValueError, match="wanted a name that ends in .csv"):
        command.main([str(place), "--labels", str(place / "a.txt"), "--no-browser"])
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ssl_audio\[explore\]'"):
        command.main([str(place)])


def test_no_browser_is_said(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    command._open("http://127.0.0.1:1/x/")
    assert "no display here" in caplog.text
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(command.webbrowser, "open", lambda url: False)
    command._open("http://127.0.0.1:1/x/")
    assert "no browser could be started" in caplog.text


def test_a_json_answer_is_not_kept_by_the_browser(client):
    answer = client.get("api/about")
    assert answer.headers["cache-control"] == "no-store"
    assert json.loads(answer.content)["rows"] == 12


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_points_stand_out_in_both_themes(client):
    """WCAG 2.1, 1.4.3 and 1.4.11: 4.5 for text, 3 for what else must be seen."""
    themes = re.findall(r":root \{([^}]*)\}", client.get("style.css").text)
    assert len(themes) == 2
    points = re.findall(r"#[0-9a-f]{6}", client.get("map.js").text.partition("REST")[0])
    assert len(set(points)) == 12
    for theme in themes:
        named = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        for text in ("text", "quiet", "error"):
            for back in ("back", "card", "mark"):
                ratio = contrast(named[text], named[back])
                assert ratio >= 4.5, (text, back, ratio)
        assert contrast(named["strong"], named["on-strong"]) >= 4.5
        assert contrast(named["focus"], named["back"]) >= 3
        for point in points:
            assert contrast(point, named["map"]) >= 3, (point, contrast(point, named["map"]))
