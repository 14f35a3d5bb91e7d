"""Values held against a JSON schema, where the type itself is not at hand."""

from __future__ import annotations

from typing import Any

import msgspec


def problem_of(schema: dict[str, Any], value: Any) -> str:
    """What is wrong with a value by its schema, '' if nothing is."""
    if not schema:
        return ""
    import jsonschema  # few need it: only who has no flow code

    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        return ""  # the codec says what is wrong with it, with its path
    validator: Any = jsonschema.Draft202012Validator(schema)
    errors: list[Any] = sorted(
        validator.iter_errors(plain), key=lambda error: list(error.absolute_path)
    )
    if not errors:
        return ""
    path = "$" + "".join(f"[{part!r}]" for part in errors[0].absolute_path)
    return f"{errors[0].message} - at `{path}`"
