"""A Hub on this machine: the part of its HTTP interface that an upload uses, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RIGHTS = {"hf_writes": ("me",), "hf_reads": ()}


@dataclass
class Hub:
    """What the Hub holds, and what it was asked.

    Attributes:
        files: by repository and name. private: by repository. large: contents by SHA-256. sent: the large files that were sent, in order.
        validated: the cards that it was asked to check.
        fails_at_commit: whether it breaks down when all files are there. refuses: status and words with which it answers every upload.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    validated: list[str] = field(default_factory=list)
    fails_at_commit: bool = False
    refuses: tuple[int, str] | None = None
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        repository = "/".join(self.path.split("?")[0].split("/")[3:5])
        if not self.path.startswith("/api/models/"):
            self.answer(404, {"error": "Not found"})
        elif repository not in self.hub.files:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in self.path:
            self.answer(200, [self.entry(name, content) for name, content in self.hub.files[repository].items()])
        else:
            self.answer(200, {"id": repository, "private": self.hub.private[repository], "sha": "0" * 40, "siblings": []})

    def do_PUT(self) -> None:
        content = self.body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.large[oid] = content
        self.hub.sent.append(oid)
        self.answer(200, {})

    def do_POST(self) -> None:
        content = self.body()
        if self.token() not in RIGHTS:
            self.answer(401, {"error": "Invalid user token"})
        elif self.hub.refuses is not None:
            status, said = self.hub.refuses
            self.answer(status, {"error": said})
        elif self.path == "/api/repos/create":
            self.create(json.loads(content))
        elif self.path == "/api/validate-yaml":
            self.hub.validated.append(json.loads(content)["content"])
            self.answer(200, {"warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(content)["files"]]
            modes = ["lfs" if name.endswith((".safetensors", ".gguf")) else "regular" for name in names]
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in zip(names, modes, strict=True)]
            self.answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self.answer(200, {"transfer": "basic", "objects": [self.instruction(one) for one in json.loads(content)["objects"]]})
        elif self.hub.fails_at_commit:
            self.answer(400, {"error": "the commit was lost"})
        else:
            self.commit([json.loads(line) for line in content.splitlines()])

    def create(self, asked: dict[str, Any]) -> None:
        if asked["organization"] not in RIGHTS[self.token()]:
            self.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
            return
        repository = f"{asked['organization']}/{asked['name']}"
        self.hub.files[repository] = {".gitattributes": b"*.safetensors filter=lfs"}
        self.hub.private[repository] = asked.get("visibility") != "public"
        self.answer(200, {"url": f"{self.hub.address}/{repository}"})

    def instruction(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Where to send a large file; nowhere if it is there."""
        there = asked["oid"] in self.hub.large
        return {**asked, **({} if there else {"actions": {"upload": {"href": f"{self.hub.address}/large/{asked['oid']}"}}})}

    def commit(self, lines: list[dict[str, Any]]) -> None:
        repository = "/".join(self.path.split("/")[3:5])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[repository][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[repository][value["path"]] = self.hub.large[value["oid"]]
        self.answer(200, {"commitUrl": f"{self.hub.address}/{repository}/commit/{'1' * 40}", "commitOid": "1" * 40})

    def entry(self, name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob}
        if (oid := hashlib.sha256(content).hexdigest()) in self.hub.large:
            found["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
        return found

    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that answers at its address."""
    hub = Hub()
    handler = type("HandlerOfThis", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
