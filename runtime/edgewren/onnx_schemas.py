"""The messages of an ONNX file, field by field: what may stand in each, and why the others are refused.

Source of the field numbers: onnx.proto of ONNX 1.23 (IR 13).
"""

from __future__ import annotations

from edgewren.protobuf import Field, Schema

EXTERNAL = "it keeps data in another file"
_SUBGRAPH = "it has sub-graphs, which no exported model has"
_SPARSE = "it has sparse tensors, which no exported model has"
_METADATA = "it has metadata, in which settings of onnxruntime could hide"

MODEL = Schema(
    {
        1: Field("ir_version", "varint"),
        2: Field("producer_name", "bytes"),
        3: Field("producer_version", "bytes"),
        4: Field("domain", "bytes"),
        5: Field("model_version", "varint"),
        6: Field("doc_string", "bytes"),
        7: Field("graph", "bytes"),
        8: Field("opset_import", "bytes", repeated=True),
        14: _METADATA,
        20: "it has training information, which no exported model has",
        25: "it has functions of its own, which no exported model has",
        26: "it has a device configuration, which no exported model has",
    }
)
OPSET = Schema({1: Field("domain", "bytes"), 2: Field("version", "varint")})
GRAPH = Schema(
    {
        1: Field("node", "bytes", repeated=True),
        2: Field("name", "bytes"),
        5: Field("initializer", "bytes", repeated=True),
        10: Field("doc_string", "bytes"),
        11: Field("input", "bytes", repeated=True),
        12: Field("output", "bytes", repeated=True),
        13: Field("value_info", "bytes", repeated=True),
        14: "it has quantisation annotations, which no exported model has",
        15: _SPARSE,
        16: _METADATA,
    }
)
NODE = Schema(
    {
        1: Field("input", "bytes", repeated=True),
        2: Field("output", "bytes", repeated=True),
        3: Field("name", "bytes"),
        4: Field("op_type", "bytes"),
        5: Field("attribute", "bytes", repeated=True),
        6: Field("doc_string", "bytes"),
        7: Field("domain", "bytes"),
        8: "it has an operator with an overload, which no exported model has",
        9: _METADATA,
        10: "it has a device configuration, which no exported model has",
    }
)
ATTRIBUTE = Schema(
    {
        1: Field("name", "bytes"),
        2: Field("f", "fixed32"),
        3: Field("i", "varint"),
        4: Field("s", "bytes"),
        5: Field("t", "bytes"),
        6: _SUBGRAPH,
        7: Field("floats", "floats32", repeated=True),
        8: Field("ints", "varints", repeated=True),
        9: "it has attributes of several strings, which no exported model has",
        10: "it has attributes of several tensors, which no exported model has",
        11: _SUBGRAPH,
        13: Field("doc_string", "bytes"),
        14: "it has attributes that are types, which no exported model has",
        15: "it has attributes that are types, which no exported model has",
        20: Field("type", "varint"),
        21: "it has attributes that refer to a function's",
        22: _SPARSE,
        23: _SPARSE,
    }
)
TENSOR = Schema(
    {
        1: Field("dims", "varints", repeated=True),
        2: Field("data_type", "varint"),
        3: "it has a tensor in segments, which no exported model has",
        4: Field("float_data", "floats32", repeated=True),
        5: Field("int32_data", "varints", repeated=True),
        6: "it has a tensor of strings, which no exported model has",
        7: Field("int64_data", "varints", repeated=True),
        8: Field("name", "bytes"),
        9: Field("raw_data", "bytes"),
        10: Field("double_data", "floats64", repeated=True),
        11: "it has a tensor of unsigned 64-bit numbers, which no exported model has",
        12: Field("doc_string", "bytes"),
        13: EXTERNAL,
        14: Field("data_location", "varint"),
        16: _METADATA,
    }
)
VALUE = Schema(
    {
        1: Field("name", "bytes"),
        2: Field("type", "bytes"),
        3: Field("doc_string", "bytes"),
        4: _METADATA,
    }
)
_NO_TENSOR = "it has a value that is not a tensor"
TYPE = Schema(
    {
        1: Field("tensor_type", "bytes"),
        4: _NO_TENSOR,
        5: _NO_TENSOR,
        6: Field("denotation", "bytes"),
        7: _NO_TENSOR,
        8: _NO_TENSOR,
        9: _NO_TENSOR,
    }
)
TENSOR_TYPE = Schema({1: Field("elem_type", "varint"), 2: Field("shape", "bytes")})
SHAPE = Schema({1: Field("dim", "bytes", repeated=True)})
DIMENSION = Schema({1: Field("dim_value", "varint"), 2: Field("dim_param", "bytes"), 3: Field("denotation", "bytes")})
