"""Names in a picture stand clear of each other and of the points."""

from itertools import combinations

import numpy as np
import pytest

from nlp_transfer.publishing.drawing import new_figure, write_names


@pytest.mark.parametrize("is_settled", [True, False])
def test_names_of_neighbors_stand_clear_of_each_other_and_of_the_points(is_settled):
    points = [("layerwise", 10.0, 0.80), ("full", 11.5, 0.84), ("lora", 14.0, 0.79), ("features", 9.0, 0.79)]
    with new_figure(500, 290) as figure:
        axes = figure.subplots()
        if is_settled:
            axes.set_xlim(0, 20)
            axes.set_ylim(0, 1)
        else:
            axes.plot([point[1] for point in points], [point[2] for point in points])
            axes.margins(x=0.08, y=0.15)
        write_names(axes, points)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
        spots = axes.transData.transform(np.array([point[1:] for point in points]))
        assert sorted(text.get_text() for text in axes.texts) == ["features", "full", "layerwise", "lora"]
        assert not any(
            one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1
            for one, other in combinations(boxes, 2)
        )
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
        # Half of a mark is three points wide.
        assert not any(box.padded(3).contains(*spot) for box in boxes for spot in spots)
