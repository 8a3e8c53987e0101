"""The picture of a confusion matrix, from 2 to 100 classes."""

from __future__ import annotations

import struct
import sys
import warnings

import pytest

from edgewren.errors import OutputError
from edgewren.heatmap import draw

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("classes", [2, 9, 30, 31, 100])
@pytest.mark.slow
def test_any_number_of_classes_is_drawn(tmp_path, classes):
    confusion = [[row * column % 7 for column in range(classes)] for row in range(classes)]
    labels = [f"$class_{'x' * number}$" for number in range(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(confusion, labels, tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert 400 < width < 5000
    assert 400 < height < 5000


def test_pyplot_is_not_touched(tmp_path):
    sys.modules.pop("matplotlib.pyplot", None)
    draw([[1, 0], [0, 1]], ["a", "b"], tmp_path / "a.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        draw([[1, 0], [0, 1]], ["a", "b"], tmp_path / "none" / "a.png")
