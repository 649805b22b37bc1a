"""The test inputs of a call: checked, cut into blocks, and placed where the network is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dualview_plugin.attribution.common.network_and_data import NetworkAndData
from dualview_plugin.attribution.common.targets import Target, checked_target
from dualview_plugin.batches import Batch, n_rows, split
from dualview_plugin.data import Inputs, TestInputs
from dualview_plugin.features import check_finite
from dualview_plugin.network import Forward, Placement


class BlocksOfTests(NetworkAndData):
    """The part of every method that takes test inputs and targets."""

    forward: Forward | None
    _decided: tuple[Batch, Tensor] | None  # the block that is explained now, and its features

    def __setstate__(self, state: dict[str, Any]) -> None:
        """For a copy, which explains no block now."""
        super().__setstate__({**state, "_decided": None})

    def test_inputs(self, inputs: Inputs) -> TestInputs:
        """The test inputs, converted and checked against the training inputs; what comes out may go in again."""
        with self.visit():
            like, collate = self._probe_now().inputs, self._data.loader.collate_fn
            return TestInputs(inputs, self.get_name(), like, collate, any_structure=self.forward is not None)

    def decisions(self, inputs: Inputs) -> Tensor:
        """The classes that the network decides for, (n_test,): what ``target=None`` explains."""
        with self.visit():
            return torch.cat([classes for _, classes in self.blocks(inputs)])

    def blocks(self, inputs: Inputs, target: Target = None, size: int | None = None) -> Iterator[tuple[Any, Tensor]]:
        """Consecutive blocks of test inputs, placed where the network is, with the classes to explain, (n_block,).

        Args:
            inputs: as in :meth:`attribute`.
            target: as in :meth:`attribute`; checked before the first block.
            size: test points in a block at most; None: ``batch_size``.
        """
        test = self.test_inputs(inputs)
        with self.visit():
            classes = checked_target(target, len(test), self._probe_now().n_classes, self.get_name())
        return self._steps(self._placed(test, classes, size or self.batch_size))

    def extract(self, inputs: Batch) -> tuple[Tensor, Tensor]:
        """Penultimate features (n, n_features) and logits (n, n_classes) of one placed block, differentiable."""
        features, logits = self.extractor(inputs)
        check_finite(features, logits, "inputs", self.get_name())
        return features, logits

    def _placed(self, test: TestInputs, classes: Tensor | None, size: int) -> Iterator[tuple[Batch, Tensor]]:
        """Consecutive blocks of test inputs on the device with the classes to explain."""
        place, start = Placement.of(self.model), 0
        for batch in test.batches(size):
            block = place(batch)
            stop = start + n_rows(block)
            if classes is None:
                features, logits = self._checked_answers(block, start)
                self._decided = block, features
                try:
                    yield block, logits.argmax(dim=1)
                finally:
                    self._decided = None
            else:
                yield block, classes[start:stop].to(self.device)
            start = stop

    @torch.no_grad()
    def _checked_answers(self, inputs: Batch, start: int) -> tuple[Tensor, Tensor]:
        """Features and logits of a block from position ``start`` on, in passes of at most ``batch_size``."""
        parts = [self.extractor(part) for part in split(inputs, self.batch_size)]
        features, logits = (torch.cat(outputs) for outputs in zip(*parts, strict=True))
        check_finite(features, logits, "inputs", self.get_name(), start)
        return features, logits

    def _block_features(self, inputs: Batch) -> Tensor:
        """Features of a block of :meth:`blocks`, in passes of at most ``batch_size``.

        A pass is spared where the network's decision took one, unless it is needed for its graph.
        """
        if self._decided is not None and self._decided[0] is inputs and not torch.is_grad_enabled():
            return self._decided[1]
        return torch.cat([self.extract(part)[0] for part in split(inputs, self.batch_size)])
