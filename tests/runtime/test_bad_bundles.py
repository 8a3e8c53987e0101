"""Hostile bundles whose hashes agree: each listed threat in each file, refused with exit code 3 and the file's name.

docs/security.md has the table from threat to test; a case's name here is a row there.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_bundles
import onnx
import pytest
from bad_bundles import edit_json, edit_model, field, replace, varint
from onnx import TensorProto, helper, numpy_helper

from edgewren import BundleError, Classifier
from edgewren.cli.main import main

MODEL, TOKENIZER, CONFIG, MANIFEST = "onnx/model.onnx", "tokenizer.json", "config.json", "manifest.json"

Spoil = Callable[[Path], object]
CASES: dict[str, tuple[str, Spoil, str]] = {}
"""Name -> (file that the message names, what is done to a good bundle, what the message says)."""


def case(name: str, file: str, says: str, spoil: Spoil) -> None:
    assert name not in CASES
    CASES[name] = (file, spoil, says)


def raw_model(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda b: replace(b, MODEL, change((b / MODEL).read_bytes()))


def model(change: Callable[[onnx.ModelProto], object]) -> Spoil:
    return lambda b: edit_model(b, change)


def json_file(name: str, change: Callable[[Any], object]) -> Spoil:
    def change_in_place(value: Any) -> None:
        change(value)

    return lambda b: edit_json(b, name, change_in_place)


def text_file(name: str, change: Callable[[str], str]) -> Spoil:
    return lambda b: replace(b, name, change((b / name).read_text(encoding="utf-8")).encode("utf-8", "surrogatepass"))


def external(tensor: onnx.TensorProto, location: str = "../../../etc/passwd") -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def set_node(change: Callable[[onnx.NodeProto], object]) -> Spoil:
    return model(lambda m: change(m.graph.node[-2]))


def branch(tensor: onnx.TensorProto | None = None) -> onnx.GraphProto:
    constants = [] if tensor is None else [tensor]
    node = helper.make_node("Identity", ["embeddings"], ["inner"])
    return helper.make_graph([node], "branch", [], [helper.make_empty_tensor_value_info("inner")], constants)


def add_subgraph(m: onnx.ModelProto, operator: str, names: tuple[str, ...]) -> None:
    secret = TensorProto(name="secret", data_type=1, dims=[1])
    external(secret)
    m.graph.node.append(helper.make_node(operator, ["zero"], ["out"], **{name: branch(secret) for name in names}))


def add_function(m: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 17)]
    m.functions.append(
        helper.make_function("local", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], opset)
    )


def add_training_info(m: onnx.ModelProto) -> None:
    m.training_info.add().initialization.CopyFrom(branch())


def add_sparse(m: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(__import__("numpy").ones(1, "float32"), "sparse")
    indices = numpy_helper.from_array(__import__("numpy").zeros(1, "int64"), "indices")
    m.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9]))


def add_metadata(m: onnx.ModelProto) -> None:
    settings = {"session_options": {"intra_op_num_threads": 9999, "optimized_model_filepath": "/etc/x"}}
    m.metadata_props.add(key="ort_config", value=json.dumps(settings))


def initializer(name: str, change: Callable[[onnx.TensorProto], object]) -> Spoil:
    return model(lambda m: change(next(t for t in m.graph.initializer if t.name == name)))


def dims(*values: int) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        del tensor.dims[:]
        tensor.dims.extend(values)

    return change


def constant_bomb(operator: str) -> Spoil:
    def change(m: onnx.ModelProto) -> None:
        m.graph.initializer.append(numpy_helper.from_array(__import__("numpy").array([2**16, 2**16]), "huge"))
        inputs = {"ConstantOfShape": ["huge"], "Expand": ["bias", "huge"], "Tile": ["weight", "huge"]}[operator]
        m.graph.node.append(helper.make_node(operator, inputs, ["bomb"]))

    return model(change)


# The folder ---------------------------------------------------------------------------------------------------------

case("no manifest", "manifest.json", "has no manifest.json", lambda b: (b / MANIFEST).unlink())
case("model is missing", MODEL, "lacks", lambda b: (b / MODEL).unlink())
case("a pickle lies in the folder", "weights.pkl", "does not belong", lambda b: (b / "weights.pkl").write_bytes(b"x"))
case("code lies in the folder", "modeling.py", "does not belong", lambda b: (b / "modeling.py").write_text("x"))
case(
    "a file too many beside the model",
    "onnx/model.onnx.data",
    "does not belong",
    lambda b: (b / "onnx/model.onnx.data").write_bytes(b"x"),
)
case("a folder too many", ".git", "does not belong", lambda b: (b / ".git").mkdir())
case("the manifest names a pickle", MANIFEST, "a file name is 'weights.pkl'", lambda b: replace(b, "weights.pkl", b"x"))
case("the manifest names code", MANIFEST, "a file name is 'modeling.py'", lambda b: replace(b, "modeling.py", b"x"))
for linked in (MODEL, TOKENIZER, CONFIG, MANIFEST):
    case(
        f"{linked} is a link to a good file",
        linked,
        "link",
        lambda b, name=linked: ((b / name).rename(b.parent / "real"), (b / name).symlink_to(b.parent / "real")),
    )
case(
    "the folder of models is a link",
    "onnx",
    "is a link",
    lambda b: ((b / "onnx").rename(b.parent / "real"), (b / "onnx").symlink_to(b.parent / "real")),
)
if hasattr(os, "mkfifo"):
    for piped in (TOKENIZER, MANIFEST):
        case(
            f"{piped} is a named pipe",
            piped,
            "not a regular file",
            lambda b, name=piped: ((b / name).unlink(), os.mkfifo(b / name)),
        )
case(
    "a folder in place of the model",
    MODEL,
    "not a regular file|does not belong",
    lambda b: ((b / MODEL).unlink(), (b / MODEL).mkdir()),
)
case(
    "model changed in one bit",
    MODEL,
    "not the file",
    lambda b: (b / MODEL).write_bytes((b / MODEL).read_bytes()[:-1] + b"\x7f"),
)
case("model cut off", MODEL, "bytes", lambda b: (b / MODEL).write_bytes((b / MODEL).read_bytes()[:-9]))
case(
    "tokenizer changed",
    TOKENIZER,
    "not the file",
    lambda b: (b / TOKENIZER).write_bytes((b / TOKENIZER).read_bytes().replace(b"good", b"evil")),
)
case(
    "config changed",
    CONFIG,
    "not the file",
    lambda b: (b / CONFIG).write_bytes((b / CONFIG).read_bytes().replace(b"neutral", b"nEutral")),
)
case("card changed", "README.md", "not the file", lambda b: (b / "README.md").write_bytes(b"# tinY\n"))
case(
    "golden texts changed",
    "golden.jsonl",
    "not the file",
    lambda b: (b / "golden.jsonl").write_bytes((b / "golden.jsonl").read_bytes().replace(b"good", b"evil")),
)

# manifest.json ------------------------------------------------------------------------------------------------------

case(
    "manifest leads out of the folder",
    MANIFEST,
    "a file name",
    json_file(MANIFEST, lambda m: m["variants"]["fp32"].update(file="../model.onnx")),
)
case(
    "manifest names an absolute path",
    MANIFEST,
    "a file name",
    json_file(MANIFEST, lambda m: m["variants"]["fp32"].update(file="/etc/passwd")),
)
case(
    "manifest names a drive",
    MANIFEST,
    "a file name",
    json_file(MANIFEST, lambda m: m["variants"]["fp32"].update(file="C:model.onnx")),
)
case(
    "manifest names a deep path",
    MANIFEST,
    "a file name",
    json_file(MANIFEST, lambda m: m["variants"]["fp32"].update(file="onnx/a/model.onnx")),
)
case(
    "manifest names a file twice",
    MANIFEST,
    "occurs once",
    json_file(MANIFEST, lambda m: m["files"].update({"Config.json": m["files"]["config.json"]})),
)
case(
    "manifest takes the tokenizer for a model",
    MANIFEST,
    "ending in .onnx",
    json_file(MANIFEST, lambda m: m["variants"]["fp32"].update(file=TOKENIZER)),
)
case(
    "manifest of a future version",
    MANIFEST,
    "format version 2",
    json_file(MANIFEST, lambda m: m.update(format_version=2)),
)
case(
    "manifest with a key twice",
    MANIFEST,
    "twice",
    lambda b: (b / MANIFEST).write_text('{"kind": "x",' + (b / MANIFEST).read_text()[1:]),
)
case("manifest with NaN", MANIFEST, "NaN", json_file(MANIFEST, lambda m: m.update(temperature=float("nan"))))
case(
    "manifest with a number that overflows",
    MANIFEST,
    "not finite",
    lambda b: (b / MANIFEST).write_text(
        (b / MANIFEST).read_text().replace('"temperature": 1.0', '"temperature": 1e999')
    ),
)
case(
    "manifest with Infinity", MANIFEST, "Infinity", json_file(MANIFEST, lambda m: m["training"].update(x=float("inf")))
)
case("manifest nested a thousand deep", MANIFEST, "nested", lambda b: (b / MANIFEST).write_text("[" * 10**6))
case(
    "manifest nested thirty deep",
    MANIFEST,
    "nested",
    json_file(MANIFEST, lambda m: m.update(training=json.loads('{"a":' * 30 + "1" + "}" * 30))),
)
case(
    "manifest of sixteen million brackets",
    MANIFEST,
    "too many",
    lambda b: (b / MANIFEST).write_text("[" + "[]," * 5_000_000 + "[]]"),
)
case("manifest larger than the limit", MANIFEST, "more than", lambda b: (b / MANIFEST).write_bytes(b" " * (17 * 2**20)))
case(
    "manifest in UTF-16",
    MANIFEST,
    "JSON",
    lambda b: (b / MANIFEST).write_bytes((b / MANIFEST).read_text().encode("utf-16")),
)
case(
    "manifest with half a surrogate pair",
    MANIFEST,
    "surrogate",
    json_file(MANIFEST, lambda m: m["training"].update(x="\ud800")),
)
case(
    "label with a control character",
    MANIFEST,
    "printable",
    json_file(MANIFEST, lambda m: m.update(labels=["neutral", "a\x1b[2J"])),
)
case(
    "label that turns the writing direction",
    MANIFEST,
    "printable",
    json_file(MANIFEST, lambda m: m.update(labels=["neutral", "a\u202eb"])),
)
case(
    "label that is a formula",
    MANIFEST,
    "formula",
    json_file(MANIFEST, lambda m: m.update(labels=["neutral", "=cmd|'/c calc'!A1"])),
)
case(
    "label that is a formula with a sign",
    MANIFEST,
    "formula",
    json_file(MANIFEST, lambda m: m.update(labels=["neutral", "-2+3+cmd|'/c calc'!A1"])),
)
case("label too long", MANIFEST, "1 to 128", json_file(MANIFEST, lambda m: m.update(labels=["neutral", "x" * 129])))
case("two equal labels", MANIFEST, "distinct", json_file(MANIFEST, lambda m: m.update(labels=["x", "x"])))
case("max length without bound", MANIFEST, "max_length", json_file(MANIFEST, lambda m: m.update(max_length=2**31)))
case(
    "ten thousand files",
    MANIFEST,
    "at most",
    json_file(MANIFEST, lambda m: m["files"].update({f"a{i}.txt": m["files"]["README.md"] for i in range(10_000)})),
)

# config.json and its like -------------------------------------------------------------------------------------------

case(
    "config with other labels",
    CONFIG,
    "id2label",
    json_file(CONFIG, lambda c: c.update(id2label={"0": "partisan", "1": "neutral"})),
)
case(
    "config that names code",
    CONFIG,
    "auto_map",
    json_file(CONFIG, lambda c: c.update(auto_map={"AutoConfig": "x--y.C"})),
)
case("config that is a list", CONFIG, "expected an object", lambda b: replace(b, CONFIG, b"[]"))
case("config with a key twice", CONFIG, "twice", text_file(CONFIG, lambda t: '{"id2label": {},' + t[1:]))
case("config with NaN", CONFIG, "NaN", json_file(CONFIG, lambda c: c.update(x=float("nan"))))
case("config nested deep", CONFIG, "nested", lambda b: replace(b, CONFIG, b'{"a":' * 50 + b"1" + b"}" * 50))
case(
    "config of a million brackets", CONFIG, "too many", lambda b: replace(b, CONFIG, b"[" + b"[]," * 1_100_000 + b"[]]")
)
case("config that is empty", CONFIG, "JSON", lambda b: replace(b, CONFIG, b""))
case(
    "tokenizer_config with a template",
    "tokenizer_config.json",
    "chat_template",
    lambda b: replace(b, "tokenizer_config.json", b'{"chat_template": "{{ x }}"}'),
)
case(
    "tokenizer_config that names code",
    "tokenizer_config.json",
    "auto_map",
    lambda b: replace(b, "tokenizer_config.json", b'{"auto_map": {}}'),
)
case(
    "special_tokens_map of numbers",
    "special_tokens_map.json",
    "no token",
    lambda b: replace(b, "special_tokens_map.json", b'{"a": 1}'),
)

# The model: data elsewhere ------------------------------------------------------------------------------------------

case("external data in an initialiser", MODEL, "another file", initializer("weight", external))
case(
    "external data beside the model",
    MODEL,
    "another file",
    initializer("weight", lambda t: external(t, "model.onnx.data")),
)
case(
    "external data in memory", MODEL, "another file", initializer("weight", lambda t: external(t, "*/_ORT_MEM_ADDR_/*"))
)
case(
    "external data by location flag alone",
    MODEL,
    "another file",
    initializer("weight", lambda t: setattr(t, "data_location", TensorProto.EXTERNAL)),
)
case(
    "external data without the flag",
    MODEL,
    "another file",
    initializer("weight", lambda t: t.external_data.add(key="location", value="x")),
)


def _attribute_tensor(m: onnx.ModelProto) -> None:
    secret = TensorProto(name="secret", data_type=1, dims=[1])
    external(secret)
    m.graph.node.append(helper.make_node("Constant", [], ["c"], value=secret))


case("external data in an attribute", MODEL, "another file", model(_attribute_tensor))
case(
    "external data in a branch",
    MODEL,
    "not on the list|sub-graphs",
    model(lambda m: add_subgraph(m, "If", ("then_branch", "else_branch"))),
)
case(
    "external data in a loop", MODEL, "not on the list|sub-graphs", model(lambda m: add_subgraph(m, "Loop", ("body",)))
)
case(
    "external data in a scan", MODEL, "not on the list|sub-graphs", model(lambda m: add_subgraph(m, "Scan", ("body",)))
)
case(
    "a sub-graph in an operator that has none",
    MODEL,
    "sub-graphs",
    model(lambda m: add_subgraph(m, "Identity", ("body",))),
)
case("sparse tensors", MODEL, "sparse", model(add_sparse))
case(
    "a sparse attribute",
    MODEL,
    "sparse",
    model(
        lambda m: m.graph.node[0].attribute.append(
            onnx.AttributeProto(name="x", type=11, sparse_tensor=onnx.SparseTensorProto(dims=[1]))
        )
    ),
)
case("functions", MODEL, "functions", model(add_function))
case("training information", MODEL, "training", model(add_training_info))
case("a tensor in segments", MODEL, "segments", initializer("weight", lambda t: t.segment.SetInParent()))
case("settings of onnxruntime", MODEL, "metadata", model(add_metadata))
case(
    "metadata on an operator", MODEL, "metadata", set_node(lambda n: n.metadata_props.add(key="ort_config", value="{}"))
)
case(
    "metadata on the graph",
    MODEL,
    "metadata",
    model(lambda m: m.graph.metadata_props.add(key="ort_config", value="{}")),
)

# The model: operators -----------------------------------------------------------------------------------------------

case(
    "a foreign domain is imported",
    MODEL,
    "domain 'com.evil'",
    model(lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 1))),
)
case(
    "a foreign domain of the maker's is imported",
    MODEL,
    "ai.onnx.ml",
    model(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))),
)
case(
    "an operator of a foreign domain", MODEL, "domain 'com.evil'", set_node(lambda n: setattr(n, "domain", "com.evil"))
)
case(
    "an operator not on the list",
    MODEL,
    "'StringNormalizer'.*not on the list",
    set_node(lambda n: setattr(n, "op_type", "StringNormalizer")),
)
case(
    "an operator of an optional domain not on the list",
    MODEL,
    "not on the list",
    model(
        lambda m: (
            m.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
            m.graph.node.append(helper.make_node("Tokenizer", ["zero"], ["x"], domain="com.microsoft")),
        )
    ),
)
case(
    "an operator of a domain that is not imported",
    MODEL,
    "does not import",
    set_node(lambda n: setattr(n, "domain", "com.microsoft")),
)
case("a future operator set", MODEL, "version 99", model(lambda m: setattr(m.opset_import[0], "version", 99)))
case("a future IR version", MODEL, "IR version", model(lambda m: setattr(m, "ir_version", 99)))
case("an operator with an overload", MODEL, "overload", set_node(lambda n: setattr(n, "overload", "x")))
case(
    "an attribute that refers to a function's",
    MODEL,
    "function",
    set_node(lambda n: n.attribute.add(name="x", type=2, ref_attr_name="y")),
)
case(
    "an attribute of another type than its value",
    MODEL,
    "of type 1",
    set_node(lambda n: n.attribute.add(name="x", type=1, i=3)),
)
case(
    "no heads to divide by",
    MODEL,
    "num_heads",
    model(lambda m: m.graph.node[0].attribute.add(name="num_heads", type=2, i=0)),
)
case("a value made twice", MODEL, "made twice", set_node(lambda n: n.output.__setitem__(0, "mean")))
case(
    "an initialiser in place of an input",
    MODEL,
    "no name of its own",
    initializer("weight", lambda t: setattr(t, "name", "input_ids")),
)
case(
    "two initialisers of one name",
    MODEL,
    "no name of its own",
    initializer("weight", lambda t: setattr(t, "name", "bias")),
)
case(
    "an input that is a sequence",
    MODEL,
    "not a tensor",
    model(lambda m: m.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("input_ids", 7, None))),
)
case(
    "an input of strings",
    MODEL,
    "data type 8",
    model(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING)),
)
case(
    "logits for other labels",
    MODEL,
    "one for each of the manifest's labels",
    model(lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 3)),
)
case("a name of a megabyte", MODEL, "more than", set_node(lambda n: setattr(n, "name", "x" * 2**20)))
case(
    "a name that is not UTF-8",
    MODEL,
    "UTF-8",
    raw_model(lambda d: d.replace(b"all_logits", b"all_\xff\xfe\xfd\xfc\xfb\xfa")),
)
case(
    "a hundred thousand operators",
    MODEL,
    "operators",
    model(lambda m: m.graph.node.extend([helper.make_node("Neg", ["zero"], [f"n{i}"]) for i in range(100_000)])),
)
case(
    "a hundred thousand tensors",
    MODEL,
    "stored tensors",
    model(
        lambda m: m.graph.initializer.extend([TensorProto(name=f"t{i}", data_type=1, dims=[0]) for i in range(100_000)])
    ),
)

# The model: sizes ---------------------------------------------------------------------------------------------------

case("a tensor larger than its data", MODEL, "declared shape", initializer("weight", dims(1000, 1000)))
case("a tensor smaller than its data", MODEL, "declared shape", initializer("weight", dims(1, 1)))
case(
    "a tensor whose size overflows",
    MODEL,
    "axis of size|more than",
    initializer("weight", dims(2**31 - 1, 2**31 - 1, 2**31 - 1)),
)
case("a tensor of a huge axis", MODEL, "axis of size", initializer("weight", dims(2**62, 4)))
case("a tensor of a negative axis", MODEL, "axis of size", initializer("weight", dims(-1, 2)))
case("a tensor of a hundred axes", MODEL, "dims has more than", initializer("weight", dims(*[1] * 100)))
case(
    "a tensor that stores its numbers twice", MODEL, "twice", initializer("weight", lambda t: t.float_data.append(1.0))
)
case("a tensor of strings", MODEL, "strings", initializer("weight", lambda t: t.string_data.append(b"x")))
case("a tensor of an unknown type", MODEL, "data type 99", initializer("weight", lambda t: setattr(t, "data_type", 99)))
case(
    "typed data of another length",
    MODEL,
    "declared shape",
    initializer("bias", lambda t: (t.ClearField("raw_data"), t.float_data.extend([1.0] * 5))),
)
case(
    "typed data of another type",
    MODEL,
    "expected float_data",
    initializer("bias", lambda t: (t.ClearField("raw_data"), t.int64_data.extend([1, 2]))),
)
case("a tensor without data", MODEL, "declared shape", initializer("weight", lambda t: t.ClearField("raw_data")))
for bomb in ("ConstantOfShape", "Expand", "Tile"):
    case(f"{bomb} of billions of elements", MODEL, "out of a constant", constant_bomb(bomb))

# The model: the wire ------------------------------------------------------------------------------------------------

case(
    "a second graph that others would merge",
    MODEL,
    "graph comes twice",
    raw_model(lambda d: d + field(7, field(2, b"x"))),
)
case("an unknown field", MODEL, "unknown field 99", raw_model(lambda d: d + field(99, b"x")))
case("field number zero", MODEL, "unknown field 0", raw_model(lambda d: d + b"\x00\x00"))
case("a group", MODEL, "wire type 3", raw_model(lambda d: d + b"\x3b\x3c"))
case("a field of another wire type", MODEL, "wire type 0", raw_model(lambda d: d + varint(7 << 3) + b"\x01"))
case("a length beyond the file", MODEL, "cut off", raw_model(lambda d: d + varint(8 << 3 | 2) + varint(2**40)))
case("a length that overflows", MODEL, "cut off", raw_model(lambda d: d + varint(8 << 3 | 2) + varint(2**64 - 1)))
case("a varint that never ends", MODEL, "shortest form|longer than", raw_model(lambda d: d + b"\xff" * 40))
case("a varint longer than needed", MODEL, "shortest form", raw_model(lambda d: b"\x08\x88\x80\x00" + d[2:]))
case("a model cut off", MODEL, "cut off", raw_model(lambda d: d[: len(d) // 2]))
case("an empty model", MANIFEST, "fp32.bytes", raw_model(lambda d: b""))
case("a text in place of the model", MODEL, "refused", raw_model(lambda d: b"hello, world\n"))
case("onnxruntime's own format", MODEL, "own format", raw_model(lambda d: d[:4] + b"ORTM" + d[8:]))
case("ONNX that is onnxruntime's own format too", MODEL, "own format", raw_model(lambda d: field(2, b"abORTM") + d))

# tokenizer.json -----------------------------------------------------------------------------------------------------

REGEX = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}
GROWTH = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 64}
CHARSMAP = {"type": "Precompiled"}


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    return json_file(TOKENIZER, change)


def charsmap(blob: bytes) -> Spoil:
    return tokenizer(
        lambda t: t.update(normalizer={**CHARSMAP, "precompiled_charsmap": base64.b64encode(blob).decode()})
    )


def units(*values: int) -> bytes:
    return (1024).to_bytes(4, "little") + b"".join(
        value.to_bytes(4, "little") for value in [*values, *[0] * (256 - len(values))]
    )


BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "unk_token": "a", "dropout": None}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}

case(
    "a hostile regular expression", TOKENIZER, "no exported model does", tokenizer(lambda t: t.update(normalizer=REGEX))
)
case(
    "a hostile regular expression in a sequence",
    TOKENIZER,
    "no exported model does",
    tokenizer(lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [t["normalizer"], REGEX]})),
)
case(
    "a hostile regular expression that splits",
    TOKENIZER,
    "of type 'Split'",
    tokenizer(
        lambda t: t.update(
            pre_tokenizer={"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
        )
    ),
)
case(
    "a hostile regular expression in the decoder",
    TOKENIZER,
    "no exported model does",
    tokenizer(lambda t: t.update(decoder=REGEX)),
)
case("a replacement that grows", TOKENIZER, "no exported model does", tokenizer(lambda t: t.update(normalizer=GROWTH)))
case(
    "a normaliser that prepends",
    TOKENIZER,
    "of type 'Prepend'",
    tokenizer(lambda t: t.update(normalizer={"type": "Prepend", "prepend": "x"})),
)
case(
    "a thousand normalisers",
    TOKENIZER,
    "too many",
    tokenizer(lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 1000})),
)
case(
    "normalisers in each other",
    TOKENIZER,
    "too many",
    tokenizer(
        lambda t: t.update(
            normalizer=json.loads('{"type": "Sequence", "normalizers": [' * 60 + '{"type": "NFC"}' + "]}" * 60)
        )
    ),
)
case("an unknown model", TOKENIZER, "'WordLevel'", tokenizer(lambda t: t["model"].update(type="WordLevel")))
case("no model", TOKENIZER, "model is 'None'", tokenizer(lambda t: t.pop("model")))
case("an unknown entry", TOKENIZER, "unknown entry", tokenizer(lambda t: t.update(plugin="x")))
case(
    "an unknown token that is not there",
    TOKENIZER,
    "unknown token",
    tokenizer(lambda t: t["model"].update(unk_token="[NO]")),
)
case(
    "words of any length",
    TOKENIZER,
    "max_input_chars_per_word",
    tokenizer(lambda t: t["model"].update(max_input_chars_per_word=10**9)),
)
case("ids beyond any model", TOKENIZER, "holds an id", tokenizer(lambda t: t["model"]["vocab"].update(good=2**40)))
case("ids that are no numbers", TOKENIZER, "holds an id", tokenizer(lambda t: t["model"]["vocab"].update(good="1")))
case(
    "a token of a megabyte",
    TOKENIZER,
    "token of more",
    tokenizer(lambda t: t["model"]["vocab"].update({"x" * 2**20: 5})),
)
case(
    "a vocabulary of a million",
    TOKENIZER,
    "500000|vocabulary has",
    tokenizer(lambda t: t["model"]["vocab"].update({f"a{i}": i for i in range(600_000)})),
)
case(
    "a random tokenizer",
    TOKENIZER,
    "dropout",
    tokenizer(lambda t: t.update(model={**BPE, "dropout": 0.5}, added_tokens=[])),
)
case(
    "merges of tokens that are not there",
    TOKENIZER,
    "no pair of tokens",
    tokenizer(lambda t: t.update(model={**BPE, "merges": ["a zz"]}, added_tokens=[])),
)
case(
    "merges that are no pairs",
    TOKENIZER,
    "no pair of tokens",
    tokenizer(lambda t: t.update(model={**BPE, "merges": ["ab"]}, added_tokens=[])),
)
case(
    "a Unigram without an unknown token",
    TOKENIZER,
    "unk_id",
    tokenizer(lambda t: t.update(model={**UNIGRAM, "unk_id": None}, added_tokens=[])),
)
case(
    "a Unigram whose unknown token is outside",
    TOKENIZER,
    "unk_id",
    tokenizer(lambda t: t.update(model={**UNIGRAM, "unk_id": 7}, added_tokens=[])),
)
case(
    "a Unigram with an endless score",
    TOKENIZER,
    "finite",
    text_file(TOKENIZER, lambda t: json.dumps({**json.loads(t), "model": UNIGRAM}).replace("-1.0", "-1e999")),
)
case("an empty added token", TOKENIZER, "added token", tokenizer(lambda t: t["added_tokens"][0].update(content="")))
case("an added token with another id", TOKENIZER, "another id", tokenizer(lambda t: t["added_tokens"][0].update(id=9)))
case(
    "a hundred thousand added tokens",
    TOKENIZER,
    "added tokens",
    tokenizer(lambda t: t.update(added_tokens=[{"id": i, "content": str(i)} for i in range(100_000)])),
)
case(
    "a special token beyond any model",
    TOKENIZER,
    "special token",
    tokenizer(lambda t: t["post_processor"]["special_tokens"]["[CLS]"].update(ids=[2**31])),
)
case(
    "a post-processor of a thousand pieces",
    TOKENIZER,
    "values",
    tokenizer(lambda t: t["post_processor"].update(single=[{"Sequence": {"id": "A", "type_id": 0}}] * 1000)),
)
case(
    "padding to a gigabyte",
    TOKENIZER,
    "padding",
    tokenizer(
        lambda t: t.update(
            padding={
                "strategy": {"Fixed": 2**30},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            }
        )
    ),
)
case(
    "truncation of its own",
    TOKENIZER,
    "truncation",
    tokenizer(
        lambda t: t.update(truncation={"max_length": 2, "strategy": "LongestFirst", "stride": 1, "direction": "Right"})
    ),
)
case("tokenizer with a key twice", TOKENIZER, "twice", text_file(TOKENIZER, lambda t: t.replace('"good":', '"bad":')))
case("tokenizer with NaN", TOKENIZER, "NaN", tokenizer(lambda t: t["model"].update(x=float("nan"))))
case("tokenizer nested deep", TOKENIZER, "nested", lambda b: replace(b, TOKENIZER, b"[" * 10**6))
case(
    "tokenizer of millions of brackets",
    TOKENIZER,
    "too many",
    lambda b: replace(b, TOKENIZER, b"[" + b"[]," * 5_000_000 + b"[]]"),
)
case("tokenizer larger than the limit", TOKENIZER, "more than", lambda b: replace(b, TOKENIZER, b" " * (33 * 2**20)))
case("tokenizer that is not UTF-8", TOKENIZER, "JSON", lambda b: replace(b, TOKENIZER, b"\xff{}"))
case("a character map without a trie", TOKENIZER, "no trie", charsmap(b"\xff\xff\xff\xff"))
case("a character map that leads outside", TOKENIZER, "outside its trie", charsmap(units(1 << 30)))
case("a character map whose texts lie outside", TOKENIZER, "outside its texts", charsmap(units(0x100)))
case("a character map that grows", TOKENIZER, "one character into many", charsmap(units() + b"x" * 1000))
case(
    "a character map that is no base64",
    TOKENIZER,
    "base64",
    tokenizer(lambda t: t.update(normalizer={**CHARSMAP, "precompiled_charsmap": "!"})),
)


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


HEAVIEST = (
    "manifest of sixteen million brackets",
    "tokenizer of millions of brackets",
    "tokenizer larger than the limit",
    "a vocabulary of a million",
    "a hundred thousand operators",
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVIEST)) for name in CASES])
def test_a_bad_bundle_is_refused_by_name_and_at_once(bundle, name):
    file, spoil, says = CASES[name]
    spoil(bundle)
    started = time.process_time()
    with pytest.raises(BundleError) as refusal:
        Classifier.load(bundle, device="cpu", threads=1)
    seconds = time.process_time() - started
    assert refusal.value.exit_code == 3
    assert isinstance(refusal.value, ValueError)
    assert type(refusal.value) is not BundleError, "each refusal has a class of its own"
    assert Path(file).name in str(refusal.value)
    assert re.search(says, str(refusal.value)), str(refusal.value)
    assert len(str(refusal.value)) < 1500
    assert seconds < 2


def test_there_are_enough_bad_bundles_for_every_file():
    named = [file for file, _, _ in CASES.values()]
    assert len(CASES) >= 60
    assert all(named.count(file) >= 10 for file in (MANIFEST, MODEL, TOKENIZER, CONFIG))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVIEST)
def test_the_heaviest_bombs_take_little_time_and_memory_in_a_process_of_their_own(bundle, name):
    CASES[name][1](bundle)
    program = (
        "import resource, sys, time\n"
        "from edgewren.cli.main import main\n"
        "started = time.perf_counter()\n"
        "code = main(['verify', sys.argv[1]])\n"
        "print(code, time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bundle], capture_output=True, text=True, timeout=60, check=True
    )
    code, seconds, megabytes = map(float, done.stdout.split()[-3:])
    assert code == 3
    assert Path(CASES[name][0]).name in done.stderr
    assert megabytes < 300
    assert seconds < 2


def test_the_command_line_refuses_with_exit_code_three_and_one_line(bundle, capsys):
    CASES["external data in an initialiser"][1](bundle)
    for verb in (["verify", str(bundle)], ["score", "-", "--model", str(bundle)]):
        assert main(verb) == 3
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "model.onnx" in err
    assert main(["info", str(bundle)]) == 0  # looks at no model


@pytest.mark.parametrize("verb", ["info", "verify", "score", "evaluate"])
def test_another_bundle_than_required_is_refused(tiny_bundle, tmp_path, capsys, verb):
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\ngood,neutral\nbad,partisan\n")
    arguments = {
        "info": ["info", str(tiny_bundle)],
        "verify": ["verify", str(tiny_bundle)],
        "score": ["score", str(texts), "--model", str(tiny_bundle), "--prefix", "new_"],
        "evaluate": ["evaluate", str(texts), "--label-column", "label", "--model", str(tiny_bundle)],
    }[verb]
    sha256 = Classifier.load(tiny_bundle).bundle.sha256
    assert main([*arguments, "--require-sha256", sha256.upper()]) == 0
    assert main([*arguments, "--require-sha256", "0" * 64]) == 3
    assert "is another bundle than required" in capsys.readouterr().err
    assert main([*arguments, "--require-sha256", "abc"]) == 2
    with pytest.raises(BundleError, match="another bundle"):
        Classifier.load(tiny_bundle, expected_sha256="0" * 64)


def test_a_file_swapped_after_the_check_is_never_used(bundle, monkeypatch):
    """The bytes that were hashed are the bytes that are parsed: each file is opened once."""
    from edgewren import bundle_folder

    opened: list[str] = []
    read = bundle_folder.read_regular

    def read_and_swap(path: Path, limit: int) -> bytes:
        data = read(path, limit)
        opened.append(path.name)
        path.write_bytes(b"swapped")
        return data

    monkeypatch.setattr("edgewren.bundle.read_regular", read_and_swap)
    monkeypatch.setattr("edgewren.bundle.check_listing", lambda *_: None)
    loaded = Classifier.load(bundle, device="cpu", threads=1)
    assert loaded.predict(["good vote"])
    assert len(opened) == len(set(opened))
    assert {"manifest.json", "tokenizer.json", "model.onnx", "config.json"} <= set(opened)


def test_replacing_a_file_by_itself_keeps_a_bundle_good(bundle):
    """The tool that makes the bad ones spoils nothing by itself."""
    for name in (MODEL, TOKENIZER, CONFIG, "README.md"):
        replace(bundle, name, (bundle / name).read_bytes())
    bad_bundles.edit_model(bundle, lambda _: None)
    bad_bundles.edit_json(bundle, TOKENIZER, lambda _: None)
    assert Classifier.load(bundle).predict(["good"])
