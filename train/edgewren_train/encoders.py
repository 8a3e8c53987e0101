"""Encoders: any sentence-transformers model by hub id or folder, with its pooling and normalisation.

sentence-transformers loads them (it knows every published layout); this module adds what a classifier needs on top:
one clean tokenizer, one max length, and a hash that says exactly which weights were used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.errors import BundleTokenizerError, InputError, UsageError
from edgewren.text import TextTokenizer
from edgewren.tokenizer_scan import scan
from edgewren_train.encoder_names import locate
from edgewren_train.normalisers import with_normaliser
from edgewren_train.quiet import quiet

# These count positions from padding_idx + 1, so two fewer tokens fit than their config says.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "mpnet", "camembert", "longformer"}
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """The three tokenizer files of trained model and bundle, as text. Loads as PreTrainedTokenizerFast anywhere."""

    tokenizer: str
    config: str
    special_tokens: str

    def write(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(self.tokenizer, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(self.config, encoding="utf-8")
        (folder / "special_tokens_map.json").write_text(self.special_tokens, encoding="utf-8")


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder ready to embed.

    Attributes:
        id: what the user asked for: hub id, or folder name.
        location: hub id or folder that libraries load from.
        sha256: SHA-256 over names and contents of its weights.
        model: the SentenceTransformer, on CPU, in evaluation mode.
        files: clean tokenizer files with the normaliser inside.
        max_length: tokens kept of a text.
        normaliser: name of the normaliser inside the tokenizer.
    """

    id: str
    location: str
    sha256: str
    model: Any
    files: TokenizerFiles
    max_length: int
    normaliser: str

    @property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.files.tokenizer.encode(), self.max_length)

    @property
    def prompts(self) -> tuple[str, ...]:
        """What sentence-transformers would put before texts on request or by itself ("query: "); not used here."""
        given = (prompt for prompt in (getattr(self.model, "prompts", None) or {}).values() if prompt)
        return tuple(dict.fromkeys(given))


def load_encoder(spec: str, *, max_length: int | None = None, normaliser: str = "none") -> Encoder:
    """Load a sentence encoder.

    Args:
        spec: hub id, local folder, or "minilm" for the packaged all-MiniLM-L6-v2.
        max_length: tokens kept of a text; default: the encoder's own, at most what its positions allow.
        normaliser: "none" or "http".

    Raises:
        InputError: it cannot be found or loaded (with HF_HUB_OFFLINE set, only cached models can); it is no
            transformer; it has no fast tokenizer, one that knows tokens without an embedding, or one that no bundle
            may hold.
        UsageError: max_length beyond the encoder's positions; unknown normaliser.
    """
    location = locate(spec)
    import torch
    from sentence_transformers import SentenceTransformer

    with reporting_load_failures(spec), quiet(location):
        # eager attention: the same arithmetic in torch as in the exported graph, so that parity means something.
        # float32, whatever the checkpoint is stored in: transformers 5 keeps that otherwise.
        options = {"attn_implementation": "eager", "dtype": torch.float32}
        model = SentenceTransformer(location, device="cpu", model_kwargs=options).eval()
    transformer = model[0]
    if not hasattr(transformer, "auto_model"):
        raise InputError(
            f"Encoder {spec!r} begins with {type(transformer).__name__}, expected a transformer. Choose another "
            "encoder, or 'train static', which makes a table of token values of any transformer."
        )
    config = transformer.auto_model.config
    limit = position_limit(config)
    length = checked_max_length(max_length, limit, own=model.max_seq_length)
    tokenizer = fast_tokenizer(model.tokenizer, spec)
    check_vocabulary(tokenizer, transformer.auto_model, spec)
    files = tokenizer_files(tokenizer, normaliser=normaliser, max_length=length)
    check_portable(files, spec)
    return Encoder(
        id=spec if not Path(spec).is_dir() else Path(spec).resolve().name,
        location=location,
        sha256=weights_sha256(transformer.auto_model.state_dict()),
        model=model,
        files=files,
        max_length=length,
        normaliser=normaliser,
    )


