"""What can go wrong for a user, in words that a user can act on.

Each error says what is wrong with its value and what is possible (`str(error)`) and what to type (`error.remedy`).
The CLI prints both on one line and exits with 2; the app shows both without a traceback. Anything that is not a
`ScDrugMapError` is a bug and keeps its traceback.
"""

from __future__ import annotations


class ScDrugMapError(Exception):
    """Base of all errors that a user can mend; `remedy` is the command or step that mends it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def line(self) -> str:
        """Message and remedy on one line, as the CLI prints them."""
        return " ".join(f"{self} {self.remedy}".split())

    def __reduce__(self) -> tuple[type[ScDrugMapError], tuple[str, str]]:
        """Keep the remedy when the error crosses a process (joblib, Dask)."""
        return type(self), (str(self), self.remedy)


class InvalidInput(ScDrugMapError, ValueError):
    """A file, matrix or argument that cannot be used as it is."""


class UnknownName(ScDrugMapError, LookupError):
    """A key that no registry holds."""


class WeightsMissing(ScDrugMapError):
    """Published weights that are not on this machine and could not be downloaded."""


class WeightsInvalid(ScDrugMapError):
    """A checkpoint that is truncated, foreign, renamed or unsafe to read."""


class LabelsMissing(ScDrugMapError):
    """Training or scoring was asked for without the labels that it needs."""


class ReferenceMissing(ScDrugMapError):
    """No fitted reference head for the model that should predict."""


class ConsentMissing(ScDrugMapError):
    """Something would leave this machine, or cost money, and nobody has agreed to it."""


class CostLimit(ScDrugMapError):
    """Asking a remote model would cost, or has cost, more than the user allowed."""


class EndpointFailed(ScDrugMapError):
    """A remote model that cannot be asked: no key, refused, not reachable, or no readable protocol."""


class WorkersLost(ScDrugMapError):
    """A worker process was killed before its work was done."""


class Cancelled(ScDrugMapError):
    """The user stopped the work; what was finished stays in the cache."""
