"""What tests of W&B share: a process without a key, and the file that an offline run writes, read back."""

import json
import os
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from conftest import run_warm
from wandb.proto.wandb_internal_pb2 import Record


def environment_without_key(cwd: Path) -> dict[str, str]:
    """The environment of a process in `cwd` that finds no W&B key and no W&B settings."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # torchac is compiled there already
    places = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "NETRC": str(home / "netrc")}
    return {**kept, **places, "XDG_CACHE_HOME": cache}


def run_without_key(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A Python process that finds no W&B key, no W&B settings and no keyboard."""
    return run_warm([*map(str, arguments)], cwd, {**environment_without_key(cwd), **environment})


def records(path: Path) -> Iterator[Record]:
    """The records of a `.wandb` file: LevelDB's log format after a header of seven bytes, blocks of 32 KiB."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + 7 : position + 7 + length]
        assert checksum == zlib.crc32(part, zlib.crc32(bytes([kind])))
        position += 7 + length
        parts = parts + part if kind in (3, 4) else part  # 1 whole, 2 first, 3 middle, 4 last
        if kind in (1, 4):
            yield Record.FromString(parts)


def values(items: Iterator) -> dict:
    """Keys, nested ones joined by a dot, and values of the items of a config, history or summary record."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_back(run: Path) -> SimpleNamespace:
    """What the W&B file below a run's folder says, by kind of record."""
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    found = SimpleNamespace(folder=file.parent, config={}, history=[], summary={}, texts="", exit=None, run=None)
    found.metrics, found.pictures, found.tables = {}, {}, {}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
        elif kind == "config":
            found.config |= values(record.config.update)
        elif kind == "history":
            found.history.append(values(record.history.item))
        elif kind == "summary":
            found.summary |= values(record.summary.update)
        elif kind == "output_raw":
            found.texts += record.output_raw.line
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            files = {entry.path: Path(entry.local_path) for entry in record.artifact.manifest.contents}
            for name, path in files.items():
                if name.endswith(".table.json"):
                    found.tables[name.removesuffix(".table.json")] = json.loads(path.read_text())
                else:
                    found.pictures[name] = path
        elif kind == "exit":
            found.exit = record.exit
    return found


def rows(table: dict) -> list[dict]:
    """A W&B table as a dict for every row."""
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
