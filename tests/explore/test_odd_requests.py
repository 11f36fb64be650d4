"""What clients send that no page would, and what is gone meanwhile: an answer, never a traceback."""

import threading

import numpy as np
import pytest
from pages import RATE

pytest.importorskip("starlette", reason="the extra `explore` is not installed")
from starlette.testclient import TestClient

from ssl_audio.explore import collection, projection, server, sounds
from ssl_audio.explore.labels import Labels

TOKEN = "a-token"


class Heard:
    """Stands for a model."""

    rate = RATE

    def sound(self, audio, rate):
        return np.ones(12, np.float32)


@pytest.fixture
def client(place):
    shown = collection.read(place)
    shown.__dict__["model"] = Heard()
    made = sounds.Sounds()
    drawn = projection.Projection(shown.vectors, shown.beside("map.npz"), "pca")
    labels = Labels(shown.beside("labels.csv"), shown.rows, shown.numbers)
    app = server.app(server.Page(shown, labels, drawn, made), TOKEN)
    base = f"http://127.0.0.1:8000/{TOKEN}/"
    yield TestClient(app, base_url=base, headers={"x-token": TOKEN})
    made.close()


@pytest.mark.parametrize("top", ["abc", "-1", "0", "501", "1.5", ""])
def test_how_many_hits_of_a_file(client, place, top):
    content = (place.parent / "sounds/low/low0.wav").read_bytes()
    answer = client.post("api/by-sound", params={"top": top}, content=content)
    assert answer.status_code == 422 and "whole number from 1 to 500" in answer.json()["error"]
    assert client.post("api/by-sound?top=2", content=content).status_code == 200


def test_bodies_that_are_no_question(client):
    for content in (b"", b"[1]", b"\xff", b"[" * 100_000, b'{"row": "\\ud800"}'):
        answer = client.post("api/search", content=content)
        assert answer.status_code == 422 and answer.json()["error"]
    for content in (b'{"row": Infinity}', b'{"row": -1e999}', b'{"row": 0, "top": NaN}'):
        answer = client.post("api/search", content=content)
        assert answer.status_code == 422 and "wanted a whole number" in answer.json()["error"]
    answer = client.post("api/label", content=b'{"row": 0, "label": "\\ud800"}')
    assert answer.status_code == 422 and "UTF-8" in answer.json()["error"]
    assert "low0" not in answer.json()["error"]
    for byte_range in ("bytes=-10", "bytes=5-1", "bytes=x", "bytes=99999999-", "rows=1-2"):
        assert client.get("sound/0.wav", headers={"range": byte_range}).status_code in (
            200,
            206,
            400,
            416,
        ), byte_range


def test_a_client_that_goes_in_the_middle_of_a_file_leaves_no_traceback(client, recwarn):
    import asyncio

    sent, app = [], client.app
    scope = {
        "type": "http", "method": "POST", "path": f"/{TOKEN}/api/by-sound", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"x-token", TOKEN.encode())],
    }  # fmt: skip
    messages = iter(
        [
            {"type": "http.request", "body": b"RIFF", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert not sent or sent[0]["status"] >= 400


def test_what_the_map_loses_when_the_page_is_closed_is_not_told(place, caplog):
    shown, made = collection.read(place), sounds.Sounds()
    drawn = projection.Projection(shown.vectors, shown.beside("map.npz"), "pca")
    waiting, closed = threading.Event(), threading.Event()

    def between():
        waiting.set()
        assert closed.wait(10)
        made.warm()

    thread = drawn.start(between)
    assert waiting.wait(10)
    drawn.stop()
    made.close()
    closed.set()
    thread.join(30)
    assert not caplog.text and not thread.is_alive()
