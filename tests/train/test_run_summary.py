"""What a run tells people of its rows."""

from __future__ import annotations

import numpy as np

from edgewren_train.run_summary import tell_copies
from edgewren_train.together import Together


def test_copies_of_another_group_than_the_first_are_counted_row_by_row():
    told: list[str] = []
    tell_copies(Together(np.array([0, 1, 0, 0, 0, 5]), np.array([7, 7, 7, 8, 8, 8])), told.append)
    (note,) = told
    assert "note: 3 of 6 rows repeat" in note
    assert "(2 of them are of another group than the first)" in note
