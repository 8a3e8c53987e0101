"""The small JSON files of a bundle: config.json, tokenizer_config.json, special_tokens_map.json.

Our own runtime needs none of them; transformers and text-embeddings-inference do. They must agree with the manifest
and ask nobody to run anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewren import strict_json
from edgewren.errors import BundleSettingsError
from edgewren.strict_json import JsonError

NAMES = ("config.json", "tokenizer_config.json", "special_tokens_map.json")
MAXIMUM_BYTES = 4 * 2**20

_PROGRAMS = {
    "auto_map": "names code for others to run",
    "custom_pipelines": "names code for others to run",
    "trust_remote_code": "asks others to run code",
    "chat_template": "holds a template, which is a program",
}


def check(name: str, data: bytes, labels: Sequence[str], where: str) -> None:
    """Check one of `NAMES`.

    Args:
        name: which.
        data: its bytes.
        labels: the manifest's.
        where: what messages call the file.

    Raises:
        BundleSettingsError: damaged, unbounded, with code in it, or with other labels than the manifest.
    """
    try:
        settings = strict_json.parse(data)
        strict_json.check_small(settings, depth=16, values=100_000, characters=16_384)
        if not isinstance(settings, dict):
            raise JsonError(f"it holds a {type(settings).__name__}, expected an object")
        for key, why in _PROGRAMS.items():
            if key in settings:
                raise JsonError(f"its entry {key!r} {why}")
        if name == "config.json":
            _check_labels(settings, labels)
        if name == "special_tokens_map.json":
            for key, value in settings.items():
                if not isinstance(value, str | dict | list):
                    raise JsonError(f"its entry {key[:64]!r} is no token")
    except JsonError as error:
        raise BundleSettingsError(f"{where} is refused: {error}. Export the bundle again.") from error


def _check_labels(settings: dict[str, Any], labels: Sequence[str]) -> None:
    expected: dict[str, dict[str, object]] = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    for key, value in expected.items():
        if settings.get(key) != value:
            raise JsonError(f"its {key} is {str(settings.get(key))[:200]}, but the manifest's labels make it {value}")
