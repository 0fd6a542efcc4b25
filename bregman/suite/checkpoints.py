"""The file that keeps the state of an unfinished training, and proves what it is the state of."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bregman.suite.paths import replacing

_SUM_BYTES = hashlib.sha256().digest_size


class CheckpointError(RuntimeError):
    """A checkpoint can't be used, or can't be written."""


@dataclass(frozen=True)
class Checkpoint:
    """A file, its SHA-256 sum first, then what ``torch.save`` makes of a state and its identity.

    Attributes:
        path: the file.
        identity: what the training is, in plain numbers, words, lists and dictionaries; a state of
            another one is refused.
    """

    path: Path
    identity: Mapping[str, Any] = field(default_factory=dict)

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self.path.exists()

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file by one of this state.

        Args:
            state: of types that torch's default ``torch.load`` takes.

        Raises:
            CheckpointError: the file can't be written.
        """
        buffer = io.BytesIO()
        torch.save({"identity": dict(self.identity), **state}, buffer)
        content = buffer.getvalue()
        try:
            with replacing(self.path) as temporary:
                temporary.write_bytes(hashlib.sha256(content).digest() + content)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {self.path} can't be written ({error.strerror}); make room or check "
                "its folder, then run the same command again"
            ) from error

    def load(self) -> dict[str, Any]:
        """The saved state, on the CPU.

        Raises:
            CheckpointError: the file is damaged, or of another training.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self.unusable(error.strerror or "unreadable") from error
        if content[:_SUM_BYTES] != hashlib.sha256(content[_SUM_BYTES:]).digest():
            raise self.unusable("it is damaged or of an older version: its sum is wrong")
        try:
            state = torch.load(io.BytesIO(content[_SUM_BYTES:]), map_location="cpu")
        except Exception as error:  # whatever torch says of a file that another version wrote
            reason = f"this version of torch can't read it: {type(error).__name__}"
            raise self.unusable(reason) from error
        if found := list(differences(state.pop("identity"), self.identity)):
            raise self.unusable(f"it is of another training: {'; '.join(found[:5])}")
        return state

    def unusable(self, reason: str) -> CheckpointError:
        """The error that says why this checkpoint is refused, and what to do."""
        return CheckpointError(
            f"checkpoint {self.path} can't be used ({reason}); delete it to train from the start"
        )


def differences(stored: Any, asked: Any, name: str = "") -> Iterator[str]:
    """Say in words what differs between two nested dictionaries, of a file and as asked for."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        for key in [*asked, *(key for key in stored if key not in asked)]:
            inner = f"{name}.{key}" if name else str(key)
            if key not in stored or key not in asked:
                where = "the file" if key in stored else "what was asked for"
                yield f"{inner} is in {where} alone"
            else:
                yield from differences(stored[key], asked[key], inner)
    elif stored != asked:
        yield f"{name} is {stored!r} there, {asked!r} was asked for"
