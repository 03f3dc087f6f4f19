"""What fickling says of a file or a folder, printed as JSON: run in isolated mode by the interpreter that has fickling.

fickling's own command reads one bare pickle. Its `--huggingface` mode is the way it offers for the files of a repository,
zip archives among them; that mode wants a connection and torch. This takes the same decisions for files that lie here.
With `--list` the imports are held against the list that `fickling.hook.activate_safe_ml_environment` enforces, instead.
"""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import fickling
from fickling.analysis import Analyzer
from fickling.cli import HF_KNOWN_SAFE_EXTENSIONS
from fickling.fickle import Pickled, StackedPickle
from fickling.ml import MLAllowlist


def is_pickle(path: Path) -> bool:
    """As fickling.polyglot.check_pickle, which cannot be imported without torch."""
    with path.open("rb") as file:
        try:
            return any(len(pickled) > 2 for pickled in StackedPickle.load(file).pickled)
        except Exception:
            return False


def scan(path: Path) -> dict[str, fickling.ScanResult] | None:
    """Return fickling's results by name; None where it says that it passes such a file over."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\3\4" or zipfile.is_zipfile(path)
    if is_zip:
        return fickling.scan_zip_archive(str(path), graceful=True) or None
    if not is_pickle(path) and (path.suffix in HF_KNOWN_SAFE_EXTENSIONS or tarfile.is_tarfile(path)):
        return None
    return {path.name: fickling.scan_file(str(path), graceful=True)}


def understood(pickled: Pickled) -> bool:
    """True when every opcode made sense to fickling; asking may raise what the interpretation raises."""
    try:
        return not (pickled.has_invalid_opcode or pickled.has_interpretation_error)
    except Exception:
        return False


def told(result: fickling.ScanResult, by_list: bool) -> dict[str, Any]:
    """Return one result as plain data. The list alone does not say that a pickle was not understood to its end."""
    errors = list(result.errors)
    if by_list and not all(understood(part.pickled) for part in result.results):
        errors.append("invalid or malformed opcodes")
    return {"severity": result.severity.name, "read": len(result.results), "errors": errors}


def judge(path: Path, by_list: bool) -> list[dict[str, Any]] | None:
    """Return the results of one file as plain data. An encrypted archive, for one, raises out of fickling."""
    try:
        results = scan(path)
        return results and [told(result, by_list) for result in results.values()]
    except Exception as error:
        return [{"severity": "SUSPICIOUS", "read": 0, "errors": [f"{type(error).__name__}: {error}"]}]


def main(target: Path, by_list: bool) -> int:
    """Scan, print, and return the exit status that the repository mode would have."""
    if by_list:
        Analyzer._DEFAULT_INSTANCE = Analyzer([MLAllowlist()])
    paths = [path for path in sorted(target.rglob("*")) if path.is_file()] if target.is_dir() else [target]
    files = [{"path": str(path), "results": judge(path, by_list)} for path in paths]
    print(json.dumps({"files": files}))
    results = [result for file in files for result in file["results"] or ()]
    return 0 if all(result["severity"] == "LIKELY_SAFE" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[-1]), "--list" in sys.argv[1:-1]))
