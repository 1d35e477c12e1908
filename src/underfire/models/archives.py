"""Files of ``torch.save``, looked at before anything in them is read.

``torch.load`` runs no code from them with ``weights_only``, but it unpacks what is compressed, reads one part as often
as it is named, and lets a pickle make objects of any depth and number. What torch writes has none of that.
"""

import os
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import IO

from underfire.errors import InputError
from underfire.files import open_regular_file

MAX_STEPS = 1_000_000
"""Of the pickle that says which tensors there are. A tensor takes about thirty."""

MAX_TUPLES = 200_000
"""Among them. A tensor has four; of a million, one within the other, the hash overflows the stack."""

_DAMAGED = "is damaged or was not written by torch.save"
_NO_PICKLE = (ValueError, EOFError, OverflowError)  # the last of a text longer than any
_PICKLES = 5  # of a file from before torch 1.6: three of a header, the content, the order of its storages
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_END, _END64, _LOCATOR64 = 22, 56, 20  # bytes of the records that end a zip file


def check_archive(path: Path) -> None:
    """Refuse a file that ``torch.load`` would need far more memory for than it has bytes, or could not survive.

    Raises:
        InputError: it is one, a program of TorchScript, or cut short. The message is what is wrong with it, for the
            caller's sentence: "is damaged, …".
    """
    with open_regular_file(path) as file:
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if zipped:
            _check_zip(file)
            return
        try:
            for _ in range(_PICKLES):
                _check_pickle(file)
        except InputError:
            raise
        except _NO_PICKLE:  # raw bytes of weights come next, or whatever: torch will tell
            return


def _check_zip(file: IO[bytes]) -> None:
    size = os.fstat(file.fileno()).st_size
    if not _one_directory(file, size):
        raise InputError(_DAMAGED)
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            if any(part.filename.rpartition("/")[2] == "constants.pkl" for part in parts):
                raise InputError(
                    "is a program of TorchScript, which is code; if you trust it, it is a model itself, script:FILE"
                )
            if any(part.compress_type != zipfile.ZIP_STORED or part.compress_size != part.file_size for part in parts):
                raise InputError("is compressed, which torch.save never does; unpack it and save it by torch.save")
            if sum(part.file_size for part in parts) > size:
                raise InputError("has parts that overlap, which torch.save never writes; save it again")
            for part in parts:
                if part.filename.endswith(".pkl"):
                    with archive.open(part) as pickled:
                        _check_pickle(pickled)
    except InputError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *_NO_PICKLE) as error:
        raise InputError(_DAMAGED) from error


def _one_directory(file: IO[bytes], size: int) -> bool:
    """Whether the list of the parts stands where the file says and right before its end: there can be no second one."""
    file.seek(max(0, size - _END - _LOCATOR64 - _END64))
    tail = file.read()
    file.seek(0)
    end, at = tail[-_END:], size - _END
    if len(end) < _END or end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        return False
    length, offset = struct.unpack("<2L", end[12:20])
    locator = tail[-_END - _LOCATOR64 : -_END]
    if locator[:4] == b"PK\x06\x07":
        at -= _LOCATOR64 + _END64
        record = tail[:_END64]
        if struct.unpack("<Q", locator[8:16])[0] != at or record[:4] != b"PK\x06\x06":
            return False
        length, offset = struct.unpack("<2Q", record[40:56])
    return bool(offset + length == at)


def _check_pickle(file: IO[bytes]) -> None:
    """Refuse one that has too many steps or tuples; raises ValueError where it is none."""
    tuples = 0
    for step, (opcode, _, _) in enumerate(pickletools.genops(file)):
        tuples += opcode.name in _TUPLES
        if step > MAX_STEPS or tuples > MAX_TUPLES:
            raise InputError("lists more than any network has tensors; save the model's state_dict() alone")
