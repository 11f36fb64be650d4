"""Pictures in batches: files beside sound, tables of pictures alone, synthetic ones."""

import csv
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image as pillow
from PIL import ImageOps

from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Audio
from ssl_audio.data.pictures import Drawn, Image, Pictures
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.source import Manifest
from ssl_audio.data.synthetic import Synthetic

GREY: dict[str, Any] = dict(channels=1, mean=(0.0,), std=(1.0,))


def picture(path, colour, size=(8, 8)):
    pillow.new("RGB", size, colour).save(path)
    return path.name


def manifest(folder, rows):
    """Write sounds of 0.1 s and a table with their pictures."""
    lines = [["path", "image"]]
    for number, pictures in enumerate(rows):
        soundfile.write(folder / f"{number}.wav", np.full(1600, 0.1), 16_000)
        lines.append([f"{number}.wav", pictures])
    with open(folder / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    return Manifest(str(folder / "clips.csv"))


def batch(source, **options):
    entries = dict(audio=Audio(1600), image=Image(size=4, **options))
    pipeline = Pipeline(dict(a=source), 4, entries, shuffle=False, threads=0, max_bad_share=1.0)
    assert pipeline.spec()["image"][0] == (4, 4, 4, options.get("channels", 3))
    return pipeline, next(pipeline.batches())


def test_files_beside_sound_are_relative_to_the_table(tmp_path):
    colours = ["red", "lime", "blue", "white"]
    rows = [picture(tmp_path / f"{c}.png", c) for c in colours]
    _, found = batch(manifest(tmp_path, rows), mean=(0.0,) * 3, std=(1.0,) * 3)
    wanted = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
    assert np.allclose(found["image"].mean(axis=(1, 2)), wanted, atol=1e-6)
    assert found["image"].dtype == np.float32 and found["audio"].shape == (4, 1600)


def test_one_of_several_is_drawn_and_the_middle_one_is_fixed(tmp_path):
    names = [picture(tmp_path / f"{v}.png", (v, v, v)) for v in (0, 51, 102)]
    source = manifest(tmp_path, ["; ".join(names)] * 4)
    drawn = [float(x) for x in batch(source, **GREY)[1]["image"].mean(axis=(1, 2, 3))]
    assert len({round(x, 2) for x in drawn}) > 1 and {round(x, 1) for x in drawn} <= {0, 0.2, 0.4}
    again = batch(source, **GREY)[1]["image"]
    assert np.array_equal(again, batch(source, **GREY)[1]["image"])
    middle = batch(source, pick="middle", **GREY)[1]["image"]
    assert np.allclose(middle, 0.2, atol=1e-6)


def test_the_shorter_side_counts_and_the_middle_is_cut(tmp_path):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    entry = Image(size=4, **GREY)
    assert entry.prepared(wide).min() == 1.0  # the white middle, untouched
    pillow.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(entry.prepared(str(tmp_path / "wide.png")), entry.prepared(wide))
    cuts = {entry.prepared(wide, np.random.default_rng(s)).tobytes() for s in range(9)}
    assert len(cuts) > 1
    clear = pillow.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert entry.prepared(str(tmp_path / "clear.png")).min() == 1.0  # nothing is white


def test_mean_and_deviation_are_of_each_channel():
    entry = Image(size=2, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    white = np.full((2, 2, 3), 255, np.uint8)
    assert np.allclose(entry.prepared(white)[0, 0], (1.0, 1.0, 0.0))


def test_what_cannot_be_read_is_named_and_replaced(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    good = picture(tmp_path / "good.png", "white")
    source = manifest(tmp_path, ["broken.png", good, "missing.png", good])
    pipeline, found = batch(source, **GREY)
    assert np.allclose(found["image"], 1)
    said = " ".join(pipeline.bad.values())
    assert len(pipeline.bad) == 2 and "no picture that can be read" in said
    assert "no such picture" in said
    with pytest.raises(DecodeError, match="wanted uint8"):
        Image(size=2).prepared(np.zeros((2, 2, 3)))


def test_a_missing_column_and_a_missing_folder_are_named(tmp_path):
    source = manifest(tmp_path, [picture(tmp_path / "a.png", "red")])
    with pytest.raises(ValueError, match=r"nothing in column 'frame'.*columns: image"):
        Image(size=2, column="frame").draw(source[0], np.random.default_rng(0))
    example = {**source[0]}
    del example["root"]
    with pytest.raises(ValueError, match="set `root`"):
        Image(size=2).draw(example, np.random.default_rng(0))
    found = Image(size=2, root=str(tmp_path)).draw(example, np.random.default_rng(0))
    assert found["image"].shape == (2, 2, 3)


def test_options_that_mean_nothing_are_refused():
    cases: Any = (dict(size=0), dict(size=2, channels=2), dict(size=2, pick="last"),
                  dict(size=2, mean=(0.5,)), dict(size=2, std=(0.0, 1.0, 1.0)),)  # fmt: skip
    for wrong in cases:
        with pytest.raises(ValueError, match="wanted"):
            Image(**wrong)


def test_a_table_of_pictures_needs_no_sound(tmp_path):
    names = [picture(tmp_path / f"{c}.png", c) for c in ("red", "lime")]
    (tmp_path / "p.csv").write_text("path,text\n" + "".join(f"{n},a {n}\n" for n in names))
    source = Pictures(str(tmp_path / "p.csv"))
    pipeline = Pipeline(dict(a=source), 2, dict(image=Image(size=2)), shuffle=False, threads=0)
    assert next(pipeline.batches())["image"].shape == (2, 2, 2, 3)
    assert source[1]["text"] == "a lime.png" and not len(source[1]["audio"])
    (tmp_path / "q.csv").write_text("path,image\n-,x.npy\n")
    assert "image" not in Pictures(str(tmp_path / "q.csv"))[0]


def test_synthetic_pictures_tell_labels_apart():
    source = Drawn(Synthetic(size=24, seconds=0.1), size=8)
    entry = Image(size=8)
    flat = np.stack([entry.prepared(source[i]["image"]).ravel() for i in range(24)])
    far = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    label = np.array([source.meta(i)["label"] for i in range(24)])
    same = (label[:, None] == label[None]) & ~np.eye(24, dtype=bool)
    assert far[same].max() < far[label[:, None] != label[None]].min()
    assert np.array_equal(source[3]["image"], source[3]["image"])


def test_a_thin_picture_is_not_made_huge(tmp_path):
    """Scaled to its shorter side, few bytes of a file would fill the memory."""
    pillow.new("L", (40_000, 1)).save(tmp_path / "thin.png")
    with pytest.raises(DecodeError, match=r"thin\.png: 40000 x 1 pixels, scaled to 2560000 x 64"):
        Image(size=64).prepared(str(tmp_path / "thin.png"))


def test_pixels_of_16_bits_are_scaled_and_of_32_refused(tmp_path):
    """Pillow itself makes everything above 255 white."""
    values = np.full((8, 8), 2**15, np.uint16)
    pillow.fromarray(values).save(tmp_path / "16.png")
    colours: dict[str, Any] = dict(mean=(0.0,) * 3, std=(1.0,) * 3)
    for options in (GREY, colours):
        found = Image(size=4, **options).prepared(str(tmp_path / "16.png"))
        np.testing.assert_allclose(found, 128 / 255)
    pillow.fromarray(values.astype(np.float32)).save(tmp_path / "32.tiff")
    with pytest.raises(DecodeError, match=r"32\.tiff: pixels of 32 bits; wanted 8 or 16"):
        Image(size=4).prepared(str(tmp_path / "32.tiff"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_that_was_turned(tmp_path, orientation):
    values = np.random.default_rng(0).integers(0, 256, (12, 8, 3)).astype(np.uint8)
    exif = pillow.Exif()
    exif[0x0112] = orientation
    pillow.fromarray(values).save(tmp_path / "turned.png", exif=exif)
    with pillow.open(tmp_path / "turned.png") as found:
        wanted = np.asarray(ImageOps.exif_transpose(found))
    entry = Image(size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = entry.prepared(str(tmp_path / "turned.png"))
    np.testing.assert_array_equal(found, entry.prepared(wanted))


def test_one_row_without_a_picture_is_skipped_and_told(tmp_path, caplog):
    names = [picture(tmp_path / f"{n}.png", "red") for n in range(3)]
    _, found = batch(manifest(tmp_path, [names[0], "", names[1], names[2]]), **GREY)
    assert np.asarray(found["image"]).shape == (4, 4, 4, 1)
    assert "nothing in column 'image'" in caplog.text
