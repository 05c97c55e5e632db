"""A Hub in a thread: the endpoints that the real `huggingface_hub` client asks, over HTTP, with faults on demand.

Repositories live in memory. Large files go by the LFS protocol (batch, put, verify), small ones inside the commit, as
on the Hub; Xet is not spoken.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["FakeHub", "Fault", "Repo"]

REPO = r"(?P<repo>[^/]+/[^/]+)"


@dataclass
class Fault:
    """What goes wrong.

    Attributes:
        where: Pattern that "METHOD path" must hold.
        what: A status, or ``drop``: the connection ends in the middle; ``late``: it ends after the work was done;
            ``corrupt``: other bytes are kept than were sent; ``page``: an answer in HTML with status 500.
        times: How often.
    """

    where: str
    what: int | str
    times: int = 10**6


@dataclass
class Repo:
    """A repository: branches name commits, commits map paths to bytes and to whether they are large files."""

    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 39 + "1"})
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=lambda: {"0" * 39 + "1": {}})
    private: bool = False

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch or commit names."""
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None

    @property
    def files(self) -> dict[str, bytes]:
        """What the main branch holds."""
        return {path: content for path, (content, _) in self.commits[self.branches["main"]].items()}


class FakeHub:
    """The server; use it as a context."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.before_commit: Callable[[], None] | None = None
        self.lock = threading.RLock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def reset(self, *faults: Fault) -> None:
        """Forget what was asked, and let other things go wrong."""
        with self.lock:
            self.requests.clear()
            self.faults = list(faults)
            self.before_commit = None

    def count(self, pattern: str) -> int:
        """How many requests hold a pattern."""
        return sum(re.search(pattern, request) is not None for request in self.requests)

    def put(self, repo_id: str, files: dict[str, bytes], revision: str = "main") -> str:
        """Commit files past the protocol; those that end in .safetensors as large ones."""
        with self.lock:
            repo = self.repos.setdefault(repo_id, Repo())
            tree = dict(repo.commits[repo.branches[revision]])
            tree |= {path: (content, path.endswith(".safetensors")) for path, content in files.items()}
            return self.add_commit(repo, revision, tree)

    def add_commit(self, repo: Repo, revision: str, tree: dict[str, tuple[bytes, bool]]) -> str:
        """Put a commit on a branch."""
        told = [repo.branches[revision], *(f"{path} {hashlib.sha1(c).hexdigest()}" for path, (c, _) in tree.items())]
        sha = hashlib.sha1("\n".join(told).encode()).hexdigest()
        repo.commits[sha] = tree
        repo.branches[revision] = sha
        return sha

    def take_fault(self, request: str) -> int | str | None:
        """What is to go wrong with a request."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.where, request):
                    fault.times -= 1
                    return fault.what
        return None


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    do_HEAD = do_GET  # noqa: N815 - the names that the server looks for
    do_POST = do_GET  # noqa: N815
    do_PUT = do_GET  # noqa: N815

    def serve(self) -> None:
        """Read, note, break or answer a request."""
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        request = f"{self.command} {path}"
        fault = self.hub.take_fault(request)
        with self.hub.lock:
            self.hub.requests.append(request)
        if fault == "drop":
            # In the middle of what is sent, or, where nothing is, in the middle of the answer.
            self.rfile.read(min(64, int(self.headers.get("Content-Length", 0)) // 2))
            self.close_connection = True
            self.connection.shutdown(2)
            return
        body = self.read_body()
        if isinstance(fault, int):
            self.answer(fault, {"error": f"planted {fault}"})
        elif fault == "page":
            self.send(500, b"<html>bad gateway</html>", "text/html")
        else:
            if fault == "corrupt":
                body = bytes([body[0] ^ 1]) + body[1:]
            with self.hub.lock:
                self.route(path, parse_qs(parts.query), body, is_late=fault == "late")

    def read_body(self) -> bytes:
        """The body, whole or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def route(self, path: str, query: dict[str, list[str]], body: bytes, *, is_late: bool) -> None:
        """Find what answers."""
        routes: list[tuple[str, Callable[..., None]]] = [
            (r"POST /api/repos/create", self.create),
            (r"POST /api/validate-yaml", self.validate),
            (rf"POST /api/models/{REPO}/preupload/(?P<revision>.+)", self.preupload),
            (rf"POST /api/models/{REPO}/commit/(?P<revision>.+)", self.commit),
            (rf"POST /api/models/{REPO}/branch/(?P<revision>.+)", self.branch),
            (rf"GET /api/models/{REPO}/tree/(?P<revision>[^/]+)(/.*)?", self.tree),
            (rf"GET /api/models/{REPO}(/revision/(?P<revision>.+))?", self.info),
            (rf"POST /{REPO}\.git/info/lfs/objects/batch", self.batch),
            (r"PUT /objects/(?P<oid>[0-9a-f]{64})", self.put_object),
            (r"POST /verify", self.verify),
            (rf"(GET|HEAD) /{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self.resolve),
        ]
        for pattern, answer in routes:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                self.is_late = is_late
                answer(found.groupdict(), query, body)
                return
        self.answer(404, {"error": "no such page"})

    def answer(self, status: int, content: Any, **headers: str) -> None:
        """Send JSON."""
        self.send(status, json.dumps(content).encode(), "application/json", **headers)

    def send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        """Send bytes."""
        if getattr(self, "is_late", False):
            self.is_late = False
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def find(self, place: dict[str, str]) -> tuple[Repo, str] | None:
        """Repository and commit, or an answer that there is none."""
        repo = self.hub.repos.get(place["repo"])
        if repo is None:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        commit = repo.resolve(place.get("revision") or "main")
        if commit is None:
            self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
            return None
        return repo, commit

    def create(self, place: dict[str, str], query: object, body: bytes) -> None:
        wanted = json.loads(body)
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}
        if repo_id in self.hub.repos:
            self.answer(409, {"error": "You already created this model repo", **answer})
            return
        self.hub.repos[repo_id] = Repo(private=wanted.get("visibility") == "private" or wanted.get("private") is True)
        self.answer(200, answer)

    def validate(self, place: dict[str, str], query: object, body: bytes) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, place: dict[str, str], query: object, body: bytes) -> None:
        if found := self.find(place):
            repo, commit = found
            files = []
            for file in json.loads(body)["files"]:
                kept = repo.commits[commit].get(file["path"])
                mode = "lfs" if file["path"].endswith(".safetensors") or file["size"] > 10**6 else "regular"
                oid = None if kept is None else describe(file["path"], *kept)["lfs" if kept[1] else "blob"]
                files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self.answer(200, {"files": files})

    def batch(self, place: dict[str, str], query: object, body: bytes) -> None:
        objects = []
        for each in json.loads(body)["objects"]:
            entry = dict(each)
            if each["oid"] not in self.hub.objects:
                actions = {"upload": f"/objects/{each['oid']}", "verify": "/verify"}
                entry["actions"] = {name: {"href": self.hub.url + to} for name, to in actions.items()}
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def put_object(self, place: dict[str, str], query: object, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != place["oid"]:
            self.answer(400, {"error": "the sha256 of what came is not the one that was announced"})
            return
        self.hub.objects[place["oid"]] = body
        self.answer(200, {})

    def verify(self, place: dict[str, str], query: object, body: bytes) -> None:
        wanted = json.loads(body)
        is_there = len(self.hub.objects.get(wanted["oid"], b"")) == wanted["size"]
        self.answer(200 if is_there else 404, {})

    def commit(self, place: dict[str, str], query: object, body: bytes) -> None:
        if self.hub.before_commit is not None:
            meanwhile, self.hub.before_commit = self.hub.before_commit, None
            meanwhile()
        if not (found := self.find(place)):
            return
        repo, head = found
        tree = dict(repo.commits[head])
        for line in body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                if value.get("parentCommit", head) != head:
                    self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
                    return
            elif key == "file":
                tree[value["path"]] = (base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    self.answer(400, {"error": f"{value['path']}: its content was never uploaded"})
                    return
                tree[value["path"]] = (self.hub.objects[value["oid"]], True)
            else:
                del tree[value["path"]]
        sha = self.hub.add_commit(repo, place["revision"], tree)
        self.answer(
            200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{place['repo']}/commit/{sha}"}
        )

    def branch(self, place: dict[str, str], query: object, body: bytes) -> None:
        repo = self.hub.repos[place["repo"]]
        if place["revision"] in repo.branches:
            self.answer(409, {"error": "Reference already exists"})
            return
        repo.branches[place["revision"]] = repo.branches["main"]
        self.answer(200, {})

    def info(self, place: dict[str, str], query: dict[str, list[str]], body: bytes) -> None:
        if found := self.find(place):
            repo, commit = found
            siblings = []
            for path, kept in repo.commits[commit].items():
                facts = describe(path, *kept)
                large = {"lfs": {"sha256": facts["lfs"], "size": len(kept[0]), "pointerSize": 130}} if kept[1] else {}
                blob = {"size": len(kept[0]), "blobId": facts["blob"], **large} if "blobs" in query else {}
                siblings.append({"rfilename": path, **blob})
            answer = {"id": place["repo"], "sha": commit, "private": repo.private, "siblings": siblings, "tags": []}
            self.answer(200, answer)

    def tree(self, place: dict[str, str], query: object, body: bytes) -> None:
        if found := self.find(place):
            repo, commit = found
            self.answer(200, [describe(path, *kept)["entry"] for path, kept in repo.commits[commit].items()])

    def resolve(self, place: dict[str, str], query: object, body: bytes) -> None:
        if found := self.find(place):
            repo, commit = found
            kept = repo.commits[commit].get(place["file"])
            if kept is None:
                self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
                return
            facts = describe(place["file"], *kept)
            etag = facts["lfs"] if kept[1] else facts["blob"]
            self.send(200, kept[0], "application/octet-stream", ETag=f'"{etag}"', X_Repo_Commit=commit)


def describe(path: str, content: bytes, is_large: bool) -> dict[str, Any]:
    """Hashes of a file, and its entry in a tree."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    large = hashlib.sha256(content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if is_large:
        entry["lfs"] = {"oid": large, "size": len(content), "pointerSize": 130}
    return {"blob": blob, "lfs": large, "entry": entry}
