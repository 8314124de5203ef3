"""A Kubernetes API server for tests: real HTTP, and pods that are real processes on this machine.

It knows the few calls that launching one pod needs. A container's command runs with the container's own
environment; its volume mounts are folders that exist here already.
"""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml


class Pod:
    """A pod as it was created, and the process that it became."""

    def __init__(self, body: dict[str, Any], *, schedulable: bool) -> None:
        self.body = body
        self.lines: list[str] = []
        self.changed = threading.Condition()
        self.process: subprocess.Popen[str] | None = None
        self.gone = False
        self.ended = False
        if schedulable:
            self._start()

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def container(self) -> dict[str, Any]:
        return self.body["spec"]["containers"][0]  # type: ignore[no-any-return]

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def manifest(self) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Pod", **self.body, "status": self._status()}

    def kill(self) -> None:
        self.gone = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        with self.changed:
            self.changed.notify_all()

    def log_from(self, position: int) -> list[str] | None:
        """The lines from a position on, waiting for more; None at the end of the log."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.lines) > position or self.gone or self.ended)
            return self.lines[position:] or None

    def _start(self) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        environment |= {entry["name"]: entry["value"] for entry in self.container["env"] if "value" in entry}
        command = [sys.executable, *self.container["command"][1:]]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z {line.rstrip()}\n")
                self.changed.notify_all()
        self.process.wait()
        self.process.stdout.close()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _status(self) -> dict[str, Any]:
        if self.process is None:
            return {"phase": "Pending"}
        code = self.exit_code if self.ended else None
        started = {"startedAt": "2026-01-01T00:00:00Z"}
        state = {"running": started} if code is None else {"terminated": {"exitCode": code, **started}}
        container = {"name": self.container["name"], "image": self.container["image"], "imageID": "", "restartCount": 0}
        return {"phase": "Running", "containerStatuses": [{**container, "ready": code is None, "state": state}]}


class Cluster:
    """The server; `pods` are those that exist, `created` all that ever did. Use as a context manager."""

    def __init__(self, *, schedulable: bool = True) -> None:
        self.schedulable = schedulable
        self.pods: dict[str, Pod] = {}
        self.created: list[Pod] = []
        cluster = self

        class Handler(_Handler):
            cluster_of = cluster

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self) -> "Cluster":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.created:
            pod.kill()
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig.yaml"
        server = f"http://127.0.0.1:{self.server.server_port}"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def delete(self, name: str) -> None:
        self.pods.pop(name).kill()

    def create(self, body: dict[str, Any]) -> Pod:
        pod = Pod(body, schedulable=self.schedulable)
        self.pods[pod.name] = pod
        self.created.append(pod)
        return pod

    def chosen(self, query: dict[str, list[str]]) -> list[Pod]:
        found = list(self.pods.values())
        for selector in query.get("fieldSelector", []):
            found = [pod for pod in found if selector == f"metadata.name={pod.name}"]
        for selector in query.get("labelSelector", []):
            key, _, value = selector.partition("=")
            found = [pod for pod in found if pod.body["metadata"]["labels"].get(key) == value]
        return found


class _Handler(BaseHTTPRequestHandler):
    cluster_of: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._answer(self.cluster_of.create(json.loads(self.rfile.read(length))).manifest(), 201)

    def do_DELETE(self) -> None:
        name = urlparse(self.path).path.rsplit("/", 1)[1]
        if "Content-Length" in self.headers:
            self.rfile.read(int(self.headers["Content-Length"]))
        manifest = self.cluster_of.pods[name].manifest()
        self.cluster_of.delete(name)
        self._answer(manifest)

    def do_GET(self) -> None:
        url = urlparse(self.path)
        parts, query = url.path.strip("/").split("/"), parse_qs(url.query)
        if parts[-1] == "log":
            self._stream(self.cluster_of.pods[parts[-2]])
        elif parts[-1] == "pods":
            items = [pod.manifest() for pod in self.cluster_of.chosen(query)]
            self._answer({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
        else:
            self._answer({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": []})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, pod: Pod) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Connection", "close")
        self.end_headers()
        position = 0
        while (lines := pod.log_from(position)) is not None:
            position += len(lines)
            self.wfile.write("".join(lines).encode())
            self.wfile.flush()
        self.close_connection = True
