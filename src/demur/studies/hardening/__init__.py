"""Guards that are fitted on the shipped material: what `demur harden` and `demur study --harden` do."""

from demur.studies.hardening.choices import check_choices, default_layers, kept_as
from demur.studies.hardening.fitted import (
    GUARD_FILE,
    LIMITING,
    LOOKS_FILE,
    SETTINGS_FILE,
    STREAMING_FILE,
    TABLE_FILE,
    Hardened,
    fit_hardened,
)
from demur.studies.hardening.recorded import LOOKS, Material, read_material, record_sets, sets_of, to_fit
from demur.studies.hardening.run import harden

__all__ = [
    "GUARD_FILE",
    "LIMITING",
    "LOOKS",
    "LOOKS_FILE",
    "SETTINGS_FILE",
    "STREAMING_FILE",
    "TABLE_FILE",
    "Hardened",
    "Material",
    "check_choices",
    "default_layers",
    "fit_hardened",
    "harden",
    "kept_as",
    "read_material",
    "record_sets",
    "sets_of",
    "to_fit",
]
