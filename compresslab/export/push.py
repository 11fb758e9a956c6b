"""Uploads an export to the Hub, by huggingface_hub's own client."""

from __future__ import annotations

import contextlib
import hashlib
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
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        said = " ".join((error.server_message or str(error)).split())[:300]
        if status == 401:
            raise BadInput(f"the Hub does not accept the token ({said}); `hf auth login` stores another, or set HF_TOKEN") from error
        if status == 403:
            owner = repository.partition("/")[0]
            raise BadInput(f"the token must not write to {repository} ({said}); take one with the right to write for {owner}") from error
        if status == 409:
            raise BadInput(f"{repository} exists already ({said}); give another name") from error
        raise RunFailed(f"the Hub refused the upload to {repository} ({said}); the same command goes on where it stopped") from error
    except OfflineModeIsEnabled as error:
        raise BadInput("--push needs the Hub, and HF_HUB_OFFLINE is set; unset it") from error
    except BadInput:
        raise
    except Exception as error:  # of the layers below the client: connections, time-outs, answers that are none of the Hub's
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of a local file
        raise RunFailed(f"{endpoint} cannot be reached ({_reason(error)}); the same command goes on where it stopped") from error


def _reason(error: BaseException) -> str:
    """The first cause of an error: the client says only that an upload failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__
