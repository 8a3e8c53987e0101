"""`EdgewrenClassifier`: a bundle as a scikit-learn classifier that is fitted already. Imports scikit-learn."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewren.classifier import Classifier
from edgewren.errors import InputError, MissingDependencyError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_consistent_length, column_or_1d
except ImportError as error:
    raise MissingDependencyError(
        f"edgewren.integrations.scikit_learn needs scikit-learn, which cannot be imported ({error}). "
        "Run: pip install 'edgewren[sklearn]'."
    ) from error


class EdgewrenClassifier(ClassifierMixin, BaseEstimator):
    """A bundle with the methods, attributes and column order of a scikit-learn classifier.

    It was fitted when the bundle was trained: `predict` works at once, and `fit` trains nothing. It only checks that
    the labels are the bundle's, and takes up how they are written, so that the classifier can stand in a Pipeline, in
    `cross_val_score` (each fold then measures the same model) or in a VotingClassifier. `clone` shares the loaded
    model.

    Args:
        model: folder written by `edgewren export`.
        device, threads, variant: as in `Classifier.load`.

    Attributes:
        classes_: labels, sorted as scikit-learn's are; the columns of `predict_proba` follow it. After `fit` with
            integers or booleans these stand for the labels, here and in what `predict` returns.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        variant: str | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.threads = threads
        self.variant = variant

    @property
    def classes_(self) -> NDArray[Any]:
        return np.sort(self._targets())

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:  # noqa: N803  scikit-learn's names
        """Train nothing; load the bundle and check the labels.

        Args:
            X: only its length is looked at.
            y: labels that the bundle knows, where they are numbers or booleans also as such; or their places in
                `classes_`, which scikit-learn passes where it encodes labels itself (`cross_val_predict` with
                probabilities, VotingClassifier). None: labels are the bundle's own, as before any fit.

        Raises:
            InputError: y holds a label that the bundle does not know, or places without the last one.
            ValueError: X and y differ in length, or y is a table.
        """
        labels = self._classifier().labels
        targets = np.array(labels)
        if y is not None:
            check_consistent_length(X, y)
            given = _distinct(y)
            targets = _targets_for(labels, given)
            known = set(targets.tolist())
            foreign = [label for label in given if label not in known]
            if foreign:
                raise InputError(
                    f"y holds the label {foreign[0]!r}, which {self.model} does not know; it knows: "
                    f"{', '.join(sorted(labels))}. fit trains nothing: train another model with 'edgewren train'."
                )
        self._fitted = targets
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the most probable label of each text, [n], of `classes_`. X: [n] or [n, 1] texts of any kind of
        sequence.
        """
        classifier, targets = self._classifier(), self._targets()
        target_of = dict(zip(classifier.labels, targets, strict=True))
        return np.array([target_of[label] for label in classifier.predict(_texts(X))], dtype=targets.dtype)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return probabilities, float32 [n, classes], columns in the order of `classes_`."""
        return self._classifier().predict_proba(_texts(X))[:, self._order()]

    def decision_function(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return decision values: float32 [n] for two classes, positive for `classes_[1]`, else [n, classes]."""
        values = self._classifier().decision_function(_texts(X))
        order = self._order()
        if values.ndim == 1:
            return values if order[0] == 0 else -values
        return values[:, order]

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        copy = type(self)(**self.get_params(deep=False))
        copy.__dict__.update({name: value for name, value in vars(self).items() if name == "_loaded"})
        return copy

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.requires_fit = False
        tags.target_tags.required = False
        return tags

    def _classifier(self) -> Classifier:
        wanted = (str(self.model), self.device, self.threads, self.variant)
        loaded: tuple[Any, Classifier] | None = getattr(self, "_loaded", None)
        if loaded is None or loaded[0] != wanted:  # nothing is loaded yet, or set_params was called
            classifier = Classifier.load(self.model, device=self.device, threads=self.threads, variant=self.variant)
            self._loaded = loaded = (wanted, classifier)
            self._fitted = np.array(classifier.labels)
        return loaded[1]

    def _targets(self) -> NDArray[Any]:
        """Return what stands for each label, in the bundle's order: itself, or what `fit` was given for it."""
        labels = np.array(self._classifier().labels)
        return getattr(self, "_fitted", labels)  # a clone has a loaded model, and has not been fitted

    def _order(self) -> NDArray[np.intp]:
        return np.argsort(self._targets())


def _distinct(y: ArrayLike) -> list[Any]:
    """Return the distinct values of y, as Python has them."""
    flat: Any = column_or_1d(y)  # raises ValueError where y is a table
    if getattr(y, "ndim", 0) == 1 and hasattr(y, "tolist"):  # pandas' nullable numbers came out as floats
        flat = y
    values = (value.item() if isinstance(value, np.generic) else value for value in flat.tolist())
    return list(dict.fromkeys(values))


def _targets_for(labels: Sequence[str], given: Sequence[Any]) -> NDArray[Any]:
    """Return what stands for each label in a y with the distinct values `given`.

    Raises:
        InputError: integers that are places of labels, of which the last is missing: the others' meaning is unknown.
    """
    spelled = [label.lower() for label in labels]
    if given and all(type(value) is bool for value in given) and sorted(spelled) == ["false", "true"]:
        return np.array([label == "true" for label in spelled])
    if given and all(type(value) is float for value in given) and all(_is_float(label) for label in labels):
        return np.array(labels).astype(np.float64)
    if not given or not all(type(value) is int for value in given):
        return np.array(labels)
    order = np.argsort(labels)
    if all(re.fullmatch("0|-?[1-9][0-9]{0,17}", label) for label in labels):
        numbers = np.array(labels).astype(np.int64)
        # An encoder counts the places of numbers by size or by spelling, as they were in y: unknown where that differs.
        if set(given) <= set(numbers.tolist()) or not np.array_equal(order, np.argsort(numbers)):
            return numbers
    if max(given) < len(labels) - 1:
        raise InputError(
            f"y holds the integers {', '.join(map(str, sorted(given)))}. Integers are places of sorted labels, here "
            f"{', '.join(sorted(labels))}; without the last of them it is unknown which were left out when y was "
            "encoded. Pass rows of all labels, or the labels themselves."
        )
    return np.argsort(order)


def _is_float(label: str) -> bool:
    try:
        return str(float(label)) == label
    except ValueError:
        return False


def _texts(X: Any) -> Any:  # noqa: N803
    """Return texts of a sequence [n], or of a table or array [n, 1], as a ColumnTransformer passes it."""
    shape: tuple[int, ...] = getattr(X, "shape", (0,))
    if len(shape) == 1:
        return X  # the classifier says what is wrong with what holds no texts
    if len(shape) != 2 or shape[1] != 1:
        raise InputError(f"X has shape {list(shape)}, expected texts [n] or [n, 1]. Choose the column of texts.")
    return np.asarray(X)[:, 0].tolist()
