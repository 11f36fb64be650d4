"""Every patch encoder in every config takes size=large: 24 Transformer layers, or 48 of Mamba, of 1024."""

import jax
import pytest
from published import load
from reference import ROOT

from ssl_audio import config
from ssl_audio.train import preview

CONFIGS = {
    "asit": "",
    "audiojepa": "",
    "audiomae": "",
    "birdmae": "",
    "eat": "",
    "finetune": ",task=esc50,root=DIR",
    "m2d": "",
    "openbeats": "",
    "passt": ",root=DIR",
    "ssamba": "",
    "sslam": "",
    "ssast": "",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_large(name):
    made = load(ROOT / f"configs/{name}.py", "size=large" + CONFIGS[name])
    encoder = made.objective.encoder
    assert encoder.width == made.objective.tokenizer.width == 1024
    mamba = encoder.block.mixer.kind == "mamba"
    assert encoder.depth == (48 if mamba else 24)
    assert mamba or encoder.block.mixer.heads == 16


@pytest.mark.parametrize("encoder", ["ssast", "ssamba_rms", "ssamba"])
def test_large_of_the_other_kind(encoder):
    made = load(ROOT / "configs/ssast.py", f"size=large,encoder={encoder}")
    assert made.objective.encoder.depth == (24 if encoder == "ssast" else 48)


def test_large_has_the_parameters_of_vit_large():
    made = config.plain(load(ROOT / "configs/ssast.py", "size=large"))
    made["sharding"] |= {"data": 1}
    found = preview.preview(made, compiled=False)
    # Dosovitskiy et al. 2021 (arXiv:2010.11929), table 1: 307 M with a head of 1000 classes and 3 x 16 x 16
    # inputs; 24 layers of 12 x 1024^2 are 302 M of them.
    assert 302e6 < found.parameters["encoder"] < 305e6, found.parameters
    jax.clear_caches()
