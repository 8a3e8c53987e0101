"""What a tweet is in Twitter's own JSON: its whole text, its id as text, who and when. Knows no files.

Three shapes: API v1.1 (`full_text`, `extended_tweet`, `retweeted_status`), API v2 (`note_tweet`, `referenced_tweets`,
`includes`), and the personal archive's (v1.1 inside `{"tweet": …}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewren.archive.rows import Number, cell_text

COLUMNS = ("id", "created_at", "author_id", "author", "language", "kind", "reference_id", "text")
"""What every shape has, under one name each."""

Includes = Mapping[str, Mapping[str, dict[str, Any]]]
"""What a v2 page says beside its tweets: "users" and "tweets", each by id."""


def looks_like_tweet(record: Mapping[str, Any]) -> bool:
    """Return whether a JSON object can only be a tweet, not merely a row with a text."""
    if isinstance(record.get("tweet"), dict):
        record = record["tweet"]
    if not {"id", "id_str"} & record.keys():
        return False
    if "full_text" in record or "retweeted_status" in record or "extended_tweet" in record:
        return True
    if "text" not in record:
        return False
    version_1 = {"id_str", "created_at"} <= record.keys() and bool({"user", "entities"} & record.keys())
    version_2 = "edit_history_tweet_ids" in record or "note_tweet" in record or "public_metrics" in record
    return version_1 or version_2


def looks_like_page(record: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is an answer of API v2: tweets in `data`, or none at all and a count of 0."""
    data = record.get("data")
    if isinstance(data, dict):
        data = [data]
    if isinstance(data, list) and data:
        return all(isinstance(item, dict) for item in data) and {"id", "text"} <= data[0].keys()
    meta = record.get("meta")
    return not data and isinstance(meta, dict) and cell_text(meta.get("result_count")) == "0"


def page_tweets(page: Mapping[str, Any]) -> tuple[list[dict[str, Any]], Includes]:
    """Return the tweets of a v2 page, and what it says beside them."""
    data = page.get("data") or []
    includes = page.get("includes")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in ("users", "tweets"):
        items = includes.get(kind) if isinstance(includes, dict) else None
        found[kind] = (
            {cell_text(item.get("id")): item for item in items or [] if isinstance(item, dict)}
            if isinstance(items, list)
            else {}
        )
    return ([data] if isinstance(data, dict) else [item for item in data if isinstance(item, dict)]), found


def tweet_fields(record: Mapping[str, Any], includes: Includes | None = None) -> tuple[dict[str, Any], str | None]:
    """Return a tweet's `COLUMNS`, and why it has none that can be scored.

    The text is the whole text: `note_tweet` and `extended_tweet` where they are; of a retweet the retweeted tweet's own
    text, which Twitter cuts short in the retweet, and which then gets the same score as the original. A key that is
    null is none: tables that tweets have gone through, such as pandas', give every row every key.
    """
    inner = record.get("tweet")
    tweet: Mapping[str, Any] = inner if isinstance(inner, dict) else record
    kind, reference = "tweet", None
    source = tweet
    retweeted = tweet.get("retweeted_status")
    quoted = tweet.get("quoted_status_id_str") or tweet.get("quoted_status_id")
    replied = tweet.get("in_reply_to_status_id_str") or tweet.get("in_reply_to_status_id")
    if isinstance(retweeted, dict) and retweeted:
        kind, reference, source = "retweet", _id(retweeted), retweeted
    elif quoted is not None:
        kind, reference = "quote", _text(quoted)
    elif replied is not None:
        kind, reference = "reply", _text(replied)
    for other in _references(tweet):
        kind = {"retweeted": "retweet", "quoted": "quote", "replied_to": "reply"}.get(
            _text(other.get("type")) or "", kind
        )
        reference = _id(other)
        if kind == "retweet":
            source = (includes or {}).get("tweets", {}).get(reference or "", tweet)
            break
    text = _whole_text(source)
    if text is None:  # of the original there is no more than its id
        text = _whole_text(tweet)
    user = tweet.get("user")
    author_id = _text(tweet.get("author_id"))
    author = None
    if isinstance(user, dict):
        author_id, author = _id(user), _text(user.get("screen_name"))
    elif author_id is not None:
        author = _text((includes or {}).get("users", {}).get(author_id, {}).get("username"))
    values = (
        _id(tweet),
        _text(tweet.get("created_at")),
        author_id,
        author,
        _text(tweet.get("lang")),
        kind,
        reference,
        text,
    )
    fields = dict(zip(COLUMNS, values, strict=True))
    if type(text) is str:
        return fields, None
    if text is None and not {"id", "id_str"} & tweet.keys():
        return fields, f"no tweet, an object with {', '.join(map(repr, list(tweet)[:3])) or 'nothing in it'}"
    return fields, f"text is {'missing' if text is None else cell_text(text)[:60]}, expected text"


def _whole_text(tweet: Mapping[str, Any]) -> Any:
    for outer in ("note_tweet", "extended_tweet"):
        inner = tweet.get(outer)
        if isinstance(inner, dict):
            for key in ("full_text", "text"):
                if type(inner.get(key)) is str:
                    return inner[key]
    full = tweet.get("full_text")
    return tweet.get("text") if full is None else full


def _references(tweet: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = tweet.get("referenced_tweets")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _id(record: Mapping[str, Any]) -> str | None:
    return _text(record.get("id_str")) or _text(record.get("id"))


def _text(value: Any) -> str | None:
    """Return text or a number's spelling as text; None for anything else."""
    return str(value) if isinstance(value, (str, Number)) else None
