"""The OpenAPI document is true: schemathesis asks all that it allows, and much that it does not."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from ml_platform.serving.gateway.openapi import openapi_document
from tests.samples.gateway import running_gateway

pytestmark = pytest.mark.early

SECONDS = 45
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing_that_the_document_does_not_say(tmp_path: Path) -> None:
    with running_gateway(tmp_path, user_rate=1e5, user_burst=100_000) as gateway:
        token = gateway.token(rate_per_second=1e5, burst=100_000)
        command = [SCHEMATHESIS, "run", f"{gateway.url}/openapi.json", "--header", f"Authorization: Bearer {token}"]
        options = ["--checks", "all", "--max-time", str(SECONDS), "--seed", "1", "--no-color", "--continue-on-failure"]
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_endpoint_is_in_the_document_and_every_error_has_its_shape(tmp_path: Path) -> None:
    document = openapi_document()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for code, response in operation["responses"].items():
                if int(code) >= 400 and path != "/readyz":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}, (path, code)
    with running_gateway(tmp_path) as gateway:
        assert httpx2.get(f"{gateway.url}/openapi.json").json()["paths"].keys() == document["paths"].keys()
        for path in document["paths"]:
            assert httpx2.get(gateway.url + path.replace("{response_id}", "x")).status_code != 404, path
