"""The zip archives of torch: of ``torch.save``, ``torch.jit.save`` and ``torch.export.save``, told apart."""

from __future__ import annotations

from collections.abc import Mapping

from ..base import ByteSource, Checkpoint, Limits, Record
from .saved_zip import read_saved
from .zip_directory import read_zip_directory


def read_torch_zip(source: ByteSource, *, wanted: str, limits: Limits, allow_refused: bool) -> Checkpoint:
    """Describe a zip checkpoint; ``wanted`` is what follows ``#`` in its name, or empty.

    Raises FormatError: CKPT701 or CKPT702 where its pickles name globals that are not plain data, unless
    ``allow_refused``; CKPT001 for zip archives that are no checkpoint; CKPT704 where bytes follow a pickle;
    CKPT002 and CKPT703 as the parts do.
    """
    found = read_zip_directory(source, limits)
    if _is_exported(found):
        from .export import read_torch_export

        return read_torch_export(source, found, wanted=wanted, limits=limits, allow_refused=allow_refused)
    return read_saved(source, found, wanted=wanted, limits=limits, allow_refused=allow_refused)


def _is_exported(found: Mapping[str, Record]) -> bool:
    """Tell an archive of torch.export from the others; those of torch before 2.8 have no top folder."""
    top = next(iter(found), "").partition("/")[0]
    return f"{top}/archive_format" in found or "serialized_exported_program.json" in found
