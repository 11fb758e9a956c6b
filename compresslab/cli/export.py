"""`compresslab export`: copies a variant into a folder or a GGUF file, with its model card, and uploads it to the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from compresslab.cli import completion
from compresslab.cli.options import ReportsPath, StorePath, count_of, size, store_root

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
# How names of GGUF files end that say what is in them.
NAMED_TYPE = re.compile(r"[-._](f32|f16|bf16|i?q\d\w*)$", re.IGNORECASE)

if TYPE_CHECKING:
    from compresslab.export.origin import Origin
    from compresslab.plan.graph import Plan
    from compresslab.records import StudyRecord, VariantRecord
    from compresslab.store.store import Store


def export(
    study: Annotated[str, typer.Argument(help="A study's name.", autocompletion=completion.studies)],
    variant: Annotated[str, typer.Argument(help="One of its variants.", autocompletion=completion.variants)],
    folder: Annotated[Path, typer.Argument(help="The folder, or .gguf file, to write; it must not exist.", metavar="FOLDER|FILE.gguf")],
    gguf_type: Annotated[
        GgufType | None,
        typer.Option("--gguf-type", help="Format of a .gguf file.  [default: by the name's end (-q8_0.gguf), else as stored]"),
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Answer the study's items with the .gguf file, and tell its density as shipped.")
    ] = False,
    push: Annotated[
        str | None, typer.Option("--push", help="Upload it into a new repository of the Hub, a private one.", metavar="OWNER/NAME")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: everybody may see the repository.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --push: upload without asking.")] = False,
    store: StorePath = None,
    reports: ReportsPath = Path("reports"),
) -> None:
    """Copy a variant's model out of the store as a folder that plain transformers loads, with a card of its density, parent and recipe.

    Some architectures can be written as a GGUF file, for llama.cpp and programs built on it, with the card in the same folder, and
    rounded by `--gguf-type`. With `--push`, an export that is there is uploaded as it is, also if its card was edited.

    Example: compresslab export smollm2-quickstart nf4 my-model
    """
    from compresslab.cli.show import is_imported, is_published, variant_of
    from compresslab.errors import BadInput, RunFailed
    from compresslab.records import StepRecord
    from compresslab.store.store import Store
    from compresslab.store.upkeep import damages

    if (public or yes) and push is None:
        raise BadInput(f"{'--public' if public else '--yes'} says how to upload; add --push OWNER/NAME, or leave it out")
    record, variant_record = variant_of(study, variant, reports)
    result_store = Store(store_root(store))
    if is_published(record):
        raise BadInput(f"{study} is a study of published scores: no model was run, so there is none to export")
    if is_imported(record):
        raise BadInput(f"{study} was imported from lm-eval's files: no model was run here, so there is none to export")
    key = variant_record.keys.get("model", "")
    if not key or not result_store.occupied(key):
        raise BadInput(f"{variant} of {study} is not in {result_store.root}; `compresslab run` makes it, --store names another store")
    is_gguf = folder.suffix == ".gguf"
    for path in [folder, *([folder.with_suffix(".md")] if is_gguf else [])]:
        if (path.exists() or path.is_symlink()) and push is None:
            raise BadInput(f"{path} exists already; give a folder or file that does not")
    if push is not None:
        from compresslab.export.push import check_target

        check_target(push)
    kind = gguf_kind(folder, gguf_type)
    if score and not is_gguf:
        raise BadInput(f"--score is of GGUF files: the scores of {variant} are those of its folder; name a file that ends in .gguf")
    plan = None
    if score:
        from compresslab.export.shipped import plan_of

        plan = plan_of(record, variant_record, result_store)
    if damaged := damages(result_store, {key: StepRecord}):
        raise RunFailed(f"{result_store.folder(key)} is damaged: {'; '.join(damaged[0].problems)}; `compresslab verify` tells more")
    folder.parent.mkdir(parents=True, exist_ok=True)
    from compresslab.export.origin import origin_model, origin_of

    model = origin_model(record.base, variant_record)
    origin = origin_of(model)
    if not origin.license:
        typer.echo(f"note: {model} states no licence where it was read, so the card has none; add it to the card if you know it", err=True)
    if is_gguf:
        files = _write_gguf(result_store, key, folder, kind, record, variant_record, origin, plan, push or "")
    else:
        files = _write_folder(result_store, key, folder, record, variant_record, origin, push or "")
    if push is not None:
        _upload(files, push, f"{variant_record.name} of {record.study}", public=public, yes=yes)


def gguf_kind(path: Path, stated: GgufType | None) -> GgufType | None:
    """The format of a GGUF file by the option, else by its name; `None` for the dtype of the model.

    Raises:
        BadInput: the option without a GGUF file, a name that says otherwise, or one of a format that cannot be written.
    """
    from compresslab.errors import BadInput

    if path.suffix != ".gguf":
        if stated is not None:
            raise BadInput(f"--gguf-type {stated} is of GGUF files, and {path} is a folder; name a file that ends in .gguf")
        return None
    found = NAMED_TYPE.search(path.stem)
    named = found[1].lower() if found else ""
    if named and named not in get_args(GgufType):
        raise BadInput(f"{path} is named as {named.upper()}, which is not written here; {', '.join(get_args(GgufType))} are")
    if named and stated is not None and named != stated:
        raise BadInput(f"{path} is named as {named.upper()}, and --gguf-type says {stated}; give another name, or leave the option out")
    return stated or (cast(GgufType, named) if named else None)


def _write_folder(
    store: Store, key: str, folder: Path, study: StudyRecord, variant: VariantRecord, origin: Origin, push: str
) -> dict[str, Path]:
    """Write the folder, or take the one that is there; returns its files by their names."""
    from compresslab.export.folder import check_same_model, write_folder

    there = folder.exists()
    if there:
        check_same_model(store.folder(key), folder)
    else:
        write_folder(store.folder(key), folder, study, variant, origin, push)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    total = size(sum(path.stat().st_size for path in files.values()))
    typer.echo(f"{folder}: {total}, {'as it is there' if there else 'with its card in README.md'}")
    return files


def _write_gguf(
    store: Store,
    key: str,
    path: Path,
    kind: GgufType | None,
    study: StudyRecord,
    variant: VariantRecord,
    origin: Origin,
    plan: Plan | None,
    push: str,
) -> dict[str, Path]:
    """Write the file and its card, with its scores if there is a plan, or take those that are there.

    Returns:
        Both by their names in a repository, and the terms of the model that it was made from.
    """
    from compresslab.export.card import Target, card
    from compresslab.export.folder import check_same_file
    from compresslab.models.formats.gguf import write_gguf

    # By its description a file that is there is known again.
    title = f"{variant.name} of {study.study}, a compression of {study.base}; model {key}"
    card_path = path.with_suffix(".md")
    files = {path.name: path, "README.md": card_path, **{file.name: file for file in origin.terms}}
    if path.exists() or card_path.exists():
        check_same_file(path, title, card_path)
        typer.echo(f"{path}: {size(path.stat().st_size)}, as it is there")
        return files
    written = write_gguf(store.model(key), path, f"{study.study} {variant.name}", title, kind)
    target = Target(path.name, gguf=written.upper(), repository=push)
    card_path.write_text(card(study, variant, target, origin), encoding="utf-8")
    typer.echo(f"{path}: {size(path.stat().st_size)} in {written}, read back with equal logits; its card is {card_path}")
    if plan is not None:
        from compresslab.export.shipped import score_file
        from compresslab.report import words

        shipped = score_file(path, variant, plan, store)
        density, r = shipped.density.params, shipped.comparison.headline
        ratio = f"; against {variant.name} {words.place(shipped.comparison)}: {r[1]}, r {words.ratio(r[0])}" if r[0] else ""
        typer.echo(f"density as shipped: {words.point(density)} {words.span(density)}{ratio}")
        card_path.write_text(card(study, variant, target, origin, shipped), encoding="utf-8")
    return files


def _upload(files: dict[str, Path], repository: str, title: str, *, public: bool, yes: bool) -> None:
    """Say what would be uploaded where, ask, and upload it."""
    from compresslab.export.push import push

    total = size(sum(path.stat().st_size for path in files.values()))
    for name, path in files.items():
        typer.echo(f"{size(path.stat().st_size):>9}  {name}")
    seen = "everybody can see" if public else "only its owner can see"
    if not (yes or typer.confirm(f"upload {count_of(len(files), 'file')}, {total}, to {repository}, which {seen}?")):
        typer.echo("nothing was uploaded")
        return
    typer.echo(f"uploaded: {push(files, repository, f'{title}, exported by compresslab', public=public)}")
