"""Draw docs/explore.png: the page on synthetic sounds, in headless Chromium.

Run:  python experiments/explore/picture.py docs/explore.png       (needs `pip install playwright`)
"""

import io
import pathlib
import sys
import tempfile

import librosa
import numpy as np
import PIL.Image
import scale
import soundfile

from ssl_audio.inference import index

RATE, SECONDS, OF_EACH = 16_000, 3.0, 60
WORDS = ("chirp", "beeps", "hum", "hiss", "clicks", "siren")


def sound(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return a synthetic sound of a kind."""
    t = np.arange(round(RATE * SECONDS)) / RATE
    pitch, pace = 2 ** rng.uniform(-0.7, 0.7), 2 ** rng.uniform(-0.5, 0.5)
    noise = rng.normal(size=len(t))
    gate = np.sin(2 * np.pi * 1.5 * pace * t) > 0
    made = {
        "chirp": np.sin(2 * np.pi * (400 * t + 500 * pace * t**2) * pitch) * gate,
        "beeps": np.sin(2 * np.pi * 1800 * pitch * t) * (np.sin(2 * np.pi * 4 * pace * t) > 0.3),
        "hum": sum(np.sin(2 * np.pi * 110 * pitch * k * t) / k for k in range(1, 12)) / 2,
        "hiss": 0.4 * np.convolve(noise, [1, -0.9 * min(1.0, pace)], "same"),
        "clicks": noise * (np.mod(t * 5 * pace, 1) < 0.03),
        "siren": np.sin(2 * np.pi * 900 * pitch * t + 300 * np.sin(2 * np.pi * 0.7 * pace * t)),
    }[kind]
    return 0.3 * made + 0.004 * rng.normal(size=len(t))


def make(folder: pathlib.Path) -> pathlib.Path:
    """Write sounds and an index of simple vectors: mean and deviation of log-mel bands."""
    rng, vectors, versions = np.random.default_rng(0), [], []
    for kind in WORDS:
        (folder / kind).mkdir()
        for i in range(OF_EACH):
            audio = sound(kind, rng).astype(np.float32)
            soundfile.write(folder / kind / f"{kind}-{i:02}.wav", audio, RATE)
            level = librosa.power_to_db(librosa.feature.melspectrogram(y=audio, sr=RATE, n_mels=48))
            vectors.append(np.concatenate([level.mean(axis=1), level.std(axis=1)]))
            versions.append(f"{folder / kind / f'{kind}-{i:02}.wav'}|0|0")
    found = np.array(vectors, np.float32)
    found = (found - found.mean(axis=0)) / found.std(axis=0)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    count = len(versions)
    rows = index.Rows(versions, np.arange(count), np.zeros(count), np.full(count, SECONDS))
    about = {"checkpoint": "none", "digest": "", "words": False, "settings": {}, "token": "0"}
    (folder / "synthetic").mkdir()
    index.write(folder / "synthetic", about, rows, found.shape[1], [found])
    return folder / "synthetic"


def main() -> None:
    """Make the sounds, label some, ask for more like one, and write the picture."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server, url, _ = scale.begin(make(pathlib.Path(folder)))
        scale.wait_for_map(url)
        made = playwright.chromium.launch(executable_path=scale.chromium(), args=["--no-sandbox"])
        page = made.new_page(viewport={"width": 1400, "height": 900})
        page.goto(url)
        page.wait_for_selector("#legend li")
        for row in range(0, len(WORDS) * OF_EACH, 7):
            scale.ask(url, "label", {"row": row, "label": WORDS[row // OF_EACH]})
        page.set_viewport_size({"width": 1280, "height": 760})
        chirp = page.locator("#hits li", has_text="chirp")
        while not chirp.count():
            page.click("#random")
            page.wait_for_timeout(500)
        chirp.first.locator(".like").click()
        page.wait_for_timeout(9000)
        page.evaluate("scrollTo(0, 0)")
        taken = PIL.Image.open(io.BytesIO(page.screenshot()))
        few = taken.convert("RGB").quantize(256, method=PIL.Image.Quantize.FASTOCTREE)
        few.save(sys.argv[1], optimize=True)
        made.close()
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
