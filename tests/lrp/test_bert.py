"""BERT and its family, as `transformers` builds them: the function is kept, and relevance is conserved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.features import FeatureExtractor
from dualview_plugin.lrp import named_composite
from dualview_plugin.lrp.propagation import Propagation

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
N_TOKENS, VOCABULARY = 6, 30
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("classifier", SIZES),
    "Roberta": ("classifier.out_proj", SIZES),
    "Electra": ("classifier.out_proj", {**SIZES, "embedding_size": 16}),
    "Albert": ("classifier", {**SIZES, "embedding_size": 12}),
    "DistilBert": ("classifier", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}),
}


class OfEmbeddings(nn.Module):
    """A classifier of token embeddings, (n, tokens, width), where the tokens themselves have no gradient."""

    def __init__(self, name: str, attention: str) -> None:
        super().__init__()
        config = getattr(transformers, f"{name}Config")(vocab_size=VOCABULARY, num_labels=3, **FAMILY[name][1])
        config._attn_implementation = attention
        self.net = getattr(transformers, f"{name}ForSequenceClassification")(config)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[:2], dtype=torch.int64)
        mask[0, -2:] = 0  # the first sequence is shorter
        return self.net(inputs_embeds=x, attention_mask=mask).logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILY)
def test_the_function_is_kept_and_relevance_conserved(name: str, attention: str) -> None:
    torch.manual_seed(0)
    net = OfEmbeddings(name, attention).double().eval()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
    embeddings = net.net.get_input_embeddings()
    x = torch.randn(3, N_TOKENS, embeddings.embedding_dim, dtype=torch.float64)
    for softmax, tolerance in (("constant", 0.05), ("taylor", None)):
        composite = named_composite("epsilon_plus", net, softmax, zero_params="bias")
        propagation = Propagation(FeatureExtractor(net, f"net.{FAMILY[name][0]}"), composite, "test")
        started: list[Tensor] = []
        found = propagation(x, lambda features, started=started: started.append(features.abs()) or features.abs())
        assert found.isfinite().all()
        if tolerance:
            torch.testing.assert_close(found.sum((1, 2)), started[0].sum(1), rtol=tolerance, atol=0)
        assert found[0, -2:].abs().sum() < 1e-3 * found[0].abs().sum()  # what the mask hides
