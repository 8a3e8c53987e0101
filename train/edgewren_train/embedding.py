"""Texts to embeddings, in equal-length batches; what `embedding_cache` has of them is not computed again.

Tokenises with the runtime's own tokenizer, so that training sees exactly the ids that scoring will see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.diagnosis import cache_folder
from edgewren_train.embedding_cache import KEY_BYTES, EmbeddingCache
from edgewren_train.encoders import Encoder

TORCH_TOKENS_PER_BATCH = 1024
"""torch on 2 cores: 512 to 2,048 are level, smaller pays per call, larger leaves the caches."""

LEAST_TOKENS_PER_BATCH = 64
"""Fewer are computed several times over: where a thread gets less than four rows of a matrix, MKL multiplies them in
another way (seen with 1 to 3 rows on 1 thread, 1 to 11 on 2, 1 to 27 on 16). With this, an embedding has the same bits
whatever else is computed beside it, and is the same from the cache or computed anew."""

_NOT_COMPUTED = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Settings of an encoder that change no embedding, but do change when it is saved again."""


def embed(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Return sentence embeddings, float32 [n, dimension], in input order.

    Args:
        device: torch device.
        cache: folder for finished embeddings of texts, kept while the others are computed. It has a folder for each
            set of weights and settings, pooling, tokenizer (with its normaliser), max length and device. None: no
            cache.
        progress: called with the number of texts that were just finished.
    """
    rows, inverse = batching.distinct(encoder.tokenizer.encode(texts).ids)
    if not rows:
        raise ValueError("no texts to embed")
    copies = np.bincount(inverse, minlength=len(rows))
    keys = [_key(row) for row in rows]
    finished = np.zeros(len(rows), dtype=bool)
    out = np.empty((len(rows), 0), dtype=np.float32)

    def take(places: NDArray[np.intp], values: NDArray[np.float32]) -> None:
        nonlocal out
        if not out.shape[1]:
            out = np.empty((len(rows), values.shape[1]), dtype=np.float32)
        out[places] = values
        finished[places] = True
        if progress:
            progress(int(copies[places].sum()))

    with EmbeddingCache(None if cache is None else cache / _digest(encoder, device)) as kept:
        for places, values in kept.find(keys):
            take(places, values)
        for places, values in _computed(encoder, rows, finished, device):
            take(places, values)
            kept.keep([keys[place] for place in places], values)
    embeddings: NDArray[np.float32] = out[inverse]
    return embeddings


def _computed(
    encoder: Encoder, rows: Sequence[Sequence[int]], finished: NDArray[np.bool_], device: str
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Yield places of rows that are not finished, and their embeddings, batch by batch.

    Batches are planned as if no row were finished: a run that goes on after an interruption computes the very ones that
    an undisturbed run would have.
    """
    import torch

    modules = encoder.model.to(device).eval()
    for batch in planned(rows):
        places = batch[~finished[batch]]
        if not len(places):
            continue
        ids = torch.tensor([rows[place] for place in places], dtype=torch.long, device=device)
        ids = ids.repeat(-(-LEAST_TOKENS_PER_BATCH // ids.numel()), 1)
        with torch.inference_mode():
            values = sentence_embedding(modules, ids, torch.ones_like(ids)).float().cpu().numpy()
        yield places, values[: len(places)]


def planned(rows: Sequence[Sequence[int]]) -> list[NDArray[np.intp]]:
    """Return batches of token rows for torch, long and short ones mixed: so the first half takes half of the time."""
    batches = batching.plan([len(row) for row in rows], TORCH_TOKENS_PER_BATCH)
    return [batches[number] for number in np.random.default_rng(0).permutation(len(batches))]


def count_cached(encoder: Encoder, texts: Sequence[str], cache: Path, *, device: str = "cpu") -> int:
    """Return of how many texts `embed` would find the embeddings in the cache."""
    rows, inverse = batching.distinct(encoder.tokenizer.encode(texts).ids)
    copies = np.bincount(inverse, minlength=len(rows))
    kept = EmbeddingCache(cache / _digest(encoder, device))
    return sum(int(copies[places].sum()) for places, _ in kept.find([_key(row) for row in rows]))


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


def _key(row: Sequence[int]) -> bytes:
    return hashlib.blake2b(np.asarray(row, dtype="<i4").tobytes(), digest_size=KEY_BYTES).digest()


def _digest(encoder: Encoder, device: str) -> str:
    """Return a hash, hexadecimal, of everything that an embedding depends on, but for the text."""
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
    return digest.hexdigest()
