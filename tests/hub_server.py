"""A stand-in for the Hugging Face Hub on this machine: the HTTP that huggingface_hub speaks for our calls.

Repositories are dictionaries of file name → content. Resolving files, creating a repository, a commit with
small files inside and large ones by LFS; tokens, gated repositories and missing things as the Hub answers.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

COMMIT = "1" * 40


class Hub:
    """What the server holds; `asked` lists (method, path) of every request."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.asked: list[tuple[str, str]] = []
        self.token, self.url, self.broken = "hf_right", "", False

    def files(self):
        """Return the names of files whose content was asked for."""
        return [
            path.partition("/resolve/")[2].partition("/")[2]
            for method, path in self.asked
            if method == "GET" and "/resolve/" in path
        ]


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code, message="no"):
        self.answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def begin(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        self.hub.asked.append((self.command, path))
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        return path

    def authorised(self):
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.begin()
        if self.hub.broken:
            return self.error(500, "", "out of order")
        name, _, rest = path.strip("/").partition("/resolve/")
        if not rest:
            return self.error(404, "")
        revision, _, file = rest.partition("/")
        if name not in self.hub.repositories:
            return self.error(401, "RepoNotFound")
        if name in self.hub.gated and not self.authorised():
            return self.error(403, "GatedRepo")
        if revision not in ("main", COMMIT):
            return self.error(404, "RevisionNotFound")
        found = self.hub.repositories[name].get(file)
        if found is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        etag = f'"{hashlib.sha256(found).hexdigest()}"'
        return self.answer(200, found, ETag=etag, X_Repo_Commit=COMMIT)

    def do_PUT(self):
        path = self.begin()
        self.hub.large[path.rpartition("/")[2]] = self.body
        self.answer(200)

    def do_POST(self):
        path = self.begin()
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith("/verify"):
            return self.answer(200, {})
        if not self.authorised():
            return self.error(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            asked = json.loads(self.body)
            name = (
                f"{asked['organization']}/{asked['name']}"
                if asked.get("organization")
                else asked["name"]
            )
            self.hub.repositories.setdefault(name, {})
            self.hub.private[name] = "private" in (asked.get("visibility"), *asked)
            return self.answer(200, {"url": f"{self.hub.url}/{name}"})
        if "/preupload/" in path:
            files = json.loads(self.body)["files"]
            modes = [
                dict(path=f["path"], shouldIgnore=False,
                     uploadMode="lfs" if f["path"].endswith(".safetensors") else "regular")
                for f in files
            ]  # fmt: skip
            return self.answer(200, {"files": modes})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(self.body)["objects"]
            for one in objects:
                one["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}
                }
            kind = "application/vnd.git-lfs+json"
            return self.answer(200, {"transfer": "basic", "objects": objects}, Content_Type=kind)
        name, _, branch = path.removeprefix("/api/models/").partition("/commit/")
        if branch:
            for line in self.body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    content = base64.b64decode(value["content"])
                    self.hub.repositories[name][value["path"]] = content
                elif entry["key"] == "lfsFile":
                    self.hub.repositories[name][value["path"]] = self.hub.large[value["oid"]]
            url = f"{self.hub.url}/{name}/commit/{COMMIT}"
            return self.answer(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})
        return self.error(404, "")


@contextlib.contextmanager
def serve():
    """Give a `Hub` that answers at its `url`."""
    hub = Hub()
    handler = type("Bound", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
