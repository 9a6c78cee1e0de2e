"""Draw what an evaluation measured as PNG files: curves of precision and recall, and which class is taken for which."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3.evaluation import RECALLS, SCORES, Scores
from yolov3.files import whole_file

import numpy as np

if TYPE_CHECKING:  # loaded where something is drawn
    from matplotlib.figure import Figure

CURVES = 20  # classes with a line of their own: ten colours, two styles; of more classes, the best and the worst few
BEST_AND_WORST = 5
MOST_CLASSES = 30  # in a confusion matrix; of more, those with most boxes
DPI = 120


@contextmanager
def figure_file(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """Give an empty figure of so many inches to draw on, and write it as a PNG if all went well."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    with whole_file(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the font lacks some scripts
        figure.savefig(part, format="png", dpi=DPI)


def draw_curves(path: Path, scores: Scores) -> None:
    """Draw precision over recall at IoU 0.5: a line for each class, and their mean."""
    with figure_file(path, 9, 6) as figure:
        axes = figure.subplots()
        ranked, shown = _ranked(scores)
        for rank, i in enumerate(shown):
            axes.plot(RECALLS, scores.curves[i], label=_label_of(scores.classes[i]), **_look(rank))
        if ranked:
            label = _label(scores.AP50, f"mean of {len(ranked)} classes")
            axes.plot(RECALLS, scores.curves[ranked].mean(0), "black", linewidth=3, label=label)
            _add_legend(figure, "AP50", len(ranked) - len(shown))
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
        axes.set_title("Precision and recall at IoU 0.5")
        axes.grid(alpha=0.3)


def draw_by_score(path: Path, scores: Scores) -> None:
    """Draw F1, precision and recall over the score threshold at IoU 0.5: a line for each class, and their mean."""
    with figure_file(path, 16, 5.2) as figure:
        panels = figure.subplots(1, 3, sharey=True)
        ranked, shown = _ranked(scores)
        precision, recall = scores.by_score[:, 0], scores.by_score[:, 1]
        curves = {"F1": f1(precision, recall), "precision": precision, "recall": recall}
        for axes, (title, of_class) in zip(panels, curves.items(), strict=True):
            for rank, i in enumerate(shown):
                label = _label_of(scores.classes[i]) if title == "F1" else None
                axes.plot(SCORES, of_class[i], label=label, **_look(rank))
            if ranked:
                mean = np.ma.masked_invalid(of_class[ranked]).mean(0)
                axes.plot(SCORES, mean, "black", linewidth=3, label="mean" if title == "F1" else None)
            axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="score threshold")
            axes.set_title(title)
            axes.grid(alpha=0.3)
        if ranked:
            mean = f1(precision, recall)[ranked].mean(0)
            best = int(mean.argmax())
            panels[0].axvline(SCORES[best], color="grey", linestyle=":")
            panels[0].set_title(f"F1: best mean {mean[best]:.2f} at a score of {SCORES[best]:.2f}")
            _add_legend(figure, "AP50", len(ranked) - len(shown))


def f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of precision and recall, 0 where nothing is found."""
    both = precision + recall
    return np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1), 0.0)


def draw_confusion(path: Path, matrix: np.ndarray, names: Sequence[str], score_threshold: float) -> None:
    """Draw a confusion matrix: counts, and as colours the shares of the boxes of each class."""
    shown = np.sort(np.argsort(-matrix[:-1].sum(1), kind="stable")[:MOST_CLASSES])
    left_out = len(names) - len(shown)
    cells = matrix[np.ix_([*shown, len(names)], [*shown, len(names)])]
    rows = [*(names[i] for i in shown), "nothing there"]
    columns = [*(names[i] for i in shown), "not found"]
    side = 3.5 + 0.45 * len(rows)
    with figure_file(path, max(5.5, side + 1), max(4.5, side)) as figure:
        axes = figure.subplots()
        shares = cells / np.maximum(cells.sum(1, keepdims=True), 1)
        shares[-1] = 0  # nobody counts the places without an object, so shares of that row mean nothing
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (y, x), count in np.ndenumerate(cells):
            if count:
                colour = "white" if shares[y, x] > 0.5 else "black"
                axes.text(x, y, str(count), ha="center", va="center", color=colour, fontsize=10 if count < 1000 else 8)
        axes.set_xticks(range(len(columns)), [_short(name) for name in columns], rotation=45, ha="right")
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)  # a class may be named $
        axes.set(xlabel="found as", ylabel="annotated as")
        more = f"; {left_out} classes with fewer boxes not shown" if left_out else ""
        axes.set_title(f"Boxes, IoU 0.5, scores over {score_threshold:g}{more}", fontsize="medium", wrap=True)
        figure.colorbar(image, label="share of the boxes of a class", shrink=0.7, aspect=30)


def _ranked(scores):
    """Return the classes with boxes, by AP50, and those of them to draw."""
    ranked = sorted((i for i, x in enumerate(scores.classes) if x.boxes), key=lambda i: -scores.classes[i].AP50)
    return ranked, ranked if len(ranked) <= CURVES else ranked[:BEST_AND_WORST] + ranked[-BEST_AND_WORST:]


def _look(rank) -> dict[str, Any]:
    return {"linestyle": ("-", "--")[rank // 10], "color": f"C{rank % 10}", "linewidth": 1}


def _label_of(row):
    return _label(row.AP50, row.name)


def _label(AP50, name):
    return f"{100 * AP50:5.1f} {name:.24}"


def _short(name):
    return name if len(name) <= 24 else f"{name[:23]}…"


def _add_legend(figure, title, left_out):
    title = f"{title}, best and worst (not shown: {left_out})" if left_out else title
    look = {"family": "monospace", "size": "small"}
    legend = figure.legend(loc="outside right upper", title=title, alignment="left", frameon=False, prop=look)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may be named $
