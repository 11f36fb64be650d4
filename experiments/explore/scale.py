"""Measure `ssl-audio explore` with 100,000 rows: server, map, queries, and the page in headless Chromium.

Run:  python experiments/explore/scale.py        (needs `pip install playwright` and Chromium)
"""

import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np
import soundfile

from ssl_audio.inference import index

KINDS, SOUNDS, RATE = 40, 50, 16_000


def make(folder: pathlib.Path, rows: int, width: int) -> pathlib.Path:
    """Write an index of synthetic unit vectors about 40 centres, of one-second files (links to 50)."""
    rng = np.random.default_rng(0)
    kinds = np.sort(rng.integers(0, KINDS, rows))
    centres = rng.normal(size=(KINDS, width))
    vectors = (centres[kinds] + rng.normal(size=(rows, width))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sounds = folder / "sounds"
    for i in range(SOUNDS):
        (folder / "made").mkdir(parents=True, exist_ok=True)
        t = np.arange(RATE) / RATE
        audio = 0.3 * np.sin(2 * np.pi * 100 * (1 + i) * t) + 0.01 * rng.normal(size=RATE)
        soundfile.write(folder / f"made/{i}.wav", audio, RATE)
    versions = []
    for i, kind in enumerate(kinds):
        path = sounds / f"kind{kind:02}" / f"{i:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / f"made/{kind}.wav", path)
        versions.append(f"{path}|0|0")
    about = {"checkpoint": "none", "digest": "", "words": False, "settings": {}, "token": "0"}
    found = index.Rows(versions, np.arange(rows), np.zeros(rows), np.ones(rows))
    (folder / "index").mkdir()
    index.write(folder / "index", about, found, width, [vectors])
    return folder / "index"


def begin(place: pathlib.Path) -> tuple[subprocess.Popen, str, float]:
    """Start the server; return its process, address, and the seconds until it printed it."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "ssl_audio", "explore", str(place), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r"http://\S+/", server.stdout.readline())
    assert found, "the server did not start"
    return server, found[0], time.perf_counter() - began


def ask(url: str, path: str, what: dict | None = None) -> dict:
    """Return the answer of the server's API."""
    token = url.rstrip("/").rpartition("/")[2]
    data = None if what is None else json.dumps(what).encode()
    request = urllib.request.Request(f"{url}api/{path}", data, {"x-token": token})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def wait_for_map(url: str) -> float:
    """Wait until the map is done; return its seconds, and print its stages."""
    said, began = "", time.perf_counter()
    while True:
        state = ask(url, "map")
        if state["stage"] != said:
            said = state["stage"]
            print(f"  map after {time.perf_counter() - began:5.1f} s: {said}", flush=True)
        if state["done"]:
            return time.perf_counter() - began
        time.sleep(0.2)


def queries(url: str, rows: int, count: int) -> list[float]:
    """Return ms of queries by a row, 24 hits, from request to parsed answer."""
    found = []
    for row in np.random.default_rng(1).integers(0, rows, count).tolist():
        began = time.perf_counter()
        assert ask(url, "search", {"row": row})["hits"][0]["row"] == row
        found.append(1000 * (time.perf_counter() - began))
    return found


def chromium() -> str:
    """Return the path of Chromium."""
    found = os.environ.get("SSL_AUDIO_CHROMIUM") or shutil.which("chromium")
    assert found, "no Chromium found: name it in SSL_AUDIO_CHROMIUM"
    return found


def in_browser(url: str, width: int) -> dict[str, float]:
    """Return ms from the start of navigation to what is seen, and ms that the map takes to draw."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = made.new_page(viewport={"width": width, "height": 900})
        page.goto(url)
        page.wait_for_selector("#hits li")
        listed = page.evaluate("performance.now()")
        painted = "performance.getEntriesByName('map-painted')[0]?.startTime"
        while page.evaluate(painted) is None:
            page.wait_for_timeout(20)
        first = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        found = {"first paint": page.evaluate(first), "map painted": page.evaluate(painted)}
        found["results listed, at most"] = listed
        drawn = []
        page.focus("#map")
        for key in ("ArrowLeft", "ArrowUp", "+", "+", "-", "ArrowRight"):
            page.keyboard.press(key)
            page.wait_for_timeout(300)
            drawn.append(float(page.evaluate("document.getElementById('map').dataset.ms")))
        found["drawing the map after a move"] = statistics.median(drawn)
        made.close()
    return found


def main() -> None:
    """Make an index, and print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512, help="of the vectors")
    parser.add_argument("--queries", type=int, default=50)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{args.rows:,} rows of {args.width} numbers; {os.cpu_count()} cores, load {load:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        place = make(pathlib.Path(folder), args.rows, args.width)
        server, url, started = begin(place)
        print(f"server, first start: {started:.1f} s until it answers")
        print(f"map, computed: {wait_for_map(url):.1f} s")
        server.terminate()
        server.wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"  processor time {used.ru_utime + used.ru_stime:.1f} s, {used.ru_maxrss / 2**20:.2f} GiB"
        )
        server, url, started = begin(place)
        print(f"server, with the map kept: {started:.1f} s until it answers")
        wait_for_map(url)
        times = queries(url, args.rows, args.queries)
        median, worst = statistics.median(times), max(times)
        print(
            f"query by a row, HTTP and JSON included: median {median:.0f} ms, worst {worst:.0f} ms"
        )
        for width in (1400, 420):
            for what, ms in in_browser(url, width).items():
                print(f"page of {width} px: {what}: {ms:.0f} ms")
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
