"""Networks of many kinds with batches of many structures, tiny, each also written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

N_TRAIN, N_TEST, N_CLASSES, LENGTH, WORDS = 13, 4, 3, 6, 97
LABELS = torch.arange(N_TRAIN) % N_CLASSES


@dataclass
class Kind:
    """A network with its data, and how it is written out by hand.

    Attributes:
        model, layer: the network and its final layer.
        train: dataset, or loader.
        test: test inputs.
        logits: from a batch of one structure to logits (n, n_classes), by hand.
        penultimate: from a batch to φ (n, n_features), by hand; None: as a hook finds it.
        samples: the training samples, as batches of one, without labels.
        test_samples: the same of the test samples.
        labels: of the training points.
        options: of the method.
        head: W and b of the last layer, by hand; None: it is not linear in φ.
    """

    model: nn.Module
    layer: str
    train: Any
    test: Any
    logits: Callable[[Any], Tensor]
    features: Callable[[Any], Tensor]
    samples: list[Any]
    test_samples: list[Any]
    labels: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    head: Callable[[], tuple[Tensor, Tensor]] | None = None
    quantus: Any = None


class Dictionaries(Dataset[Any]):
    """Samples that are dictionaries."""

    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples[index]


class Cnn(nn.Module):
    """Two convolutions, and a head of 1 × 1 convolutions in place of a linear layer if asked."""

    def __init__(self, n_outputs: int = N_CLASSES, *, conv_head: bool = False, squeeze: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(5), nn.Conv2d(5, 7, 3))
        self.head = nn.Conv2d(7, n_outputs, 1) if conv_head else nn.Linear(7, n_outputs)
        self.conv_head, self.squeeze = conv_head, squeeze

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.conv_head:
            return self.head(torch.relu(self.body(x))).mean((2, 3))
        outputs = self.head(self.features(x))
        return outputs[:, 0] if self.squeeze else outputs


class ResNet(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 5, 3), nn.GroupNorm(1, 5)
        self.conv, self.fc = nn.Conv2d(5, 5, 3, padding=1, bias=False), nn.Linear(5, N_CLASSES)

    def features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return torch.relu(x + self.conv(self.norm(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class Transformer(nn.Module):
    """Tokens with a mask; returns an object with logits, as Hugging Face's do."""

    def __init__(self, *, head_everywhere: bool = False) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(WORDS, 8, padding_idx=0), nn.Parameter(torch.randn(LENGTH, 8) / 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.score = nn.Linear(8, N_CLASSES)
        self.head_everywhere = head_everywhere

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embedding(input_ids) + self.position[: input_ids.shape[1]]
        return self.block(x, src_key_padding_mask=attention_mask == 0)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        hidden = self.hidden(input_ids, attention_mask)
        if self.head_everywhere:
            return SimpleNamespace(logits=self.score(hidden)[:, 0])
        return SimpleNamespace(logits=self.score(hidden[:, 0]))


class Patches(nn.Module):
    """A vision transformer of one block with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(2, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, N_CLASSES)

    def features(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.patch(x).flatten(2).mT], 1)
        return self.block(tokens)[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Lstm(nn.Module):
    """The last state of packed sequences, whose length is that of the words before the zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(WORDS, 5), nn.LSTM(5, 7, batch_first=True)
        self.fc = nn.Linear(7, N_CLASSES)

    def features(self, ids: Tensor) -> Tensor:
        lengths = (ids != 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(ids), lengths, True, enforce_sorted=False)
        return self.lstm(packed)[1][0][0]

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.features(ids))


class TwoInputs(nn.Module):
    """An image and a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.table, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(3, 4), nn.Linear(8, N_CLASSES)

    def features(self, image: Tensor, row: Tensor) -> Tensor:
        return torch.cat([torch.relu(self.image(image)).mean((2, 3)), torch.tanh(self.table(row))], 1)

    def forward(self, image: Tensor, row: Tensor) -> Tensor:
        return self.fc(self.features(image, row))


class Cosine(nn.Module):
    """A head of cosines times a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(3, 7), nn.Linear(7, N_CLASSES, bias=False)
        self.head = Cosines(self.fc)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Cosines(nn.Module):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        normal = nn.functional.normalize
        return 5 * normal(x, dim=1) @ normal(self.layer.weight, dim=1).mT


def images(n: int) -> Tensor:
    return torch.randn(n, 2, 6, 6)


def sentences(n: int) -> list[Tensor]:
    """Words of 2 to LENGTH, without padding."""
    return [torch.randint(1, WORDS, (2 + index % (LENGTH - 1),)) for index in range(n)]


