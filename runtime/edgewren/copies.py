"""When texts are copies of one post: the same but for links, entities and spacing, as retweets. Knows strings alone."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

LINK = re.compile(r"https?://\S+|www\.\S+")


def without_links(text: str) -> str:
    """Return what copies of a post have in common."""
    return " ".join(LINK.sub(" http ", html.unescape(text)).split())


def leaked(texts: Sequence[str], others: Sequence[str]) -> int:
    """Return how many of the others are copies of one of the texts."""
    seen = set(map(without_links, texts))
    return sum(without_links(text) in seen for text in others)
