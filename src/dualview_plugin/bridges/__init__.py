"""Bridges to other packages' benchmarks: :mod:`.quanda` and :mod:`.dattri`, each imported by its own name.

Both packages are optional. Each pins its own versions, so give each its own environment.
"""
