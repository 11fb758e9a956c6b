"""What the model that a variant was made from says of itself: its licence, its languages, its card, and its id on the Hub.

Only what the model's own files say is taken over. Nothing is guessed from names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, and not marked as exported

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_CONFIG
from compresslab.recipe.source import Source, parse_source
from compresslab.records import VariantRecord

CARD = "README.md"
# Files with the terms of a licence, which most licences ask to hand on.
TERMS = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
# A folder of the Hub's cache, which names the repository that it was downloaded from.
SNAPSHOT = re.compile(r"models--(?P<id>[\w.-]+?(?:--[\w.-]+?)?)/snapshots/[0-9a-f]{40}$")


class Origin(NamedTuple):
    """What is known of the model that a variant was made from.

    Attributes:
        hub_id: its repository on the Hub, or the one that its card names as its base; empty if neither is known.
        license, license_name, license_link: as on a card of the Hub; empty if not known.
        languages: codes of its languages.
        card: its own card, of a folder that has one.
        terms: files with the terms of its licence.
    """

    hub_id: str = ""
    license: str = ""
    license_name: str = ""
    license_link: str = ""
    languages: tuple[str, ...] = ()
    card: Path | None = None
    terms: tuple[Path, ...] = ()

    def beside_nothing(self) -> Origin:
        """The same for a card beside which the files of the terms do not stand. A link to one of them is one to the repository."""
        link = self.license_link
        if "://" not in link:
            link = f"https://huggingface.co/{self.hub_id}/blob/main/{link}" if self.hub_id and link else ""
        return self._replace(license_link=link)


def origin_model(base: str, variant: VariantRecord) -> str:
    """The model that a variant was made from, as the recipe names it: the study's base, or the last adopted model of the chain."""
    adopted = [str(step.config["model"]) for step in variant.steps if step.kind == "adopt" and "model" in step.config]
    return adopted[-1] if adopted else base


def origin_of(model: str) -> Origin:
    """Read what a model says of itself. What is not at hand, because it was moved or the Hub is not reached, counts as not known.

    Args:
        model: as a recipe names it.
    """
    try:
        source = parse_source(model)
        path = _gguf_path(source)
    except BadInput:
        return Origin()
    if path is not None:
        return _from_gguf(path) if path.is_file() else Origin()
    if source.kind == "hub":
        # Its card stays on the Hub, to which `hub_id` leads.
        return _from_card(_downloaded_card(source), hub_id(model), ())._replace(card=None)
    folder = Path(source.name)
    terms = sorted(file for file in folder.iterdir() if file.is_file() and any(fnmatch(file.name.upper(), form) for form in TERMS))
    card = folder / CARD
    return _from_card(card if card.is_file() else None, _cached_id(folder), tuple(terms))


def _gguf_path(source: Source) -> Path | None:
    if source.kind not in ("offline", "gguf"):
        return None
    from compresslab.models.load import gguf_path  # imports torch

    return gguf_path(source)


def hub_id(model: str) -> str:
    """The id of a model on the Hub, without its revision; empty for any other model."""
    try:
        source = parse_source(model)
        validate_repo_id(source.name)
    except (BadInput, HFValidationError):
        return ""
    return source.name if source.kind == "hub" else ""


def _cached_id(folder: Path) -> str:
    """The repository from which a folder of the Hub's cache was downloaded; empty for any other folder."""
    found = SNAPSHOT.search(folder.as_posix())
    return found["id"].replace("--", "/") if found else ""


def _downloaded_card(source: Source) -> Path | None:
    try:
        return Path(hf_hub_download(source.name, CARD, revision=source.revision))
    except Exception:  # no card, no rights or no network: each of the client's layers has errors of its own
        return None


def _from_card(card: Path | None, repository: str, terms: tuple[Path, ...]) -> Origin:
    metadata = _metadata(card)
    if not repository:
        repository = hub_id(_text(metadata, "base_model"))
    link = _text(metadata, "license_link")
    if link and "://" not in link and not any(file.name == link for file in terms):
        link = f"https://huggingface.co/{repository}/blob/main/{link}" if repository and metadata else ""
    return Origin(
        hub_id=repository,
        license=_text(metadata, "license").lower(),
        license_name=_text(metadata, "license_name"),
        license_link=link,
        languages=_texts(metadata, "language"),
        card=card,
        terms=terms,
    )


def _metadata(card: Path | None) -> Mapping[str, Any]:
    """The front matter of a card; empty if it has none that can be read."""
    try:
        if card is None or card.stat().st_size > LARGEST_CONFIG:
            return {}
        return metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _text(metadata: Mapping[str, Any], field: str) -> str:
    """A field that is a text, or a list of one."""
    texts = _texts(metadata, field)
    return texts[0] if len(texts) == 1 else ""


def _texts(metadata: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = metadata.get(field)
    return tuple(text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text.strip())


def _from_gguf(path: Path) -> Origin:
    """What the general fields of a GGUF file say."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    metadata = {
        name: fields[field].contents()
        for name, field in {
            "license": "general.license",
            "license_name": "general.license.name",
            "license_link": "general.license.link",
            "language": "general.languages",
            "url": "general.base_model.0.repo_url",
        }.items()
        if field in fields
    }
    link = _text(metadata, "license_link")
    return Origin(
        hub_id=hub_id(_text(metadata, "url").removeprefix("https://huggingface.co/")),
        license=_text(metadata, "license").lower(),
        license_name=_text(metadata, "license_name"),
        license_link=link if "://" in link else "",
        languages=_texts(metadata, "language"),
    )
