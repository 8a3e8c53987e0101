"""`EdgewrenClassifier`: a bundle as a scikit-learn classifier that is fitted already. Imports scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewren.classifier import Classifier
from edgewren.errors import InputError, MissingDependencyError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
except ImportError as error:
    raise MissingDependencyError(
        f"edgewren.integrations.scikit_learn needs scikit-learn, which cannot be imported ({error}). "
        "Run: pip install 'edgewren[sklearn]'."
    ) from error


class EdgewrenClassifier(ClassifierMixin, BaseEstimator):
    """A bundle with the methods, attributes and column order of a scikit-learn classifier.

    It was fitted when the bundle was trained: `predict` works at once, and `fit` trains nothing. It only checks that
    the labels are the bundle's, so that the classifier can stand in a Pipeline, in `cross_val_score` (each fold then
    measures the same model) or in a VotingClassifier. `clone` shares the loaded model.

    Args:
        model: folder written by `edgewren export`.
        device, threads, variant: as in `Classifier.load`.

    Attributes:
        classes_: labels, sorted as scikit-learn's are; the columns of `predict_proba` follow it.
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
    def classes_(self) -> NDArray[np.str_]:
        return np.array(sorted(self._classifier().labels))

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:  # noqa: N803  scikit-learn's names
        """Train nothing; load the bundle and check the labels.

        Args:
            X: is not looked at.
            y: labels that the bundle knows, or their places in `classes_`, which scikit-learn passes where it encodes
                labels itself (`cross_val_predict` with probabilities, VotingClassifier).

        Raises:
            InputError: y holds a label that the bundle does not know.
        """
        del X
        classes = self.classes_
        if y is None:
            return self
        given = np.unique(np.asarray(y))
        if given.dtype.kind in "iu":
            foreign = given[(given < 0) | (given >= len(classes))]
        else:
            foreign = given[~np.isin(given.astype(str), classes)]
        if len(foreign):
            raise InputError(
                f"y holds the label {foreign[0].item()!r}, which {self.model} does not know; it knows: "
                f"{', '.join(classes.tolist())}. fit trains nothing: train another model with 'edgewren train'."
            )
        return self

    def predict(self, X: Any) -> NDArray[np.str_]:  # noqa: N803
        """Return the most probable label of each text, str [n]. X: [n] or [n, 1] texts of any kind of sequence."""
        labels = self._classifier().predict(_texts(X))
        return np.array(labels, dtype=self.classes_.dtype)

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
        return loaded[1]

    def _order(self) -> NDArray[np.intp]:
        return np.argsort(np.array(self._classifier().labels))


def _texts(X: Any) -> Sequence[str]:  # noqa: N803
    """Return texts of a sequence [n], or of a table or array [n, 1], as a ColumnTransformer passes it."""
    if isinstance(X, str):
        raise TypeError("X is a single str; pass a list of texts, for example [text].")
    if getattr(X, "ndim", 1) == 1:
        return list(X)
    array = np.asarray(X)
    if array.ndim != 2 or array.shape[1] != 1:
        raise InputError(f"X has shape {list(array.shape)}, expected texts [n] or [n, 1]. Choose the column of texts.")
    texts: list[str] = array[:, 0].tolist()
    return texts
