"""BERT, its family and decoders of `transformers`: the function is kept, and relevance is conserved."""

from __future__ import annotations

from collections.abc import Callable
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


class DecoderOfEmbeddings(nn.Module):
    """The last token of a decoder, and a final layer."""

    def __init__(self, name: str, attention: str, **sizes: int) -> None:
        super().__init__()
        ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        config = getattr(transformers, f"{name}Config")(vocab_size=VOCABULARY, **sizes, **ends)
        config._attn_implementation = attention
        self.net, self.fc = getattr(transformers, f"{name}Model")(config), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.net(inputs_embeds=x).last_hidden_state[:, -1])


def maps(net: nn.Module, layer: str, x: Tensor, softmax: str) -> tuple[Tensor, Tensor]:
    """What starts at the features, |φ_m|, and what arrives at the embeddings."""
    started: list[Tensor] = []

    def start(features: Tensor) -> Tensor:
        started.append(features.abs())
        return started[0]

    composite = named_composite("epsilon_plus", net, softmax, zero_params="bias")
    found = Propagation(FeatureExtractor(net, layer), composite, "test")(x, start)
    assert found.isfinite().all()
    return started[0], found


def drawn(net: nn.Module, width: int) -> tuple[nn.Module, Tensor]:
    """The network with weights of order 1, and embeddings."""
    net = net.double().eval()
    for module in net.modules():
        if hasattr(module, "weight") and module.weight is not None and module.weight.ndim > 1:
            nn.init.xavier_normal_(module.weight)
    return net, torch.randn(3, N_TOKENS, width, dtype=torch.float64)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "make",
    [
        lambda attention: DecoderOfEmbeddings("GPT2", attention, n_embd=16, n_layer=2, n_head=2),
        lambda attention: DecoderOfEmbeddings("Llama", attention, **SIZES, num_key_value_heads=1),
    ],
    ids=["GPT2", "Llama"],
)
def test_decoders_conserve_relevance(make: Callable[[str], nn.Module], attention: str) -> None:
    torch.manual_seed(0)
    net, x = drawn(make(attention), 16)
    start, found = maps(net, "fc", x, "constant")
    torch.testing.assert_close(found.sum((1, 2)), start.sum(1), rtol=0.05, atol=0)
    maps(net, "fc", x, "taylor")


@pytest.mark.parametrize("name", FAMILY)
def test_the_bert_family_conserves_relevance_in_both_of_its_attentions(name: str) -> None:
    layer, maps_of = f"net.{FAMILY[name][0]}", {}
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        bare = OfEmbeddings(name, attention)
        net, x = drawn(bare, bare.net.get_input_embeddings().embedding_dim)
        start, found = maps(net, layer, x, "constant")
        torch.testing.assert_close(found.sum((1, 2)), start.sum(1), rtol=0.05, atol=0)
        maps_of[attention] = [found, maps(net, layer, x, "taylor")[1]]
    for by_sdpa, by_eager in zip(*maps_of.values(), strict=True):
        torch.testing.assert_close(by_sdpa, by_eager, rtol=1e-4, atol=1e-6)
        assert not by_sdpa[0, -2:].any()  # what the mask hides
