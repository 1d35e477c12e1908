"""Results, runs and sensitivities show themselves in a notebook, with the numbers that they hold."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import underfire as uf
from underfire import display
from underfire.certificates.certificate import Certificate
from underfire.testing import smooth_classifier


@pytest.fixture(scope="module")
def attacked() -> uf.AttackResult:
    clf = smooth_classifier(dtype=torch.float32)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return uf.ADV2(uf.CAM(clf), steps=6)(x, torch.tensor([1, 2]), keys=["<b>one", "two"])


def test_a_result_shows_its_figures_and_escapes_names(attacked: uf.AttackResult) -> None:
    html = attacked._repr_html_()
    assert "<b>one" not in html
    assert "&lt;b&gt;one" in html
    assert html.count("<tr>") == 3
    assert f"ε = 8/255, goal target/kept: the label on {int(attacked.success.sum())} of 2 images" in html
    assert f"label and map (τ = 0.5) on {int(attacked.met().sum())}<" in html
    assert 'src="data:image/jpeg;base64,' in html


def test_a_result_is_drawn_image_by_image(attacked: uf.AttackResult) -> None:
    axes = attacked.plot(limit=1).axes
    assert len(axes) == 5  # before, after, the change, the map wanted and the map shown
    shown = [np.asarray(place.images[0].get_array()) for place in axes]
    assert np.array_equal(shown[4], attacked.maps["cam"][0].numpy())
    assert abs(shown[2] - 0.5).max() == pytest.approx(0.5)


def test_no_image_is_shown_as_none(attacked: uf.AttackResult) -> None:
    clf = smooth_classifier(dtype=torch.float32)
    empty = uf.PGD(clf, steps=1)(attacked.x[:0], attacked.target[:0])
    assert "0 of 0 images" in empty._repr_html_()
    assert "data:image" not in empty._repr_html_()


def test_the_security_curve_counts_the_images_met_by_each_change() -> None:
    clf = smooth_classifier(dtype=torch.float32)
    x = (torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    found = uf.MinimumNorm(uf.CAM(clf), passes=20)(x, (clf(x).argmax(dim=1) + 1) % clf.num_classes)
    (axes,) = found.plot().axes
    (line,) = axes.lines
    for e, share in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True):
        assert e == 255 * found.eps.min() or share == pytest.approx(float((255 * found.eps <= e).double().mean()))
    assert f"met on {int(found.found.sum())} of 3 images" in found._repr_html_()


def test_a_sensitivity_shows_both_figures() -> None:
    clf = smooth_classifier(dtype=torch.float32)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = uf.sensitivity(uf.CAM(clf), x, clf(x).argmax(dim=1), passes=20)
    for value in (*found.sampled.tolist(), *found.attacked.tolist()):
        assert f"<td>{value:.3g}</td>" in found._repr_html_()
    assert len(found.plot().axes) == 1


def _certificate(*counts: int, keys: tuple[str, ...]) -> Certificate:
    wrong = torch.tensor(counts, dtype=torch.int64)
    met = {"other/free": wrong, "other/kept": wrong // 2}
    return Certificate("cam", keys, 0.12, 100, 0.01, (0.2, 0.0, 0.1), 0.5, 0.25, met)


def test_a_certificate_shows_counts_radii_and_what_abstains() -> None:
    found = _certificate(20, 2, 90, keys=("<b>one", "two", "three"))
    html = found._repr_html_()
    assert "<b>one" not in html
    assert html.count("<tr>") == 7
    assert "1 of 3 photos abstains, 1 more is censored" in html
    for goal in found.goals:
        for place in range(3):
            cells = [str(int(found.counts[goal][place]))]
            cells += [f"{float(found.radius(goal, queries=k)[place]):.3g}" for k in (1, 10, 100)]
            assert f"<td>{goal}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) in html
    assert f"longer than {found.cap():.3g}." in html
    assert 'src="data:image/jpeg;base64,' in html


def test_a_certificate_is_drawn_by_goal_over_growing_radii() -> None:
    found = _certificate(20, 2, 90, keys=("one", "two", "three"))
    (axes,) = found.plot().axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(found.goals)  # type: ignore[union-attr]
    assert len(axes.lines) == 2 * 4
    means = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    for goal, line in zip(found.goals, means, strict=True):
        assert list(np.asarray(line.get_xdata())) == [0.0, 0.1, 0.2]
        mean = [float(found.rate[goal][:, place].mean()) for place in (1, 2, 0)]
        assert list(np.asarray(line.get_ydata())) == pytest.approx(mean)
        assert mean == sorted(mean)


def test_a_certificate_of_one_photo_has_one_line_for_each_goal_and_of_none_no_plot() -> None:
    (axes,) = _certificate(20, keys=("one",)).plot().axes
    assert len(axes.lines) == 2
    none = _certificate(keys=())
    assert none.plot().axes[0].get_legend() is None
    assert "0 of 0 photos abstain" in none._repr_html_()
    assert "data:image" not in none._repr_html_()


def test_long_tables_are_cut_and_say_so() -> None:
    html = display.table("many", [{"n": n} for n in range(display.ROWS + 3)])
    assert html.count("<tr>") == display.ROWS + 1
    assert "3 more rows" in html


class _Handle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> _Handle:
    """A process that looks like the kernel of a notebook, and what it was asked to show."""
    handle, ipython, shows = _Handle(), ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    shows.HTML, shows.display = str, lambda _html, display_id: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shows)
    return handle


def test_an_audit_in_a_notebook_has_a_bar(notebook: _Handle, tmp_path: Path) -> None:
    assert display.in_notebook()
    clf = smooth_classifier(dtype=torch.float32)
    run = uf.audit(clf, interpreters=["cam"], out=tmp_path / "run", steps=2, limit=2)
    assert 'value="1.0000"' in notebook.shown[-1]
    assert repr(run) == f"AuditRun(path={run.path!r})"  # and none of the thousands of facts that it holds
    html = run._repr_html_()
    (headline,) = run.summary.headlines
    assert f"<td>{headline.kept.k} of {headline.kept.n}</td>" in html
    assert [tick.get_text() for tick in run.plot().axes[0].get_yticklabels()] == ["cam"]


def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert not display.in_notebook()
