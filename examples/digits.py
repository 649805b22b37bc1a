"""The digits and the small network of :mod:`dualview_plugin.demo`, where the other examples start."""

from dualview_plugin.demo import Digits, accuracy, load_digits, small_cnn, train

__all__ = ["Digits", "accuracy", "load_digits", "small_cnn", "train"]
