"""The real HAProxy and nginx of this machine, with the files of docs/deploy in front of servers.

Only addresses are put in::

    async with balancer("haproxy", [one.port, two.port], tmp_path) as port:
        url = f"ws://127.0.0.1:{port}"
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

__all__ = ["BALANCERS", "balancer", "free_port", "program_of", "written"]

DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy"
BALANCERS = {
    "haproxy": (DEPLOY / "haproxy" / "haproxy.cfg", "bind :80\n", "bind 127.0.0.1:{}\n"),
    "nginx": (DEPLOY / "nginx" / "cnerta.conf", "listen 80;", "listen 127.0.0.1:{};"),
}
"""The file of each, and where it says what it listens on."""
REPLICAS = ("10.0.0.11:8765", "10.0.0.12:8765")
"""The servers that the files name."""
SECONDS = 20
_NGINX = """
daemon off;
pid nginx.pid;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {};
}}
"""
"""What a distribution's own file has around ours."""


def program_of(name: str) -> str | None:
    """Where a balancer's program is: Debian has them where only root looks."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def written(name: str, port: int, replicas: Sequence[int]) -> str:
    """The file of docs/deploy with addresses of this machine."""
    path, listens, ours = BALANCERS[name]
    text = path.read_text(encoding="utf-8")
    assert text.count(listens) == 1
    text = text.replace(listens, ours.format(port))
    for address, replica in zip(REPLICAS, replicas, strict=True):
        for form in (address, address.replace(".", r"\.")):
            assert form in text or name != "nginx"
            dots = r"127\.0\.0\.1" if "\\" in form else "127.0.0.1"
            text = text.replace(form, f"{dots}:{replica}")
    return text


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextlib.asynccontextmanager
async def balancer(name: str, replicas: Sequence[int], folder: Path) -> AsyncIterator[int]:
    """Run one.

    Args:
        name: Of :data:`BALANCERS`.
        replicas: Ports of the servers.
        folder: For its files.
    """
    program, port = program_of(name), free_port()
    assert program is not None, f"expected {name} to be installed"
    file = folder / BALANCERS[name][0].name
    file.write_text(written(name, port, replicas), encoding="utf-8")
    command = [program, "-db", "-f", str(file)]
    if name == "nginx":
        whole = folder / "nginx.conf"
        whole.write_text(_NGINX.format(file), encoding="utf-8")
        command = [program, "-e", "stderr", "-p", str(folder), "-c", str(whole)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    reading = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(SECONDS):
            while not await _answers(port):
                if process.returncode is not None:
                    raise AssertionError(f"{name} ended: {(await reading).decode()}")
                await asyncio.sleep(0.02)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        await reading


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
