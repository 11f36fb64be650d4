"""Benchmarks of the parts that cost time: `ssl-audio bench scan|step|inference|input|peers`."""
