"""What the program costs on a GPU, in one resumable command: OUT=FOLDER benchmarks/gpu.sh [--device cpu --tiny].

Parts (a) to (g) of `gpu_parts`, each in a process of its own that is ended at its limit. Every row is written to
FOLDER/report.json as it is measured, and a row that is there is not measured again: a second call goes on with parts
that were cut. report.md is the table, log.txt what the parts said. With ``--tiny`` the same parts run in little, to try
the script on a CPU.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # there: tiny models

import torch  # noqa: E402

from distill3d.runtime.files import write_json  # noqa: E402

SECONDS = 400.0  # of all parts together; the rest of the seven minutes is for starting Python
PARTS = {  # title, and the seconds after which the part is ended
    "a": ("tests marked cuda", 60.0),
    "g": ("hash grid, forward and backward", 40.0),
    "c": ("guidance step, random weights", 130.0),
    "d": ("text-to-3D step at SD 2.1 shapes", 60.0),
    "e": ("the embedded model, from text to GLB", 120.0),
    "b": ("three steps of every config", 150.0),
    "f": ("training of the embedded model", 400.0),
}


@dataclass(frozen=True)
class Settings:
    """What all parts are told."""

    out: Path
    device: torch.device
    tiny: bool
    deadline: float  # by the clock of `time.time`

    @property
    def left(self) -> float:
        return self.deadline - time.time()


class Report:
    """report.json: rows by part and name, written at once. Raises ValueError where it is of another machine."""

    def __init__(self, out: Path, machine: dict[str, Any]) -> None:
        self.path = out / "report.json"
        out.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {"machine": machine, "parts": {}}
        if self.path.is_file():
            self.content = json.loads(self.path.read_text(encoding="utf-8"))
            if self.content["machine"] != machine:
                raise ValueError(f"{self.path} is of {self.content['machine']}, and this is {machine}: set another OUT")

    def rows(self, part: str) -> dict[str, Any]:
        return self.content["parts"].setdefault(part, {"rows": {}})["rows"]

    def ended(self, part: str) -> str | None:
        """How a part ended: "done", or the limit that cut it; None where it has not."""
        return self.content["parts"].get(part, {}).get("ended")

    def put(self, part: str, name: str, value: dict[str, Any]) -> None:
        self.rows(part)[name] = value
        write_json(self.path, self.content)

    def end(self, part: str, how: str) -> None:
        self.rows(part)
        self.content["parts"][part]["ended"] = how
        write_json(self.path, self.content)


def machine_of(device: torch.device, tiny: bool) -> dict[str, Any]:
    """What figures are comparable on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__, "tiny": tiny}


def run_part(part: str, settings: Settings, report: Report) -> None:
    """Measure the rows of a part that are not in the report; a row that fails says why and stops nothing."""
    from gpu_parts import rows_of

    for name, measure in rows_of(part, settings):
        if name in report.rows(part):
            continue
        start = time.perf_counter()
        try:
            value = measure()
        except Exception as error:  # noqa: BLE001  its failure is the row's result
            lines = str(error).strip().splitlines()
            value = {"error": f"{type(error).__name__}: {lines[0][:300] if lines else ''}"}
        report.put(part, name, {**value, "row_seconds": round(time.perf_counter() - start, 1)})


def run_parts(args: argparse.Namespace, settings: Settings, report: Report) -> None:
    """Each part in a process of its own, until the time is over."""
    with (settings.out / "log.txt").open("a", encoding="utf-8") as log:
        for part, (title, most) in PARTS.items():
            limit = settings.left if args.tiny else min(most, settings.left)
            if part not in args.parts or report.ended(part) == "done" or limit < 10.0:
                continue
            command = [sys.executable, __file__, "--out", str(settings.out), "--device", args.device]
            command += [*(["--tiny"] if args.tiny else []), "--part", part, "--seconds", str(limit)]
            log.write(f"\n== ({part}) {title}\n")
            log.flush()
            print(f"({part}) {title}, at most {limit:.0f} s", flush=True)
            how = watched(command, limit, log)
            report = Report(settings.out, report.content["machine"])  # the part wrote it
            report.end(part, how)


def watched(command: list[str], limit: float, log: Any) -> str:
    """Run a command to its end or to the limit, with all that it started: how it ended."""
    with subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True) as process:
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return f"cut after {limit:.0f} s"
    return "done" if code == 0 else f"failed with exit status {code}, see log.txt"


def write_table(report: Report, out: Path) -> str:
    """report.md: the rows of each part, a column for each figure that any of its rows has."""
    machine = report.content["machine"]
    lines = [f"# {machine['device']}, torch {machine['torch']}{', in little' if machine['tiny'] else ''}"]
    for part in sorted(report.content["parts"]):
        rows = report.rows(part)
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        lines += ["", f"## ({part}) {PARTS[part][0]}: {report.ended(part) or 'not ended'}", ""]
        lines += [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"] if rows else ["no rows"]
        for name, row in rows.items():
            lines.append(f"| {name} | {' | '.join(_cell(row.get(key)) for key in columns)} |")
    text = "\n".join(lines) + "\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    return text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models, few rounds: does the script run?")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all parts together")
    parser.add_argument("--parts", default="".join(PARTS), help="which of them, such as cd")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)  # the process of one part
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here; --device cpu --tiny tries the script")
    settings = Settings(args.out.resolve(), device, args.tiny, time.time() + args.seconds)
    try:
        report = Report(settings.out, machine_of(device, args.tiny))
    except ValueError as error:
        sys.exit(str(error))
    if args.part:
        run_part(args.part, settings, report)
        return
    run_parts(args, settings, report)
    print(write_table(Report(settings.out, machine_of(device, args.tiny)), settings.out))


if __name__ == "__main__":
    main()
