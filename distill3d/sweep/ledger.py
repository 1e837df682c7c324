"""The ledger of a sweep, ``sweep.jsonl``: one JSON object a line, only ever appended, on the disk before it counts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


class Ledger:
    """An index of planned runs and events. The state of a run is in its own metrics.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = 0  # lines that could not be read the last time

    def append(self, *records: Record) -> None:
        """One write, one flush to the disk. A line that a kill tore before is closed first, and stays."""
        if not records:
            return
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if self._ends_torn(file):
                text = "\n" + text
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> Iterator[dict[str, Any]]:
        """Every whole line, oldest first; torn ones are passed over and counted."""
        self.torn = 0
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for line in file:
                record = _parse(line)
                if record is not None:
                    yield record
                elif line.strip():
                    self.torn += 1

    def planned(self, run_id: str) -> dict[str, Any] | None:
        """The first record of a run."""
        marker = run_id.encode()
        with self.path.open("rb") as file:
            for line in file:
                record = _parse(line) if marker in line else None
                if record is not None and record.get("event") == "planned" and record.get("run") == run_id:
                    return record
        return None

    @staticmethod
    def _ends_torn(file: Any) -> bool:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
