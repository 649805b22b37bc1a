"""Programs of a page each; run one with ``python -m examples.NAME`` from the root of the repository."""
