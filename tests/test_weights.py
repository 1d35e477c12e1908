"""Fingerprints of weights, which files keep: they may not change."""

import hashlib
from pathlib import Path

import torch

from underfire.weights import file_sha256, fingerprint

TENSORS = {"b": torch.tensor([1, 2]), "a": torch.tensor([[0.5]])}


def test_a_fingerprint_is_of_names_types_shapes_and_values() -> None:
    told = b"a torch.float32 (1, 1)\x00\x00\x00\x3f" + b"b torch.int64 (2,)\x01" + bytes(7) + b"\x02" + bytes(7)
    assert fingerprint(TENSORS) == hashlib.sha256(told).hexdigest()
    assert fingerprint(TENSORS, preprocessing=(1, "x")) == hashlib.sha256(b"(1, 'x')" + told).hexdigest()
    assert fingerprint({}) == hashlib.sha256().hexdigest()


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_sha256(path) == hashlib.sha256(b"abc").hexdigest()
