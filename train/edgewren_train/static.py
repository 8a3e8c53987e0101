"""The static recipe: a text is the mean of its tokens' vectors, and no transformer runs.

The vectors are what the encoder itself begins with, LayerNormalization(word + type embedding), without positions: the
encoder cut after 0 layers. Scaler and ridge are affine, so the decision value of a mean is the mean of the decision
values of its tokens, and the whole model is one number per vocabulary entry and class. Knows token ids and vectors,
nothing of texts or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InputError
from edgewren_train.encoders import Encoder


def token_vectors(encoder: Encoder) -> NDArray[np.float32]:
    """Return what the encoder's first layer would see of each vocabulary entry at no position, float32 [vocabulary, d].

    Raises:
        InputError: the encoder has no word embeddings that can be told apart.
    """
    import torch

    transformer = encoder.model[0].auto_model
    embeddings = getattr(transformer, "embeddings", None)
    with torch.inference_mode():
        try:
            vectors = transformer.get_input_embeddings().weight.float()
        except (AttributeError, NotImplementedError) as error:
            raise InputError(
                f"Encoder {encoder.id!r} has no word embeddings to make a static model of. Choose a BERT-like encoder."
            ) from error
        types = getattr(embeddings, "token_type_embeddings", None)
        if types is not None:
            vectors = vectors + types.weight[0]
        for name in ("LayerNorm", "norm"):
            norm = getattr(embeddings, name, None)
            if norm is not None:
                vectors = norm(vectors)
                break
        return np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)


def shares(rows: Sequence[Sequence[int]], vocabulary: int) -> Any:
    """Return each vocabulary entry's share of a text's tokens: scipy CSR, float64 [n, vocabulary], rows sum to 1.

    Args:
        rows: token ids per text, special tokens included, none empty.
    """
    from scipy.sparse import csr_matrix

    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    columns = np.fromiter((token for row in rows for token in row), dtype=np.int64, count=int(lengths.sum()))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_matrix((np.repeat(1.0 / lengths, lengths), columns, starts), shape=(len(rows), vocabulary))
    matrix.sum_duplicates()
    return matrix


def mean_vectors(rows: Sequence[Sequence[int]], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean vector of each text's tokens, float32 [n, d], summed in float64."""
    mean: NDArray[np.float64] = shares(rows, len(vectors)) @ vectors.astype(np.float64)
    return mean.astype(np.float32)
