"""A Hugging Face Hub on loopback: repositories of models in memory, for the client to push to and pull from."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class FakeHub(ThreadingHTTPServer):
    """repos : files of each repository by name, to be changed by tests. asked : method and path of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, name: str) -> str:
        files = {path: hashlib.sha1(content).hexdigest() for path, content in sorted(self.repos[name].items())}
        return hashlib.sha1(json.dumps(files).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"POST {self.path}")
        if self.path == "/api/repos/create":
            made = json.loads(body)
            name = f"{made.get('organization') or 'me'}/{made['name']}"
            self.server.repos.setdefault(name, {})
            return self._json({"url": f"{self.server.address}/{name}", "id": name, "name": name})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/[^/?]+(\?.*)?", self.path)
        if found is None or found[1] not in self.server.repos:
            return self._lost("RepoNotFound")
        if found[2] == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            answer = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in asked]
            return self._json({"files": answer})
        self._commit(found[1], body)
        return None

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                self.server.repos[name][item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        oid = self.server.commit_of(name)
        address = f"{self.server.address}/{name}/commit/{oid}"
        self._json({"commitUrl": address, "commitOid": oid, "pullRequestUrl": None, "hookOutput": ""})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.path == "/":
            return self._json({})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/(revision|tree)/[^/?]+)?(\?.*)?", self.path):
            return self._listing(found[1], found[3] == "tree")
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
            return self._file(found[1], found[2])
        return self._lost("RepoNotFound")

    def _listing(self, name: str, tree: bool) -> None:
        files = self.server.repos.get(name)
        if files is None:
            return self._lost("RepoNotFound")
        if tree:
            return self._json([_entry(path, content) for path, content in files.items()])
        siblings = [{"rfilename": path} for path in files]
        said = {"_id": "1", "id": name, "modelId": name, "sha": self.server.commit_of(name), "siblings": siblings}
        return self._json({**said, "private": False, "tags": [], "downloads": 0, "likes": 0})

    def _file(self, name: str, path: str) -> None:
        files = self.server.repos.get(name)
        if files is None or path not in files:
            return self._lost("RepoNotFound" if files is None else "EntryNotFound")
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        self._answer(200, files[path], {"X-Repo-Commit": self.server.commit_of(name), "ETag": etag})
        return None

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _lost(self, code: str) -> None:
        self._answer(404, b"{}", {"X-Error-Code": code})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
