"""Twitter's own shapes: one row per tweet, the whole text, ids as text."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewren.archive import lines
from edgewren.archive import run as archive_run
from edgewren.archive.json_records import ends_early
from edgewren.archive.readers import open_table, resolve_format
from edgewren.archive.run import score_archive
from edgewren.errors import InputError

LONG = "a text of more than 140 characters " * 5
V1 = {
    "created_at": "Wed Oct 10 20:19:24 +0000 2018",
    "id": 1050118621198921728,
    "id_str": "1050118621198921728",
    "full_text": "good vote https://t.co/x",
    "user": {"id": 6253282, "id_str": "6253282", "screen_name": "api"},
    "lang": "en",
}
STREAMED = {**V1, "id": 3, "id_str": "3", "text": "cut…", "extended_tweet": {"full_text": LONG}}
del STREAMED["full_text"]
RETWEET = {**V1, "id": 4, "id_str": "4", "full_text": "RT @a: cut…", "retweeted_status": STREAMED}
QUOTE = {**V1, "id": 5, "id_str": "5", "quoted_status_id_str": "99"}
REPLY = {**V1, "id": 6, "id_str": "6", "in_reply_to_status_id": 98, "in_reply_to_status_id_str": "98"}
V2 = [
    {"id": "11", "text": "cut…", "note_tweet": {"text": LONG}, "author_id": "7", "created_at": "2023-01-01T00:00:00Z"},
    {"id": "12", "text": "RT @b: cut…", "author_id": "8", "referenced_tweets": [{"type": "retweeted", "id": "13"}]},
    {"id": "14", "text": "yes", "author_id": "9", "referenced_tweets": [{"type": "replied_to", "id": "15"}]},
]
PAGE = {
    "data": V2,
    "includes": {
        "users": [{"id": "7", "username": "seven"}, {"id": "8", "username": "eight"}],
        "tweets": [{"id": "13", "text": "the original, whole"}],
    },
    "meta": {"result_count": 3, "newest_id": "14"},
}
EMPTY_PAGE = {"meta": {"result_count": 0}}


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def tweets_js(*records: object, indent: int | None = 2) -> str:
    return "window.YTD.tweets.part0 = " + json.dumps([{"tweet": record} for record in records], indent=indent)


def rows(path: Path, **options):
    with open_table(path, **options) as table:
        return list(table)


SHAPES = {
    "v1.jsonl": jsonl(V1, STREAMED, RETWEET),
    "v2-pages.jsonl": jsonl(PAGE, EMPTY_PAGE, PAGE),
    "v2-flat.jsonl": jsonl(*({**tweet, "edit_history_tweet_ids": [tweet["id"]]} for tweet in V2)),
    "v2-page.json": json.dumps(PAGE, indent=1),
    "v2-one.json": json.dumps({"data": V2[0]}),
    "v2-spread-pages.json": "\n".join(json.dumps(page, indent=2) for page in (PAGE, EMPTY_PAGE, PAGE, PAGE)) + "\n",
    "v1-spread.json": "".join(json.dumps(tweet, indent=2) for tweet in (V1, RETWEET, QUOTE)),
    "tweets.js": tweets_js(V1, RETWEET, QUOTE),
    "tweets-compact.js": tweets_js(V1, RETWEET, indent=None) + ";\n",
    "array.json": json.dumps([V1, QUOTE]),
}


def test_notices_and_torn_lines_do_not_hide_tweets(tmp_path):
    odd = [
        '{"id_str": "1", "text"',
        '{"delete": {"status": {"id": 1}}}',
        '{"label": null, "status": "rejected:no tweet"}',
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*odd, json.dumps(V1), ""]), encoding="utf-8")
    assert resolve_format(path, None) == "twitter"
    path.write_text("\n".join([*odd, '{"text": "a plain row"}', json.dumps(V1), ""]), encoding="utf-8")
    assert resolve_format(path, None) == "jsonl"
    path.write_text("\n".join([*odd, ""]), encoding="utf-8")
    assert resolve_format(path, None) == "jsonl"


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_is_recognised_by_looking(tmp_path, name):
    assert resolve_format(write(tmp_path, name, SHAPES[name]), None) == "twitter"


@pytest.mark.parametrize(
    "text",
    [
        jsonl({"id": 1, "text": "x"}),
        jsonl({"text": "x", "created_at": "2020", "user": "me"}),
        jsonl({"data": [1, 2], "text": "x"}),
        "text,id\nx,1\n",
    ],
)
def test_other_files_are_not_taken_for_tweets(tmp_path, text):
    assert resolve_format(write(tmp_path, "a.jsonl", text), None) == "jsonl"


def test_the_whole_text_is_found_in_v1(tmp_path):
    found = rows(write(tmp_path, "a.jsonl", jsonl(V1, STREAMED, RETWEET, QUOTE, REPLY)))
    assert [row.get("text") for row in found] == [V1["full_text"], LONG, LONG, V1["full_text"], V1["full_text"]]
    assert [row.get("kind") for row in found] == ["tweet", "tweet", "retweet", "quote", "reply"]
    assert [row.get("reference_id") for row in found] == [None, None, "3", "99", "98"]
    assert found[0].get("id") == "1050118621198921728"
    assert (found[0].get("author_id"), found[0].get("author"), found[0].get("language")) == ("6253282", "api", "en")


def test_the_whole_text_is_found_in_v2(tmp_path):
    found = rows(write(tmp_path, "a.jsonl", jsonl(PAGE, EMPTY_PAGE)))
    assert [row.get("text") for row in found] == [LONG, "the original, whole", "yes"]
    assert [row.get("author") for row in found] == ["seven", "eight", None]
    assert [row.get("kind") for row in found] == ["tweet", "retweet", "reply"]
    assert [row.get("id") for row in found] == ["11", "12", "14"]
    assert [row.number for row in found] == [1, 2, 3]


def test_keys_that_are_null_are_none(tmp_path):
    odd = [
        {**V1, "full_text": None, "text": "own", "extended_tweet": None, "retweeted_status": None},
        {**V1, "full_text": None, "text": "RT @a: own", "retweeted_status": {"id_str": "9"}},
        {**V1, "retweeted_status": {}},
        {**V1, "id_str": None},
    ]
    found = rows(write(tmp_path, "a.jsonl", jsonl(V1, *odd)))
    assert [row.error for row in found] == [None] * 5
    assert [row.get("text") for row in found[1:]] == ["own", "RT @a: own", V1["full_text"], V1["full_text"]]
    assert [row.get("kind") for row in found[1:]] == ["tweet", "retweet", "tweet", "tweet"]
    assert {row.get("id") for row in found} == {V1["id_str"]}


def test_pages_without_tweets_end_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("edgewren.archive.formats.twitter.BLOCK_CHARACTERS", 1000)
    empty = {"data": [], "meta": {"result_count": 0}}
    path = write(tmp_path, "a.jsonl", jsonl(PAGE, *[EMPTY_PAGE] * 200, *[empty] * 200, PAGE, EMPTY_PAGE))
    found = rows(path)
    assert [row.get("id") for row in found] == ["11", "12", "14"] * 2
    assert [row.error for row in found] == [None] * 6


def test_ids_without_text_form_keep_all_digits(tmp_path):
    tweet = {key: value for key, value in V1.items() if key != "id_str"}
    (row,) = rows(write(tmp_path, "a.jsonl", jsonl(tweet)))
    assert row.get("id") == "1050118621198921728"
    assert type(row.get("id")) is str


@pytest.mark.parametrize("chunk", [1, 7, 1 << 17])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_read_alike_in_chunks_of_any_size(tmp_path, name, chunk, monkeypatch):
    path = write(tmp_path, name, SHAPES[name])
    expected = [row.fields for row in rows(path)]
    assert expected
    monkeypatch.setattr(lines, "_CHUNK_BYTES", chunk)
    assert [row.fields for row in rows(path, format="twitter")] == expected


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_goes_on_from_any_position(tmp_path, name):
    path = write(tmp_path, name, SHAPES[name])
    whole = rows(path)
    for already in range(1, len(whole)):
        with open_table(path) as table:
            read = 0
            while read < already:
                read += len(table.read(1))
            position = json.loads(json.dumps(table.position))
        with open_table(path, format="twitter", position=position) as table:
            assert [row.fields for row in table] == [row.fields for row in whole[read:]]


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_goes_on_from_its_end(tmp_path, name):
    path = write(tmp_path, name, SHAPES[name])
    with open_table(path) as table:
        while table.read(100):
            position = json.loads(json.dumps(table.position))
        seen = table.seen()
    with open_table(path, format="twitter", position=position) as table:
        assert (table.read(100), table.seen()) == (None, seen)


def test_a_run_goes_on_where_a_window_was_full_at_an_arrays_end(tmp_path, classifier, monkeypatch):
    monkeypatch.setattr(archive_run, "WINDOW_CHARACTERS", 1)
    path = write(tmp_path, "tweets.js", tweets_js(*[V1] * 9))
    output = tmp_path / "o.jsonl"
    expected = score_archive(classifier, [path], tmp_path / "whole.jsonl", window=5)
    with pytest.raises(KeyboardInterrupt):
        score_archive(classifier, [path], output, window=5, progress=_interrupt_at_9)
    assert score_archive(classifier, [path], output, window=5, resume=True).rows == expected.rows
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def _interrupt_at_9(rows: int, _bytes: int) -> None:
    if rows == 9:
        raise KeyboardInterrupt


def test_jsonl_output_keeps_a_tweets_own_bytes(tmp_path, classifier):
    line = '{"id_str":"1","id":1050118621198921728,"full_text":"caf\\u00e9 good","x":1.50}'
    score_archive(classifier, [write(tmp_path, "a.jsonl", line + "\n")], tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_text().startswith(line[:-1] + ', "label": ')


def test_archive_elements_become_one_line_each(tmp_path, classifier):
    score_archive(classifier, [write(tmp_path, "tweets.js", SHAPES["tweets.js"])], tmp_path / "o.jsonl")
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [record["tweet"] for record in found] == [V1, RETWEET, QUOTE]
    assert [record["status"] for record in found] == ["ok", "truncated", "ok"]


def test_page_tweets_are_written_with_their_author(tmp_path, classifier):
    report = score_archive(classifier, [write(tmp_path, "p.json", SHAPES["v2-page.json"])], tmp_path / "o.jsonl")
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert report.rows == 3
    assert [record.get("author") for record in found] == [
        {"id": "7", "username": "seven"},
        PAGE["includes"]["users"][1],
        None,
    ]
    assert {key: found[0][key] for key in V2[0]} == V2[0]


def test_tweets_to_csv_have_the_documented_columns(tmp_path, classifier):
    sources = [write(tmp_path, name, SHAPES[name]) for name in ("v1.jsonl", "v2-page.json", "tweets.js")]
    report = score_archive(classifier, sources, tmp_path / "o.csv")
    header, *found = csv.reader(io.StringIO((tmp_path / "o.csv").read_text(), newline=""))
    assert header[:8] == ["id", "created_at", "author_id", "author", "language", "kind", "reference_id", "text"]
    assert report.rows == len(found) == 9
    assert found[0][0] == "1050118621198921728"


def test_a_retweet_scores_as_its_original(tmp_path, classifier):
    source = write(tmp_path, "a.jsonl", jsonl(STREAMED, RETWEET))
    assert score_archive(classifier, [source], tmp_path / "o.jsonl").distinct == 1


def test_documents_spread_over_lines_follow_each_other(tmp_path):
    path = write(tmp_path, "a.json", json.dumps(PAGE, indent=2) + "\n" + json.dumps(PAGE, indent=4) + "\n" + jsonl(V1))
    found = rows(path)
    assert [row.get("id") for row in found] == ["11", "12", "14"] * 2 + [V1["id_str"]]
    assert [row.error for row in found] == [None] * 7
    pretty = json.dumps(PAGE, indent=2).count("\n") + 1
    assert [row.line for row in found] == [1] * 3 + [pretty + 1] * 3 + [2 * pretty + 1]


@pytest.mark.parametrize("torn", ['{"id_str": "1", "text": "abc', '{"id_str": "1",', '{"id_str": "1", "user": {', "{"])
def test_a_torn_line_takes_no_other_with_it(tmp_path, torn):
    found = rows(write(tmp_path, "a.jsonl", f"{jsonl(V1)}{torn}\n{jsonl(V1)}{json.dumps(PAGE, indent=2)}\n{torn}"))
    assert [row.error for row in found] == [None, "not valid JSON", *[None] * 4, "not valid JSON"]


def test_a_spread_document_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("edgewren.archive.lines.MAXIMUM_RECORD_CHARACTERS", 2000)
    monkeypatch.setattr("edgewren.archive.lines._CHUNK_BYTES", 100)
    long = {**PAGE, "data": [*PAGE["data"]] * 20}
    path = write(tmp_path, "a.json", json.dumps(EMPTY_PAGE, indent=2) + "\n" + json.dumps(long, indent=2))
    with pytest.raises(InputError, match=r"line \d+: a JSON document of more than 0 MiB begins here\. Split it"):
        rows(path)


@given(st.recursive(st.text() | st.integers(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=9))
def test_the_first_lines_of_a_value_end_early(value):
    lines = json.dumps(value, indent=1).split("\n")
    assert all(ends_early("\n".join(lines[:count]) + "\n") for count in range(1, len(lines)))
    assert not ends_early("\n".join(lines))
    assert not ends_early("{\n" + "\n".join([*lines, *lines]) + "\n")


def test_what_is_no_tweet_keeps_its_place(tmp_path):
    found = rows(write(tmp_path, "a.jsonl", jsonl(V1, {"delete": {"status": {"id": 1}}}, V1) + "oops\n"))
    assert [row.error for row in found] == [None, "no tweet, an object with 'delete'", None, "not valid JSON"]
    found = rows(write(tmp_path, "b.js", tweets_js(V1)[:-1] + ', 3, "x", {"tweet": {"id_str": "1"}}]'))
    assert [row.error for row in found] == [
        None,
        "a JSON number where a tweet is expected",
        "a JSON string where a tweet is expected",
        "text is missing, expected text",
    ]


@pytest.mark.parametrize("cut", [40, 200, -5, -1])
def test_a_tweets_js_that_breaks_off_is_refused(tmp_path, cut):
    with pytest.raises(InputError, match=r"cut short|not valid JSON"):
        rows(write(tmp_path, "tweets.js", SHAPES["tweets.js"][:cut]))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 17])
def test_what_follows_the_archives_array_is_refused(tmp_path, chunk, monkeypatch):
    monkeypatch.setattr(lines, "_CHUNK_BYTES", chunk)
    with pytest.raises(InputError, match="follows the end"):
        rows(write(tmp_path, "tweets.js", SHAPES["tweets.js"] + "\nwindow.more = 1"))


def test_format_overrides_looking(tmp_path):
    (row,) = rows(write(tmp_path, "a.jsonl", jsonl({**V1, "text": "plain"})), format="jsonl")
    assert row.get("text") == "plain"
