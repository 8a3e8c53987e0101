"""The LoRA recipe: fine-tune a BERT-like encoder with low-rank adapters (Hu et al. 2021), then merge them.

transformers' Trainer does the steps, peft the adapters. Settings: `lora_recipe`; the model before and after:
`lora_model`; what makes steps cheap: `cheap_steps`; the merge and its proof: `merging`.
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
from typing import Any

import numpy as np

from edgewren.errors import InputError
from edgewren_train.cheap_steps import cheap_steps
from edgewren_train.epoch_watch import EpochWatch
from edgewren_train.lora_model import Fitted, LoraBase, LoraResult
from edgewren_train.lora_recipe import LoraRecipe as LoraRecipe  # noqa: PLC0414  callers name lora.LoraRecipe
from edgewren_train.merging import merge
from edgewren_train.prediction import predict_logits
from edgewren_train.progress import Progress, unseen
from edgewren_train.target_modules import adapted_layers, check_target_modules, default_target_modules

logger = logging.getLogger(__name__)

_PRECISION_VARIABLE = "ACCELERATE_MIXED_PRECISION"


def train(
    base: LoraBase,
    texts: Sequence[str],
    labels: Sequence[int],
    recipe: LoraRecipe,
    *,
    device: str = "cpu",
    progress: Progress = unseen,
    announce: Callable[[str], None] = logger.info,
) -> LoraResult:
    """Train adapters and head, merge, and prove that nothing was lost in the merge.

    Args:
        labels: class index of each text.
        device: "cpu" or "cuda".
        progress: of the steps, then of the proof.
        announce: told the trainable share before training starts.

    Raises:
        InputError: no linear layer of the encoder is called as the target modules, or none that can be adapted.
        UsageError: training ran away, to weights too large to be merged exactly.
        InvariantError: adapter and merged model disagree, or the merged head is not the trained one.
    """
    ids = base.tokenizer.encode(texts).ids
    fitted = fit(base, ids, labels, recipe, device=device, progress=progress, announce=announce)
    return merge(base, fitted, ids, progress=progress)


def fit(
    base: LoraBase,
    ids: Sequence[Sequence[int]],
    labels: Sequence[int],
    recipe: LoraRecipe,
    *,
    device: str = "cpu",
    progress: Progress = unseen,
    announce: Callable[[str], None] = logger.info,
    watch: EpochWatch | None = None,
) -> Fitted:
    """Train adapters and head; what cross-validation and sweeps need, without the merge.

    Args:
        ids: token row of each text.
        labels: class index of each text.
        progress: of the steps.
        watch: told the validation logits after each epoch; may end the training, and its best weights are restored.

    Raises:
        InputError: as `train` does.
    """
    from transformers import PrinterCallback, Trainer, set_seed

    set_seed(recipe.seed)
    targets = recipe.target_modules or default_target_modules(base.model)
    model = _with_adapters(base, targets, recipe)
    trainable, total = (int(count) for count in model.get_nb_trainable_parameters())
    announce(
        f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%}), adapters on {', '.join(targets)}"
    )
    precision = _precision(recipe.precision, device)
    losses: list[float] = []
    pad_id = base.model.config.pad_token_id or 0
    width = base.max_length if recipe.padding == "max" else None
    with (
        tempfile.TemporaryDirectory(prefix="edgewren-lora-") as scratch,
        cheap_steps(model, seed=recipe.seed, device=device),
        _no_inherited_precision(),
        contextlib.ExitStack() as shown,
    ):
        trainer = Trainer(
            model=model,
            args=_training_arguments(recipe, scratch, precision, device),
            train_dataset=_dataset(ids, labels),
            data_collator=lambda rows: _collate(rows, pad_id, width),
            compute_loss_func=_weighted_loss(labels, base.model.config.num_labels, recipe.class_weights),
            callbacks=[
                _epochs_callback(losses, watch, recipe.stop_after, device),
                _steps_callback(lambda steps: shown.enter_context(progress(steps, "training", "steps")), recipe),
            ],
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


def _with_adapters(base: LoraBase, targets: Sequence[str], recipe: LoraRecipe) -> Any:
    """Return a copy of the model with fresh adapters on the target modules.

    Raises:
        InputError: as `train` does.
    """
    from peft import LoraConfig, get_peft_model

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
        try:
            return get_peft_model(copy.deepcopy(base.model), config)
        except ValueError as error:
            raise InputError(
                f"{type(base.model).__name__} has nothing called {', '.join(targets)} "
                f"{'in these layers ' if recipe.adapt_layers else ''}to adapt. The head has no adapters, since it is "
                "trained whole, and layers that share their weights (ALBERT) are not told apart. Choose other "
                "--target-modules, or leave --adapt-layers out."
            ) from error


def _dataset(ids: Sequence[Sequence[int]], labels: Sequence[int]) -> Any:
    """Return token rows and class indices as the Trainer takes them."""
    import torch

    class _Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(ids)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"input_ids": ids[index], "labels": int(labels[index])}

    return _Rows()


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


def _steps_callback(begin: Callable[[int], Callable[[int], object]], recipe: LoraRecipe) -> Any:
    """Return the Trainer's callback that asks `begin` whom to tell of each step, once it is known how many come."""
    from transformers import TrainerCallback

    class _Steps(TrainerCallback):
        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            epochs = recipe.epochs if recipe.stop_after is None else recipe.stop_after
            self._advance = begin(-(-state.max_steps * epochs // recipe.epochs))

        def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            self._advance(1)

    return _Steps()


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


def _training_arguments(recipe: LoraRecipe, folder: str, precision: str, device: str) -> Any:
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
        disable_tqdm=True,  # its bar writes losses to stdout, which belongs to data
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
