"""Repo ids, against a hub of our own on this machine: what is fetched, what never, and the cache offline."""

import http.server
import json
import os
import threading

import pytest

import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = "import sys, triarch; print(triarch.load(sys.argv[1]).architecture)"


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub's interface that a download needs."""

    folder, asked = None, None

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        path = self.path.split("?")[0]
        self.asked.append(path)
        files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        if path in (
            "/api/models/team/tiny",
            f"/api/models/team/tiny/revision/{COMMIT}",
            "/api/models/team/tiny/revision/main",
        ):
            siblings = [{"rfilename": name} for name in files]
            body, kind = {"id": "team/tiny", "sha": COMMIT, "siblings": siblings}, "application/json"
        elif path == f"/api/models/team/tiny/tree/{COMMIT}":
            body = [
                {"type": "file", "path": n, "size": len(b), "oid": f"{i:040x}"}
                for i, (n, b) in enumerate(files.items())
            ]
            kind = "application/json"
        elif path.startswith(f"/team/tiny/resolve/{COMMIT}/") and path.rsplit("/", 1)[1] in files:
            body, kind = files[path.rsplit("/", 1)[1]], "application/octet-stream"
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "ETag": f'"{abs(hash(data)):040x}"',
            "X-Repo-Commit": COMMIT,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    """Serves a tiny model with code beside it; gives the environment of a client, and the paths asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    tiny.write_checkpoint(folder, "bert", "BertForMaskedLM")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"evil")
    Hub.folder, Hub.asked = folder, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    yield clean | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    server.shutdown()
    server.server_close()


@pytest.fixture
def load(forks, tmp_path):
    """Loads a repo id in a process that has this environment: what it writes to stdout and stderr."""

    def call(environment, name="team/tiny"):
        streams = [tmp_path / "out", tmp_path / "err"]
        for stream in streams:
            stream.write_text("")
        forks.start(LOAD, name, out=streams[0], err=streams[1], environment=environment).wait()
        return tuple(stream.read_text() for stream in streams)

    return call


def test_a_repo_id_is_fetched_and_loaded(hub, load):
    assert load(hub)[0] == "BertForMaskedLM\n"


def test_code_and_legacy_weights_are_never_fetched(hub, load):
    load(hub)
    fetched = {path.rsplit("/", 1)[1] for path in Hub.asked if "/resolve/" in path}
    assert "model.safetensors" in fetched
    assert not fetched & {"modeling_evil.py", "pytorch_model.bin"}


def test_the_cache_serves_offline(hub, load):
    load(hub)
    Hub.asked.clear()
    assert load(hub | {"HF_HUB_OFFLINE": "1"})[0] == "BertForMaskedLM\n"
    assert Hub.asked == []


def test_the_cache_serves_when_the_hub_is_down(hub, load):
    load(hub)
    assert load(hub | {"HF_ENDPOINT": "http://127.0.0.1:9"})[0] == "BertForMaskedLM\n"


def test_a_repo_that_is_not_there(hub, load):
    assert "NotFound: no folder and no repo 'team/other'" in load(hub, "team/other")[1]


def test_a_hub_that_does_not_answer(hub, load):
    assert "Offline: no folder 'team/tiny'" in load(hub | {"HF_ENDPOINT": "http://127.0.0.1:9"})[1]
