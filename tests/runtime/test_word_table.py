"""The table answers as a dictionary would, whatever is added and however crowded it is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgewren.word_table import LONGEST, MOST_WORDS, WordTable, _places


def look_up(table: WordTable, words: list[bytes]) -> list[list[int] | None]:
    lengths = np.array([len(word) for word in words], dtype=np.intp)
    data = b"".join(words) + bytes(16)
    first, count, unknown = table.find(data, np.cumsum(lengths) - lengths, lengths)
    found = [table.values[start : start + n].tolist() for start, n in zip(first.tolist(), count.tolist(), strict=True)]
    return [None if index in set(unknown.tolist()) else ids for index, ids in enumerate(found)]


words = st.binary(min_size=1, max_size=LONGEST + 4).filter(lambda word: 0 not in word)


@given(st.dictionaries(words, st.lists(st.integers(0, 30_000), max_size=4), max_size=30), st.lists(words, max_size=30))
def test_it_answers_as_a_dictionary_of_words_that_fit(known, others):
    table = WordTable()
    half = len(known) // 2
    for part in (list(known)[:half], list(known)[half:]):
        table.add(part, [known[word] for word in part])
    asked = [*known, *others, *known]
    if asked:
        assert look_up(table, asked) == [known.get(word) if len(word) <= LONGEST else None for word in asked]


def test_words_that_want_one_place_find_others_and_what_finds_none_is_not_known():
    keys = np.arange(1, 3_000_000, dtype=np.uint64)
    alike = [int(key).to_bytes(8, "little").rstrip(b"\0") for key in keys[_places(keys) == 7]]
    crowd = [word for word in alike if 0 not in word][:12]
    assert len(crowd) == 12
    table = WordTable()
    table.add(crowd, [[number] for number in range(12)])
    answers = look_up(table, crowd)
    assert sorted(answer is None for answer in answers) == [False] * 8 + [True] * 4
    assert all(answer in (None, [number]) for number, answer in enumerate(answers))


def test_a_full_table_begins_anew():
    table = WordTable()
    table.add([b"old"], [[1]])
    table.add([b"%d" % number for number in range(MOST_WORDS)], [[number] for number in range(MOST_WORDS)])
    assert look_up(table, [b"old", b"5"]) == [None, [5]]
    table.add([b"new"], [[2, 3]])
    assert look_up(table, [b"5", b"new"]) == [None, [2, 3]]
    assert len(table.values) == 2
