"""Figures of a report hold the user's own names."""

import pytest

from tasks.charts import draw_by_step
from tasks.class_charts import draw_confusion
from tasks.report import to_data_uri


@pytest.mark.parametrize("name", ["cost_$_and_$_tax", "a$^$", "$_$"])
def test_dollar_signs_in_names_are_drawn_as_they_are(name):
    for figure in (draw_by_step({"new model": [1.0, 2.0]}, name), draw_confusion([[3, 1], [0, 2]], (name, "other"))):
        assert to_data_uri(figure).startswith("data:image/png;base64,")
