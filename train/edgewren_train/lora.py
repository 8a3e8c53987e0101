"""The LoRA recipe: fine-tune a BERT-like encoder with low-rank adapters (Hu et al. 2021), then merge them.

transformers' Trainer does the steps, peft the adapters; here stand what differs between architectures, and the proof
that the merged model is the trained one. Settings: `lora_recipe`; what makes steps cheap: `cheap_steps`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InvariantError
from edgewren.text import TextTokenizer
from edgewren_train.cheap_steps import cheap_steps
from edgewren_train.depth import cut_layers
from edgewren_train.encoders import (
    TokenizerFiles,
    checked_max_length,
    fast_tokenizer,
    locate,
    position_limit,
    reporting_load_failures,
    tokenizer_files,
    weights_sha256,
)
from edgewren_train.epoch_watch import EpochWatch
from edgewren_train.lora_recipe import LoraRecipe as LoraRecipe  # noqa: PLC0414  callers name lora.LoraRecipe
from edgewren_train.prediction import predict_logits
from edgewren_train.quiet import quiet
from edgewren_train.target_modules import adapted_layers, check_target_modules, default_target_modules

logger = logging.getLogger(__name__)

_PRECISION_VARIABLE = "ACCELERATE_MIXED_PRECISION"

MERGE_TOLERANCE = 1e-4
"""Largest difference of logits allowed between adapter and merged model: fp32 rounding of W + BA is about 1e-6."""


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

    Args:
        depth: layers of the encoder to keep; None: all.

    Raises:
        InputError: it cannot be loaded, or has no fast tokenizer.
        UsageError: max_length beyond the encoder's positions, or depth beyond its layers.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    location = locate(spec)
    set_seed(seed)
    with reporting_load_failures(spec), quiet(location):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            location,
            num_labels=len(classes),
            id2label=dict(enumerate(classes)),
            label2id={name: index for index, name in enumerate(classes)},
            problem_type="single_label_classification",
            attn_implementation="eager",
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = fast_tokenizer(AutoTokenizer.from_pretrained(location), spec)
    # A head of another shape is named alone or, depending on transformers' version, with both shapes.
    mismatched = (entry if isinstance(entry, str) else entry[0] for entry in report["mismatched_keys"])
    missing = {*report["missing_keys"], *mismatched}
    fresh = tuple(sorted({_module_to_train(name) for name in missing}))
    length = checked_max_length(max_length, position_limit(model.config), own=256)
    if depth is not None:
        cut_layers(model, depth)
    return LoraBase(
        id=spec,
        sha256=weights_sha256({name: value for name, value in model.state_dict().items() if name not in missing}),
        model=model.eval(),
        files=tokenizer_files(tokenizer, normaliser=normaliser, max_length=length),
        max_length=length,
        fresh=fresh,
    )


def train(
    base: LoraBase,
    texts: Sequence[str],
    labels: Sequence[int],
    recipe: LoraRecipe,
    *,
    device: str = "cpu",
    progress: bool = False,
    announce: Callable[[str], None] = logger.info,
) -> LoraResult:
    """Train adapters and head, merge, and prove that nothing was lost in the merge.

    Args:
        labels: class index of each text.
        device: "cpu" or "cuda".
        progress: show the Trainer's progress bar.
        announce: told the trainable share before training starts.

    Raises:
        InputError: no linear layer of the encoder is called as the target modules.
        InvariantError: adapter and merged model disagree, or the merged head is not the trained one.
    """
    ids = base.tokenizer.encode(texts).ids
    return merge(base, fit(base, ids, labels, recipe, device=device, progress=progress, announce=announce), ids)


def merge(base: LoraBase, fitted: Fitted, ids: Sequence[Sequence[int]]) -> LoraResult:
    """Merge the adapters into the encoder, and prove on token rows that nothing was lost.

    Raises:
        InvariantError: adapter and merged model disagree, or the merged head is not the trained one.
    """
    adapter_logits = predict_logits(fitted.model, ids)
    trained_head = _head_weights(fitted.model, base.fresh)
    merged = fitted.model.merge_and_unload().eval()
    difference = _prove_merge(merged, ids, adapter_logits, trained_head, base)
    facts = {field.name: getattr(fitted, field.name) for field in dataclasses.fields(Fitted)}
    return LoraResult(**{**facts, "model": merged}, merge_difference=difference)


def fit(
    base: LoraBase,
    ids: Sequence[Sequence[int]],
    labels: Sequence[int],
    recipe: LoraRecipe,
    *,
    device: str = "cpu",
    progress: bool = False,
    announce: Callable[[str], None] = logger.info,
    watch: EpochWatch | None = None,
) -> Fitted:
    """Train adapters and head; what cross-validation and sweeps need, without the merge.

    Args:
        ids: token row of each text.
        labels: class index of each text.
        watch: told the validation logits after each epoch; may end the training, and its best weights are restored.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, set_seed

    set_seed(recipe.seed)
    targets = recipe.target_modules or default_target_modules(base.model)
    check_target_modules(base.model, targets)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(targets),
        layers_to_transform=adapted_layers(base.model, recipe.adapt_layers),
        modules_to_save=list(base.fresh) or None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for what that has renamed
        model = get_peft_model(copy.deepcopy(base.model), config)
    trainable, total = (int(count) for count in model.get_nb_trainable_parameters())
    announce(
        f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%}), adapters on {', '.join(targets)}"
    )
    precision = _precision(recipe.precision, device)
    losses: list[float] = []

    class _Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(ids)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"input_ids": ids[index], "labels": int(labels[index])}

    pad_id = base.model.config.pad_token_id or 0
    width = base.max_length if recipe.padding == "max" else None
    with (
        tempfile.TemporaryDirectory(prefix="edgewren-lora-") as scratch,
        cheap_steps(model, seed=recipe.seed, device=device),
        _no_inherited_precision(),
    ):
        trainer = Trainer(
            model=model,
            args=_training_arguments(recipe, scratch, precision, device, progress=progress),
            train_dataset=_Rows(),
            data_collator=lambda rows: _collate(rows, pad_id, width),
            compute_loss_func=_weighted_loss(labels, base.model.config.num_labels, recipe.class_weights),
            callbacks=[_epochs_callback(losses, watch, recipe.stop_after, device)],
        )
        trainer.remove_callback(PrinterCallback)  # prints to stdout, which belongs to data
        start = time.perf_counter()
        outcome = trainer.train()
        seconds = time.perf_counter() - start
        # The Trainer wrapped forward in autocast; what is compared and kept computes in fp32.
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).to("cpu").eval()
    if watch is not None and watch.best_weights is not None:
        model.load_state_dict(watch.best_weights, strict=False)
    return Fitted(
        model=model,
        trainable=trainable,
        total=total,
        target_modules=tuple(targets),
        precision=precision,
        steps=int(outcome.global_step),
        seconds=seconds,
        loss=tuple(losses),
    )


