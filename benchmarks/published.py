"""The scores that the paper reports in its Table 2."""

from __future__ import annotations

METRICS = ("Identical Class", "Identical Subclass", "Label Poisoning", "Domain Mismatch")
# Methods of the other tables with the paper's row that they stand beside; a dash in the paper is None.
MNIST: dict[str, tuple[float | None, ...]] = {
    "DV": (0.979, 0.663, 0.709, 0.758),
    "DV (C = 1e-3)": (0.979, 0.663, 0.709, 0.758),
    "IF": (0.107, 0.096, 0.991, 0.000),
    "IF (LiSSA)": (0.107, 0.096, 0.991, 0.000),
    "RPS": (0.763, 0.300, 0.499, 1.000),
    "SIM": (0.979, 0.975, 0.030, 0.977),
    "SIM-rp": (0.979, 0.968, 0.108, 0.947),
    "RAND": (0.100, 0.100, 0.500, 0.030),
}
CIFAR10: dict[str, tuple[float | None, ...]] = {
    "DV": (0.868, 0.486, 0.826, 0.430),
    "DV (C = 1e-3)": (0.868, 0.486, 0.826, 0.430),
    "IF": (0.835, 0.480, 0.907, 0.000),
    "IF (LiSSA)": (0.835, 0.480, 0.907, 0.000),
    "RPS": (0.614, 0.358, 0.532, 0.597),
    "SIM": (None, None, None, None),
    "SIM-rp": (0.868, 0.841, 0.276, 0.500),
    "RAND": (0.100, 0.100, 0.500, 0.030),
}
