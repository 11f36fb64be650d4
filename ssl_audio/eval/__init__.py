"""What a trained encoder is worth: probes of frozen features, losses on held-out clips."""
