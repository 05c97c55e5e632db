"""A search as one HTML page: its course, what mattered, every trial. No scripts, nothing from outside."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from nlp_transfer.evidence.tune.runner import describe_changes
from nlp_transfer.evidence.tune.study import Tried
from nlp_transfer.figures import format_number
from nlp_transfer.publishing.drawing import (
    BLUE,
    GREEN,
    MUTED,
    RED,
    SOFT,
    WIDTH,
    new_figure,
    place,
    tidy_bars,
    write_above,
    write_heading,
    write_svg,
)
from nlp_transfer.publishing.views import make_templates
from nlp_transfer.recipe.load import recipe_to_yaml
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, Recipe

__all__ = ["draw_history", "draw_importance", "render_tuning"]

WIDE = 1.35 * WIDTH


def render_tuning(
    trials: Sequence[Tried],
    recipe: Recipe,
    *,
    best: Tried,
    best_recipe: Recipe,
    verdict: str,
    importance: Mapping[str, float],
    notes: Sequence[str] = (),
    is_page: bool = True,
) -> str:
    """Write a search as a page or as a fragment.

    Args:
        trials: The best first; those without a figure last.
        recipe: The recipe as it stood.
        best: The trial that validation chose.
        best_recipe: The recipe with its values.
        verdict: Whether the search was worth it, a sentence without a capital and a full stop.
        importance: Key to its share of the differences between trials.
        notes: What else is to be said.
        is_page: Whether it is a whole HTML file.

    Returns:
        HTML in which everything that comes from data or recipe is escaped.
    """
    metric = str(recipe.training.select_by)
    rows = [
        {
            "name": each.index,
            "value": each.state if each.value is None else format_number(each.value),
            "seconds": f"{each.seconds:.0f}",
            "what": describe_changes(each, recipe),
            "is_best": each.index == best.index,
        }
        for each in trials
    ]
    course = draw_history(trials, metric, best=best)
    pictures = [
        (course, "Every trial in its turn; the line is the best so far, dashed the recipe."),
        (draw_importance(importance), "Share of the differences between complete trials; few trials say little."),
    ]
    return (
        make_templates("nlp_transfer.publishing")
        .get_template("tuning.html.j2")
        .render(
            is_page=is_page,
            metric=metric,
            verdict=f"{verdict[0].upper()}{verdict[1:]}.",
            notes=notes,
            pictures=[(Markup(svg), caption) for svg, caption in pictures if svg],
            rows=rows,
            best=recipe_to_yaml(best_recipe),
        )
    )


def draw_history(trials: Sequence[Tried], metric: str, *, best: Tried) -> str:
    """Draw the validation figure of every trial, and the best so far.

    Args:
        trials: In any order; the one with index 0 is the recipe as it stood.
        metric: The figure.
        best: The trial that validation chose.

    Returns:
        One ``<svg>`` element; empty where no trial has a figure.
    """
    trials = sorted(trials, key=lambda each: each.index)
    done = [(each.index, each.value) for each in trials if each.value is not None]
    given_up = [(each.index, each.evaluations[-1][1]) for each in trials if each.state == "pruned" and each.evaluations]
    if not done:
        return ""
    places, values = (np.array(each, dtype=float) for each in zip(*done, strict=True))
    reached = (np.minimum if metric in LOWER_IS_BETTER else np.maximum).accumulate(values)
    with new_figure(WIDE, 220) as figure:
        axes = figure.subplots()
        place(figure, left=44, right=14, bottom=38, top=26)
        axes.step(places, reached, where="post", color=BLUE, linewidth=1.8)
        axes.scatter(places, values, color=BLUE, s=18, zorder=3)
        if given_up:
            at, last = zip(*given_up, strict=True)
            axes.scatter(at, last, facecolors="none", edgecolors=RED, s=18, zorder=3)
        if trials[0].value is not None:
            axes.axhline(trials[0].value, color=SOFT, linewidth=1.2, linestyle=(0, (3, 2)))
        axes.scatter([best.index], [best.value or 0.0], color=GREEN, s=46, zorder=4)
        axes.grid(visible=True, axis="y", linewidth=0.8)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("Trial" + (" (hollow: given up early)" if given_up else ""))
        write_heading(axes, f"{metric} on validation")
        return write_svg(figure, f"{metric} of every trial")


def draw_importance(importance: Mapping[str, float]) -> str:
    """Draw how much of the differences between trials each key explains.

    Args:
        importance: Key to its share, largest first.

    Returns:
        One ``<svg>`` element; empty where that cannot be told.
    """
    found = list(importance.items())
    if not found:
        return ""
    with new_figure(WIDE, 48 + 34 * len(found)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=18, bottom=34, top=10)
        axes.barh(np.arange(len(found)) + 0.18, [share for _, share in found], height=0.24, color=BLUE, linewidth=0)
        for position, (key, share) in enumerate(found):
            write_above(axes, position + 0.07, key, f"{share:.0%}")
        tidy_bars(axes, len(found))
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.xaxis.label.set_color(MUTED)
        axes.set_xlabel("Share of the differences explained")
        return write_svg(figure, "Importance of every key")
