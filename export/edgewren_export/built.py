"""What a builder hands to the writer: all of a bundle but its card and its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgewren_export.exits import StagedVariant


@dataclass(frozen=True)
class Built:
    """A proved model.

    Attributes:
        files: path in the bundle to bytes: tokenizer, configuration, golden answers.
        variants: precision to ONNX bytes.
        staged: name, such as "int8_exit", to a variant in stages.
    """

    files: Mapping[str, bytes]
    variants: Mapping[str, bytes]
    staged: Mapping[str, StagedVariant] = field(default_factory=dict)
