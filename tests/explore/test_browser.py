"""The page in a real headless Chromium: searches, plays, labels, exports; two pages, a server that dies.

pytest -m browser tests/explore: needs `pip install playwright` and Chromium (SSL_AUDIO_CHROMIUM names it).
SSL_AUDIO_SCREENSHOTS=FOLDER keeps pictures of the page.
"""

import contextlib
import csv
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import soundfile
from pages import RATE, sound

pytestmark = pytest.mark.browser
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("SSL_AUDIO_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium found: install it, or name it in SSL_AUDIO_CHROMIUM")
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield made
        made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with sounds and their index, of a tiny model of audio and text."""
    import encoders

    made = tmp_path_factory.mktemp("page")
    for kind in ("low", "high", "noise"):
        (made / "sounds" / kind).mkdir(parents=True)
        for i in range(10):
            soundfile.write(made / f"sounds/{kind}/{kind}{i}.wav", sound(kind, i), RATE)
    model = encoders.audio_text(made)
    say = ["search", "index", "--checkpoint", model, "--index", made / "index", made / "sounds"]
    subprocess.run([sys.executable, "-m", "ssl_audio", *map(str, say)], check=True)
    return made


class Server:
    """`ssl-audio explore` in a process of its own."""

    def __init__(self, *arguments, verb="explore"):
        command = [sys.executable, "-m", "ssl_audio", verb, *arguments, "--no-browser"]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        self.url = re.search(r"http://127.0.0.1:\d+/[\w-]{32}/", said)[0]

    def end(self, how=signal.SIGINT):
        self.process.send_signal(how)
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def serving(*arguments, verb="explore"):
    server = Server(*arguments, verb=verb)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


@contextlib.contextmanager
def opened(browser, url, width=1400, scheme="light", wrong=()):
    """Give the page; nothing may be logged as an error but `wrong`, and nothing fetched from elsewhere."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
    )
    page, errors, elsewhere = context.new_page(), [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on(
        "request", lambda r: None if r.url.startswith((url, "blob:")) else elsewhere.append(r.url)
    )
    page.goto(url)
    page.wait_for_selector("#hits li")
    yield page
    context.close()
    assert not elsewhere
    assert not [text for text in errors if not any(some in text for some in wrong)]


def until(page, expression, seconds=90):
    """Wait until an expression holds; `wait_for_function` would need `eval`, which the page forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def titled(page, text):
    until(page, f"document.getElementById('hits-title').textContent.includes({text!r})")
    until(page, "!document.getElementById('status').textContent.endsWith('…')")


def rows(page):
    return [int(item.get_attribute("data-row")) for item in page.query_selector_all("#hits li")]


def saved(page, text):
    until(page, f"document.getElementById('saved').textContent.startsWith({text!r})")


def lines(folder):
    return (folder / "index/labels.csv").read_text().splitlines()


def keep(page, name):
    if to := os.environ.get("SSL_AUDIO_SCREENSHOTS"):
        pathlib.Path(to).mkdir(exist_ok=True)
        page.evaluate("scrollTo(0, 0)")
        until(page, "document.getElementById('progress').hidden")
        until(page, "[...document.images].slice(0, 4).every((img) => img.naturalWidth)")
        page.screenshot(path=f"{to}/{name}.png")


def test_search_play_label_export(browser, folder):
    wrong = ("ERR_",)  # the server is killed while a page is open
    with serving(folder / "index") as server, opened(browser, server.url, wrong=wrong) as page:
        # By words, with the keyboard.
        page.keyboard.press("/")
        page.keyboard.type("a low hum")
        page.keyboard.press("Enter")
        titled(page, "a low hum")
        assert len(rows(page)) == 24
        # By a found one: it comes first.
        wanted = rows(page)[3]
        page.click(f"li[data-row='{wanted}'] .like")
        titled(page, "More like")
        assert rows(page)[0] == wanted
        assert page.text_content("#hits li .score") == "1.000"
        page.click("#more")
        until(page, "document.querySelectorAll('#hits li').length === 48")
        # By a file: that very file, which is in the index.
        file = folder / "sounds/high/high3.wav"
        page.set_input_files("#file", file)
        titled(page, "high3.wav")
        assert "high3.wav" in page.locator("#hits li .file").all_text_contents()[:9]
        # It plays, and its picture is there.
        until(page, "document.querySelector('#hits img').naturalWidth > 600")
        page.keyboard.press("Space")
        until(page, "document.querySelector('#hits li .play').textContent === 'Pause'")
        until(page, "parseFloat(document.querySelector('#hits .head').style.left) > 15")
        page.keyboard.press("Space")
        until(page, "document.querySelector('#hits li .play').textContent === 'Play'")
        # Labels: a new class, its key, another class, undo.
        order = rows(page)
        page.keyboard.press("n")
        page.keyboard.type("beep, high")
        page.keyboard.press("Enter")
        saved(page, "1 labelled")
        page.keyboard.press("1")
        saved(page, "2 labelled")
        page.keyboard.press("j")
        page.keyboard.press("n")
        page.keyboard.type("hum")
        page.keyboard.press("Enter")
        saved(page, "3 labelled")
        page.keyboard.press("1")
        saved(page, "4 labelled")
        page.keyboard.press("u")
        saved(page, "3 labelled")
        # The line is gone from the file once the server has answered.
        deadline = time.monotonic() + 10
        while len(lines(folder)) != 4 and time.monotonic() < deadline:
            page.wait_for_timeout(50)
        given = [row["label"] for row in csv.DictReader(lines(folder))]
        assert given == ["beep, high", "beep, high", "hum"]
        title = page.get_attribute(f"li[data-row='{order[0]}'] .title", "title")
        assert lines(folder)[1].startswith(f"{title},")
        chips = [
            page.text_content(f"li[data-row='{row}'] .label")
            for row in (order[0], order[1], order[3])
        ]
        assert chips == ["beep, high", "beep, high", "hum"]
        # Another page sees them; what it changes comes back.
        with opened(browser, server.url, 420, "dark") as second:
            saved(second, "3 labelled")
            second.click("#hits li:nth-child(2) .title")
            second.click("#classes button:nth-child(2)")
        until(
            page,
            "[...document.querySelectorAll('#classes .quiet')].reduce((n, e) => n + +e.textContent, 0) >= 3",
        )
        page.wait_for_timeout(2500)
        with page.expect_download() as download:
            page.click("#export")
        assert pathlib.Path(download.value.path()).read_text().splitlines() == lines(folder)
        keep(page, "labelled-1400")
        # A kill loses nothing.
        before = lines(folder)
        server.end(signal.SIGKILL)
        assert lines(folder) == before
    with serving(folder / "index") as server, opened(browser, server.url, wrong=wrong) as page:
        saved(page, f"{len(before) - 1} labelled")
        assert server.end() == 130  # Ctrl-C


def test_the_map(browser, folder):
    with serving(folder / "index", "--map", "pca") as server, opened(browser, server.url) as page:
        until(page, "performance.getEntriesByName('map-painted').length === 1")
        until(page, "document.querySelectorAll('#legend li').length === 3")
        assert page.input_value("#colour") == "folder"
        colours = """() => { const c = document.getElementById('map');
            const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);
            return new Set(d).size; }"""
        assert page.evaluate(colours) >= 5  # three groups, background, rings
        page.click("#legend li:nth-child(1) button")
        assert page.get_attribute("#legend li:nth-child(1) button", "aria-pressed") == "true"
        page.click("#legend li:nth-child(1) button")
        page.focus("#map")
        for key in ("ArrowLeft", "+", "+", "-"):
            page.keyboard.press(key)
        page.keyboard.press("Enter")  # what is nearest to the middle
        titled(page, "More like")
        page.click("#all")
        first = page.text_content("#hits li .file")
        # Somewhere a point is hit: the nearest one's name is shown.
        box = page.locator("#map").bounding_box()
        for y in range(10, int(box["height"]), 12):
            for x in range(10, int(box["width"]), 24):
                page.mouse.move(box["x"] + x, box["y"] + y)
                if page.evaluate("document.getElementById('map').matches(':hover')") is False:
                    continue
            if page.is_visible("#tip"):
                break
        page.wait_for_timeout(300)
        assert first.endswith(".wav")
        page.select_option("#colour", "cluster")
        until(page, "document.querySelector('#legend').textContent.includes('cluster 1')")


def test_the_classifier_asks_and_learns(browser, folder, tmp_path):
    index, labels = folder / "index", tmp_path / "labels.csv"
    with serving(index, "--map", "pca", "--labels", labels, verb="label") as server:
        with opened(browser, server.url) as page:
            titled(page, "Least certain")
            assert len(rows(page)) == 12 and page.is_visible("#learner")
            names = page.locator("#hits li .file").all_text_contents()
            for name in names:  # the last one asks for the next dozen
                kind = re.sub(r"\d+\.wav", "", name)
                if page.locator("#classes button", has_text=kind).count():
                    page.locator("#classes button", has_text=kind).click()
                else:
                    page.fill("#class-name", kind)
                    page.press("#class-name", "Enter")
            until(page, "document.querySelectorAll('#hits .guess i').length === 12")
            saved(page, "12 labelled")
            assert len(labels.read_text().splitlines()) == 13
            page.select_option("#of-class", index=0)
            page.click("#highest")
            titled(page, "Most likely")
            page.select_option("#colour", "guess")
            until(page, "document.querySelectorAll('#legend li').length >= 2")
            keep(page, "learner-1400")


def test_a_file_that_is_gone_and_a_server_that_is_gone(browser, folder, tmp_path):
    shutil.copytree(folder / "index", tmp_path / "index")
    wrong = ("404", "ERR_", "Failed to load")
    path = folder / "sounds/low/low9.wav"
    with serving(tmp_path / "index", "--map", "pca") as server:
        with opened(browser, server.url, wrong=wrong) as page:
            page.set_input_files("#file", path)
            titled(page, "low9.wav")
            path.rename(tmp_path / "moved.wav")
            try:
                page.reload()
                page.set_input_files("#file", tmp_path / "moved.wav")
                until(
                    page,
                    "[...document.querySelectorAll('#hits .error')].some("
                    "(e) => e.textContent.endsWith('low9.wav: no such file'))",
                )
            finally:
                (tmp_path / "moved.wav").rename(path)
            server.end()
            page.click("#random")
            until(
                page,
                "document.getElementById('status').textContent.startsWith('The server does not answer')",
            )


@pytest.mark.parametrize("width, scheme", [(1400, "light"), (420, "dark"), (420, "light")])
def test_it_fits_and_everything_has_a_name(browser, folder, width, scheme):
    with serving(folder / "index") as server, opened(browser, server.url, width, scheme) as page:
        until(page, "document.querySelector('#hits img').naturalWidth > 600")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, select, canvas, img, a')].filter((e) =>
                !(e.getAttribute('aria-label') || e.alt || e.labels?.length || e.textContent.trim()))
                .map((e) => e.outerHTML)"""
        )
        assert nameless == []
        # The keyboard reaches the search, the map and the results.
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.id || document.activeElement.className")
            )
        assert {"words", "map", "class-name"} <= reached and any("hit" in some for some in reached)
        keep(page, f"{width}-{scheme}")
