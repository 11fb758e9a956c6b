"""Uploads an export to the Hub, by huggingface_hub's own client."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, validate_repo_id  # type: ignore[attr-defined]  # public, not marked as exported

from compresslab.errors import BadInput, RunFailed
from compresslab.inputs import sha256_of

# The file that the Hub puts into a new repository.
OF_THE_HUB = ".gitattributes"
# What the Hub says, with more than one status, when an account is full.
QUOTA = re.compile(r"quota|storage limit|out of storage|payment required", re.IGNORECASE)


def check_target(repository: str) -> None:
    """Refuse a name that no repository can have, and a push without a token, before anything is written.

    Raises:
        BadInput: the name or the token.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise BadInput(f"--push {repository!r}: {' '.join(str(error).split())}") from error
    if "/" not in repository:
        raise BadInput(f"--push {repository!r} has no owner; write OWNER/{repository}")
    if not get_token():
        raise BadInput("--push needs a token of the Hub that may write: `hf auth login` stores one, or set HF_TOKEN")


def push(files: Mapping[str, Path], repository: str, message: str, *, public: bool) -> str:
    """Upload files into a new repository of models, or into one that an interrupted upload has begun.

    A file whose content the Hub has is not sent again.

    Args:
        files: local files by their names in the repository.
        message: of the commit.
        public: whether everybody may see the repository.

    Returns:
        The address of the repository.

    Raises:
        BadInput: the token is not valid or must not write there, or the name is taken.
        RunFailed: the Hub could not be reached, or refused the upload; the message contains its reason.
    """
    api = HfApi()
    if not sys.stderr.isatty():
        disable_progress_bars()
    with _explained(repository, api.endpoint):
        _begin(api, files, repository, public=public)
        # The files of an export are in one folder, but beside a GGUF file there may be others.
        with tempfile.TemporaryDirectory() as scratch:
            for name, path in files.items():
                link = Path(scratch) / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
            api.upload_folder(repo_id=repository, folder_path=scratch, commit_message=message)
    return f"{api.endpoint}/{repository}"


def _begin(api: HfApi, files: Mapping[str, Path], repository: str, *, public: bool) -> None:
    """Make the repository, or check that it holds nothing but a part of these files.

    Raises:
        BadInput: it holds something else, or others see it than was asked for.
    """
    try:
        info = api.repo_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=not public, exist_ok=False)
        return
    for entry in api.list_repo_tree(repository, recursive=True):
        if isinstance(entry, RepoFile) and entry.path != OF_THE_HUB and not _is_same(entry, files.get(entry.path)):
            raise BadInput(
                f"{repository} exists already and has another {entry.path}; give another name, or replace its files with `hf upload`"
            )
    if bool(info.private) == public:
        stands = "private" if info.private else "public"
        advice = "leave --public out" if public else "add --public"
        raise BadInput(f"{repository} exists already and is {stands}; {advice}, or change that in its settings on the Hub")


def _is_same(entry: RepoFile, path: Path | None) -> bool:
    """Whether a file of a repository has the content of a local one."""
    if path is None or path.stat().st_size != entry.size:
        return False
    if entry.lfs is not None:
        return bool(sha256_of(path) == entry.lfs.sha256)
    content = path.read_bytes()
    # The name that git gives to a file's content.
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == entry.blob_id


@contextlib.contextmanager
def _explained(repository: str, endpoint: str) -> Iterator[None]:
    """Turn the client's errors into one sentence with what to do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise BadInput("--push needs the Hub, and HF_HUB_OFFLINE is set; unset it") from error
    except BadInput:
        raise
    except Exception as error:  # of the layers below the client: connections, time-outs, answers that are none of the Hub's
        if (answer := _answer(error)) is not None:
            raise _refused(answer, repository, endpoint) from error
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of a local file
        raise RunFailed(f"{endpoint} cannot be reached ({_reason(error)}); the same command goes on where it stopped") from error


def _answer(error: BaseException | None) -> tuple[int, str] | None:
    """The status and the words of the Hub's answer, if an error comes from one. The client wraps some errors of its uploads in others."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            message = error.server_message if isinstance(error, HfHubHTTPError) else None
            return status, " ".join((message or str(error)).split())[:300]
        error = error.__cause__ or error.__context__
    return None


def _refused(answer: tuple[int, str], repository: str, endpoint: str) -> BadInput | RunFailed:
    """What an answer of the Hub means, with what to do."""
    status, said = answer
    owner = repository.partition("/")[0]
    again = "the same command goes on where it stopped"
    mistakes = {
        401: f"the Hub does not accept the token ({said}); `hf auth login` stores another, or set HF_TOKEN",
        402: f"the account of {owner} has no room for this upload ({said}); free some, extend its plan, or add --public if that has room",
        403: f"the token must not write to {repository} ({said}); take one with the right to write for {owner}",
        404: f"{endpoint} has no {owner} for which this token may write ({said}); check the owner in --push {repository}",
        409: f"{repository} exists already, or is being written by another ({said}); give another name, or wait for the other",
        413: f"the Hub takes no file as large as one of these ({said}); a GGUF file in Q4_0 or a smaller variant may fit",
    }
    if QUOTA.search(said) and status in (400, 403, 413):
        return BadInput(mistakes[402])
    if status in mistakes:
        return BadInput(mistakes[status])
    if status == 429:
        return RunFailed(f"the Hub takes no more requests of this account for now ({said}); wait some minutes, {again}")
    if status >= 500:
        return RunFailed(f"{endpoint} has an error of its own, status {status} ({said}); try later, {again}")
    return RunFailed(f"the Hub refused the upload to {repository} with status {status} ({said}); {again}")


def _reason(error: BaseException) -> str:
    """The first cause of an error: the client says only that an upload failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__
