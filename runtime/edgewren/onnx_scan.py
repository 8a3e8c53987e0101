"""Is this ONNX file only what `edgewren export` writes? Answered from its bytes, before onnxruntime sees them.

Everything that is not on a list here is refused: fields, operators and their domains, types of numbers. So there is no
way to name a file beside the model, a library of operators, a sub-graph or settings of onnxruntime. Weights are
measured, not read. Knows nothing of bundles or texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgewren import onnx_operands, onnx_schemas
from edgewren.errors import BundleModelError
from edgewren.onnx_operators import BOUNDED_INTEGERS, OPERATORS
from edgewren.onnx_sizes import Sizes
from edgewren.protobuf import Message, Span, WireError, signed

DOMAINS = {"": (13, 26), "ai.onnx": (13, 26), "com.microsoft": (1, 1)}
"""Operator sets that a model may import, with their first and last version."""

IR_VERSIONS = (7, 13)
MAXIMUM_NODES = 20_000
MAXIMUM_TENSORS = 20_000
MAXIMUM_NAME_BYTES = 512
MAXIMUM_RANK = 8

_MAXIMUM_NOTE_BYTES = 4096
_MAXIMUM_OPERANDS = 256
_MAXIMUM_ATTRIBUTE_NUMBERS = 4096
_MAXIMUM_ELEMENTS = 2**40
_FLATBUFFER = slice(4, 8), b"ORTM"

FLOAT, INT64 = 1, 7
# data type -> bytes of one element, and the field that holds it where it is not in raw_data
_TYPES: dict[int, tuple[int, str]] = {
    1: (4, "float_data"),
    2: (1, "int32_data"),  # uint8
    3: (1, "int32_data"),  # int8
    6: (4, "int32_data"),
    7: (8, "int64_data"),
    9: (1, "int32_data"),  # bool
    10: (2, "int32_data"),  # float16
    11: (8, "double_data"),
}
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data")
# attribute type -> the field that holds its value
_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}


@dataclass(frozen=True)
class Value:
    """An input or output: ONNX's number of its type, and its shape (a number, a name, or None for each axis)."""

    data_type: int
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Scanned:
    """What a model that passed declares.

    Attributes:
        inputs, outputs: the graph's, by name, in order.
        operators: how often each type occurs; those of com.microsoft carry the domain's name in front.
        tensors: number of stored tensors.
        tensor_bytes: their sizes together.
    """

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    operators: Mapping[str, int]
    tensors: int
    tensor_bytes: int


def scan(data: bytes, name: str = "the model") -> Scanned:
    """Check a model's bytes.

    Args:
        data: the ONNX file.
        name: what messages call it.

    Raises:
        BundleModelError: anything in it that `edgewren export` does not write.
    """
    where, marker = _FLATBUFFER
    if data[where] == marker:  # onnxruntime would read its own format instead, whatever else the bytes are
        raise BundleModelError(f"{name} is refused: it is in onnxruntime's own format, expected ONNX.")
    try:
        return _Scan(data).model()
    except WireError as error:
        raise BundleModelError(
            f"{name} is refused: {error}. Expected an ONNX model as 'edgewren export' writes it; export it again."
        ) from error


