"""Which folder a bundle's name means: a path, the default inside this package, or a larger bundle of the project.

Knows names and folders, nothing of what is inside them. Never uses the network.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgewren.errors import BundleMissingError

DEFAULT = "media-bias"
"""The static bundle inside the package: neutral or partisan tweets of US politicians."""

_INSIDE = Path(__file__).parent / "bundles"
_ARTIFACTS = "artifacts"
_ELSEWHERE = ("media-bias-ridge", "media-bias-lora")


def resolve(name: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a bundle.

    A folder of that name always comes first. Then come the default's name (also None) and, for the larger bundles of
    the project, the folder `artifacts` of the working directory and of the checkout that this package runs from.

    Args:
        name: path of a folder, name of a bundle, or None for the default.

    Raises:
        BundleMissingError: a known bundle that is not on this machine; the message says how to get it.
    """
    if name is None:
        return _INSIDE / DEFAULT
    path = Path(name)
    if os.path.exists(path) or len(path.parts) != 1:  # noqa: PTH110  a name that is too long is none's
        return path
    if path.name == DEFAULT:
        return _INSIDE / DEFAULT
    checkout = Path(__file__).parents[2]
    for folder in (Path(_ARTIFACTS), checkout / _ARTIFACTS):
        if os.path.isfile(folder / path.name / "manifest.json"):  # noqa: PTH113
            return folder / path.name
    if path.name in _ELSEWHERE:
        raise BundleMissingError(
            f"The bundle {path.name} is not inside the package, and there is none in {_ARTIFACTS}/. It lies in the "
            f"folder {_ARTIFACTS} of the project's repository: copy it from there and give its path, or leave --model "
            f"out for the smaller default ({DEFAULT})."
        )
    return path
