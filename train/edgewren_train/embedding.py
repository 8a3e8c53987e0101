"""Texts to embeddings, in equal-length batches, with a cache on disk.

Tokenises with the runtime's own tokenizer, so that training sees exactly the ids that scoring will see.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.diagnosis import cache_folder
from edgewren_train.encoders import Encoder

logger = logging.getLogger(__name__)

Progress = Callable[[int], None]
"""Called with the number of texts that were just finished."""

TORCH_TOKENS_PER_BATCH = 1024
"""torch on 2 cores: 512 to 2,048 are level, smaller pays per call, larger leaves the caches."""

_NOT_COMPUTED = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Settings of an encoder that change no embedding, but do change when it is saved again."""


def embed(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return sentence embeddings, float32 [n, dimension], in input order.

    Args:
        device: torch device.
        cache: folder for finished embeddings, keyed by the encoder's weights and settings, pooling, tokenizer (with its
            normaliser), max length, device and texts; None: no cache.
    """
    import torch

    entry = _entry(cache, encoder, texts, device) if cache is not None else None
    kept = _load(entry, len(texts)) if entry is not None else None
    if kept is not None:
        if progress:
            progress(len(texts))
        return kept

    tokens = encoder.tokenizer.encode(texts)
    rows, inverse = batching.distinct(tokens.ids)
    copies = np.bincount(inverse, minlength=len(rows))
    modules = encoder.model.to(device).eval()
    out: NDArray[np.float32] | None = None
    for batch in batching.plan([len(row) for row in rows], TORCH_TOKENS_PER_BATCH):
        ids = torch.tensor([rows[index] for index in batch], dtype=torch.long, device=device)
        with torch.inference_mode():
            values = sentence_embedding(modules, ids, torch.ones_like(ids)).float().cpu().numpy()
        if out is None:
            out = np.empty((len(rows), values.shape[1]), dtype=np.float32)
        out[batch] = values
        if progress:
            progress(int(copies[batch].sum()))
    if out is None:
        raise ValueError("no texts to embed")
    embeddings: NDArray[np.float32] = out[inverse]
    if entry is not None:
        _store(entry, embeddings)
    return embeddings


def is_cached(encoder: Encoder, texts: Sequence[str], cache: Path, *, device: str = "cpu") -> bool:
    """Return whether `embed` would find these embeddings in the cache."""
    return _entry(cache, encoder, texts, device).is_file()


def sentence_embedding(modules: Any, input_ids: Any, attention_mask: Any) -> Any:
    """Run a SentenceTransformer's modules in order: encoder, pooling, then whatever it has (Dense, Normalize)."""
    features = {"input_ids": input_ids, "attention_mask": attention_mask}
    for module in modules:
        features = module(features)
    return features["sentence_embedding"]


def default_cache() -> Path:
    """Return the embedding cache's folder.

    Raises:
        UsageError: the user has no home folder, and EDGEWREN_CACHE is not set.
    """
    return cache_folder() / "embeddings"


def _entry(cache: Path, encoder: Encoder, texts: Sequence[str], device: str) -> Path:
    digest = hashlib.sha256()
    config = encoder.model[0].auto_model.config.to_dict()
    settings = json.dumps({name: config[name] for name in config.keys() - _NOT_COMPUTED}, sort_keys=True, default=str)
    pooling = "\n".join(f"{type(module).__name__} {module!r}" for module in list(encoder.model)[1:])
    state = {name: value for name, value in encoder.model.state_dict().items() if not name.startswith("0.")}
    tokenizer, length = encoder.files.tokenizer, str(encoder.max_length)
    for part in (encoder.sha256, settings, tokenizer, length, pooling, str(sorted(state)), device):
        digest.update(hashlib.sha256(part.encode()).digest())
    for value in state.values():
        digest.update(value.detach().cpu().numpy().tobytes())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return cache / f"{digest.hexdigest()}.safetensors"


def _load(entry: Path, rows: int) -> NDArray[np.float32] | None:
    """Return a cache entry, or None where there is none or it is damaged: then it is computed anew."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not entry.is_file():
        return None
    try:
        embeddings: NDArray[np.float32] = load_file(entry)["embeddings"]
    except (SafetensorError, KeyError, OSError) as error:
        logger.warning("cached embeddings %s cannot be read (%s): computed anew", entry, error)
        return None
    return embeddings if len(embeddings) == rows else None


def _store(entry: Path, embeddings: NDArray[np.float32]) -> None:
    """Write under a temporary name, then rename: another run never reads half a file. No room is no reason to fail."""
    from safetensors.numpy import save

    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=entry.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(save({"embeddings": np.ascontiguousarray(embeddings)}))
            Path(name).replace(entry)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("embeddings are not kept for next time: %s cannot be written (%s)", entry, error)
