"""Shared fixtures: a bundle with a real ONNX model and a real tokenizer, small enough to be made in the test run."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # some test modules import onnxruntime themselves
if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):  # in a script's background; processes of ours would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakeBundle = Callable[..., Path]

WORDS = """
    good bad tax vote the senate http great awful cat dog you we support against bill nonfinite
""".split()
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
GOLDEN_TEXTS = (
    "good vote",
    "bad tax",
    "",
    "x",
    "the senate bill \U0001f600",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "http",
    " \t ",
    "we support you " * 20,
)
NON_FINITE_WORD = "nonfinite"


def _tokenizer_json() -> bytes:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = [*SPECIALS, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer.to_str().encode()


def _model(outputs: int, *, vocabulary: int, dimension: int = 16, seed: int = 7) -> bytes:
    """Embedding, masked mean, affine map: the shape of every model that is exported, without the transformer.

    The first row is computed twice, at both ends: a batch of one text would take other kernels, with other last bits.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    table = rng.normal(size=(vocabulary, dimension)).astype(np.float32)
    table[len(SPECIALS) + WORDS.index(NON_FINITE_WORD)] = np.nan
    weights = {
        "embeddings": table,
        "weight": rng.normal(size=(dimension, outputs)).astype(np.float32),
        "bias": rng.normal(size=outputs).astype(np.float32),
        "axis_sequence": np.array([1], np.int64),
        "axis_dimension": np.array([2], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["input_ids", "zero", "one", "zero"], ["first_ids"]),
        helper.make_node("Concat", ["input_ids", "first_ids"], ["ids"], axis=0),
        helper.make_node("Slice", ["attention_mask", "zero", "one", "zero"], ["first_mask"]),
        helper.make_node("Concat", ["attention_mask", "first_mask"], ["integer_mask"], axis=0),
        helper.make_node("Gather", ["embeddings", "ids"], ["tokens"]),
        helper.make_node("Cast", ["integer_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis_dimension"], ["column"]),
        helper.make_node("Mul", ["tokens", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis_sequence"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "axis_sequence"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["all_logits"]),
        helper.make_node("Slice", ["all_logits", "zero", "last", "zero"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return model.SerializeToString()


def _make_bundle(
    folder: Path,
    *,
    labels: Sequence[str] = ("neutral", "partisan"),
    max_length: int = 32,
    temperature: float = 1.0,
    seed: int = 7,
) -> Path:
    """Write a bundle whose golden logits are its own model's."""
    from edgewren.classifier import Classifier
    from edgewren.manifest import File, Manifest, Variant

    tokenizer = _tokenizer_json()
    model = _model(len(labels), vocabulary=len(json.loads(tokenizer)["model"]["vocab"]), seed=seed)
    config = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    files = {"tokenizer.json": tokenizer, "config.json": json.dumps(config).encode(), "README.md": b"# tiny\n"}
    (folder / "onnx").mkdir(parents=True)

    def write(files: dict[str, bytes]) -> None:
        for name, data in {**files, "onnx/model.onnx": model}.items():
            (folder / name).write_bytes(data)
        manifest = Manifest(
            labels=tuple(labels),
            kind="ridge",
            max_length=max_length,
            normaliser="none",
            temperature=temperature,
            variants={"fp32": Variant("onnx/model.onnx", len(model), hashlib.sha256(model).hexdigest(), "fp32", "any")},
            files={name: File(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
            encoder={"id": "tiny", "parameters": {"dimension": 16}},
            training={"rows": 10, "seed": 0},
        )
        (folder / "manifest.json").write_bytes(manifest.to_json())

    write(files)
    logits = Classifier.load(folder, device="cpu", threads=1).score(GOLDEN_TEXTS).logits
    golden = [{"text": text, "logits": row} for text, row in zip(GOLDEN_TEXTS, logits.tolist(), strict=True)]
    files["golden.jsonl"] = "".join(json.dumps(entry) + "\n" for entry in golden).encode()
    write(files)
    return folder


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    return _make_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, neutral and partisan; the word 'nonfinite' makes NaN logits. Read only: copy it to change it."""
    return _make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def three_class_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make_bundle(tmp_path_factory.mktemp("bundles") / "three", labels=("a", "b", "c"))


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """The folder of default bundles. A source distribution has none of them; where a work tree lacks one, it is broken."""
    root = Path(__file__).parent.parent
    missing = [name for name in ("media-bias-ridge", "media-bias-lora") if not (root / "artifacts" / name).is_dir()]
    if missing and not (root / ".git").exists():
        pytest.skip("artifacts/ is not in source distributions: 'make artifacts' builds it")
    if missing:
        pytest.fail(f"artifacts/{missing[0]} is missing. Run: git restore artifacts (or make artifacts)")
    return root / "artifacts"


def staged_texts(count: int = 240) -> list[str]:
    """Return invented texts of the tiny bundles' words, of one to twelve of them."""
    rng = np.random.default_rng(11)
    known = [word for word in WORDS if word != NON_FINITE_WORD]
    return [" ".join(rng.choice(known, size=1 + index % 12)) for index in range(count)]


@pytest.fixture(scope="session")
def staged_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A bundle with fp32 and fp32_exit, and texts of which about a third leave at each of its two exits."""
    import staged_models

    texts = staged_texts()
    return staged_models.into(_make_bundle(tmp_path_factory.mktemp("bundles") / "staged"), texts), texts
