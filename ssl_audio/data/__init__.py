"""Host side: from files on disk to batches of waveforms in numpy. Nothing here needs a device."""
