"""Bytes for people, as hexdump -C writes them."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 16


def hex_lines(data: bytes) -> Iterator[str]:
    """Offset, bytes in hexadecimal, and what of them is printable ASCII."""
    for at in range(0, len(data), WIDTH):
        row = data[at : at + WIDTH]
        left, right = row[: WIDTH // 2].hex(" "), row[WIDTH // 2 :].hex(" ")
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:08x}  {left:<23}  {right:<23}  |{shown}|"
