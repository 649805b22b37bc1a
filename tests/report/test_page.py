"""The report is one file that asks nothing of a network; what it says is what the methods say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dualview_plugin import (
    ConservationWarning,
    DualView,
    DualViewError,
    GradientSimilarity,
    InvalidValueError,
    Scores,
    named_composite,
    top_points,
    write_report,
)
from dualview_plugin.demo import small_cnn
from dualview_plugin.report.curves import mass_curve
from tests.untouched import assert_untouched
from tests.worlds import small_world

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
N_SHOWN = 6


class Page(HTMLParser):
    """The elements of a page: (tag, attributes)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def method() -> DualView:
    torch.manual_seed(3)
    images, labels = torch.rand(53, 1, 24, 24), torch.arange(53) % 5
    images += labels[:, None, None, None] / 5
    return DualView(small_cnn(5), "fc", TensorDataset(images, labels), C=0.1, show_progress=False)


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return torch.rand(N_SHOWN, 1, 24, 24, generator=torch.Generator().manual_seed(1)) * 2


@pytest.fixture(scope="module")
def written(method: DualView, inputs: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with assert_untouched(method.model):
        return write_report(
            tmp_path_factory.mktemp("report") / "new" / "report.html",
            method,
            inputs,
            k=2,
            composite=named_composite("epsilon_plus_flat", method.model, zero_params="bias"),
            title="Bread & <butter>",
            test_labels=[0, 1, 2, 3, 4, 0],
            test_ids=[f"image {i}" for i in range(N_SHOWN)],
            scores=[Scores("DualView", "Identical Class", [1.0, 0.0, 1.0])],
            others={"gradients": GradientSimilarity(method.model, "fc", method.train_dataset, show_progress=False)},
            show_progress=False,
        )


def test_everything_is_inside_the_file(written: Path) -> None:
    text = written.read_text()
    page = Page(text)
    sources = [a.get("src") or a.get("href") for _, a in page.elements if "src" in a or "href" in a]
    assert all(source and source.startswith(("data:", "#")) for source in sources)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "Bread &amp; &lt;butter&gt;" in text


def test_screen_readers_find_names_for_everything(written: Path) -> None:
    page = Page(written.read_text())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert set(referred) <= set(ids)
    assert all(image.get("alt") for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_cards_have_the_points_of_the_table(written: Path, method: DualView, inputs: torch.Tensor) -> None:
    text, expected = written.read_text(), top_points(method, inputs, k=2)
    shown = re.findall(r'<span class="score">([^<]+)</span> <span class="id">(\d+)</span>', text)
    assert [int(index) for _, index in shown] == [row[4] for row in expected.rows()]
    assert [float(score) for score, _ in shown] == pytest.approx([row[-1] for row in expected.rows()], rel=5e-3)
    assert text.count("<article") == N_SHOWN
    assert f"{method.solution_.duality_gap:.2e}" in text
    same = (method.surrogate_logits(inputs).argmax(1) == method.model(inputs).argmax(1)).float().mean()
    assert f"{float(same):.1%}" in text


def test_twenty_large_images_stay_below_five_megabytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten())
    network.append(nn.Linear(36, 3))
    train = TensorDataset(torch.rand(60, 3, 96, 96), torch.arange(60) % 3)  # noise: the worst case for JPEG
    method = DualView(network, "4", train, C=1.0, show_progress=False)
    path = write_report(tmp_path / "r.html", method, torch.rand(20, 3, 96, 96), show_progress=False)
    assert "Relevance in training image" in path.read_text()
    assert path.stat().st_size < 5e6


def test_inputs_that_are_no_images_get_words_alone(tmp_path: Path) -> None:
    world = small_world()  # images with two channels, which no screen shows
    method = DualView(world.model, "fc", world.train, C=0.1, show_progress=False)
    text = write_report(tmp_path / "r.html", method, world.x_test, k=2, show_progress=False).read_text()
    assert "<img" not in text
    assert "Proponents" in text


def test_heatmaps_that_lose_relevance_are_marked(method: DualView, inputs: torch.Tensor, tmp_path: Path) -> None:
    with pytest.warns(ConservationWarning, match="of 6 test points: their cards say so"):
        path = write_report(tmp_path / "r.html", method, inputs, k=2, show_progress=False)
    assert "Do not trust these heatmaps" in path.read_text()


class TwoInputs(nn.Module):
    """A network of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(a * b))


def test_networks_of_several_inputs_get_words_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train = [((torch.rand(4), torch.rand(4)), i % 3) for i in range(15)]
    method = DualView(TwoInputs(), "fc", train, C=1.0, show_progress=False)
    test = (torch.rand(2, 4), torch.rand(2, 4))
    text = write_report(tmp_path / "r.html", method, test, k=2, show_progress=False).read_text()
    assert text.count("<article") == 2
    assert "<img" not in text


def test_labels_must_fit(method: DualView, inputs: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="test_labels of write_report must be one label for each of 6"):
        write_report(tmp_path / "r.html", method, inputs, test_labels=[1], show_progress=False)


SCRIPT = """<script>
addEventListener("load", () => {
  const byId = (id) => document.getElementById(id);
  const change = (id, key, value) => {
    byId(id)[key] = value;
    byId(id).dispatchEvent(new Event("input", {bubbles: true}));
  };
  const shown = () => [...document.querySelectorAll(".card:not([hidden]) h3")].map((head) => head.textContent);
  const result = {all: shown()};
  change("search", "value", "image 3"); result.searched = shown(); change("search", "value", "");
  change("wrong", "checked", true); result.wrong = shown(); change("wrong", "checked", false);
  change("disagrees", "checked", true); result.disagrees = shown(); change("disagrees", "checked", false);
  change("sort", "value", "confidence");
  result.confidence = [...document.querySelectorAll(".card")].map((card) => Number(card.dataset.confidence));
  change("heatmaps", "checked", false);
  result.maps = getComputedStyle(document.querySelector(".maps")).display;
  const before = getComputedStyle(document.body).backgroundColor;
  byId("theme").click();
  result.theme = before !== getComputedStyle(document.body).backgroundColor;
  result.count = byId("count").textContent;
  result.broken = [...document.images].filter((image) => image.complete && !image.naturalWidth).length;
  document.body.dataset.result = JSON.stringify(result);
});
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_controls_work_in_a_browser_without_a_word_on_its_console(written: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(written.read_text().replace("</body>", SCRIPT))
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}",
    ]
    run = subprocess.run(
        [str(BROWSER), *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in run.stderr
    (body,) = Page(run.stdout).all("body")
    result = json.loads(body["data-result"] or "")
    names = [f"Test point image {i}" for i in range(N_SHOWN)]
    assert result["all"] == names
    assert result["searched"] == ["Test point image 3"]
    cards = Page(written.read_text()).all("article")
    for key in ("wrong", "disagrees"):
        expected = [name for name, card in zip(names, cards, strict=True) if card[f"data-{key}"] == "1"]
        assert result[key] == expected
    assert result["confidence"] == sorted(result["confidence"])
    assert result["maps"] == "none"
    assert result["theme"] is True
    assert result["count"] == "6 of 6 test points"
    assert result["broken"] == 0


def plain_page(method: object, inputs: torch.Tensor, folder: Path, **options: Any) -> str:
    """A page without heatmaps."""
    path = folder / "page.html"
    write_report(path, method, inputs, k=2, composite=None, show_progress=False, **options)  # type: ignore[arg-type]
    return path.read_text()


def test_another_method_may_not_take_the_methods_name(method: DualView, inputs: torch.Tensor, tmp_path: Path) -> None:
    other = DualView(method.model, "fc", method.train_dataset, C=1e-4, show_progress=False)
    with pytest.raises(InvalidValueError, match="others of write_report must be named otherwise than the method"):
        plain_page(method, inputs, tmp_path, others={"DualView": other})
    text = plain_page(method, inputs, tmp_path, others={"C = 1e-4": other})
    [counts] = re.findall(r"Training points that hold this share.*?</table>", text, flags=re.DOTALL)
    for name, one in (("DualView", method), ("C = 1e-4", other)):
        shares = one.attribute(inputs).double().abs().sort(dim=1, descending=True).values.cumsum(1)
        mean = (shares / shares[:, -1:]).mean(0)
        expected = [int((mean < share - 1e-9).sum()) + 1 for share in (0.5, 0.9, 0.99)]
        row = counts[counts.index(f"</span>{name}</th>") :]
        assert [int(cell) for cell in re.findall(r'<td class="number">(\d+)</td>', row)[:3]] == expected


def test_counts_between_the_drawn_ones_are_exact() -> None:
    attributions = torch.zeros(2, 1297)
    attributions[:, :105] = 1.0
    curve = mass_curve("M", [attributions])
    assert [curve.count_for(share) for share in (0.5, 0.9, 0.99)] == [53, 95, 104]
    assert curve.needed == [95, 95]
    assert len(curve.drawn()) < 61
    assert mass_curve("M", [torch.zeros(2, 5)]).count_for(0.5) == 0


def test_labels_are_classes_which_the_network_may_lack(method: DualView, inputs: torch.Tensor, tmp_path: Path) -> None:
    for labels in ([-1] * N_SHOWN, [0.9] * N_SHOWN, ["a"] * N_SHOWN):
        with pytest.raises(DualViewError, match="test_labels of write_report must be"):
            plain_page(method, inputs, tmp_path, test_labels=labels)
    names = [f"name {label}" for label in range(5)]
    text = plain_page(method, inputs, tmp_path, test_labels=[7] * N_SHOWN, class_names=names)
    assert len(re.findall(r"<dd[^>]*>7\b", text)) == N_SHOWN


def test_methods_without_a_surrogate_speak_of_none(method: DualView, inputs: torch.Tensor, tmp_path: Path) -> None:
    similarity = GradientSimilarity(method.model, "fc", method.train_dataset, show_progress=False)
    assert "surrogate" not in plain_page(similarity, inputs, tmp_path).split("Test points</h2>")[1]
    assert "raise the surrogate's output" in plain_page(method, inputs, tmp_path)


def test_images_in_bfloat16_are_shown(method: DualView, inputs: torch.Tensor, tmp_path: Path) -> None:
    assert plain_page(method, inputs.bfloat16(), tmp_path).count("data:image") > N_SHOWN


def test_names_that_are_no_text_are_escaped_and_a_page_is_written_whole(
    method: DualView, inputs: torch.Tensor, tmp_path: Path
) -> None:
    train_ids = [f"file-\udcff-{i}" for i in range(53)]
    assert "file-\\udcff-" in plain_page(method, inputs, tmp_path, train_ids=train_ids)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_confidence_of_a_network_behind_a_softmax_is_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(20, 4), torch.arange(20) % 3)
    network = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    x = data.tensors[0][:3]
    text = plain_page(DualView(network, "0", data, C=0.1, show_progress=False), x, tmp_path)
    shown = [float(value) for value in re.findall(r'data-confidence="([^"]+)"', text)]
    assert shown == pytest.approx(network(x).max(1).values.tolist(), abs=6e-4)
