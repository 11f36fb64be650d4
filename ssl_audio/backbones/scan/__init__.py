"""Selective state-space scan: one function, interchangeable implementations."""

from ssl_audio.backbones.scan.api import IMPLEMENTATIONS, selective_scan

__all__ = ["IMPLEMENTATIONS", "selective_scan"]