@contextlib.contextmanager
def reporting_load_failures(spec: str) -> Iterator[None]:
    """Turn what the Hugging Face libraries raise while loading `spec` into an InputError with the next step."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # a dozen unrelated classes for "not there"
        offline = " (HF_HUB_OFFLINE is set: only models in the local cache can be loaded)"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"Encoder {spec!r} cannot be loaded{offline if os.environ.get('HF_HUB_OFFLINE') else ''}: {reason} "
            "Expected a hub id, a folder written by sentence-transformers or transformers, or 'minilm' "
            "(pip install 'edgewren[minilm]', no download)."
        ) from error


def position_limit(config: Any) -> int | None:
    """Return how many tokens the encoder's position embeddings allow, or None where there is no bound."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    if config.model_type in _OFFSET_POSITIONS:
        positions -= (config.pad_token_id if isinstance(config.pad_token_id, int) else 1) + 1
    return positions


def checked_max_length(requested: int | None, limit: int | None, *, own: int | None) -> int:
    """Return the max length to use: the requested one, else the encoder's own, within its positions."""
    if requested is None:
        candidates = [length for length in (own or 256, limit) if length]
        return min(candidates)
    if requested < 3 or (limit is not None and requested > limit):
        raise UsageError(f"max length {requested} is out of range: expected 3 to {limit or 'any'} for this encoder.")
    return requested


def fast_tokenizer(tokenizer: Any, spec: str) -> Any:
    """Return `tokenizer` if the Rust library backs it.

    Raises:
        InputError: it is a Python-only tokenizer, which no lightweight runtime could replay.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise InputError(
            f"Encoder {spec!r} has no fast tokenizer (tokenizer.json), only {type(tokenizer).__name__}. "
            "Choose an encoder with one, or convert it with transformers first."
        )
    return tokenizer


def check_vocabulary(tokenizer: Any, model: Any, spec: str) -> None:
    """Check that a transformers model has an embedding for each token of its tokenizer.

    Training might never meet a token without one; the first text that has it would then end the scoring of an archive.

    Raises:
        InputError: a token has none.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= rows:
        raise InputError(
            f"Encoder {spec!r} has {rows:,} word embeddings, but its tokenizer knows the token {token!r} with the id "
            f"{last:,}: no text with it could be scored. Expected ids below {rows:,}: the tokenizer is another "
            "model's, or tokens were added without model.resize_token_embeddings(len(tokenizer))."
        )


def tokenizer_files(tokenizer: Any, *, normaliser: str, max_length: int) -> TokenizerFiles:
    """Build the clean tokenizer files from a transformers fast tokenizer."""
    special: dict[str, str] = {}
    for name in _SPECIAL_TOKENS:
        value = getattr(tokenizer, name, None)
        if value is not None:
            special[name] = str(value)
    config = {
        # The generic class loads tokenizer.json as it stands; class-specific ones rebuild the normaliser.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return TokenizerFiles(
        tokenizer=with_normaliser(tokenizer.backend_tokenizer.to_str(), normaliser),
        config=json.dumps(config, ensure_ascii=False, indent=2) + "\n",
        special_tokens=json.dumps(special, ensure_ascii=False, indent=2) + "\n",
    )


def check_portable(files: TokenizerFiles, spec: str) -> None:
    """Check before the training that the bundle to come may hold this tokenizer.

    Raises:
        InputError: it has parts that no bundle may hold (docs/security.md).
    """
    try:
        scan(files.tokenizer.encode())
    except BundleTokenizerError as error:
        raise InputError(
            f"Encoder {spec!r} cannot be exported: its tokenizer is of a kind that bundles do not hold "
            f"({error.__cause__}). Choose another encoder; those with the tokenizers of BERT, RoBERTa, XLM-R, "
            "MPNet and DeBERTa can be."
        ) from error


def weights_sha256(state: dict[str, Any]) -> str:
    """Return the SHA-256 over names, shapes and values of a torch state dict, independent of file format and order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
