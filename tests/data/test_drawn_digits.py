"""Pictures of digits: files hold what the arrays do."""

import numpy as np
import pytest
from PIL import Image

from ssl_audio.data import drawn_digits


def test_files_have_the_pixels(tmp_path):
    pytest.importorskip("sklearn")
    images, digits = drawn_digits.load()
    assert images.shape == (1797, 8, 8) and images.min() == 0 and images.max() == 1
    assert len(digits) == 1797 and digits[0] == 0
    first, last = drawn_digits.write(images[[0, -1]], tmp_path / "new" / "folder")
    assert first == str(tmp_path / "new" / "folder" / "0000.png")
    for path, wanted in ((first, images[0]), (last, images[-1])):
        found = np.asarray(Image.open(path)) / 255
        assert np.abs(found - wanted).max() < 1 / 255
