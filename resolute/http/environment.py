"""Texts that only the worker has: read from its environment when a call is made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from resolute.errors import ConfigurationError


@dataclass(frozen=True)
class Env:
    """Stands for a variable of the worker's environment; it never holds the value."""

    variable: str
    template: str = "{}"

    def __post_init__(self) -> None:
        if not self.variable or "=" in self.variable or "\0" in self.variable:
            raise ValueError(f"env: expected the name of a variable, got {self.variable!r}")
        if "{}" not in self.template:
            raise ValueError(f"env: expected a template with {{}} in it, got {self.template!r}")

    def value(self) -> str:
        """The variable without spaces around it. Raises ConfigurationError, without the value."""
        found = os.environ.get(self.variable, "").strip()
        if not found:
            raise ConfigurationError(f"the variable {self.variable} is not set on this worker")
        if not (found.isascii() and found.isprintable()):
            raise ConfigurationError(
                f"the variable {self.variable}: expected printable ASCII characters"
            )
        return found

    def read(self) -> str:
        """The template with the value in it. Raises ConfigurationError."""
        return self.template.replace("{}", self.value())


def env(variable: str, template: str = "{}") -> Env:
    """The variable of the worker's environment, in a text: ``env("TOKEN", "Bearer {}")``.

    It is read on the worker when a call is made, and is part of no plan, error or log.
    """
    return Env(variable, template)


Text = str | Env


def check_headers(headers: Mapping[str, Text]) -> None:
    """Raises ValueError for one that cannot be sent; the value may be secret, and is not told."""
    for name, text in headers.items():
        written = text.template if isinstance(text, Env) else text
        if not all(one.isascii() and one.isprintable() for one in (name, written)):
            raise ValueError(f"header {name!r}: expected printable ASCII characters")


def read_all(texts: Mapping[str, Text]) -> dict[str, str]:
    """The texts as they are on this worker. Raises ConfigurationError."""
    return {name: read(text) for name, text in texts.items()}


def read(text: Text) -> str:
    return text.read() if isinstance(text, Env) else text


SHORTEST = 4  # characters; what has fewer is no secret, and would be found in any text


def redactor(texts: Iterable[Text]) -> Redactor:
    """Takes what comes from the environment out of texts that others wrote."""
    values = [text.value() for text in texts if isinstance(text, Env)]
    found = [value for value in values if len(value) >= SHORTEST]
    return Redactor(tuple(sorted(found, key=len, reverse=True)))


@dataclass(frozen=True)
class Redactor:
    """Values that nobody may see, the longest first."""

    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Redactor({len(self.secrets)} secrets)"

    def __call__(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text