def padded(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Samples as a batch, as long as the longest of them, with a mask."""
    ids = nn.utils.rnn.pad_sequence([sample["input_ids"] for sample in batch], batch_first=True)
    lengths = torch.tensor([len(sample["input_ids"]) for sample in batch])
    collated = {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}
    if "labels" in batch[0]:
        collated["labels"] = torch.tensor([sample["labels"] for sample in batch])
    return collated


def of_layer(layer: nn.Linear) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (layer.weight.flatten(1), layer.bias)


def with_images(model: Any, layer: str, labels: Tensor = LABELS, **more: Any) -> Kind:
    train, test = images(N_TRAIN), images(N_TEST)
    head = model.get_submodule(layer)
    options: dict[str, Any] = {"logits": model, "features": model.features, "head": of_layer(head), **more}
    samples, test_samples = list(train.split(1)), list(test.split(1))
    return Kind(
        model, layer, TensorDataset(train, labels), test, samples=samples, test_samples=test_samples, labels=labels,
        quantus=test.numpy(), **options,
    )  # fmt: skip


def cnn() -> Kind:
    return with_images(Cnn(), "head")


def resnet() -> Kind:
    return with_images(ResNet(), "fc")


def vit() -> Kind:
    return with_images(Patches(), "head")


def conv_head() -> Kind:
    return with_images(Cnn(conv_head=True), "head")


def two_logits(z: Tensor) -> Tensor:
    return torch.stack([-z / 2, z / 2], 1)


def half(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.stack([-weight / 2, weight / 2]), torch.stack([-bias / 2, bias / 2])


def one_logit() -> Kind:
    model = Cnn(1, squeeze=True)
    head = lambda: half(model.head.weight[0], model.head.bias[0])  # noqa: E731
    return with_images(model, "head", LABELS % 2, logits=lambda x: two_logits(model(x)), head=head)


def multi_label() -> Kind:
    model, every = Cnn(4), (torch.rand(N_TRAIN, 4) > 0.5).float()
    every[:2, 2] = torch.tensor([0.0, 1.0])
    head = lambda: half(model.head.weight[2], model.head.bias[2])  # noqa: E731
    kind = with_images(
        model, "head", every[:, 2].long(), logits=lambda x: two_logits(model(x)[:, 2]), head=head, options={"output": 2}
    )
    kind.train = TensorDataset(torch.cat(kind.samples), every)
    return kind


def cosine_head() -> Kind:
    model, train, test = Cosine(), torch.randn(N_TRAIN, 3), torch.randn(N_TEST, 3)
    return Kind(
        model, "head", TensorDataset(train, LABELS), test, model, model.features, list(train.split(1)),
        list(test.split(1)), LABELS, quantus=test.numpy(),
    )  # fmt: skip


def two_inputs() -> Kind:
    model = TwoInputs()
    train, test = (images(N_TRAIN), torch.randn(N_TRAIN, 3)), (images(N_TEST), torch.randn(N_TEST, 3))
    split = lambda parts: list(zip(*(part.split(1) for part in parts), strict=True))  # noqa: E731
    return Kind(
        model, "fc", TensorDataset(*train, LABELS), test, lambda x: model(*x), lambda x: model.features(*x),
        split(train), split(test), LABELS, head=of_layer(model.fc),
    )  # fmt: skip


def lstm() -> Kind:
    model = Lstm()
    pad = lambda rows: nn.utils.rnn.pad_sequence(rows, batch_first=True)  # noqa: E731
    train, test = pad(sentences(N_TRAIN)), pad(sentences(N_TEST))
    return Kind(
        model, "fc", TensorDataset(train, LABELS), test, model, model.features, list(train.split(1)),
        list(test.split(1)), LABELS, head=of_layer(model.fc), quantus=test.numpy(),
    )  # fmt: skip


def tokens_in_dictionaries(model: Any, layer: nn.Linear, name: str, features: Callable[[Any], Tensor]) -> Kind:
    """Samples of several lengths, each batch padded to its longest; the test points are a list of dictionaries."""
    train = [{"input_ids": ids, "labels": int(label)} for ids, label in zip(sentences(N_TRAIN), LABELS, strict=True)]
    test = [{"input_ids": ids} for ids in sentences(N_TEST)]
    loader = torch.utils.data.DataLoader(Dictionaries(train), batch_size=5, collate_fn=padded)
    whole = padded(test)
    array = np.zeros(whole["input_ids"].shape, [(key, "i8") for key in whole])
    for key, value in whole.items():
        array[key] = value.numpy()

    def single(sample: dict[str, Any]) -> dict[str, Tensor]:
        return padded([{"input_ids": sample["input_ids"]}])

    return Kind(
        model, name, loader, test, lambda x: model(**x).logits, features, [single(s) for s in train],
        [single(s) for s in test], LABELS, head=lambda: (layer.weight, torch.zeros(N_CLASSES) if layer.bias is None
        else layer.bias), quantus=array,
    )  # fmt: skip


def tokens() -> Kind:
    model = Transformer()
    return tokens_in_dictionaries(model, model.score, "score", lambda x: model.hidden(**x)[:, 0])


def head_at_each_token() -> Kind:
    model = Transformer(head_everywhere=True)
    return tokens_in_dictionaries(model, model.score, "score", lambda x: model.hidden(**x)[:, 0])


def bert() -> Kind:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=N_CLASSES,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    return tokens_in_dictionaries(model, model.classifier, "classifier", lambda x: model.bert(**x).pooler_output)


def gpt2() -> Kind:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=8, n_layer=1, n_head=2, n_positions=16, num_labels=N_CLASSES, pad_token_id=0,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config)

    def features(x: dict[str, Tensor]) -> Tensor:
        hidden = model.transformer(**x).last_hidden_state
        return hidden[torch.arange(len(hidden)), x["attention_mask"].sum(1) - 1]

    return tokens_in_dictionaries(model, model.score, "score", features)


KINDS: dict[str, Callable[[], Kind]] = {
    "CNN": cnn,
    "ResNet": resnet,
    "ViT": vit,
    "tokens in padded dictionaries": tokens,
    "a head at each token": head_at_each_token,
    "BERT": bert,
    "GPT-2": gpt2,
    "packed LSTM": lstm,
    "two inputs": two_inputs,
    "one logit": one_logit,
    "several labels": multi_label,
    "convolutional head": conv_head,
    "cosine head": cosine_head,
}
