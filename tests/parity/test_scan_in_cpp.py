"""SSAMBA against its references with the selective scan in C++, within the same tolerances."""

import pytest
import test_selective_scan as scan_tests
import test_ssast_ssamba as reference_tests
from reference import golden_files

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("selective_scan*.npz"))
def test_selective_scan(in_cpp, path):
    scan_tests.test_selective_scan_equals_published_formula(path, "cpp")


@pytest.mark.parametrize("path", golden_files("ssamba*_pretrain.npz"))
def test_pretraining(in_cpp, path):
    reference_tests.test_pretraining_losses_and_everything_before_them(path)
    reference_tests.test_pretraining_gradients(path)


@pytest.mark.parametrize("path", golden_files("ssamba*_finetune.npz"))
def test_finetuned_logits(in_cpp, path):
    reference_tests.test_finetuned_logits(path)


@pytest.mark.parametrize("path", golden_files("vim_mixer*.npz"))
def test_vim_mixer(in_cpp, path):
    reference_tests.test_vim_mixer(path)