@contextlib.contextmanager
def _no_inherited_precision() -> Iterator[None]:
    """Hide a variable in which transformers leaves "bf16" behind: the next training in fp32 would then be in bf16."""
    before = os.environ.pop(_PRECISION_VARIABLE, None)
    try:
        yield
    finally:
        os.environ.pop(_PRECISION_VARIABLE, None)
        if before is not None:
            os.environ[_PRECISION_VARIABLE] = before


def _epochs_callback(losses: list[float], watch: EpochWatch | None, stop_after: int | None, device: str) -> Any:
    """Return the Trainer's callback that keeps training losses, asks the watch, and ends the training."""
    from transformers import TrainerCallback

    def weights(model: Any) -> dict[str, Any]:
        return {name: value.detach().cpu().clone() for name, value in model.named_parameters() if value.requires_grad}

    class _Epochs(TrainerCallback):
        def on_log(
            self, _args: Any, _state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any
        ) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

        def on_epoch_end(self, _args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if watch is not None and watch.see(predict_logits(model, watch.ids, device=device), lambda: weights(model)):
                control.should_training_stop = True
            if stop_after is not None and round(state.epoch) >= stop_after:
                control.should_training_stop = True

    return _Epochs()


def _weighted_loss(labels: Sequence[int], classes: int, weighting: str) -> Callable[..., Any] | None:
    """Return the cross entropy with weights n / (classes x rows of the class), or None for the model's own loss."""
    if weighting == "none":
        return None
    import torch

    counts = np.bincount(np.asarray(labels), minlength=classes)
    weights = torch.tensor(len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), dtype=torch.float32)

    def loss(outputs: Any, targets: Any, **_: Any) -> Any:
        logits = outputs.logits.float()
        return torch.nn.functional.cross_entropy(logits, targets, weight=weights.to(logits.device))

    return loss


