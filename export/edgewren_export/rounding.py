"""Rounds weights to int8 so that products, not weights, stay close: given what enters a product in fp32, and in int8.

Two steps, both least squares over real tokens:

- The weight is moved to where, times what enters the product in the int8 model, it comes closest to what the fp32 model
  computes there: so it makes up for the rounding of its own inputs and for errors of the products before it.
- Its rows are rounded one after the other, and each one's error is made up for by those still to come: GPTQ (Frantar et
  al. 2022, arXiv:2210.17323).

Pure numpy; what that brings stands in docs/log.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-12
_LARGEST = 127
_BLOCK = 128  # rows whose errors are handed on together: the rest of the matrix is touched once per block
# Shares of the mean diagonal that are added to it: few tokens must not decide over many weights.
_ROUNDING_DAMPING = 0.02
_MOVING_DAMPING = 0.1


@dataclass(frozen=True)
class Rounded:
    """An int8 weight.

    Attributes:
        values: int8 [inputs, outputs].
        scales: of its columns, float32 [outputs].
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]


def round_to_nearest(weight: NDArray[np.float32]) -> Rounded:
    """Round a weight, [inputs, outputs], symmetrically with a scale per column."""
    scales = _scales(weight)
    return Rounded(np.rint(weight / scales).astype(np.int8), scales)


@dataclass(frozen=True)
class Inputs:
    """What enters the products of one input, as moments over tokens; made by `observe`.

    Attributes:
        order: rows, those first of which most depends.
        spread: upper Cholesky factor of the inverse second moments of the int8 model's inputs, in that order.
        correction: [inputs, inputs], what to add to a weight per weight to make up for the inputs' own error.
    """

    order: NDArray[np.intp]
    spread: NDArray[np.float64]
    correction: NDArray[np.float64]


def observe(values: NDArray[np.float32], quantised: NDArray[np.float32]) -> Inputs:
    """Return the moments of a product's input over the same tokens, float32 [tokens, inputs].

    Args:
        values: in the fp32 model.
        quantised: in the int8 model, after quantisation (and as numbers again).
    """
    moments = np.asarray(quantised.T @ quantised / np.float32(len(quantised)), np.float64)
    errors = np.asarray(quantised.T @ (values - quantised) / np.float32(len(quantised)), np.float64)
    diagonal = np.diag(moments)
    unit = np.eye(len(moments)) * max(float(diagonal.mean()), _TINY)
    order = np.argsort(-diagonal, kind="stable")
    inverse = np.linalg.inv((moments + _ROUNDING_DAMPING * unit)[np.ix_(order, order)])
    return Inputs(
        order=order,
        spread=np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T, np.float64),
        correction=np.asarray(np.linalg.solve(moments + _MOVING_DAMPING * unit, errors), np.float64),
    )


def round_for(weight: NDArray[np.float32], inputs: Inputs) -> Rounded:
    """Round a weight, [inputs, outputs], for the inputs that it meets."""
    exact = weight.astype(np.float64)
    moved = exact + inputs.correction @ exact
    scales = _scales(moved)
    values = _rounded_in_turn(moved[inputs.order], inputs.spread, scales.astype(np.float64))
    restored = np.empty_like(values)
    restored[inputs.order] = values
    return Rounded(restored, scales)


def _rounded_in_turn(
    weight: NDArray[np.float64], spread: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.int8]:
    values = np.empty(weight.shape, np.int8)
    rest = weight.copy()
    for start in range(0, len(rest), _BLOCK):
        end = min(start + _BLOCK, len(rest))
        errors = np.empty((end - start, rest.shape[1]))
        for row in range(start, end):
            rounded = np.clip(np.rint(rest[row] / scales), -_LARGEST, _LARGEST)
            values[row] = rounded
            errors[row - start] = (rest[row] - rounded * scales) / spread[row, row]
            rest[row + 1 : end] -= np.outer(spread[row, row + 1 : end], errors[row - start])
        rest[end:] -= spread[start:end, end:].T @ errors
    return values


def _scales(weight: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(np.maximum(np.abs(weight).max(axis=0), _TINY) / _LARGEST, np.float32)
