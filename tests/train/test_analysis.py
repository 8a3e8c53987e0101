"""Error analysis: it finds the mistakes, the doubtful labels and the repeated texts that were put there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgewren.errors import UsageError
from edgewren_train.analysis import Judged, analyse, label_suspects, slices
from edgewren_train.duplicates import across, copies, normalised, within


def judged(scores, given, *, texts=None, columns=None, labels=("calm", "angry"), truncated=None):
    count = len(given)
    return Judged(
        source="test",
        labels=labels,
        texts=tuple(texts or (f"text number {'x' * i}" for i in range(count))),
        given=tuple(given),
        rows=tuple(range(1, count + 1)),
        scores=np.array(scores, dtype=np.float64),
        truncated=np.zeros(count, bool) if truncated is None else np.array(truncated),
        columns=columns or {},
    )


def test_most_confident_mistakes_come_first_and_right_rows_never():
    scores = [[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.95, 0.05]]
    analysis = analyse(judged(scores, ["angry", "angry", "angry", "calm"]))
    assert analysis.mistakes == 2
    assert [(row.row, row.score_predicted) for row in analysis.confident_mistakes] == [(1, 0.9), (3, 0.55)]
    assert analysis.confident_mistakes[0].score_label == pytest.approx(0.1)
    assert analysis.confident_mistakes[0].label == "angry"


def test_flipped_labels_are_found_among_many_right_ones():
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 600)
    scores = draw.dirichlet([0.4] * 3, 600)
    scores[np.arange(600), true] += 2
    scores /= scores.sum(axis=1, keepdims=True)
    given = true.copy()
    flipped = draw.choice(600, 30, replace=False)
    given[flipped] = (given[flipped] + 1) % 3
    suspects = label_suspects(scores, given)
    assert set(suspects) <= set(flipped), "no right label is disputed by scores that are sure of it"
    assert len(suspects) >= 15, "those of whom the scores are at least averagely sure"
    margins = [scores[row].max() - scores[row, given[row]] for row in suspects]
    assert margins == sorted(margins, reverse=True)


def test_unsure_scores_dispute_no_label():
    assert label_suspects(np.full((10, 2), 0.5), np.array([0, 1] * 5)).tolist() == []


def test_slices_count_every_row_once_per_kind():
    texts = ["short", "x" * 60, "x" * 120, "x" * 300]
    given = ["calm", "angry", "calm", "angry"]
    scores = [[0.9, 0.1], [0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]
    found = slices(
        judged(scores, given, texts=texts, columns={"source": list("aabb")}, truncated=[False, False, False, True])
    )
    by_kind = {}
    for part in found:
        by_kind.setdefault(part.name, {})[part.value] = (part.rows, part.share_right.value)
    assert by_kind["characters"] == {
        "0 to 49": (1, 1.0), "50 to 99": (1, 0.0), "100 to 149": (1, 1.0), "280 or more": (1, 1.0)
    }  # fmt: skip
    assert by_kind["truncated"] == {"yes": (1, 1.0), "no": (3, pytest.approx(2 / 3))}
    assert by_kind["source"] == {"a": (2, 0.5), "b": (2, 1.0)}
    one_class = next(part for part in found if part.value == "0 to 49")
    assert one_class.balanced_accuracy is None


def test_column_of_many_values_keeps_the_frequent_ones():
    values = [f"author {i}" for i in range(40)] + ["often"] * 60
    found = slices(judged([[0.6, 0.4]] * 100, ["calm", "angry"] * 50, columns={"author": values}))
    authors = [part for part in found if part.name == "author"]
    assert authors[0].value == "often"
    assert sum(part.rows for part in authors) == 100
    assert authors[-1].value == "29 other values"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Vote today! https://t.co/abc", "vote TODAY https://t.co/xyz"),
        ("@amy thanks for the tax &amp; spending bill", "@bob Thanks for the tax & spending bill."),
    ],
)
def test_copies_with_other_links_names_and_case_are_the_same(one, other):
    assert normalised(one) == normalised(other)
    assert [(pair.first, pair.second, pair.similarity) for pair in within([one, "elsewhere", other])] == [(0, 2, 1.0)]


def test_a_text_that_comes_a_thousand_times_is_no_million_pairs():
    """3,000 copies of one retweet were 4,498,500 pairs and 1.7 GB."""
    texts = ["Taxes are far too high", *(f"The same retweet is here today https://t.co/{n}" for n in range(1000))]
    texts.append("The same retweet is there today https://t.co/x")
    pairs = within(texts)
    assert [(pair.first, pair.second) for pair in pairs[:-1]] == [(1, place) for place in range(2, 1001)]
    assert (pairs[-1].first, pairs[-1].second) == (1, 1001)
    assert {(pair.first, pair.second) for pair in across(texts, [texts[5], texts[0]])} >= {(1, 0), (0, 1)}
    assert len(across(texts[1:1001], texts[1:1001])) == 1000


def test_copies_differ_in_links_alone():
    texts = [
        "Vote! https://t.co/a",
        "vote! https://t.co/b",
        "Vote!  https://t.co/c",
        "Vote! @amy",
        "Tax &amp; all",
        "Tax & all",
    ]
    assert copies(texts).tolist() == [0, 1, 0, 3, 4, 4]


def test_nearly_equal_texts_are_found_and_others_not():
    texts = [
        "The senate will vote on the farm bill this afternoon, watch it live",
        "The library opens at nine tomorrow, bring your children",
        "The senate will vote on the farm bill this evening, watch it live",
    ]
    (pair,) = within(texts)
    assert (pair.first, pair.second) == (0, 2)
    assert 0.6 <= pair.similarity < 1
    assert within(texts, threshold=0.99) == []


def test_leaks_between_two_files_are_found_with_their_places():
    train = ["Thanks to all who came out tonight", "Taxes are too high"]
    test = ["Something else entirely", "thanks to all who came out tonight!", "Taxes are too high"]
    assert [(pair.first, pair.second) for pair in across(train, test)] == [(0, 1), (1, 2)]


def test_texts_too_short_for_pieces_are_compared_whole():
    assert [(pair.first, pair.second) for pair in within(["a", "b", "A", "", "🔥", "🔥"])] == [(0, 2), (4, 5)]


def test_similarity_out_of_range_is_refused():
    with pytest.raises(UsageError, match=r"threshold is 0, expected above 0"):
        within(["a"], threshold=0)


def test_same_text_with_two_labels_is_a_conflict_and_survives_json():
    rows = judged([[0.9, 0.1]] * 3, ["calm", "angry", "calm"], texts=["Proud of our town", "proud of our town", "else"])
    analysis = analyse(rows, others=("test.csv", ["ELSE", "new"], ["angry", "calm"]))
    (pair,) = analysis.alike_within
    assert pair.conflicting
    (leak,) = analysis.alike_across
    assert (leak.row, leak.other_row, leak.conflicting) == (3, 1, True)
    document = analysis.as_dict()
    assert document["alike_within"][0]["conflicting"] is True
    assert dataclasses.asdict(pair)["similarity"] == 1.0
