"""Where the server is that `resolute dev` runs in this folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

DEV_FOLDER = Path(".resolute")
SERVER_FILE = DEV_FOLDER / "server.json"


class DevServer(msgspec.Struct, frozen=True):
    """What `resolute dev` leaves in SERVER_FILE for commands and clients here."""

    redis: str
    namespace: str
    pid: int
    storage: str | None = None

    def write(self) -> None:
        SERVER_FILE.touch(mode=0o600)
        SERVER_FILE.write_bytes(msgspec.json.encode(self) + b"\n")

    @classmethod
    def read(cls) -> DevServer | None:
        """None where `resolute dev` is not running here, as far as the file knows."""
        try:
            return msgspec.json.decode(SERVER_FILE.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError):
            return None
