"""Selective state-space scan: one function, interchangeable implementations."""

from ssl_audio.layers.scan.api import Inputs, bidirectional_scan, selective_scan
from ssl_audio.layers.scan.choose import IMPLEMENTATIONS, prepare

__all__ = ["IMPLEMENTATIONS", "Inputs", "bidirectional_scan", "prepare", "selective_scan"]