class _Scan:
    """One pass over one model."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._operators: Counter[str] = Counter()
        self._tensor_bytes = 0
        self._tensors = 0
        self._domains: set[str] = set()
        self._sizes = Sizes()
        self._shapes: dict[str, tuple[int, ...]] = {}
        # attributes that were checked, to their names and integers: most come again and again
        self._passed: dict[bytes, tuple[str, int | None]] = {}

    def model(self) -> Scanned:
        model = Message(self._data, (0, len(self._data)), onnx_schemas.MODEL)
        ir_version = model.integer("ir_version")
        if not IR_VERSIONS[0] <= ir_version <= IR_VERSIONS[1]:
            raise WireError(f"its IR version is {ir_version}, expected {IR_VERSIONS[0]} to {IR_VERSIONS[1]}")
        for note in ("producer_name", "producer_version", "domain", "doc_string"):
            model.text(note, _MAXIMUM_NOTE_BYTES)
        for span in model.spans("opset_import"):
            self._opset(Message(self._data, span, onnx_schemas.OPSET))
        graph = model.span("graph")
        if graph is None:
            raise WireError("it has no graph")
        return self._graph(Message(self._data, graph, onnx_schemas.GRAPH))

    def _opset(self, entry: Message) -> None:
        domain, version = entry.text("domain", MAXIMUM_NAME_BYTES), entry.integer("version")
        if domain not in DOMAINS:
            raise WireError(f"it imports operators of the domain {domain!r}, expected only ai.onnx and com.microsoft")
        first, last = DOMAINS[domain]
        if not first <= version <= last:
            raise WireError(f"it imports version {version} of {domain or 'ai.onnx'}, expected {first} to {last}")
        known = domain or "ai.onnx"
        if known in self._domains:
            raise WireError(f"it imports {known} twice")
        self._domains.add(known)

    def _graph(self, graph: Message) -> Scanned:
        graph.text("name", MAXIMUM_NAME_BYTES)
        graph.text("doc_string", _MAXIMUM_NOTE_BYTES)
        tensors, nodes = graph.spans("initializer"), graph.spans("node")
        if len(tensors) > MAXIMUM_TENSORS:
            raise WireError(f"it has {len(tensors)} stored tensors, more than {MAXIMUM_TENSORS}")
        if not 1 <= len(nodes) <= MAXIMUM_NODES:
            raise WireError(f"it has {len(nodes)} operators, expected 1 to {MAXIMUM_NODES}")
        inputs = self._values(graph.spans("input"), "input")
        outputs = self._values(graph.spans("output"), "output")
        self._values(graph.spans("value_info"), "value")
        names = set(inputs)
        for span in tensors:
            name, shape, numbers = self._tensor(span)
            if not name or name in names:
                raise WireError(f"the stored tensor {name!r} has no name of its own")
            names.add(name)
            self._shapes[name] = shape
            if numbers is not None:
                self._sizes.store(name, numbers)
        for span in nodes:
            made = self._node(span)
            for name in made:
                if name in names:
                    raise WireError(f"the value {name!r} is made twice")
                names.add(name)
        return Scanned(inputs, outputs, dict(self._operators), self._tensors, self._tensor_bytes)

    def _values(self, spans: list[Span], role: str) -> dict[str, Value]:
        if len(spans) > MAXIMUM_TENSORS or (role != "value" and not 1 <= len(spans) <= _MAXIMUM_OPERANDS):
            raise WireError(f"it has {len(spans)} {role}s")
        out: dict[str, Value] = {}
        for span in spans:
            entry = Message(self._data, span, onnx_schemas.VALUE)
            name = entry.text("name", MAXIMUM_NAME_BYTES)
            entry.text("doc_string", _MAXIMUM_NOTE_BYTES)
            place = entry.span("type")
            if not name or name in out or place is None:
                raise WireError(f"the {role} {name!r} has no type, or no name of its own")
            out[name] = self._type(place, f"the {role} {name!r}")
        return out

    def _type(self, span: Span, what: str) -> Value:
        outer = Message(self._data, span, onnx_schemas.TYPE)
        outer.text("denotation", MAXIMUM_NAME_BYTES)
        place = outer.span("tensor_type")
        if place is None:
            raise WireError(f"{what} is not a tensor")
        tensor = Message(self._data, place, onnx_schemas.TENSOR_TYPE)
        data_type = tensor.integer("elem_type")
        if data_type not in _TYPES:
            raise WireError(f"{what} has data type {data_type}, which no exported model has")
        shape = tensor.span("shape")
        if shape is None:
            return Value(data_type, None)
        dimensions = Message(self._data, shape, onnx_schemas.SHAPE).spans("dim")
        if len(dimensions) > MAXIMUM_RANK:
            raise WireError(f"{what} has {len(dimensions)} axes, more than {MAXIMUM_RANK}")
        return Value(data_type, tuple(self._dimension(place, what) for place in dimensions))

    def _dimension(self, span: Span, what: str) -> int | str | None:
        entry = Message(self._data, span, onnx_schemas.DIMENSION)
        entry.text("denotation", MAXIMUM_NAME_BYTES)
        if "dim_param" in entry:
            if "dim_value" in entry:
                raise WireError(f"{what} has an axis with a name and a size")
            return entry.text("dim_param", MAXIMUM_NAME_BYTES)
        if "dim_value" not in entry:
            return None
        size = entry.integer("dim_value")
        if size >= 2**31:
            raise WireError(f"{what} has an axis of size {size}")
        return size

    def _tensor(self, span: Span) -> tuple[str, tuple[int, ...], list[int] | None]:
        """Check a tensor; return its name, its shape, and its numbers where they are few integers."""
        tensor = Message(self._data, span, onnx_schemas.TENSOR)
        name = tensor.text("name", MAXIMUM_NAME_BYTES)
        what = f"the stored tensor {name!r}"
        tensor.text("doc_string", _MAXIMUM_NOTE_BYTES)
        if tensor.integer("data_location"):
            raise WireError(f"{what}: {onnx_schemas.EXTERNAL}")
        data_type = tensor.integer("data_type")
        if data_type not in _TYPES:
            raise WireError(f"{what} has data type {data_type}, which no exported model has")
        elements = 1
        shape = tuple(tensor.integers("dims", MAXIMUM_RANK))
        for size in shape:
            elements *= size
            if not 0 <= size < 2**31 or elements > _MAXIMUM_ELEMENTS:
                raise WireError(f"{what} has an axis of size {size}, more than a file can hold")
        width, typed = _TYPES[data_type]
        filled = [field for field in _TYPED_FIELDS if field in tensor]
        raw = tensor.span("raw_data")
        if raw is not None:
            stored, expected = raw[1] - raw[0], elements * width
            if filled:
                raise WireError(f"{what} stores its numbers twice")
        else:
            if filled not in ([], [typed]):
                raise WireError(f"{what} stores its numbers as {', '.join(filled)}, expected {typed}")
            stored, expected = tensor.count(typed, onnx_schemas.TENSOR.kind(typed)), elements
        if stored != expected:
            unit = "elements" if raw is None else "bytes"
            raise WireError(f"{what} stores {stored} {unit}, but its declared shape takes {expected}")
        self._tensors += 1
        self._tensor_bytes += elements * width
        few = data_type == INT64 and elements <= 2 * MAXIMUM_RANK  # Pad has two for each axis
        return name, shape, self._integers(tensor, raw) if few else None

    def _integers(self, tensor: Message, raw: Span | None) -> list[int]:
        if raw is None:
            return tensor.integers("int64_data", 2 * MAXIMUM_RANK)
        return [
            int.from_bytes(self._data[start : start + 8], "little", signed=True) for start in range(raw[0], raw[1], 8)
        ]

    def _node(self, span: Span) -> list[str]:
        node = Message(self._data, span, onnx_schemas.NODE)
        operator, domain = node.text("op_type", MAXIMUM_NAME_BYTES), node.text("domain", MAXIMUM_NAME_BYTES)
        what = f"the operator {node.text('name', MAXIMUM_NAME_BYTES)!r} of type {operator!r}"
        node.text("doc_string", _MAXIMUM_NOTE_BYTES)
        known = domain or "ai.onnx"
        if known not in OPERATORS:
            raise WireError(f"{what} belongs to the domain {domain!r}, expected ai.onnx or com.microsoft")
        if known not in self._domains:
            raise WireError(f"{what} belongs to {known}, which the model does not import")
        if operator not in OPERATORS[known]:
            raise WireError(f"{what} ({known}) is not on the list of operators that an exported model may have")
        inputs, outputs = node.texts("input", MAXIMUM_NAME_BYTES), node.texts("output", MAXIMUM_NAME_BYTES)
        if len(inputs) > _MAXIMUM_OPERANDS or not 1 <= len(outputs) <= _MAXIMUM_OPERANDS:
            raise WireError(f"{what} has {len(inputs)} inputs and {len(outputs)} outputs")
        attributes: dict[str, int | None] = {}
        for place in node.spans("attribute"):
            name, integer = self._attribute(place, what)
            if name in attributes or len(attributes) > _MAXIMUM_OPERANDS:
                raise WireError(f"{what} has the attribute {name!r} twice, or too many attributes")
            attributes[name] = integer
        objection = onnx_operands.objection(known, operator, inputs, len(outputs), attributes, self._shapes)
        if known == "ai.onnx":
            objection = objection or self._sizes.objection(operator, inputs)
            self._sizes.follow(operator, inputs, outputs, attributes)
        if objection is not None:
            raise WireError(f"{what} {objection}")
        self._operators[operator if known == "ai.onnx" else f"{known}.{operator}"] += 1
        return [name for name in outputs if name]

    def _attribute(self, span: Span, what: str) -> tuple[str, int | None]:
        """Check an attribute; return its name, and its value where that is one integer."""
        content = self._data[span[0] : span[1]]
        known = self._passed.get(content)
        if known is not None:
            return known
        attribute = Message(self._data, span, onnx_schemas.ATTRIBUTE)
        name = attribute.text("name", MAXIMUM_NAME_BYTES)
        attribute.text("doc_string", _MAXIMUM_NOTE_BYTES)
        kind = attribute.integer("type")
        held = [field for field in _ATTRIBUTES.values() if field in attribute]
        expected = _ATTRIBUTES.get(kind)
        if not name or expected is None or held not in ([], [expected]):
            raise WireError(f"{what} has an attribute {name!r} of type {kind} that holds {held or 'nothing'}")
        if not held and expected not in ("floats", "ints"):
            raise WireError(f"{what} has an attribute {name!r} without a value")
        if expected == "t":
            self._tensor(attribute.span("t") or span)
        elif expected == "s":
            attribute.text("s", MAXIMUM_NAME_BYTES)
        elif expected == "ints":
            attribute.integers("ints", _MAXIMUM_ATTRIBUTE_NUMBERS)
        elif expected == "floats" and attribute.count("floats", "floats32") > _MAXIMUM_ATTRIBUTE_NUMBERS:
            raise WireError(f"{what} has an attribute {name!r} of too many numbers")
        bounds = BOUNDED_INTEGERS.get(name)
        if bounds is not None and (expected != "i" or not bounds[0] <= attribute.integer("i") <= bounds[1]):
            raise WireError(f"{what} has {name} = {attribute.integer('i')}, expected {bounds[0]} to {bounds[1]}")
        found = name, signed(attribute.integer("i")) if expected == "i" else None
        if expected != "t":  # tensors are counted
            self._passed[content] = found
        return found
