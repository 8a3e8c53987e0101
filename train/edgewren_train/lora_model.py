"""What LoRA's training starts from and what it makes: an encoder with a fresh head, adapted, merged. Knows no steps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewren.errors import InputError
from edgewren.text import TextTokenizer
from edgewren_train.depth import cut_layers
from edgewren_train.encoder_names import locate
from edgewren_train.encoders import (
    TokenizerFiles,
    check_portable,
    check_vocabulary,
    checked_max_length,
    fast_tokenizer,
    position_limit,
    reporting_load_failures,
    tokenizer_files,
    weights_sha256,
)
from edgewren_train.lora_recipe import USUAL_LENGTH
from edgewren_train.quiet import quiet


@dataclass(frozen=True)
class LoraBase:
    """A pretrained encoder with a fresh classification head, not yet trained.

    Attributes:
        id, sha256: what was asked for, and the SHA-256 over the weights before training.
        model: the transformers model, fp32, on CPU.
        files: clean tokenizer files.
        max_length: tokens kept of a text.
        fresh: names of top-level modules whose weights are new (the head), which must be trained in full.
    """

    id: str
    sha256: str
    model: Any
    files: TokenizerFiles
    max_length: int
    fresh: tuple[str, ...]

    @property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.files.tokenizer.encode(), self.max_length)


@dataclass(frozen=True)
class Fitted:
    """A trained model whose adapters are still apart from the encoder, with the facts of its training.

    Attributes:
        model: peft model, fp32, on CPU, in evaluation mode.
        trainable, total: numbers of parameters during training.
        target_modules: layers that got adapters.
        precision: "bf16" or "fp32", as used.
        steps, seconds: optimiser steps and wall time of training alone.
        loss: mean training loss of each epoch.
    """

    model: Any
    trainable: int
    total: int
    target_modules: tuple[str, ...]
    precision: str
    steps: int
    seconds: float
    loss: tuple[float, ...]


@dataclass(frozen=True)
class LoraResult(Fitted):
    """A trained model, merged: `model` is the plain transformers model.

    Attributes:
        merge_difference: largest |logit difference| between adapter and merged model on the training texts.
    """

    merge_difference: float


def load_base(
    spec: str,
    classes: Sequence[str],
    *,
    max_length: int | None,
    normaliser: str,
    seed: int,
    depth: int | None = None,
) -> LoraBase:
    """Load an encoder with a fresh classification head whose initial weights depend on `seed` alone.

    A head that the checkpoint brings is another task's: it is dropped. A pooler stays.

    Args:
        depth: layers of the encoder to keep; None: all.

    Raises:
        InputError: it cannot be loaded, is an encoder-decoder, or its tokenizer is not fast or cannot be exported.
        UsageError: max_length beyond the encoder's positions, or depth beyond its layers.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    location = locate(spec)
    options = {"attn_implementation": "eager", "dtype": torch.float32, "output_loading_info": True}
    set_seed(seed)
    with reporting_load_failures(spec), quiet(location):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            location,
            num_labels=len(classes),
            id2label=dict(enumerate(classes)),
            label2id={name: index for index, name in enumerate(classes)},
            problem_type="single_label_classification",
            ignore_mismatched_sizes=True,
            **options,
        )
        # A head of another shape is named alone or, depending on transformers' version, with both shapes.
        mismatched = (entry if isinstance(entry, str) else entry[0] for entry in report["mismatched_keys"])
        missing = {*report["missing_keys"], *mismatched}
        if not missing >= (head := _head_names(model)):
            missing |= head
            kept = {name: value for name, value in model.state_dict().items() if name not in missing}
            set_seed(seed)  # as if the checkpoint had never had one
            model, _ = type(model).from_pretrained(None, config=model.config, state_dict=kept, **options)
        tokenizer = fast_tokenizer(AutoTokenizer.from_pretrained(location), spec)
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:  # an encoder's own config may deny it
        raise InputError(
            f"Encoder {spec!r} is an encoder-decoder ({type(model).__name__}), whose head reads what the decoder "
            "writes. Choose an encoder alone, or 'train ridge', which takes its encoder."
        )
    check_vocabulary(tokenizer, model, spec)
    fresh = tuple(sorted({_module_to_train(name) for name in missing}))
    length = checked_max_length(max_length, position_limit(model.config), own=USUAL_LENGTH)
    files = tokenizer_files(tokenizer, normaliser=normaliser, max_length=length)
    check_portable(files, spec)
    if depth is not None:
        cut_layers(model, depth)
    return LoraBase(
        id=spec,
        sha256=weights_sha256({name: value for name, value in model.state_dict().items() if name not in missing}),
        model=model.eval(),
        files=files,
        max_length=length,
        fresh=fresh,
    )


def _head_names(model: Any) -> set[str]:
    """Return the names of the classification head's weights: those outside the encoder, but for what pools.

    ModernBERT's `head`, which masked language models have too, and DeBERTa's pooler stand outside the encoder.
    """
    outside = (name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}."))
    return {name for name in outside if name.split(".")[0] not in ("pooler", "head")}


def _module_to_train(parameter: str) -> str:
    """Return the module that owns a new parameter, as peft's modules_to_save wants it: its path's last stable name."""
    owner = parameter.rsplit(".", 1)[0]
    pieces = owner.split(".")
    # A head made of several layers (classifier.dense, classifier.out_proj) is saved as one module.
    for name in ("classifier", "score", "pre_classifier", "pooler", "head", "sequence_summary"):
        if name in pieces:
            return name
    return pieces[-1]
