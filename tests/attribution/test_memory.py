"""Methods take the memory that their docstrings state, measured in processes of their own."""

from __future__ import annotations

import pytest

from tests.measured_memory import ON_LINUX, measured_peaks

pytestmark = [ON_LINUX, pytest.mark.slow]


def test_dualview_holds_its_features_once_and_blocks_of_attributions_once() -> None:
    n_train, n_features = 20_000, 1024
    peaks = measured_peaks(f"""
        from dualview_plugin.attribution import DualView

        class Stopped(DualView):
            def _solve(self, features, labels, decisions):
                end("before the solver")
                return super()._solve(features, labels, decisions)

        small, data = world(1500, {n_features}, 5)
        DualView(small, "2", data, show_progress=False).fit()
        model, train = world({n_train}, {n_features}, 5)
        method = Stopped(model, "2", train, tol=0.1, show_progress=False)
        begin()
        method.fit()
        end("fit")
        begin()
        method.influence(torch.randn(1024, 8), k=10)
        end("influence")
        peaks["support"] = method.solution_.n_support
    """)
    features = 4 * n_train * n_features / 2**20
    assert features < peaks["before the solver"] < 1.9 * features  # and one batch; a second copy would be 2
    assert peaks["fit"] < 3 * features
    assert 0 < peaks["support"] < n_train
    block = 4 * 256 * n_train / 2**20
    assert peaks["influence"] < 2 * block + 64  # a class at a time, in 64 MiB


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_influence_functions_keep_to_the_bytes_of_a_block(solver: str) -> None:
    n_train, budget = 3_000, 2**26
    peaks = measured_peaks(f"""
        from dualview_plugin.attribution import InfluenceFunctions, influence_functions

        influence_functions._BLOCK_BYTES = {budget}
        model, train = world({n_train}, 200, 7)
        options = dict(solver="{solver}", damping=1.0, tol=0.5, show_progress=False)
        method = InfluenceFunctions(model, "2", train, **options).fit()
        peaks["block size"] = method.block_size
        inputs = torch.randn(2 * method.block_size, 8)
        next(method.attribute_blocks(inputs[:3]))
        begin()
        for block in method.attribute_blocks(inputs):
            del block
        end("sweep")
        begin()
        method.self_influence()
        end("self-influence")
    """)
    assert peaks["block size"] * 8 * (7 * 200 * 7 + n_train) <= budget
    # 128 MiB of scores and of batches, as the constant leaves below 1 GiB, and 32 MiB of holes between them.
    limit = (budget + 2**27 + 2**25) / 2**20
    assert budget / 2**22 < peaks["sweep"] < limit
    assert peaks["self-influence"] < limit


def test_gradient_similarity_of_a_large_network_keeps_to_its_budget() -> None:
    """The parameters of VGG-11 take 491 MiB, those of its largest layer 392: two whole gradients exceed the limit."""
    pytest.importorskip("torchvision")
    peaks = measured_peaks("""
        import torchvision
        from dualview_plugin.attribution import GradCos, GradientSimilarity

        model = torchvision.models.vgg11(weights=None, num_classes=10).eval()
        train = TensorDataset(torch.randn(5, 3, 64, 64), torch.arange(5) % 3)
        inputs, target = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
        for kind in (GradientSimilarity, GradCos):
            method = kind(model, "classifier.6", train, show_progress=False)
            begin()
            method.fit()
            end(f"fit {kind.__name__}")
            begin()
            maps = method.input_attribution(inputs, target, k=3)
            end(f"maps {kind.__name__}")
            peaks[f"zero {kind.__name__}"] = float((maps == 0).all())
    """)
    for name in ("GradientSimilarity", "GradCos"):
        assert 392 < peaks[f"maps {name}"] < 850
        assert peaks[f"fit {name}"] < 850
        assert not peaks[f"zero {name}"]
