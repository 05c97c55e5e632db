"""Records with digests, changed as the program would write them, or as a user does who means it."""

import json
from pathlib import Path
from typing import Any

from nlp_transfer.models.digests import hash_folder, seal_record

__all__ = ["reseal", "rewrite_record", "unseal"]


def rewrite_record(path: Path, **changes: Any) -> None:
    """Change entries of a record, as the program would: with its own digest."""
    record = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(seal_record(record), ensure_ascii=False), encoding="utf-8")


def reseal(folder: Path) -> None:
    """Take what lies in an artefact's folder for what was saved."""
    path = folder / "nlp_transfer.json"
    record = seal_record(json.loads(path.read_text(encoding="utf-8")), files=hash_folder(folder))
    path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def unseal(folder: Path) -> None:
    """Take the digests out of an artefact's record: the documented way to change its files."""
    path = folder / "nlp_transfer.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["digests"]
    path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
