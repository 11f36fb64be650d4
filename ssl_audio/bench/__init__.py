"""Benchmarks of the parts that cost time: `python -m ssl_audio bench scan|step|inference|input`."""
