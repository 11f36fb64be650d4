"""Selective state-space scan: one function, interchangeable implementations."""

from ssl_audio.backbones.scan.api import Inputs, bidirectional_scan, selective_scan
from ssl_audio.backbones.scan.choose import IMPLEMENTATIONS

__all__ = ["IMPLEMENTATIONS", "Inputs", "bidirectional_scan", "selective_scan"]
