"""Reads a folder of ``underfire certify``, which others may have filled, and checks its counts against its settings.

The tables in it are not read. Radii and rates are made again of the counts.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from underfire.auditing.certified import (
    MOST_BYTES,
    PARTS,
    SETTINGS,
    CertifySettings,
    counted_goals,
    counted_part,
    part_key,
    share_of_alpha,
)
from underfire.auditing.facts import Scalar, flat_settings
from underfire.auditing.plan import PlannedPhoto, first_difference, shown_setting
from underfire.auditing.run import Run
from underfire.certificates import Certificate
from underfire.certificates.bounds import check_alpha
from underfire.certificates.certification import IOU, SHIFT
from underfire.decoding import decoded, plain_json
from underfire.errors import InputError, InputWarning
from underfire.files import check_tree, quoted, read_regular_file

_MOST_CERTIFICATES = 10_000  # interpreters times σ


@dataclass(frozen=True)
class CertificateFolder:
    """What a folder certifies of some photos.

    Attributes:
        settings: with which it was made; ``settings.alpha`` is shared by all of a photo's certificates.
        interpreters: what each interpreter was made with, as `flat_settings` of `settings_of`.
        certificates: one for each interpreter and σ, each of the same photos.
    """

    settings: CertifySettings
    interpreters: Mapping[str, Mapping[str, Scalar]]
    certificates: tuple[Certificate, ...]


def certificates_of(run: Run, folder: Path) -> CertificateFolder:
    """The certificates in ``folder`` of the photos that ``run`` attacked, as far as it has them.

    Raises:
        InputError: as `read_certificates`, for the photos, labels, targets and model of the run; or it attacked none,
            or the maps that are certified were made with other settings than its own. An older run does not say with
            which: an `InputWarning` tells so.
    """
    if not run.attacked:
        raise InputError("the run attacked no photo that certificates could be of; leave --certificates out")
    found = read_certificates(folder, run.attacked, run.facts.model.fingerprint)
    audited = run.facts.interpreter_settings
    if audited is None:
        warnings.warn(
            "The run does not say with which settings its interpreters made maps, as older ones don't; whether the "
            "certificates are of the same ones is not known",
            InputWarning,
            stacklevel=2,
        )
        return found
    for name in [name for name in found.interpreters if name in audited]:
        difference = first_difference(found.interpreters[name], audited[name])
        if difference is not None:
            setting, there, here = difference
            raise InputError(
                f"{quoted(folder)} certifies {quoted(name)} with {quoted(setting)} {shown_setting(there)}, and the run "
                f"had {shown_setting(here)}; certify the run's interpreters, or leave --certificates out"
            )
    return found


def read_certificates(folder: Path, photos: Sequence[PlannedPhoto], fingerprint: str) -> CertificateFolder:
    """The certificates in ``folder`` of those of ``photos`` that it has.

    Args:
        folder: where ``underfire certify`` wrote.
        photos: with the labels and targets that were certified.
        fingerprint: of the model.

    Raises:
        InputError: the folder is none, is of another model, has none of the photos, or what it says cannot be.
    """
    check_tree(folder)
    settings, interpreters = _settings(folder / SETTINGS, fingerprint)
    names = tuple(interpreters)
    asked = {(name, sigma) for name in names for sigma in settings.sigmas}
    counted = []
    for photo in photos:
        path = folder / PARTS / f"{part_key(photo)}.json"
        if path.is_file():
            try:
                part = counted_part(settings, asked, plain_json(read_regular_file(path, limit=MOST_BYTES)))
                if (part.image_id, part.label, part.target) != (photo.image_id, photo.label, photo.target):
                    raise ValueError(
                        f"it is of {quoted(part.image_id)}, or of another label or target, than its name says"
                    )
                counted.append(part)
            except ValueError as error:
                raise InputError(
                    f"{quoted(path)} is no part of these certificates ({error}); delete it and certify the photo again"
                ) from error
    if not counted:
        raise InputError(
            f"{quoted(folder)} certifies none of the {len(photos)} photos with these labels and targets; give"
            " `underfire certify` the same photos, --targets and --seed"
        )
    keys = tuple(part.image_id for part in counted)
    by_name = [{(one.interpreter, one.sigma): one.counts for one in part.found} for part in counted]
    return CertificateFolder(
        settings,
        interpreters,
        tuple(
            Certificate(
                name, keys, sigma, settings.samples, share_of_alpha(settings, names), settings.radii, IOU, SHIFT,
                {goal: torch.tensor([part[name, sigma][goal] for part in by_name]) for goal in counted_goals(settings)},
            )
            for name in names
            for sigma in settings.sigmas
        ),
    )  # fmt: skip


def _settings(path: Path, fingerprint: str) -> tuple[CertifySettings, dict[str, dict[str, Scalar]]]:
    """The settings in the file ``path``, and those of the interpreters."""
    try:
        told = plain_json(read_regular_file(path, limit=MOST_BYTES))
        if not isinstance(told, dict):
            raise ValueError("it is not an object")
        return _decoded_settings(told, fingerprint)
    except (OSError, ValueError) as error:
        why = str(error).rstrip(".")
        raise InputError(f"{quoted(path)} holds no usable certificates ({why}); certify into a new folder") from error


def _decoded_settings(
    told: Mapping[str, Any], fingerprint: str
) -> tuple[CertifySettings, dict[str, dict[str, Scalar]]]:
    own = {field.name for field in fields(CertifySettings)}
    settings = decoded(CertifySettings, {name: value for name, value in told.items() if name in own})
    stranger = next(
        (name for name in told if name not in own | {"version", "model", "interpreters", "seed", "share"}), None
    )
    if stranger is not None:
        raise ValueError(f"it has {quoted(stranger)}, which is not known here")
    missing = next((name for name in sorted(own) if name not in told), None)
    if missing is not None:
        raise ValueError(f"it has no {missing!r}")
    if told.get("version") != Certificate.version:
        raise ValueError(f"its version is not {Certificate.version}, which is read")
    if told.get("model") != fingerprint:
        raise ValueError(f"they are of another model than that with the fingerprint '{fingerprint[:12]}'")
    names = told.get("interpreters")
    if not isinstance(names, dict) or not all(isinstance(made, dict) for made in names.values()) or not names:
        raise ValueError("it names no interpreters")
    if told.get("share") != share_of_alpha(settings, tuple(names)):
        raise ValueError("its share is not that of its alpha")
    check_alpha(share_of_alpha(settings, tuple(names)) / len(counted_goals(settings)))  # that of one goal
    if len(names) * len(settings.sigmas) > _MOST_CERTIFICATES:
        raise ValueError(f"it has more than {_MOST_CERTIFICATES} interpreters and sigmas")
    return settings, {name: flat_settings(made) for name, made in names.items()}