def _module_to_train(parameter: str) -> str:
    """Return the module that owns a new parameter, as peft's modules_to_save wants it: its path's last stable name."""
    owner = parameter.rsplit(".", 1)[0]
    pieces = owner.split(".")
    # A head made of several layers (classifier.dense, classifier.out_proj) is saved as one module.
    for name in ("classifier", "score", "pre_classifier", "pooler", "head"):
        if name in pieces:
            return name
    return pieces[-1]


def _precision(requested: str, device: str) -> str:
    """Return "bf16" or "fp32". `auto` takes bf16 only where it is native: emulated, it is slower than fp32.

    Measured, one step of 64 tweets on 2 cores with AVX512-BF16: 0.92 s fp32, 0.48 s bf16.
    """
    import torch

    if requested != "auto":
        return requested
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  torch has no public question for this
    return "bf16" if native else "fp32"


def _training_arguments(recipe: LoraRecipe, folder: str, precision: str, device: str, *, progress: bool) -> Any:
    from transformers import TrainingArguments

    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    # transformers 5 renamed the switch for batches of similar length.
    grouping = (
        {"group_by_length": True} if "group_by_length" in names else {"train_sampling_strategy": "group_by_length"}
    )
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=recipe.epochs,
        max_steps=recipe.maximum_steps or -1,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=device == "cpu",
        bf16=precision == "bf16",
        dataloader_pin_memory=device != "cpu",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=not progress,
        remove_unused_columns=False,
        log_level="error",
        **grouping,
    )


def _collate(rows: list[dict[str, Any]], pad_id: int, width: int | None) -> dict[str, Any]:
    import torch

    longest = width or max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[index, : len(row["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in rows])}


def _head_weights(model: Any, fresh: Sequence[str]) -> dict[str, Any]:
    """Return copies of the trained head's tensors, by the names that they have in the merged model."""
    out = {}
    for name, value in model.state_dict().items():
        if ".modules_to_save.default." in name and any(f".{module}." in name for module in fresh):
            plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default.", ".")
            out[plain] = value.detach().clone()
    return out


def _prove_merge(
    merged: Any,
    ids: Sequence[Sequence[int]],
    adapter_logits: NDArray[np.float32],
    trained_head: dict[str, Any],
    base: LoraBase,
) -> float:
    import torch

    difference = float(np.abs(predict_logits(merged, ids) - adapter_logits).max())
    if not difference <= MERGE_TOLERANCE:
        raise InvariantError(
            f"The merged model's logits differ from the adapter's by {difference:.2e}, more than "
            f"{MERGE_TOLERANCE:.0e}. Nothing was saved; please report this with the versions of peft and transformers."
        )
    state = merged.state_dict()
    before = base.model.state_dict()
    if not trained_head or any(name not in state for name in trained_head):
        raise InvariantError(f"The merged model lacks the trained head ({', '.join(base.fresh)}). Please report this.")
    for name, value in trained_head.items():
        if not torch.equal(state[name], value):
            raise InvariantError(f"The merged model's {name} is not the one that was trained. Please report this.")
    if all(torch.equal(before[name], value) for name, value in trained_head.items()):
        raise InvariantError("The head did not change during training. Please report this.")
    return difference
